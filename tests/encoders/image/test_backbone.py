from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import get_args

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from blemish import Inspector, encoders
from blemish.encoders.base import Encoder, LayerRole
from blemish.encoders.feature_cache import with_disk_cache
from blemish.encoders.identity import feature_settings, identity
from blemish.encoders.image.backbone import OutputRecorder
from blemish.encoders.image.frozen import IMAGENET_MEAN, FrozenEncoder
from blemish.encoders.layers import quarter_ends, token_roles
from blemish.encoders.weights import file_hash
from blemish.errors import SettingsError, WeightsError
from blemish.export.graph import FrozenGraph, InspectionGraph
from blemish.export.onnx_format import onnx_graph
from blemish.model.persistence import check_weights, revisions_of
from blemish.runtime.engines import OnnxEngine
from blemish.types import RGB

Folder = Callable[[str], Path]
TOKENS, STAGES = ("dinov2", "dinov3", "dino", "clip", "siglip"), ("swin", "convnext", "resnet")


@pytest.mark.parametrize("family", [*TOKENS, *STAGES])
def test_keeps_the_promise_of_an_encoder(family: str, model_folder: Folder, images: np.ndarray) -> None:
    folder = model_folder(family)
    for role in get_args(LayerRole):
        encoder = encoders.build(folder, role=role)
        features = encoder.encode(images)
        assert isinstance(encoder, Encoder)
        assert encoder.weights_sha256 == file_hash(folder / "model.safetensors")
        assert len(encoder.layers) == len(encoder.dims) == len(features.layers[RGB])
        for layer, width in zip(features.layers[RGB], encoder.dims, strict=True):
            assert layer.dtype == torch.float32
            assert torch.isfinite(layer).all()
            assert layer.shape[0] == 3
            assert layer.shape[3] == width
        stride = encoder.stride
        assert features.layers[RGB][0].shape[1:3] == (64 // stride, 96 // stride)
        # Features can be learned from.
        (features.layers[RGB][0] * torch.ones(encoder.dims[0], requires_grad=True)).sum().backward()


def test_an_encoder_knows_which_commit_of_a_hub_it_is(
    model_folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    snapshot = tmp_path / "models--facebook--dinov2-small" / "snapshots" / "ed25f3a31f01"
    shutil.copytree(model_folder("dinov2"), snapshot)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    encoder = encoders.build("dinov2-small")
    assert encoder.revision == "ed25f3a31f01"
    assert revisions_of(encoder) == {"revisions": {"dinov2-small": "ed25f3a31f01"}}
    joined = encoders.build("pixels+dinov2-small")
    assert revisions_of(joined) == revisions_of(encoder)
    assert revisions_of(encoders.build(model_folder("dinov2"))) == {}
    saved = {"name": encoder.name, "weights": "0" * 64, **revisions_of(encoder)}
    with pytest.raises(WeightsError, match="hf download facebook/dinov2-small --revision ed25f3a31f01 "):
        check_weights(encoder, saved)
    check_weights(encoder, saved | {"weights": encoder.weights_sha256})


def test_many_layers_are_eight_across_the_middle():
    assert token_roles(12)["many"] == tuple(range(2, 10))
    assert token_roles(24)["many"] == tuple(range(4, 19, 2))
    assert all(0 <= layer < depth for depth in range(1, 13) for layer in token_roles(depth)["many"])


def test_quarters_are_the_last_layers_of_the_four_quarters():
    assert token_roles(12)["quarters"] == quarter_ends(12) == (2, 5, 8, 11)
    assert token_roles(24)["quarters"] == quarter_ends(24) == (5, 11, 17, 23)  # the published ones of ViT-L
    assert all(quarter_ends(depth)[-1] == depth - 1 and quarter_ends(depth)[0] >= 0 for depth in range(1, 41))


def test_middle_layers_lie_around_the_middle():
    assert token_roles(12)["middle"] == (5, 6, 7, 8)
    assert token_roles(24)["middle"] == (10, 12, 14, 16)
    assert token_roles(1)["middle"] == (0,)
    assert all(0 <= layer < depth for depth in range(1, 41) for layer in token_roles(depth)["middle"])


@pytest.mark.parametrize("family", TOKENS)
def test_cut_transformer_equals_the_whole_one(family: str, model_folder: Folder, images: np.ndarray) -> None:
    folder = model_folder(family)
    encoder = encoders.build(folder, layers=(1, 2), precision="fp32")
    whole = _load_whole(family, folder)
    known = {} if family in ("dinov2", "dinov3") else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        states = whole(encoder.normalise(images), output_hidden_states=True, **known).hidden_states
        norm = next(m for n, m in whole.named_modules() if n in ("layernorm", "norm", "post_layernorm"))
        for taken, layer in zip((1, 2), encoder.encode(images).layers[RGB], strict=True):
            expected = norm(states[taken + 1])[:, -8 * 12 :].reshape(3, 8, 12, 32)
            torch.testing.assert_close(layer, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", STAGES)
def test_cut_stages_equal_the_whole_network(family: str, model_folder: Folder, images: np.ndarray) -> None:
    folder = model_folder(family)
    encoder = encoders.build(folder, layers=(0, 1))
    kinds = {"swin": "SwinBackbone", "convnext": "ConvNextBackbone", "resnet": "ResNetBackbone"}
    whole = getattr(transformers, kinds[family]).from_pretrained(folder, out_features=["stage1", "stage2"]).eval()
    # A backbone ends each stage with a norm of its own, which no checkpoint of a plain model carries.
    for norm in getattr(whole, "hidden_states_norms", {}).values():
        norm.forward = lambda x: x
    with torch.no_grad():
        expected = whole(encoder.normalise(images)).feature_maps
    for layer, same in zip(encoder.encode(images).layers[RGB], expected, strict=True):
        torch.testing.assert_close(layer, same.permute(0, 2, 3, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", [*TOKENS, *STAGES])
def test_a_copied_network_gives_the_features_and_leaves_the_first_alone(
    family: str, model_folder: Folder, images: np.ndarray
) -> None:
    """A graph to export holds a copy, which must not write into the network that it was copied from."""
    encoder = encoders.build(model_folder(family), role="several", precision="fp32")
    assert isinstance(encoder, FrozenEncoder)
    copied = FrozenGraph(encoder)
    expected = encoder.encode(images).layers[RGB]
    for layer, same in zip(copied(torch.from_numpy(images)).layers[RGB], expected, strict=True):
        torch.testing.assert_close(layer, same, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(encoder.encode(images).layers[RGB], expected, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["dinov3"])  # all eight were tried by hand
def test_a_hub_encoder_is_exported_with_its_batch_open(
    family: str, model_folder: Folder, images: np.ndarray, tmp_path: Path
) -> None:
    encoder = encoders.build(model_folder(family), precision="fp32")
    inspector = Inspector(encoder, "patchcore", image_size=64, square=False)
    graph = InspectionGraph(inspector.fit(list(images)).model_, None, (64, 96))
    (tmp_path / "graph.onnx").write_bytes(onnx_graph(graph, 18).SerializeToString())
    engine = OnnxEngine(tmp_path / "graph.onnx")
    for batch in (images[:1], images):
        expected = graph(torch.from_numpy(batch))[0]
        np.testing.assert_allclose(engine.run(batch)["pred_score"], expected.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["dinov3", "swin", "resnet"])
def test_features_do_not_depend_on_the_batch(family: str, model_folder: Folder, images: np.ndarray) -> None:
    encoder = encoders.build(model_folder(family), role="several")
    together = encoder.encode(images).layers[RGB]
    alone = encoder.encode(images[1:2]).layers[RGB]
    assert all(torch.equal(a[1], b[0]) for a, b in zip(together, alone, strict=True))


def test_a_small_image_leaves_no_trace_in_a_windowed_network(model_folder: Folder, images: np.ndarray) -> None:
    encoder = encoders.build(model_folder("swin"), role="several")
    before = encoder.encode(images[:1]).layers[RGB]
    encoder.encode(images[:1, :16, :16])
    after = encoder.encode(images[:1]).layers[RGB]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("family", ["dinov2", "dinov3", "siglip"])
def test_bf16_stays_close(family: str, model_folder: Folder, images: np.ndarray) -> None:
    exact = encoders.build(model_folder(family), precision="fp32").encode(images)[RGB]
    rounded = encoders.build(model_folder(family), precision="bf16").encode(images)[RGB]
    assert rounded.dtype == torch.float32
    assert torch.cosine_similarity(exact, rounded, dim=-1).min() > 0.999


def test_two_tower_checkpoint_gives_its_vision_half(tmp_path: Path, images: np.ndarray) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    vision = small | {"image_size": 32, "patch_size": 8}
    transformers.CLIPModel(transformers.CLIPConfig(text_config=small, vision_config=vision)).save_pretrained(tmp_path)
    encoder = encoders.build(tmp_path)
    assert encoder.encode(images)[RGB].shape == (3, 8, 12, 32)


def test_reads_normalisation_from_the_folder(model_folder: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(model_folder("dino"), tmp_path / "own")
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}')
    assert encoders.build(folder).mean == (0.1, 0.2, 0.3)
    assert encoders.build(model_folder("siglip")).mean == (0.5, 0.5, 0.5)


def test_the_settings_beside_the_weights_are_part_of_what_an_encoder_is(
    model_folder: Folder, images: np.ndarray, tmp_path: Path
) -> None:
    """The same weights under another normalisation or config are another encoder: features differ."""
    folder = shutil.copytree(model_folder("dino"), tmp_path / "own")
    normalised = folder / "preprocessor_config.json"
    normalised.write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    learned = encoders.build(folder)
    saved = {"name": learned.name, "weights": learned.weights_sha256, "settings": feature_settings(learned)}
    with_disk_cache(learned, tmp_path / "cache").encode(images)

    def refused(words: str) -> None:
        other = encoders.build(folder)
        assert other.weights_sha256 == learned.weights_sha256
        assert identity(other) != identity(learned)
        assert not torch.allclose(other.encode(images)[RGB], learned.encode(images)[RGB])
        with pytest.raises(WeightsError, match=words):
            check_weights(other, saved)
        check_weights(other, {name: value for name, value in saved.items() if name != "settings"})  # an older model
        cached = with_disk_cache(other, tmp_path / "cache")
        cached.encode(images)
        assert cached.hits == 0

    written = normalised.read_text()
    normalised.unlink()
    refused(r"mean \[0\.5, 0\.5, 0\.5\], std .*with mean \[0\.485.*preprocessor_config\.json")
    normalised.write_text(written)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.5}))
    refused(r"config [0-9a-f]{12}….*with config [0-9a-f]{12}…")
    # What has written a config, and how its keys are ordered, decides nothing.
    turned = dict(reversed(config.items())) | {"transformers_version": "4.0", "_name_or_path": "x", "dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(turned))
    check_weights(encoders.build(folder), saved)
    assert identity(encoders.build(folder)) == identity(learned)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"image_mean": [0.5, 0.5, 0.5]}',
        '{"image_mean": [0.5], "image_std": [0.5]}',
        '{"image_mean": [0, 0, 0], "image_std": [1, 1, 0]}',
        '{"image_mean": [0, 0, NaN], "image_std": [1, 1, 1]}',
        '{"image_mean": ["a", 0, 0], "image_std": [1, 1, 1]}',
        None,
    ],
)
def test_a_normalisation_that_cannot_be_read_is_named(
    content: str | None, model_folder: Folder, tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folder("dino"), tmp_path / "own")
    file = folder / "preprocessor_config.json"
    if content is None:
        file.symlink_to(tmp_path / "gone")
    else:
        file.write_text(content)
    with pytest.raises(WeightsError, match=r"own.preprocessor_config\.json"):
        encoders.build(folder)


@pytest.mark.parametrize("content", ['{"size": 224}', '{"image_mean": null, "image_std": null}'])
def test_a_preprocessor_that_says_nothing_of_it_leaves_it_to_the_family(
    content: str, model_folder: Folder, tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folder("dino"), tmp_path / "own")
    (folder / "preprocessor_config.json").write_text(content)
    assert encoders.build(folder).mean == IMAGENET_MEAN


def test_reading_draws_no_bar_of_another_program(model_folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    encoders.build(model_folder("dinov2"))
    assert not capfd.readouterr().err
    assert transformers.utils.logging.is_progress_bar_enabled()  # left as it was


def test_norm_can_be_left_out(model_folder: Folder, images: np.ndarray) -> None:
    from blemish.encoders.image.backbone import load_backbone

    folder = str(model_folder("dinov2"))
    plain = load_backbone("own", source=folder, layers=(1,), norm=False, precision="fp32").encode(images)[RGB]
    normed = load_backbone("own", source=folder, layers=(1,), precision="fp32").encode(images)[RGB]
    assert not torch.allclose(plain, normed)


def test_names_the_tensor_that_is_not_finite(model_folder: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(model_folder("dinov2"), tmp_path / "broken")
    state = load_file(folder / "model.safetensors")
    name = next(key for key in state if "fc1.weight" in key)
    state[name][0, 0] = float("nan")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"NaN or Inf in the tensor .*fc1\.weight"):
        encoders.build(folder)


def test_refuses_a_file_that_lacks_weights(model_folder: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(model_folder("dinov2"), tmp_path / "partial")
    state = load_file(folder / "model.safetensors")
    del state[next(key for key in state if "fc2.weight" in key)]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="missing"):
        encoders.build(folder)


@pytest.mark.parametrize("damage", ["empty", "cut", "no config", "no weights", "no folder"])
def test_damaged_folders_are_named(damage: str, model_folder: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(model_folder("dinov2"), tmp_path / "damaged")
    weights = folder / "model.safetensors"
    if damage == "empty":
        weights.write_bytes(b"")
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "no folder":
        folder = folder / "nothing"
    else:
        (folder / "config.json" if damage == "no config" else weights).unlink()
    with pytest.raises(WeightsError, match="damaged"):
        encoders.build(folder)


def test_rejects_wrong_images_and_layers(model_folder: Folder, images: np.ndarray) -> None:
    encoder = encoders.build(model_folder("dinov2"))
    for wrong in (images[:, :63], images[0], images.astype(np.float32), images[:0]):
        with pytest.raises(SettingsError):
            encoder.encode(wrong)
    for layers in ((4,), (-5,), ()):
        with pytest.raises(SettingsError, match="layers"):
            encoders.build(model_folder("dinov2"), layers=layers)
    assert encoders.build(model_folder("dinov2"), layers=(-1, 0, 3)).layers == (0, 3)


def _load_whole(family: str, folder: Path) -> torch.nn.Module:
    kinds = {"clip": transformers.CLIPVisionModel, "siglip": transformers.SiglipVisionModel}
    return kinds.get(family, transformers.AutoModel).from_pretrained(folder).eval()


def test_two_threads_record_what_is_their_own() -> None:
    """Both have run the recorded module before either reads what was recorded."""

    class Waiting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.both = torch.nn.Identity(), Barrier(2, timeout=60)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found = self.inner(images)
            self.both.wait()
            return found

    model = Waiting()
    recorder = OutputRecorder([model.inner])
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda value: recorder(model, torch.full((1,), float(value)), {}), range(2)))
    assert [float(outputs[0]) for outputs in found] == [0, 1]
