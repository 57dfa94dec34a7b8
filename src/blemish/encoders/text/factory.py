"""The contract of text encoders, which of them load now, and how a name or a folder becomes one.

Imports no torch itself, so that listing them stays quick.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from blemish.encoders.availability import Availability, hub_snapshot, of_entry
from blemish.errors import SettingsError, WeightsError
from blemish.registry import TEXT_ENCODERS, lookup, resolve
from blemish.utils.paths import expanded

if TYPE_CHECKING:
    import torch

# The loader of a model folder by the `model_type` in its config.json.
FAMILIES = {
    "bert": "blemish.encoders.text.minilm:load_minilm",
    "clip": "blemish.encoders.text.clip_text:load_clip_text",
    "clip_text_model": "blemish.encoders.text.clip_text:load_clip_text",
}


@runtime_checkable
class TextEncoder(Protocol):
    """A frozen network that embeds sentences in `dims` dimensions; `weights_sha256` is the hash of its files."""

    name: str
    dims: int
    licence: str
    weights_sha256: str

    def embed(self, sentences: Sequence[str]) -> torch.Tensor:
        """Sentence embeddings of unit length `(S, dims)` float32; no gradient, and no row depends on the others."""
        ...


def build(name_or_folder: str | os.PathLike[str] = "auto", *, device: str = "cpu") -> TextEncoder:
    """The text encoder of that name (see `registry.TEXT_ENCODERS`), of a local model folder, or "auto".

    "auto" takes the first of the registry that loads; nothing is downloaded. Raises `SettingsError` for an unknown
    name, `WeightsError` when the weights are missing or unusable.
    """
    text = os.fspath(name_or_folder)
    if text == "auto":
        text = best_available()
    elif text not in TEXT_ENCODERS and (os.path.isdir(expanded(text)) or os.sep in text):
        folder = expanded(text)
        loader: Any = resolve(_family(folder))
        found: TextEncoder = loader(text, source=str(folder), device=device)
        return found
    entry = lookup(text, TEXT_ENCODERS, "text encoder")
    encoder: TextEncoder = resolve(entry.target)(text, device=device, **entry.kwargs)
    return encoder


def best_available() -> str:
    """The first text encoder that loads without a download; `WeightsError` with the ways to get one if none does."""
    for name in TEXT_ENCODERS:
        if availability(name).loads:
            return name
    raise WeightsError(
        "a text encoder that loads without a download",
        "; ".join(f"{name}: {availability(name).why}" for name in TEXT_ENCODERS),
        "run one of these commands, give the folder of a downloaded model, or use a detector without text",
    )


def availability(name: str) -> Availability:
    """Whether and how a text encoder loads on this machine, without loading it or using the network."""
    entry = lookup(name, TEXT_ENCODERS, "text encoder")
    found = of_entry(entry)
    folder = hub_snapshot(entry.hub) if entry.hub else None
    if folder and not has_tokenizer(folder):  # the image half of the same model brings weights alone
        return Availability(False, "", f"downloaded without its tokenizer; run: {entry.get}")
    return found


def has_tokenizer(folder: Path) -> bool:
    """Whether a model folder holds the files of its tokenizer."""
    parts = ("vocab.json", "merges.txt")
    names = ("tokenizer.json", "vocab.txt")
    return any((folder / name).is_file() for name in names) or all((folder / name).is_file() for name in parts)


def ways_out(name: str) -> str:
    """Advice for users who cannot get the text encoder `name`."""
    others = " or ".join(other for other in TEXT_ENCODERS if other != name)
    return f"use another text encoder ({others}) or a detector without text"


def model_type_of(folder: Path, model: str) -> str:
    """The `model_type` in the config.json of a folder of `model`. Raises WeightsError where there is none."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{model}'s folder with a config.json that names its model_type at {folder}",
            f"{type(error).__name__}: {error}",
            "give a folder written by save_pretrained or `hf download`",
        ) from error


def _family(folder: Path) -> str:
    """The loader of a model folder."""
    kind = model_type_of(folder, "a text model")
    if kind not in FAMILIES:
        raise SettingsError(f"a text model of the kind {' or '.join(FAMILIES)}", repr(kind), "give another folder")
    return FAMILIES[kind]
