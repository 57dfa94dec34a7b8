"""The folder layout of Eyecandies: rendered sweets, images and depth.

Bonfiglioli, Toschi, Silvestri, Fioraio, De Gregorio: The Eyecandies dataset for unsupervised multimodal anomaly
detection and localization, ACCV 2022.

<Category>/train/data/NNN_image_0.png … _image_5.png    the same part under six lights
<Category>/train/data/NNN_depth.png, NNN_info_depth.yaml    depth and its range (depth.py)
<Category>/val/data/…                                   good ones that are neither fitted on nor tested on
<Category>/test_public/data/NNN_metadata.yaml           anomalous: 0 or 1
<Category>/test_public/data/NNN_mask.png                bumps_mask, dents_mask, colors_mask, normals_mask together

`test_private` holds parts that nobody but the authors has labels of; they are not read.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from blemish.data.category import Category
from blemish.data.data_warnings import warn
from blemish.data.depth import DEPTH_ENDING, INFO_ENDING, number_in, read_yaml
from blemish.data.files import shown
from blemish.data.images import load_mask
from blemish.data.pairing import warn_of_half
from blemish.types import Sample

HAS_POINTS = True
TRAIN, VALIDATION, TEST, DATA = "train", "val", "test_public", "data"
IMAGE_ENDING = "_image_4.png"  # the light from the left, which published results on images and points use
KINDS = ("bumps", "dents", "colors", "normals")


def is_category(folder: Path) -> bool:
    """True for a folder with depth images in train/data or test_public/data."""
    return any(_holds_depth(folder / split / DATA) for split in (TRAIN, TEST))


def _holds_depth(data: Path) -> bool:
    """False where there is no such folder, or it may not be read: any folder above a user's path is asked."""
    try:
        with os.scandir(data) as entries:
            return any(entry.name.endswith(DEPTH_ENDING) for entry in entries)
    except OSError:
        return False


def is_mask(inside: tuple[str, ...]) -> bool:
    """True for a path (its parts below the category folder) among the masks of test parts."""
    return inside[:2] == (TEST, DATA) and inside[-1].endswith("_mask.png")


def load_category(folder: Path) -> Category:
    """The samples of one category folder, sorted by number; those of `val` apart, as `validation`.

    `points` is the depth image, which `load_points` reads. A defect's kind is what its masks show: "bumps", or
    "bumps, colors". A part without its image, depth image or info file is a sample of one modality; a test part of
    which neither metadata nor a mask tell whether it is defective is left out. A DataWarning names what is missing.
    """
    name = folder.resolve().name
    return Category(
        train=_parts(folder / TRAIN / DATA, name, "train"),
        test=[
            labelled
            for number, part in _numbered(folder / TEST / DATA, name, "test")
            if (labelled := _labelled(part, number)) is not None
        ],
        validation=_parts(folder / VALIDATION / DATA, name, "validation"),
    )


def _parts(data: Path, category: str, split: str) -> list[Sample]:
    return [part for _, part in _numbered(data, category, split)]


def _numbered(data: Path, category: str, split: str) -> list[tuple[Path, Sample]]:
    """Each part of a folder, as a normal sample, and what the paths of all its files begin with."""
    names = set(os.listdir(data)) if data.is_dir() else set()
    numbers = {name.removesuffix(e) for name in names for e in (IMAGE_ENDING, DEPTH_ENDING) if name.endswith(e)}
    parts = []
    for number in sorted(numbers):
        image, depth = (data / (number + e) if number + e in names else None for e in (IMAGE_ENDING, DEPTH_ENDING))
        if depth is None and image is not None:
            warn_of_half(image, "points", data / (number + DEPTH_ENDING))
        elif image is None and depth is not None:
            warn_of_half(depth, "picture", data / (number + IMAGE_ENDING))
        elif number + INFO_ENDING not in names and image is not None:
            warn_of_half(image, "points", data / (number + INFO_ENDING))  # depth without its range has no unit
            depth = None
        parts.append((data / number, Sample(image, points=depth, label=0, category=category, split=split)))
    return parts


def _labelled(part: Sample, number: Path) -> Sample | None:
    """A test part with its label, mask and kind of defect; the paths of its files begin with `number`.

    None, and a DataWarning, where nothing tells whether it is defective.
    """
    mask = Path(f"{number}_mask.png")
    is_defective = _is_defective(Path(f"{number}_metadata.yaml"), mask)
    if is_defective is None:
        warn("incomplete", shown(part.name), f"is left out: no '{shown(number)}_metadata.yaml' says if it is defective")
        return None
    if not is_defective:
        return part
    kinds = [kind for kind in KINDS if _shows(Path(f"{number}_{kind}_mask.png"))]
    return replace(part, label=1, mask=mask if mask.is_file() else None, defect=", ".join(kinds) or "anomalous")


def _is_defective(metadata: Path, mask: Path) -> bool | None:
    """What the metadata say; without them, whether the mask shows anything; None without either."""
    said = number_in(read_yaml(metadata), "anomalous") if metadata.is_file() else None
    if said is not None:
        return bool(said)
    return _shows(mask) if mask.is_file() else None


def _shows(mask: Path) -> bool:
    return mask.is_file() and bool(load_mask(mask).any())
