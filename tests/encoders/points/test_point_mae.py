"""Point-MAE: the network against its published form, its weights by their published names, features on a grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from point_parts import Tensors, published, surface
from safetensors.torch import save_file
from torch.nn import functional as F

from blemish import encoders
from blemish.encoders import availability
from blemish.encoders.base import PointsEncoder
from blemish.encoders.identity import identity
from blemish.encoders.points.point_mae import PointMae, evenly_spaced, group_points, load_point_mae, to_unit_sphere
from blemish.encoders.points.point_mae_weights import VARIABLE, WEIGHTS, published_names, read_network
from blemish.encoders.points.point_transformer import PointTransformer
from blemish.errors import SettingsError, WeightsError
from blemish.types import POINTS


def reference(t: Tensors, groups: torch.Tensor, centres: torch.Tensor, layers: tuple[int, ...]) -> list[torch.Tensor]:
    """What the paper describes, written straight from the published tensors: `(B, G, K, 3)` → `(B, G, D)` each."""
    batch, count, size = groups.shape[:3]

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.conv1d(x, t[f"MAE_encoder.encoder.{name}.weight"], t[f"MAE_encoder.encoder.{name}.bias"])

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        n = f"MAE_encoder.encoder.{name}"
        return F.batch_norm(
            x, t[f"{n}.running_mean"], t[f"{n}.running_var"], t[f"{n}.weight"], t[f"{n}.bias"], eps=1e-5
        )

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, t[f"{name}.weight"], t.get(f"{name}.bias"))

    def layer_norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], eps=1e-5)

    x = groups.flatten(0, 1).transpose(1, 2)
    x = conv("first_conv.3", F.relu(norm("first_conv.1", conv("first_conv.0", x))))
    x = torch.cat([x.amax(2, keepdim=True).expand(-1, -1, size), x], dim=1)
    x = conv("second_conv.3", F.relu(norm("second_conv.1", conv("second_conv.0", x))))
    tokens = x.amax(2).view(batch, count, -1)
    place = linear("MAE_encoder.pos_embed.2", F.gelu(linear("MAE_encoder.pos_embed.0", centres)))
    heads, taken = tokens.shape[2] // 64, []
    for i in range(max(layers) + 1):
        block = f"MAE_encoder.blocks.blocks.{i}"
        tokens = tokens + place
        q, k, v = linear(f"{block}.attn.qkv", layer_norm(f"{block}.norm1", tokens)).chunk(3, dim=-1)
        q, k, v = (a.view(batch, count, heads, 64).transpose(1, 2) for a in (q, k, v))
        mixed = ((q @ k.transpose(2, 3)) / 8).softmax(-1) @ v
        tokens = tokens + linear(f"{block}.attn.proj", mixed.transpose(1, 2).flatten(2))
        wide = F.gelu(linear(f"{block}.mlp.fc1", layer_norm(f"{block}.norm2", tokens)))
        tokens = tokens + linear(f"{block}.mlp.fc2", wide)
        if i in layers:
            taken.append(layer_norm("MAE_encoder.norm", tokens))
    return taken


def small(seed: int = 0, **settings: object) -> PointMae:
    """A small network whose weights are far from where learning starts, so that mistakes show."""
    network = PointTransformer(64, 3)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    chosen = {"layers": (0, 2), "groups": 48, "group_size": 16, "precision": "fp32"} | settings
    return PointMae(network, **chosen)  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The published file as training wrote it: other things beside the weights, names with "module." before them."""
    path = tmp_path / "pretrain.pth"
    named = {f"module.{name}": tensor for name, tensor in published().items()}
    torch.save({"base_model": named, "optimizer": {"state": {}}, "epoch": 300, "metrics": {"acc": 0.0}}, path)
    return path


def test_published_weights_give_the_published_network(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(file))
    cloud, *_ = to_unit_sphere(surface(hole=False).reshape(-1, 3))
    centres, groups = group_points(torch.from_numpy(cloud)[None], 40, 24)
    encoder = encoders.build("point-mae", layers=(0, 2), precision="fp32")
    with torch.inference_mode():
        ours = encoder.network(groups, centres, encoder.layers)  # type: ignore[attr-defined]
    for own, expected in zip(ours, reference(published(), groups, centres, (0, 2)), strict=True):
        torch.testing.assert_close(own, expected, atol=2e-4, rtol=1e-3)


def test_a_file_of_safetensors_is_the_same(file: Path, tmp_path: Path) -> None:
    save_file(published(), tmp_path / "same.safetensors")
    one, two = read_network(file).state_dict(), read_network(tmp_path / "same.safetensors").state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_blocks_after_the_last_one_taken_are_dropped(file: Path) -> None:
    sizes = {"groups": 48, "group_size": 16}
    pruned, whole = (
        load_point_mae(source=str(file), layers=layers, precision="fp32", **sizes) for layers in ((0, 1), (0, 1, 2))
    )
    assert (len(pruned.network.blocks), len(whole.network.blocks)) == (2, 3)
    assert (pruned.dims, whole.dims) == ((128,), (192,))
    points = surface()[None]
    torch.testing.assert_close(
        pruned.encode_points(points).layers[POINTS][0], whole.encode_points(points).layers[POINTS][0][..., :128]
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("MAE_encoder.norm.bias"), "missing: MAE_encoder.norm.bias"),
        (
            lambda t: t.pop("MAE_encoder.blocks.blocks.1.attn.qkv.weight"),
            "missing: MAE_encoder.blocks.blocks.1.attn.qkv",
        ),
        (lambda t: t.update({"cls_head.0.weight": torch.ones(2)}), "unknown ones: cls_head.0.weight"),
        (lambda t: t.update({"MAE_encoder.blocks.blocks.0.attn.qkv.bias": torch.ones(192)}), "blocks.0.qkv.bias"),
        (lambda t: t.update({"MAE_encoder.pos_embed.0.weight": torch.ones(128, 2)}), r"\(128, 2\), not \(128, 3\)"),
        (lambda t: t["mask_token"].fill_(torch.nan), "finite weights"),
        (lambda t: t.clear(), "no MAE_encoder.norm.weight"),
    ],
)
def test_other_weights_are_refused_by_name(change: object, words: str, tmp_path: Path) -> None:
    tensors = published()
    change(tensors)  # type: ignore[operator]
    torch.save(tensors, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=words):
        read_network(tmp_path / "weights.pth")


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
@pytest.mark.parametrize("content", [b"not weights at all", b"hello", b"<!DOCTYPE html>", b""])
def test_unreadable_files_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match="unreadable") as caught:
        read_network(tmp_path / name)
    assert "weights_only" not in str(caught.value)


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({0: torch.ones(2)}, tmp_path / "numbered.pth")
    with pytest.raises(WeightsError, match="unreadable"):
        read_network(tmp_path / "numbered.pth")
    own = PointTransformer(200, 1).state_dict()  # three heads do not divide it
    torch.save(published_names({f"encoder.{name}": tensor for name, tensor in own.items()}), tmp_path / "wide.pth")
    with pytest.raises(WeightsError, match=r"width that 64 divides .* got 200"):
        read_network(tmp_path / "wide.pth")


def test_missing_weights_name_three_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not availability("point-mae").loads
    for place in (None, str(tmp_path / "absent.pth")):
        if place:
            monkeypatch.setenv(VARIABLE, place)
        with pytest.raises(WeightsError) as caught:
            encoders.build("point-mae")
        for way in ("pretrain.pth", VARIABLE, "blemish pretrain point-mae", "points-fpfh"):
            assert way in str(caught.value)
    assert "absent.pth" in availability("point-mae").why


def test_the_published_size_sees_a_surface() -> None:
    encoder = PointMae(PointTransformer())
    assert isinstance(encoder, PointsEncoder)
    assert sum(p.numel() for p in encoder.network.parameters()) == pytest.approx(21.8e6, rel=0.02)
    features = encoder.encode_points(surface(side=64)[None])
    (layer,) = features.layers[POINTS]
    assert layer.shape == (1, 8, 8, 1152)
    assert layer.dtype == torch.float32
    assert not layer.requires_grad
    valid = features.valid[POINTS]
    assert torch.equal(valid[0], torch.arange(8)[:, None].expand(8, 8).maximum(torch.arange(8)) >= 2)
    assert (layer[~valid] == 0).all()
    assert (layer[valid].abs().sum(-1) > 0).all()


def test_groups_of_points_have_no_order() -> None:
    encoder = small()
    cloud = torch.from_numpy(to_unit_sphere(surface(hole=False).reshape(-1, 3))[0])[None]
    order = torch.randperm(cloud.shape[1], generator=torch.Generator().manual_seed(0))
    one, centres = encoder.tokens(cloud)
    other, same = encoder.tokens(cloud[:, order])
    assert torch.equal(centres, same)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_surface_never_depends_on_its_batch() -> None:
    encoder = small()
    points = np.stack([surface(0), surface(1, hole=False), np.full_like(surface(), np.nan)])
    together = encoder.encode_points(points)
    for i in range(3):
        alone = encoder.encode_points(points[i : i + 1])
        assert torch.equal(together.layers[POINTS][0][i], alone.layers[POINTS][0][0])
        assert torch.equal(together.valid[POINTS][i], alone.valid[POINTS][0])
    assert not together.valid[POINTS][2].any()
    assert (together.layers[POINTS][0][2] == 0).all()


def test_batching_as_on_a_gpu_gives_the_same_features(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = small()
    points = np.stack([surface(0), surface(1, hole=False), surface(2), surface(3, hole=False)])
    alone = encoder.encode_points(points)
    monkeypatch.setattr(encoder, "_batched", lambda indices, valid: [[0, 2], [1, 3]])
    torch.testing.assert_close(
        encoder.encode_points(points).layers[POINTS][0], alone.layers[POINTS][0], atol=1e-4, rtol=1e-4
    )


def test_place_and_size_of_a_surface_do_not_matter() -> None:
    encoder, points = small(), surface()[None]
    moved = (points * 3 + np.float32([1, -2, 0.5])).astype(np.float32)
    one, other = (encoder.encode_points(p).layers[POINTS][0] for p in (points, moved))
    assert (one - other).abs().mean() < 0.02 * one.std()


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_a_patch_is_the_mean_over_its_points(stride: int) -> None:
    """Up to a stride of 2 exactly, since each part of a patch is then one point; beyond, nearly."""
    encoder, points = small(stride=stride), surface()
    valid = np.isfinite(points).all(-1)
    chosen, framed = encoder._prepare(points, valid)
    tokens, centres = encoder.tokens(chosen[None])
    side = 32 // stride
    expected = torch.zeros(side, side, tokens.shape[2])
    for i, j in np.ndindex(side, side):
        block = framed[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride].reshape(-1, 3)
        block = block[torch.isfinite(block).all(1)]
        for point in block:
            squared = (centres[0] - point).square().sum(1)
            near = squared.argsort()[:3]
            weights = 1 / (squared[near] + 1e-8)
            expected[i, j] += (weights / weights.sum()) @ tokens[0, near] / len(block)
    ours = encoder.encode_points(points[None]).layers[POINTS][0][0]
    away = (ours - expected).norm() / (expected - expected.mean((0, 1))).norm()
    assert away < (1e-3 if stride <= 2 else 0.15)


@pytest.mark.parametrize("setting", ["groups", "group_size", "most_points", "smooth"])
def test_settings_are_part_of_what_it_is(setting: str) -> None:
    assert identity(small()) == identity(small())
    assert identity(small()) != identity(small(**{setting: True if setting == "smooth" else 32}))


def test_smoothing_averages_valid_neighbours() -> None:
    points = surface()[None]
    plain, smooth = (small(smooth=on).encode_points(points) for on in (False, True))
    layer, valid = plain.layers[POINTS][0][0], plain.valid[POINTS][0]
    for i, j in np.ndindex(4, 4):
        around = (slice(max(0, i - 1), i + 2), slice(max(0, j - 1), j + 2))
        expected = layer[around][valid[around]].mean(0) if valid[i, j] else torch.zeros(layer.shape[-1])
        torch.testing.assert_close(smooth.layers[POINTS][0][0, i, j], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_points_are_enough(count: int) -> None:
    points = np.full((1, 16, 16, 3), np.nan, np.float32)
    points[0, 3, :count] = surface(hole=False)[0, :count]
    features = small().encode_points(points)
    assert torch.isfinite(features.layers[POINTS][0]).all()
    assert features.valid[POINTS].sum() == 1


def test_a_dent_changes_its_own_patches_most() -> None:
    points = surface(side=64, hole=False)
    dented = points.copy()
    y, x = np.mgrid[:64, :64]
    dented[..., 2] -= (0.003 * np.exp(-(np.hypot(y - 20, x - 44) ** 2) / 18)).astype(np.float32)
    one, other = (small(groups=256, stride=8).encode_points(p[None]).layers[POINTS][0][0] for p in (points, dented))
    assert (one - other).norm(dim=-1).argmax() == 2 * 8 + 5


@pytest.mark.parametrize("setting", ["stride", "groups", "group_size", "most_points"])
def test_impossible_settings_are_refused(setting: str) -> None:
    for value in (0, -1, 1.5, True):
        with pytest.raises(SettingsError, match=setting):
            small(**{setting: value})
    with pytest.raises(SettingsError, match="layers"):
        small(layers=(3,))


def test_wrong_input_is_refused() -> None:
    good, encoder = surface()[None], small()
    for wrong in (good[0], good.astype(np.float64), good[..., :2], good[:, :-1], good[:0]):
        with pytest.raises(SettingsError):
            encoder.encode_points(wrong)


def test_at_most_so_many_points_are_used() -> None:
    assert evenly_spaced(5, 8).tolist() == [0, 1, 2, 3, 4]
    assert evenly_spaced(10, 4).tolist() == [0, 2, 5, 7]
    assert small(most_points=100)._prepare(surface(hole=False), np.ones((32, 32), bool))[0].shape == (100, 3)


def test_a_folder_is_an_encoder(tmp_path: Path) -> None:
    save_file(published(), tmp_path / WEIGHTS)
    encoder = encoders.build(tmp_path)
    assert isinstance(encoder, PointMae)
    assert (encoder.layers, encoder.dims) == ((0, 1, 2), (192,))
