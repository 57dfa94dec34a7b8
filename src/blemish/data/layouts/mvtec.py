"""The folder layout of MVTec AD, used by MPDD and many others.

Bergmann, Fauser, Sattlegger, Steger: MVTec AD, a comprehensive real-world dataset for unsupervised anomaly detection,
CVPR 2019.

<category>/train/good/*.png          normal images to fit on
<category>/test/good/*.png           normal images to test on
<category>/test/<defect>/*.png       anomalous ones, by kind
<category>/ground_truth/<defect>/<stem>_mask.png    (or another name that masks.py understands)
"""

from __future__ import annotations

import os
from pathlib import Path

from blemish.data.category import Category
from blemish.data.files import find_images, subfolders
from blemish.data.masks import mask_for, masks_by_stem
from blemish.types import Sample

GOOD = "good"


def is_category(folder: Path, good: str = GOOD) -> bool:
    """True for a folder with normal images to fit or to test on, or with anomalous ones and their masks."""
    return (
        os.path.isdir(folder / "train" / good)
        or os.path.isdir(folder / "test" / good)
        or (good == GOOD and os.path.isdir(folder / "test") and os.path.isdir(folder / "ground_truth"))
    )


def is_mask(inside: tuple[str, ...]) -> bool:
    """True for a path (its parts below the category folder) among the masks."""
    return inside[:1] == ("ground_truth",)


def load_category(folder: Path, good: str = GOOD) -> Category:
    """The samples of one category folder, sorted by path; `good` is what this layout calls good images."""
    name = folder.resolve().name
    train = [Sample(image, label=0, category=name, split="train") for image in _images(folder / "train" / good)]
    kinds = subfolders(folder / "test") if (folder / "test").is_dir() else []
    test = [sample for kind in kinds for sample in _test_samples(folder, kind, name, good)]
    return Category(train, test)


def _test_samples(folder: Path, kind: Path, name: str, good: str) -> list[Sample]:
    if kind.name == good:
        return [Sample(image, label=0, category=name, split="test") for image in find_images(kind)]
    drawn = folder / "ground_truth" / kind.name
    masks = masks_by_stem(_images(drawn), drawn)
    return [
        Sample(
            image,
            label=1,
            mask=mask_for(image.relative_to(kind), masks),
            category=name,
            defect=kind.name,
            split="test",
        )
        for image in find_images(kind)
    ]


def _images(folder: Path) -> list[Path]:
    return find_images(folder) if folder.is_dir() else []
