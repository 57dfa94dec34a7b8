"""From a name or a folder to an encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from blemish.encoders.availability import best_available
from blemish.encoders.base import Encoder, LayerRole
from blemish.encoders.precision import Precision, check_precision
from blemish.registry import ENCODERS, lookup, resolve


def build(
    name_or_folder: str | os.PathLike[str],
    *,
    role: LayerRole = "deep",
    layers: Sequence[int] | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
) -> Encoder:
    """The encoder of that name (see `registry.ENCODERS`), of a local model folder, or "auto".

    "auto" takes the best encoder that loads without a download. A folder is what transformers' `save_pretrained`
    writes. `role` picks the layers that suit what a detector asks for; `layers` overrides it. Raises `SettingsError`
    for an unknown name, `WeightsError` when the weights are missing or unusable.
    """
    check_precision(precision)
    text = os.fspath(name_or_folder)
    if text == "auto":
        text, _ = best_available()
    if text not in ENCODERS and is_folder_name(text):
        from blemish.encoders.backbone import load_backbone

        return load_backbone(text, source=text, role=role, layers=layers, device=device, precision=precision)
    entry = lookup(text, ENCODERS, "encoder")
    load = resolve(entry.target)
    return load(text, role=role, layers=layers, device=device, precision=precision, **entry.kwargs)


def is_folder_name(text: str) -> bool:
    """Whether `text` means a folder rather than a name: it exists as one, or is written like a path."""
    return Path(text).expanduser().is_dir() or os.sep in text or text.startswith(("~", "."))
