"""The folder layout of MVTec AD (Bergmann et al., CVPR 2019), used by MPDD and many others.

<category>/train/good/*.png          good images to learn from
<category>/test/good/*.png           good images to test on
<category>/test/<defect>/*.png       defective ones, by kind
<category>/ground_truth/<defect>/<stem>_mask.png    (or <stem>.png)
"""

from __future__ import annotations

import os
from pathlib import Path

from blemish.data.category import Category
from blemish.data.files import find_images, subfolders
from blemish.types import Sample

GOOD = "good"
MASK_ENDING = "_mask"


def is_category(folder: Path, good: str = GOOD) -> bool:
    """True for a folder with good images to learn from or to test on, or with defective ones and their masks."""
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
    masks = _masks(folder / "ground_truth" / kind.name)
    return [
        Sample(
            image,
            label=1,
            mask=masks.get(image.relative_to(kind).with_suffix("")),
            category=name,
            defect=kind.name,
            split="test",
        )
        for image in find_images(kind)
    ]


def _masks(folder: Path) -> dict[Path, Path]:
    """Each mask by the relative path, without suffix, of the image it belongs to."""
    masks: dict[Path, Path] = {}
    for mask in _images(folder):
        stem = mask.relative_to(folder).with_suffix("")
        masks[stem.with_name(stem.name.removesuffix(MASK_ENDING) or stem.name)] = mask
    return masks


def _images(folder: Path) -> list[Path]:
    return find_images(folder) if folder.is_dir() else []
