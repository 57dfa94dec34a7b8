"""dino.txt: DINOv3 with two further blocks and a text tower, whose patches are compared with sentences as they are.

    images ── DINOv3, frozen ──► CLS, registers, patches ── 2 blocks ──► CLS c, patches p     image [c, mean(p)]
    sentence ── causal transformer, its last token, a projection ──► [t₁, t₂]

Jose et al., "DINOv2 Meets Text: A Unified Framework for Image- and Pixel-Level Vision-Language Alignment", CVPR 2025
(arXiv 2412.16334); Siméoni et al., "DINOv3", 2025 (arXiv 2508.10104). t₁ is aligned with CLS and t₂ with the mean
patch, so an image is compared with [t₁, t₂] and a patch with t₂ alone. One space for both: a sentence is
[t / |t|, t₂ / |t₂|] / √2 of three times the width, an image [c, mean(p), 0], a patch [0, 0, p]. Every cosine is the
published one divided by √2.

A folder holds DINOv3 ViT-L/16 as transformers saves it, the file of the published weights (its name contains
"dinotxt"), and the tokenizer of a CLIP. Names and sizes of the tensors are those of
https://github.com/facebookresearch/dinov3 (its module `dinotxt` states the sizes). From memory of that repository, and
not checked against the file itself: the names inside the blocks of the text tower, that attention has no biases but in
its output (they are read where there are some), that the two blocks know no positions, and the epsilon of 1e-5 of all
norms.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize, silu

from blemish.encoders.base import Alignment
from blemish.encoders.image.hub import weight_files
from blemish.encoders.image.pretrained import read_pretrained
from blemish.encoders.image_text.blocks import Block
from blemish.encoders.image_text.image_towers import ImageTower
from blemish.encoders.image_text.open_clip import depth, read_state
from blemish.encoders.image_text.patch_alignment import step_aside
from blemish.encoders.weights import check_finite
from blemish.errors import SettingsError, WeightsError

PUBLISHED = "dinov3_vitl16_dinotxt_vision_head_and_text_encoder-a442d8f5.pth"
HEAD_WIDTH = 64  # of attention: 1024 in 16 heads in the two blocks, 1280 in 20 in the text tower
ALIGNMENTS = ("head", "value", "q-q", "k-k")  # what the last of the two blocks can do
_HEAD, _TEXT = "visual_model.head.", "text_model.backbone."
_IGNORED = ("logit_scale", "visual_model.backbone.")


def weight_file(folder: Path) -> Path | None:
    """The weights of the two blocks and the text tower in a folder; None where there are none."""
    if not folder.is_dir():
        return None
    return next((path for path in sorted(folder.glob("*dinotxt*")) if path.suffix in (".pth", ".safetensors")), None)


def absent(folder: Path) -> WeightsError:
    """The error for a DINOv3 without the weights that read sentences."""
    return WeightsError(
        f"the weights of dino.txt beside those of DINOv3 in {folder}",
        "DINOv3 alone, which reads no sentences",
        f"put {PUBLISHED} there (https://github.com/facebookresearch/dinov3), and the tokenizer of a CLIP: "
        "hf download openai/clip-vit-base-patch16 tokenizer.json tokenizer_config.json --local-dir FOLDER",
    )


class DinoTxt:
    """Both towers: `vision` is transformers' DINOv3, `head` what follows it, `text_model` embeds sentences."""

    def __init__(self, vision: Any, head: DinoTxtHead, text: DinoTxtText) -> None:
        self.vision, self.head, self.text_model = vision, head, text


def read_dino_txt(folder: Path) -> DinoTxt:
    """The float32 model in a folder, in inference mode. Raises WeightsError for a missing file or other tensors."""
    file = weight_file(folder)
    if file is None:
        raise absent(folder)
    weight_files(folder)  # raises where DINOv3's own are missing
    vision = read_pretrained(folder, _backbone, unused=("mask_token",))
    state = {name: tensor for name, tensor in read_state(file).items() if not name.startswith(_IGNORED)}
    check_finite(state, str(file))
    try:
        head, text = DinoTxtHead(state), DinoTxtText(state)
        if unknown := sorted(set(state) - head.read - text.read):
            raise KeyError(f"unknown tensor {unknown[0]}")
        if head.width != vision.config.hidden_size or text.dims != 2 * head.width:
            sizes = f"DINOv3 of width {vision.config.hidden_size}, blocks of {head.width}, sentences of {text.dims}"
            raise ValueError(sizes)
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"the weights of dino.txt in {file}, made for the DINOv3 beside them",
            f"{type(error).__name__}: {str(error).splitlines()[0]}",
            f"give {PUBLISHED} and DINOv3 ViT-L/16",
        ) from error
    return DinoTxt(vision, head.eval(), text.eval())


class _Reader:
    """Takes modules out of tensors by name, and keeps account of which were `read`."""

    def __init__(self, state: Mapping[str, torch.Tensor], prefix: str) -> None:
        self.state, self.prefix = state, prefix
        self.read: set[str] = set()

    def tensor(self, name: str) -> torch.Tensor:
        """Raises KeyError where it is missing."""
        self.read.add(self.prefix + name)
        return self.state[self.prefix + name]

    def maybe(self, name: str) -> torch.Tensor | None:
        return self.tensor(name) if self.prefix + name in self.state else None

    def linear(self, name: str) -> nn.Linear:
        return _linear(self.tensor(f"{name}.weight"), self.maybe(f"{name}.bias"))

    def norm(self, name: str) -> nn.LayerNorm:
        weight, bias = self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")
        norm = nn.LayerNorm(len(weight))
        norm.load_state_dict({"weight": weight, "bias": bias})
        return norm

    def scale(self, name: str) -> nn.Module:
        gamma = self.maybe(f"{name}.gamma")
        return nn.Identity() if gamma is None else Scale(gamma)

    def attention(self, name: str) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
        """Query, key, value and output, from one matrix `(3 D, D)` of the first three."""
        weights = self.tensor(f"{name}.qkv.weight").chunk(3)
        bias = self.maybe(f"{name}.qkv.bias")
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        query, key, value = (_linear(weight, own) for weight, own in zip(weights, biases, strict=True))
        return query, key, value, self.linear(f"{name}.proj")


class DinoTxtHead(nn.Module):
    """The blocks after DINOv3's final norm: CLS, registers and patches `(N, T, D)` → the same in the space of text."""

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        reader = _Reader(state, _HEAD)
        blocks = []
        for number in range(depth(state, f"{_HEAD}blocks.")):
            one = f"blocks.{number}"
            norms = reader.norm(f"{one}.norm1"), reader.norm(f"{one}.norm2")
            mlp = GatedMlp(*(reader.linear(f"{one}.mlp.{name}") for name in ("w1", "w2", "w3")))
            scales = reader.scale(f"{one}.ls1"), reader.scale(f"{one}.ls2")
            projections = reader.attention(f"{one}.attn")
            blocks.append(Block(norms, projections, mlp, _heads(projections[0]), scales))
        self.blocks, self.norm = nn.ModuleList(blocks), reader.norm("ln_final")
        self.read, self.width = reader.read, len(self.norm.weight)


class DinoTxtText(nn.Module):
    """The text tower: ids `(1, T)` of a sentence that its last token ends → its embedding `(1, 2 D)`, [t₁, t₂]."""

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        reader, blocks = _Reader(state, _TEXT), []
        for number in range(depth(state, f"{_TEXT}blocks.")):
            one = f"blocks.{number}"
            norms = reader.norm(f"{one}.attention_norm"), reader.norm(f"{one}.ffn_norm")
            fc1, fc2 = (reader.linear(f"{one}.feed_forward.{name}") for name in ("fc1", "fc2"))
            scales = reader.scale(f"{one}.ls1"), reader.scale(f"{one}.ls2")
            projections = reader.attention(f"{one}.attention")
            blocks.append(Block(norms, projections, nn.Sequential(fc1, nn.GELU(), fc2), _heads(projections[0]), scales))
        self.blocks, self.norm = nn.ModuleList(blocks), reader.norm("ln_final")
        self.words = nn.Embedding.from_pretrained(reader.tensor("token_embedding.weight"))
        self.positions = nn.Parameter(reader.tensor("positional_embedding"))
        projection = _Reader(state, "text_model.head.")
        self.projection = projection.linear("linear_projection")
        self.read, self.dims = reader.read | projection.read, self.projection.out_features
        self.config = SimpleNamespace(max_position_embeddings=len(self.positions))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        count = tokens.shape[1]
        future = torch.full((count, count), -torch.inf, device=tokens.device).triu(1)
        found = self.words(tokens) + self.positions[:count]  # (1, T, D)
        for block in self.blocks:
            assert isinstance(block, Block)
            found = block.feed(found + block.attend(found, bias=future))
        # The largest id ends a sentence; what pads it after that is never looked at.
        ends = self.norm(found)[torch.arange(len(tokens)), tokens.argmax(dim=-1)]  # (1, D)
        embedded: torch.Tensor = self.projection(ends)
        return embedded


class GatedMlp(nn.Module):
    """W₃ (SiLU(W₁ x) · W₂ x), Shazeer, "GLU Variants Improve Transformer", 2020 (arXiv 2002.05202)."""

    def __init__(self, gate: nn.Linear, up: nn.Linear, down: nn.Linear) -> None:
        super().__init__()
        self.gate, self.up, self.down = gate, up, down

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`(N, T, D)` → `(N, T, D)`."""
        fed: torch.Tensor = self.down(silu(self.gate(tokens)) * self.up(tokens))
        return fed


class Scale(nn.Module):
    """Layer scale: a factor for each channel."""

    def __init__(self, gamma: torch.Tensor) -> None:
        super().__init__()
        self.gamma = nn.Parameter(gamma)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`(…, D)` → `(…, D)`."""
        return tokens * self.gamma


class DinoTxtTower(ImageTower):
    """The image half. Its `blocks` are the two of the head; DINOv3's own keep their rotary positions to themselves."""

    def __init__(self, model: DinoTxt) -> None:
        super().__init__(block for block in model.head.blocks if isinstance(block, Block))
        self.vision, self.final_norm = model.vision, model.head.norm
        config = model.vision.config
        self.prefix = 1 + int(config.num_register_tokens)
        self.patch, self.width = int(config.patch_size), int(config.hidden_size)
        self.dims = 3 * self.width

    @property
    def depth(self) -> int:
        return int(self.vision.config.num_hidden_layers)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.vision.embeddings(images)
        return tokens

    def normed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens `(…, D)` of DINOv3 through its own final norm."""
        found: torch.Tensor = self.vision.norm(tokens)
        return found

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        found = self.final_norm(tokens)
        whole = torch.cat([found[:, 0], found[:, self.prefix :].mean(1)], dim=-1)  # (N, 2 D)
        return torch.cat([whole, torch.zeros_like(found[:, 0])], dim=-1)

    def project(self, patches: torch.Tensor) -> torch.Tensor:
        found = self.final_norm(patches)  # (N, P, D)
        return torch.cat([found.new_zeros(*found.shape[:-1], 2 * self.width), found], dim=-1)


class HeadFeatures(nn.Module):
    """Normalised images `(B, 3, H, W)` → layers of DINOv3's patches, patches and image in the space of sentences.

    As `PatchFeatures`, for dino.txt: `layers` are DINOv3's blocks, and what `alignment` replaces is the attention of
    the last of the head's blocks; "head" replaces nothing, as published.
    """

    def __init__(self, tower: DinoTxtTower, layers: tuple[int, ...], alignment: Alignment | None) -> None:
        super().__init__()
        self.tower, self.layers, self.alignment = tower, layers, alignment
        self.aligned = 0 if alignment is None else 2
        self.depth = tower.depth if self.aligned else max(layers) + 1

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tower = self.tower
        grid = (images.shape[2] // tower.patch, images.shape[3] // tower.patch)
        tokens, patches = tower.embed(images), []
        places = tower.vision.rope_embeddings(images)
        for number, layer in enumerate(tower.vision.model.layer[: self.depth]):
            tokens = layer(tokens, position_embeddings=places)  # (B, prefix + h·w, D)
            if number in self.layers:
                patches.append(tower.normed(tokens[:, tower.prefix :]).unflatten(1, grid))
        if self.alignment is None:
            return tuple(patches)
        tokens = tower.normed(tokens)
        *first, last = tower.blocks
        for block in first:
            tokens = block(tokens)
        after = last(tokens)
        path = (
            after if self.alignment == "head" else step_aside(self.alignment, last, tokens, tokens, grid, tower.prefix)
        )
        aligned = tower.project(path[:, tower.prefix :]).unflatten(1, grid)  # (B, h, w, 3 D)
        return (*patches, aligned, tower.pool(after)[:, None, None])


def sentence_features(half: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Token ids of one sentence `(1, T)` → [t / |t|, t₂ / |t₂|] `(1, 3 D)`."""
    embedded = half.text_model(tokens)  # (1, 2 D)
    return torch.cat([normalize(embedded, dim=-1), normalize(embedded.chunk(2, dim=-1)[1], dim=-1)], dim=-1)


def check_dino_txt(alignment: Alignment | None) -> None:
    """Raise SettingsError for what the two blocks cannot give: windows lose their place, paths of v-v are longer."""
    if alignment is not None and alignment not in ALIGNMENTS:
        raise SettingsError(
            f"the alignment {', '.join(map(repr, ALIGNMENTS))} for dino.txt", repr(alignment), "choose one of them"
        )


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return linear


def _heads(query: nn.Module) -> int:
    width = int(query.out_features)  # type: ignore[arg-type]
    return max(1, width // HEAD_WIDTH)


def _backbone(config: Any) -> tuple[Any, Any]:
    import transformers

    if config.model_type != "dinov3_vit":
        raise WeightsError(
            "the weights of a DINOv3 vision transformer beside those of dino.txt",
            f"a model of type {config.model_type!r}",
            "hf download facebook/dinov3-vitl16-pretrain-lvd1689m --local-dir FOLDER",
        )
    return transformers.DINOv3ViTModel, config
