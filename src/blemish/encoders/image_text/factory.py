"""From a folder with both towers of an image-text model to an encoder that can speak: images, windows or patches in
the space of its sentences.

Families are told by config.json: CLIP, SigLIP (1 and 2; NaFlex of any aspect ratio, too) and TIPS v2 as transformers
saves them, CLIP with open_clip's names (open_clip.py), or DINOv3 beside the weights of dino.txt (dino_txt.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blemish.encoders.availability import hub_snapshot, revision_of
from blemish.encoders.base import Alignment, LayerRole
from blemish.encoders.image.frozen import FrozenEncoder
from blemish.encoders.image.hub import CLIP_MEAN, CLIP_STD, config_hash, normalisation, weight_files
from blemish.encoders.image.pretrained import read_pretrained
from blemish.encoders.image_text import dino_txt, open_clip
from blemish.encoders.image_text.dino_txt import DinoTxtTower, HeadFeatures, sentence_features
from blemish.encoders.image_text.image_towers import ClipTower, ImageTower, NaflexTower, SiglipTower, TipsTower
from blemish.encoders.image_text.patch_alignment import PatchFeatures
from blemish.encoders.image_text.windows import WindowFeatures
from blemish.encoders.layers import resolve_layers, token_roles
from blemish.encoders.precision import Precision
from blemish.encoders.text.factory import TextEncoder, model_type_of
from blemish.encoders.text.frozen import FrozenTextEncoder, Pool, read_tokenizer
from blemish.encoders.weights import file_hash, missing
from blemish.errors import SettingsError, WeightsError
from blemish.registry import ENCODERS
from blemish.types import ALIGNED, RGB, WHOLE, WINDOWS, Features
from blemish.utils.paths import expanded

SENTENCES_ALONE = ("bert", "clip_text_model")
IMAGES_ALONE = ("clip_vision_model", "siglip_vision_model", "siglip2_vision_model")


@dataclass(frozen=True)
class Family:
    """How a family's image tower is made of a model, and what its sentences were like while it was trained.

    `patches` makes the network for all alignments but windows; `text` embeds token ids `(1, T)`.
    """

    tower: Callable[[Any], ImageTower]
    is_padded: bool = False  # filled up to the longest length
    lower: bool = False  # all in lower case
    patches: Callable[[Any, tuple[int, ...], Alignment | None], PatchFeatures | HeadFeatures] = PatchFeatures
    text: Pool | None = None  # None: text_features


FAMILIES = {
    "clip": Family(ClipTower),
    "siglip": Family(SiglipTower, is_padded=True, lower=True),
    "siglip2": Family(NaflexTower, is_padded=True, lower=True),
    "tipsv2": Family(TipsTower),
    "dinov3_vit": Family(DinoTxtTower, patches=HeadFeatures, text=sentence_features),
}


class ImageTextEncoder(FrozenEncoder):
    """A `FrozenEncoder` beside the encoder of the sentences that share its space, `text`.

    Features hold patches under `RGB`, and what `alignment` asks for: the image under `WHOLE`, windows under `WINDOWS`,
    patches under `ALIGNED`. Images of any shape are encoded whole: no tiles.
    """

    def __init__(self, *args: Any, text: TextEncoder, alignment: Alignment | None, **facts: Any) -> None:
        super().__init__(*args, **facts)
        self.text, self.alignment = text, alignment
        self._kinds: tuple[str, ...] = (RGB,) * len(self.layers)
        if alignment is not None:
            kind = WINDOWS if alignment == "windows" else ALIGNED
            self._kinds += (kind,) * (len(self.dims) - len(self.layers) - 1) + (WHOLE,)
        self.modalities = tuple(dict.fromkeys(self._kinds))

    def encode(self, images: np.ndarray) -> Features:
        """As every encoder; each layer under its modality."""
        found = super().encode(images).layers[RGB]
        layers = {
            kind: tuple(layer for own, layer in zip(self._kinds, found, strict=True) if own == kind)
            for kind in self.modalities
        }
        return Features(layers)

    def _encode_sized(self, images: np.ndarray) -> tuple[torch.Tensor, ...]:
        return self._encode_chunk(images)


def load_image_text(
    name: str,
    *,
    source: str,
    alignment: Alignment | None = None,
    role: LayerRole = "deep",
    layers: Sequence[int] | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
    licence: str = "see the model's card",
) -> ImageTextEncoder:
    """The encoder at `source`: a folder with weights and tokenizer, or the id of a model in the local hub cache.

    Nothing is downloaded. `alignment` says what is embedded in the space of sentences (None: nothing); `layers` or else
    `role` which blocks' patches are given as they are, with windows the last. "auto" computes in float32: cosines with
    sentences differ by little. Raises WeightsError where something is missing, SettingsError for a model without one of
    the towers.
    """
    folder = find_folder(name, source)
    family, model = read_model(folder)
    check_alignment(family, alignment)
    network_of = FAMILIES[family]
    tower = network_of.tower(model)
    depth = tower.depth
    default = (depth - 1,) if alignment == "windows" else token_roles(depth)[role]
    taken = resolve_layers(layers, default, depth, name)
    network = WindowFeatures(tower, taken) if alignment == "windows" else network_of.patches(tower, taken, alignment)
    weights = weights_of(folder)
    mean, std = normalisation_of(folder, family)
    encoder = ImageTextEncoder(
        network,
        name=name,
        layers=taken,
        stride=tower.patch,
        size_multiple=tower.patch,
        dims=(tower.width,) * len(taken) + (tower.dims,) * network.aligned,
        licence=licence,
        weights_sha256=weights,
        mean=mean,
        std=std,
        device=device,
        precision="fp32" if precision == "auto" else precision,
        config_sha256=config_of(folder),
        text=text_encoder(model, network_of, folder, name, tower.dims, licence, weights, device),
        alignment=alignment,
    )
    encoder.revision = revision_of(folder)
    return encoder


def find_folder(name: str, source: str) -> Path:
    """The folder of `source`; raises WeightsError where it is not on this machine."""
    given = expanded(source)
    folder = given if given.is_dir() else hub_snapshot(source)
    if folder is None:
        raise missing(
            name, f"{source} is not in the local hub cache", f"hf download {source}", "use a detector without text"
        )
    return folder


def read_model(folder: Path) -> tuple[str, Any]:
    """The family and the two-tower model in a folder; every tensor comes from its file and is finite."""
    if open_clip.weight_file(folder) is not None:
        return "clip", open_clip.read_clip(folder)
    if dino_txt.weight_file(folder) is not None:
        return "dinov3_vit", dino_txt.read_dino_txt(folder)
    family = family_of(folder)
    weight_files(folder)  # raises where they are missing
    return family, read_pretrained(folder, _two_towers, unused=("mask_token",))


def family_of(folder: Path) -> str:
    """The family of a model folder. Raises SettingsError for a model without an image tower, or without a text one."""
    kind = model_type_of(folder, "an image-text model")
    if kind == "dinov3_vit":
        raise dino_txt.absent(folder)
    if kind in FAMILIES:
        return kind
    got = "no image tower" if kind in SENTENCES_ALONE else "no text tower" if kind in IMAGES_ALONE else "neither"
    raise SettingsError(
        f"a model with an image tower and a text tower ({', '.join(FAMILIES)}) in {folder}",
        f"{kind!r}, which has {got} that shares a space with the other",
        "give the folder of a whole model; `blemish list encoders` says which can speak",
    )


def check_alignment(family: str, alignment: Alignment | None) -> None:
    """Raise SettingsError for what a family cannot give: SigLIP's pooling head takes no other path than values."""
    if family == "dinov3_vit":
        dino_txt.check_dino_txt(alignment)
    elif alignment == "head":
        raise SettingsError("the alignment 'head' for dino.txt", f"{family!r}", "choose another, such as 'value'")
    if family in ("siglip", "siglip2") and alignment not in (None, "windows", "value"):
        raise SettingsError("the alignment 'value' or 'windows' for SigLIP", repr(alignment), "choose one of them")


def weights_of(folder: Path) -> str:
    """sha256 of a folder's weights."""
    file = open_clip.weight_file(folder)
    if file is not None:
        return file_hash(file)
    further = dino_txt.weight_file(folder)
    return file_hash(*weight_files(folder), *([] if further is None else [further]))


def config_of(folder: Path) -> str:
    """The hash of the config that a folder's model is built by; "" for one of open_clip that has none."""
    if open_clip.weight_file(folder) is None:
        return config_hash(folder / "config.json")
    file = folder / open_clip.CONFIG
    return config_hash(file) if file.is_file() else ""


def normalisation_of(folder: Path, family: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of RGB in [0, 1]. TIPS was trained on levels from 0 to 1 as they are."""
    if family == "tipsv2":
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    facts = open_clip.read_facts(folder).get("preprocess_cfg", {})
    if open_clip.weight_file(folder) is not None:
        return tuple(facts.get("mean", CLIP_MEAN)), tuple(facts.get("std", CLIP_STD))
    return normalisation(folder, family)


def text_encoder(
    model: Any, family: Family, folder: Path, name: str, dims: int, licence: str, weights: str, device: str
) -> FrozenTextEncoder:
    """The text half of a model as a `TextEncoder`; its tokenizer lies in the same folder."""
    plain = open_clip.weight_file(folder) is not None and not (folder / "tokenizer_config.json").is_file()
    most = int(model.text_model.config.max_position_embeddings)
    return FrozenTextEncoder(
        TextHalf(model),
        read_tokenizer(folder, "CLIPTokenizer" if plain else "AutoTokenizer"),
        family.text or text_features,
        name=name,
        dims=dims,
        max_tokens=most,
        licence=licence,
        weights_sha256=weights,
        device=device,
        is_padded=family.is_padded,
        lower=family.lower,
    )


class TextHalf(torch.nn.Module):
    """What embeds sentences, without the image tower, so that each is moved and rounded by itself."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text_model = model.text_model
        self.projection = getattr(model, "text_projection", torch.nn.Identity())


def text_features(half: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Token ids of one sentence `(1, T)` → its embedding `(1, E)`, not yet of unit length."""
    embedding: torch.Tensor = half.projection(half.text_model(input_ids=tokens).pooler_output)
    return embedding


def speaking() -> list[str]:
    """The names of encoders in the registry that have a text tower."""
    return [name for name, entry in ENCODERS.items() if entry.speaks]


def _two_towers(config: Any) -> tuple[Any, Any]:
    import transformers

    kinds = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model", "tipsv2": "Tipsv2Model"}
    kind = getattr(transformers, kinds[config.model_type], None)
    if kind is None:
        raise WeightsError(
            f"a transformers that knows the model type {config.model_type!r}",
            f"version {transformers.__version__}",
            "pip install -U transformers",
        )
    return kind, config
