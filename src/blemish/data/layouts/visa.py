"""The folder layout of VisA as it is downloaded.

Zou, Jeong, Pemula, Zhang, Dabeer: SPot-the-Difference self-supervised pre-training for anomaly detection and
segmentation, ECCV 2022.

    <category>/Data/Images/Normal/*.JPG     <category>/Data/Images/Anomaly/*.JPG
    <category>/Data/Masks/Anomaly/*.png     (levels are 0 and small numbers, one for each kind of defect)
    <category>/image_anno.csv               kinds of defect of each image: image, label, mask
    split_csv/1cls.csv                      which normal images are for fitting: object, split, label, image, mask

VisA re-arranged by its authors' script into train/good, test/bad is read by mvtec.py.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from blemish.data.category import Category
from blemish.data.files import find_images, shown
from blemish.data.masks import mask_for, masks_by_stem
from blemish.errors import DatasetError
from blemish.types import Sample

SPLIT = Path("split_csv") / "1cls.csv"
NORMAL, ANOMALY, MASKS = Path("Data/Images/Normal"), Path("Data/Images/Anomaly"), Path("Data/Masks/Anomaly")
HELD_OUT_EVERY = 10
_SPLIT_COLUMNS = ("object", "split", "label", "image")


def is_category(folder: Path) -> bool:
    """True for a folder with Data/Images/Normal or Data/Images/Anomaly."""
    return os.path.isdir(folder / NORMAL) or os.path.isdir(folder / ANOMALY)


def is_mask(inside: tuple[str, ...]) -> bool:
    """True for a path (its parts below the category folder) among the masks."""
    return inside[:2] == ("Data", "Masks")


def load_category(folder: Path) -> Category:
    """The samples of one category folder, sorted by path.

    The published one-class split decides which normal images are for fitting. Where split_csv/1cls.csv is not beside
    the category, or does not name it, every tenth normal image in sorted order is for testing, which has the published
    split's size but not its images. Raises DatasetError for tables that are none, and images listed that are absent.
    """
    name = folder.resolve().name
    split = folder.resolve().parent / SPLIT
    kinds = _kinds(folder)
    rows = [row for row in _rows(split, _SPLIT_COLUMNS) if row["object"] == name] if split.is_file() else []
    if rows:
        return _from_split(folder, name, split, rows, kinds)
    normal = _images(folder / NORMAL)
    train = [p for i, p in enumerate(normal) if i % HELD_OUT_EVERY]
    test = [Sample(p, label=0, category=name, split="test") for p in normal[::HELD_OUT_EVERY]]
    masks = masks_by_stem(_images(folder / MASKS), folder / MASKS)
    test += [
        _defective(p, mask_for(p.relative_to(folder / ANOMALY), masks), name, kinds) for p in _images(folder / ANOMALY)
    ]
    return Category([Sample(p, label=0, category=name, split="train") for p in train], test)


def _from_split(folder: Path, name: str, split: Path, rows: list[dict[str, str]], kinds: dict[str, str]) -> Category:
    train: list[Sample] = []
    good: list[Sample] = []
    defective: list[Sample] = []
    for row in sorted(rows, key=lambda row: row["image"]):
        image = _inside(folder, row["image"])
        if row["label"] != "normal":
            mask = _inside(folder, row["mask"]) if row.get("mask") else None
            defective.append(_defective(image, mask if mask and mask.is_file() else None, name, kinds))
        elif row["split"] == "train":
            train.append(Sample(image, label=0, category=name, split="train"))
        else:
            good.append(Sample(image, label=0, category=name, split="test"))
    absent = [s.name for s in (*train, *good, *defective) if not Path(s.name).is_file()]
    if absent:
        raise DatasetError(
            f"the {len(rows)} pictures of {name} that '{shown(split)}' lists",
            f"{len(absent)} missing, first '{shown(absent[0])}'",
            "unpack the dataset again",
        )
    return Category(train, good + defective)


def _defective(image: Path, mask: Path | None, name: str, kinds: dict[str, str]) -> Sample:
    kind = kinds.get(image.name, "anomaly")
    return Sample(image, label=1, mask=mask, category=name, defect=kind, split="test")


def _kinds(folder: Path) -> dict[str, str]:
    """The kind of defect of each defective image by file name, where image_anno.csv names it."""
    table = folder / "image_anno.csv"
    rows = _rows(table, ("image", "label")) if table.is_file() else []
    named = [row for row in rows if row["label"] != "normal"]
    return {Path(row["image"]).name: row["label"] for row in named if ANOMALY.name in Path(row["image"]).parts}


def _rows(table: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a table in which all of `columns` say something."""
    expected, do = f"a table of {', '.join(columns)} in '{shown(table)}'", "restore the file of the dataset"
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, header = list(reader), reader.fieldnames or ()
    except (OSError, ValueError, csv.Error) as error:  # ValueError: bytes that are no UTF-8
        raise DatasetError(expected, str(error), do) from error
    if lacking := [name for name in columns if name not in header]:
        raise DatasetError(expected, f"no column {', '.join(lacking)}", do)
    return [row for row in rows if all(row[name] for name in columns)]


def _inside(folder: Path, listed: str) -> Path:
    """A path listed as <category>/Data/… as a path in `folder`, however the user wrote that."""
    return folder.joinpath(*Path(listed).parts[1:])


def _images(folder: Path) -> list[Path]:
    return find_images(folder) if folder.is_dir() else []
