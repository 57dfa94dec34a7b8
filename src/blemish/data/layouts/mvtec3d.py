"""The folder layout of MVTec 3D-AD (Bergmann et al., VISAPP 2022): images and points on one grid.

<category>/train/good/rgb/000.png          the image
<category>/train/good/xyz/000.tiff         the points measured with it, float32 metres, 0 where nothing was
<category>/validation/good/{rgb,xyz}/      good scans that are neither learned from nor tested on
<category>/test/<defect>/{rgb,xyz}/        good ones are called good
<category>/test/<defect>/gt/000.png        the defect's mask (black for good ones)
"""

from __future__ import annotations

import os
from pathlib import Path

from blemish.data.category import Category
from blemish.data.files import find_images, shown, subfolders
from blemish.data.points import TIFF_SUFFIXES
from blemish.errors import DatasetError
from blemish.types import Sample

HAS_POINTS = True
GOOD = "good"
IMAGES, POINTS, MASKS = "rgb", "xyz", "gt"
TRAIN, VALIDATION, TEST = "train", "validation", "test"


def is_category(folder: Path) -> bool:
    """True for a folder whose good or defective parts have a folder rgb of their own."""
    if any(os.path.isdir(folder / split / GOOD / IMAGES) for split in (TRAIN, TEST)):
        return True
    return os.path.isdir(folder / TEST) and any(os.path.isdir(kind / IMAGES) for kind in subfolders(folder / TEST))


def is_mask(inside: tuple[str, ...]) -> bool:
    """True for a path (its parts below the category folder) among the masks of defects."""
    return inside[2:3] == (MASKS,) and inside[1] != GOOD


def load_category(folder: Path) -> Category:
    """The samples of one category folder, sorted by path; the good ones of `validation` apart, as `validation`.

    Raises DatasetError for an image without its points, or points without their image.
    """
    name = folder.resolve().name
    kinds = subfolders(folder / TEST) if (folder / TEST).is_dir() else []
    return Category(
        train=_samples(folder / TRAIN / GOOD, name, TRAIN),
        test=[sample for kind in kinds for sample in _samples(kind, name, TEST)],
        validation=_samples(folder / VALIDATION / GOOD, name, VALIDATION),
    )


def _samples(kind: Path, category: str, split: str) -> list[Sample]:
    """The scans of one kind of part: good, or with one kind of defect."""
    images = {_stem(path, kind / IMAGES): path for path in _files(kind / IMAGES)}
    points = {_stem(path, kind / POINTS): path for path in _files(kind / POINTS)}
    for stem in sorted(images.keys() ^ points.keys()):
        _refuse_half(kind, stem, images.get(stem), points.get(stem))
    defective = kind.name != GOOD
    masks = {_stem(path, kind / MASKS): path for path in _files(kind / MASKS)} if defective else {}
    return [
        Sample(
            image,
            points=points[stem],
            label=int(defective),
            mask=masks.get(stem),
            category=category,
            defect=kind.name if defective else "",
            split=split,
        )
        for stem, image in images.items()
    ]


def _refuse_half(kind: Path, stem: Path, image: Path | None, points: Path | None) -> None:
    absent = kind / POINTS / f"{stem}{TIFF_SUFFIXES[1]}" if points is None else kind / IMAGES / f"{stem}.png"
    raise DatasetError(
        f"{'the points' if points is None else 'the picture'} of '{shown(image or points or kind)}'"
        f" at '{shown(absent)}'",
        "no such file",
        "unpack the dataset again, or take the scan out of it: every picture here needs its points",
    )


def _files(folder: Path) -> list[Path]:
    return find_images(folder) if folder.is_dir() else []


def _stem(path: Path, folder: Path) -> Path:
    return path.relative_to(folder).with_suffix("")
