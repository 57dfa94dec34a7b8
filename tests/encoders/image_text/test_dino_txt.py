"""dino.txt from tensors in the published layout, against its two blocks and its text tower written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_text_parts import dino_txt_state, dinov3, write_dino_txt, write_model, write_tokenizer
from torch.nn.functional import cosine_similarity, gelu, layer_norm, silu

from blemish import encoders
from blemish.encoders.image_text.dino_txt import PUBLISHED
from blemish.errors import SettingsError, WeightsError
from blemish.types import ALIGNED, RGB, WHOLE

Folder = Callable[[str], Path]
SENTENCES = ("a photo of a nut.", "a photo of a damaged bolt.")
WIDTH, TEXT_WIDTH, PREFIX = 128, 192, 5  # CLS and four registers


def built(folder: Path, alignment: Any = "head", **more: Any) -> Any:
    return encoders.build(folder, alignment=alignment, precision="fp32", **more)


def norm(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def linear(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", torch.zeros(()))


def attention(state: dict[str, torch.Tensor], name: str, x: torch.Tensor, causal: bool) -> torch.Tensor:
    """Attention on tokens `(T, D)`, one token and head after the other."""
    rows = linear(state, f"{name}.qkv", x)
    width, heads = x.shape[1], x.shape[1] // 64
    out = torch.zeros_like(x)
    for head in range(heads):
        query, key, value = (rows[:, part * width + 64 * head :][:, :64] for part in range(3))
        for i in range(len(x)):
            seen = slice(0, i + 1 if causal else len(x))
            weights = (key[seen] @ query[i] / 8).softmax(0)
            out[i, 64 * head : 64 * (head + 1)] = weights @ value[seen]
    return linear(state, f"{name}.proj", out)


def head_written_out(state: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """The two blocks and their norm on tokens `(T, D)`."""
    for number in range(2):
        block = f"visual_model.head.blocks.{number}"
        attended = attention(state, f"{block}.attn", norm(state, f"{block}.norm1", tokens), causal=False)
        tokens = tokens + state[f"{block}.ls1.gamma"] * attended
        x = norm(state, f"{block}.norm2", tokens)
        mixed = silu(linear(state, f"{block}.mlp.w1", x)) * linear(state, f"{block}.mlp.w2", x)
        tokens = tokens + state[f"{block}.ls2.gamma"] * linear(state, f"{block}.mlp.w3", mixed)
    return norm(state, "visual_model.head.ln_final", tokens)


def text_written_out(state: dict[str, torch.Tensor], ids: list[int]) -> torch.Tensor:
    """[t₁, t₂] of a sentence, padded with 0 to the full length as published."""
    padded = ids + [0] * (20 - len(ids))
    text = "text_model.backbone"
    x = state[f"{text}.token_embedding.weight"][padded] + state[f"{text}.positional_embedding"]
    for number in range(3):
        block = f"{text}.blocks.{number}"
        x = x + attention(state, f"{block}.attention", norm(state, f"{block}.attention_norm", x), causal=True)
        hidden = gelu(linear(state, f"{block}.feed_forward.fc1", norm(state, f"{block}.ffn_norm", x)))
        x = x + linear(state, f"{block}.feed_forward.fc2", hidden)
    x = norm(state, f"{text}.ln_final", x)
    return linear(state, "text_model.head.linear_projection", x[int(np.argmax(padded))])


@pytest.fixture
def wide() -> np.ndarray:
    """One image of 3 × 5 patches."""
    return np.random.default_rng(0).integers(0, 256, (1, 24, 40, 3), dtype=np.uint8)


def test_cosines_are_the_published_ones(folder_of: Folder, wide: np.ndarray) -> None:
    """[CLS, mean patch] with [t₁, t₂], each patch with t₂; all divided by √2."""
    encoder, state = built(folder_of("dino_txt")), dino_txt_state()
    with torch.no_grad():
        tokens = dinov3()(encoder.normalise(wide)).last_hidden_state[0]  # (T, D), through the final norm
        after = head_written_out(state, tokens)
    image = torch.cat([after[0], after[PREFIX:].mean(0)])
    text = [text_written_out(state, encoder.text.tokenizer(one)["input_ids"]) for one in SENTENCES]

    features, rows = encoder.encode(wide), encoder.text.embed(SENTENCES)
    whole, aligned = features.layers[WHOLE][0][0, 0, 0], features.layers[ALIGNED][0][0].flatten(0, 1)
    assert rows.shape == (2, 3 * WIDTH)
    assert aligned.shape == (15, 3 * WIDTH)
    assert encoder.dims == (WIDTH, 3 * WIDTH, 3 * WIDTH)
    for row, own in zip(rows, text, strict=True):
        torch.testing.assert_close(
            2**0.5 * cosine_similarity(whole, row, 0), cosine_similarity(image, own, 0), rtol=1e-4, atol=1e-5
        )
        expected = cosine_similarity(after[PREFIX:], own[WIDTH:], 1)  # (15,)
        found = 2**0.5 * cosine_similarity(aligned, row, 1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert expected.std() > 0.01  # patches differ: a constant would pass as well


def test_patches_of_layers_are_those_of_dinov3_alone(folder_of: Folder, wide: np.ndarray) -> None:
    folder = folder_of("dino_txt")
    alone = encoders.build(folder, layers=(1, 3), precision="fp32").encode(wide)
    both = built(folder, layers=(1, 3)).encode(wide)
    assert tuple(alone.layers) == (RGB,)
    for one, other in zip(both.layers[RGB], alone.layers[RGB], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alignment", ["head", "value", "q-q", "k-k"])
def test_replaced_attention_changes_patches_and_not_the_image(
    alignment: str, folder_of: Folder, wide: np.ndarray
) -> None:
    published, found = (built(folder_of("dino_txt"), one).encode(wide) for one in ("head", alignment))
    assert torch.equal(found.layers[WHOLE][0], published.layers[WHOLE][0])
    assert torch.equal(found.layers[ALIGNED][0], published.layers[ALIGNED][0]) == (alignment == "head")


@pytest.mark.parametrize("alignment", ["windows", "v-v", "v-v-all", "v-v-layers"])
def test_other_alignments_are_refused(alignment: str, folder_of: Folder) -> None:
    with pytest.raises(SettingsError, match=r"for dino\.txt"):
        built(folder_of("dino_txt"), alignment)
    with pytest.raises(SettingsError, match=r"'head' for dino\.txt"):
        built(folder_of("clip"), "head")


def test_safetensors_and_biases_are_read(tmp_path: Path, wide: np.ndarray) -> None:
    from safetensors.torch import save_file

    state = dino_txt_state()
    biased = state | {"visual_model.head.blocks.1.attn.qkv.bias": torch.zeros(3 * WIDTH)}
    folder = write_dino_txt(tmp_path / "one")
    before = built(folder).encode(wide)
    next(folder.glob("*dinotxt*")).unlink()
    save_file(biased | {"visual_model.backbone.cls_token": torch.zeros(1)}, folder / "dinotxt.safetensors")
    assert torch.equal(built(folder).encode(wide).layers[ALIGNED][0], before.layers[ALIGNED][0])


def test_missing_files_are_named(tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    dinov3().save_pretrained(alone)
    with pytest.raises(WeightsError, match=PUBLISHED):
        built(alone)
    torch.save(dino_txt_state(), alone / PUBLISHED)
    with pytest.raises(WeightsError, match="a tokenizer beside the weights"):
        built(alone)
    write_tokenizer(alone)
    (alone / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"a folder without model\.safetensors"):
        built(alone)


def test_weights_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    lacking = {name: tensor for name, tensor in dino_txt_state().items() if "ls2" not in name}
    built(write_dino_txt(tmp_path / "no scale", lacking))  # layer scale is optional, as it may be merged
    lacking = {name: tensor for name, tensor in dino_txt_state().items() if "w2" not in name}
    for number, (state, got) in enumerate(
        [
            (lacking, "w2"),
            (dino_txt_state() | {"visual_model.head.more": torch.zeros(1)}, "unknown tensor"),
            (dino_txt_state(width=64), "DINOv3 of width 128, blocks of 64"),
        ]
    ):
        with pytest.raises(WeightsError, match=got):
            built(write_dino_txt(tmp_path / str(number), state))
    clip = write_model(tmp_path / "clip")
    torch.save(dino_txt_state(), clip / PUBLISHED)
    with pytest.raises(WeightsError, match="a model of type 'clip'"):
        built(clip)
