"""The folder layout of Eyecandies (Bonfiglioli et al., ACCV 2022): rendered sweets, images and depth.

<Category>/train/data/NNN_image_0.png … _image_5.png    the same part under six lights
<Category>/train/data/NNN_depth.png, NNN_info_depth.yaml    depth and its range (depth.py)
<Category>/val/data/…                                   good ones that are neither learned from nor tested on
<Category>/test_public/data/NNN_metadata.yaml           anomalous: 0 or 1
<Category>/test_public/data/NNN_mask.png                bumps_mask, dents_mask, colors_mask, normals_mask together

`test_private` holds parts that nobody but the authors has labels of; they are not read.
"""

from __future__ import annotations

import os
from pathlib import Path

from blemish.data.category import Category
from blemish.data.depth import DEPTH_ENDING, INFO_ENDING, number_in
from blemish.data.files import shown
from blemish.data.images import load_mask
from blemish.errors import DatasetError
from blemish.types import Sample

HAS_POINTS = True
TRAIN, VALIDATION, TEST, DATA = "train", "val", "test_public", "data"
IMAGE_ENDING = "_image_4.png"  # the light from the left, which published results on images and points use
KINDS = ("bumps", "dents", "colors", "normals")


def is_category(folder: Path) -> bool:
    """True for a folder with depth images in train/data or test_public/data."""
    return any(
        name.endswith(DEPTH_ENDING)
        for split in (TRAIN, TEST)
        if os.path.isdir(folder / split / DATA)
        for name in os.listdir(folder / split / DATA)
    )


def is_mask(inside: tuple[str, ...]) -> bool:
    """True for a path (its parts below the category folder) among the masks of test parts."""
    return inside[:2] == (TEST, DATA) and inside[-1].endswith("_mask.png")


def load_category(folder: Path) -> Category:
    """The samples of one category folder, sorted by number; those of `val` apart, as `validation`.

    `points` is the depth image, which `load_points` reads. A defect's kind is what its masks show: "bumps", or
    "bumps, colors".

    Raises DatasetError for an image, a depth image or an info file without the others.
    """
    name = folder.resolve().name
    return Category(
        train=[_good(folder / TRAIN / DATA, number, name, "train") for number in _numbers(folder / TRAIN / DATA)],
        test=[_labelled(folder / TEST / DATA, number, name) for number in _numbers(folder / TEST / DATA)],
        validation=[
            _good(folder / VALIDATION / DATA, number, name, "validation")
            for number in _numbers(folder / VALIDATION / DATA)
        ],
    )


def _numbers(data: Path) -> list[str]:
    """What the files of each part begin with, when all that a scan needs is there."""
    if not data.is_dir():
        return []
    names = set(os.listdir(data))
    endings = (IMAGE_ENDING, DEPTH_ENDING, INFO_ENDING)
    numbers = sorted({name.removesuffix(ending) for name in names for ending in endings if name.endswith(ending)})
    for number in numbers:
        absent = [number + ending for ending in endings if number + ending not in names]
        if absent:
            there = next(number + ending for ending in endings if number + ending in names)
            raise DatasetError(
                f"'{shown(data / absent[0])}' beside '{shown(data / there)}'",
                "no such file",
                "unpack the dataset again, or take the scan out of it: every picture here needs its depth",
            )
    return numbers


def _good(data: Path, number: str, category: str, split: str) -> Sample:
    image, depth = data / (number + IMAGE_ENDING), data / (number + DEPTH_ENDING)
    return Sample(image, points=depth, label=0, category=category, split=split)


def _labelled(data: Path, number: str, category: str) -> Sample:
    good = _good(data, number, category, "test")
    mask = data / f"{number}_mask.png"
    if not _is_defective(data / f"{number}_metadata.yaml", mask):
        return good
    kinds = [kind for kind in KINDS if _shows(data / f"{number}_{kind}_mask.png")]
    return Sample(
        good.image,
        points=good.points,
        label=1,
        mask=mask if mask.is_file() else None,
        category=category,
        defect=", ".join(kinds) or "anomalous",
        split="test",
    )


def _is_defective(metadata: Path, mask: Path) -> bool:
    """What the metadata say; without them, whether the mask shows anything."""
    said = number_in(metadata.read_text(encoding="utf-8"), "anomalous") if metadata.is_file() else None
    if said is None and not mask.is_file():
        raise DatasetError(
            f"'anomalous: 0' or 'anomalous: 1' in '{shown(metadata)}', or a mask '{shown(mask)}'",
            "neither",
            "unpack the dataset again",
        )
    return _shows(mask) if said is None else bool(said)


def _shows(mask: Path) -> bool:
    return mask.is_file() and bool(load_mask(mask).any())
