"""Masks of defects: which file is the mask of which image, and whether it was drawn on the image as shown upright."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from blemish.data.files import find_images, shown
from blemish.data.images import load_levels, load_mask
from blemish.data.readers.base import FORMATS
from blemish.data.readers.pillow import ORIENTATION_TAG
from blemish.errors import DatasetError
from blemish.types import Sample

# What the name of a mask adds to that of its image, in the order in which they are looked for.
ENDINGS = ("_mask", "", "_gt", "_label", "_seg", "_segmentation", "_groundtruth", "_ground_truth")
BEGINNINGS = ("mask_", "gt_")

_MIRRORED_OR_HALF = (2, 3, 4)  # EXIF orientations that keep an image's shape
_UPRIGHT = 1


def masks_by_stem(masks: Iterable[Path], folder: Path) -> dict[str, Path]:
    """Masks by their path in `folder` without its suffix, as written and in lower case, for `mask_for`."""
    written = {str(mask.relative_to(folder).with_suffix("")): mask for mask in masks}
    return {stem.lower(): mask for stem, mask in written.items()} | written


def mask_for(image: Path, by_stem: Mapping[str, Path]) -> Path | None:
    """The mask of an image, given by its path below the folder of its kind: "000.png" has "000_mask.png" or others.

    Any suffix will do, and any case, the image's own before another; "mask_000.png" and "gt_000.png" are understood,
    too.
    """
    stem = image.with_suffix("")
    names = [stem.name + ending for ending in ENDINGS] + [start + stem.name for start in BEGINNINGS]
    written = [str(stem.with_name(name)) for name in names]
    return next((by_stem[key] for name in written for key in (name, name.lower()) if key in by_stem), None)


def defect_masks(sample: Sample) -> list[tuple[np.ndarray, float]]:
    """Each defect of a sample by itself: its mask `(H, W)` bool, and how many of its pixels are enough to be found.

    All of them where the sample states no saturations. Empty masks are left out. Raises DatasetError for a mask whose
    value has no saturation.
    """
    if sample.mask is None:
        return []
    is_folder = isinstance(sample.mask, Path) and sample.mask.is_dir()
    found = []
    for source in find_images(sample.mask) if is_folder and isinstance(sample.mask, Path) else [sample.mask]:
        mask = load_mask(source)
        area = int(mask.sum())
        if area and sample.saturations:
            value = int(load_levels(source).max())
            if value not in sample.saturations:
                raise DatasetError(
                    f"masks of the values {', '.join(map(str, sorted(sample.saturations)))}, whose saturation is known",
                    f"{value} in '{shown(source) if isinstance(source, Path) else 'array'}'",
                    "add it to defects_config.json",
                )
            found.append((mask, sample.saturations[value].pixels(area)))
        elif area:
            found.append((mask, float(area)))
    return found


def is_turn_doubtful(mask: np.ndarray, sample: Sample) -> bool:
    """Whether a mask `(H, W)` may have been drawn before EXIF turned its image, and no shape can tell.

    So it is where only the image carries an orientation, and that keeps its shape or the mask is square.
    """
    if not (isinstance(sample.image, Path) and isinstance(sample.mask, Path)):
        return False
    turned = orientation_of(sample.image)
    keeps_shape = turned in _MIRRORED_OR_HALF or (turned != _UPRIGHT and mask.shape[0] == mask.shape[1])
    return keeps_shape and orientation_of(sample.mask) == _UPRIGHT


def orientation_of(file: Path) -> int:
    """The EXIF orientation in an image file's header, 1 where it has none or cannot be read."""
    try:
        with Image.open(file, formats=FORMATS) as pil_image:
            return int(pil_image.getexif().get(ORIENTATION_TAG, _UPRIGHT))
    except Exception:  # of a damaged file, loading says more
        return _UPRIGHT
