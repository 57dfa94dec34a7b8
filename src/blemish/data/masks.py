"""Masks of defects: which file is the mask of which image, and what speaks against a mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from blemish.data.data_warnings import warn
from blemish.data.files import shown
from blemish.data.readers.base import FORMATS
from blemish.data.readers.pillow import ORIENTATION_TAG
from blemish.types import Sample

# A mask that marks more of its image than this is probably inverted. Of 591 masks of MVTec AD, MPDD, VisA and others
# the largest marks 0.49.
INVERTED_FROM = 0.8
# What the name of a mask adds to that of its image, in the order in which they are looked for.
ENDINGS = ("_mask", "", "_gt", "_label", "_seg", "_segmentation", "_groundtruth", "_ground_truth")
BEGINNINGS = ("mask_", "gt_")

_MIRRORED_OR_HALF = (2, 3, 4)  # EXIF orientations that keep an image's shape
_KEPT = 1


def masks_by_stem(masks: Iterable[Path], folder: Path) -> dict[str, Path]:
    """Masks by their path in `folder` without its suffix, in lower case, for `mask_for`."""
    return {str(mask.relative_to(folder).with_suffix("")).lower(): mask for mask in masks}


def mask_for(image: Path, by_stem: Mapping[str, Path]) -> Path | None:
    """The mask of an image, given by its path below the folder of its kind: "000.png" has "000_mask.png" or others.

    Any suffix will do, and any case; "mask_000.png" and "gt_000.png" are understood, too.
    """
    stem = image.with_suffix("")
    names = [str(stem.with_name(stem.name + ending)).lower() for ending in ENDINGS]
    names += [str(stem.with_name(start + stem.name)).lower() for start in BEGINNINGS]
    return next((by_stem[name] for name in names if name in by_stem), None)


def check_mask(mask: np.ndarray, sample: Sample) -> None:
    """Give a DataWarning for the mask `(H, W)` bool of a defective sample that marks nothing, or nearly everything.

    And for one that may have been drawn before EXIF turned its image, where no shape can tell.
    """
    name = shown(sample.mask) if isinstance(sample.mask, Path) else "array"
    share = float(mask.mean())
    if share == 0:
        warn("mask", name, "marks nothing, though its picture is defective")
    elif share > INVERTED_FROM:
        warn("mask", name, f"marks {share:.0%} of its picture: is it inverted?")
    if not (isinstance(sample.image, Path) and isinstance(sample.mask, Path)):
        return
    turned = orientation_of(sample.image)
    is_ambiguous = turned in _MIRRORED_OR_HALF or (turned != _KEPT and mask.shape[0] == mask.shape[1])
    if is_ambiguous and orientation_of(sample.mask) == _KEPT:
        words = (
            f"lies on a picture that EXIF turns (orientation {turned}): was it drawn on the picture as shown upright?"
        )
        warn("mask", name, words)


def orientation_of(file: Path) -> int:
    """The EXIF orientation in an image file's header, 1 where it has none or cannot be read."""
    try:
        with Image.open(file, formats=FORMATS) as pil_image:
            return int(pil_image.getexif().get(ORIENTATION_TAG, _KEPT))
    except Exception:  # of a damaged file, loading says more
        return _KEPT
