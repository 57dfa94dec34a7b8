"""The folder layout of MVTec 3D-AD: images and points on one grid.

Bergmann, Jin, Sattlegger, Steger: The MVTec 3D-AD dataset for unsupervised 3D anomaly detection and localization,
VISAPP 2022.

<category>/train/good/rgb/000.png          the image
<category>/train/good/xyz/000.tiff         the points measured with it, float32 metres, 0 where nothing was
<category>/validation/good/{rgb,xyz}/      good scans that are neither learned from nor tested on
<category>/test/<defect>/{rgb,xyz}/        good ones are called good
<category>/test/<defect>/gt/000.png        the defect's mask (black for good ones)

Scans may lie in another folder of points beside rgb instead, such as depth/000.png, and masks as in MVTec AD, in
<category>/ground_truth/<defect>/000_mask.png.
"""

from __future__ import annotations

import os
from pathlib import Path

from blemish.data.category import Category
from blemish.data.files import find_images, subfolders
from blemish.data.pairing import pairs_in, parallel_folders, warn_of_halves
from blemish.errors import DatasetError
from blemish.types import Sample

HAS_POINTS = True
GOOD = "good"
IMAGES, POINTS, MASKS = "rgb", "xyz", "gt"
DRAWN = "ground_truth"  # where masks lie as in MVTec AD
TRAIN, VALIDATION, TEST = "train", "validation", "test"


def is_category(folder: Path) -> bool:
    """True for a folder whose good or defective parts have a folder rgb of their own."""
    if any(os.path.isdir(folder / split / GOOD / IMAGES) for split in (TRAIN, TEST)):
        return True
    try:
        return os.path.isdir(folder / TEST) and any(os.path.isdir(kind / IMAGES) for kind in subfolders(folder / TEST))
    except DatasetError:  # any folder above a user's path is asked, be it readable or not
        return False


def is_mask(inside: tuple[str, ...]) -> bool:
    """True for a path (its parts below the category folder) among the masks of defects."""
    return inside[:1] == (DRAWN,) or (inside[2:3] == (MASKS,) and inside[1] != GOOD)


def load_category(folder: Path) -> Category:
    """The samples of one category folder, sorted by path; the normal ones of `validation` apart, as `validation`.

    An image without its points, or points without their image, is a sample of one modality, and a DataWarning names
    both files.
    """
    name = folder.resolve().name
    kinds = subfolders(folder / TEST) if (folder / TEST).is_dir() else []
    return Category(
        train=_samples(folder / TRAIN / GOOD, name, TRAIN),
        test=[sample for kind in kinds for sample in _samples(kind, name, TEST)],
        validation=_samples(folder / VALIDATION / GOOD, name, VALIDATION),
    )


def _samples(kind: Path, category: str, split: str) -> list[Sample]:
    """The scans of one kind of part: normal, or with one kind of defect."""
    points = _points_of(kind)
    pairs = pairs_in(kind / IMAGES, points)
    warn_of_halves(pairs, kind / IMAGES, points)
    is_defective = kind.name != GOOD
    masks = _masks_of(kind) if is_defective else {}
    return [
        Sample(
            pair.image,
            points=pair.points,
            label=int(is_defective),
            mask=masks.get(pair.stem),
            category=category,
            defect=kind.name if is_defective else "",
            split=split,
        )
        for pair in pairs
    ]


def _points_of(kind: Path) -> Path:
    """The folder of points beside the images of one kind of part: xyz, or the only one that is called after points."""
    if (kind / POINTS).is_dir() or not (kind / IMAGES).is_dir():
        return kind / POINTS
    found = parallel_folders(kind / IMAGES)
    return kind / POINTS if found is None else found[1]


def _masks_of(kind: Path) -> dict[Path, Path]:
    """The masks of one kind of defect by the stem of their image."""
    drawn = kind / MASKS
    if drawn.is_dir():
        return {path.relative_to(drawn).with_suffix(""): path for path in find_images(drawn)}
    drawn = kind.parent.parent / DRAWN / kind.name
    found = {path.relative_to(drawn).with_suffix(""): path for path in (find_images(drawn) if drawn.is_dir() else [])}
    return {stem.with_name(stem.name.removesuffix("_mask")): path for stem, path in found.items()}
