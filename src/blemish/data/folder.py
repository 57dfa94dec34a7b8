"""What a user's paths mean: the good images to learn from, or the images to inspect."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from blemish.data.files import existing_folder, find_images, shown
from blemish.data.layouts import LAYOUTS, category_folders, layout_of, load_dataset
from blemish.errors import DatasetError
from blemish.types import Sample

GOOD_NAMES = frozenset({"good", "ok", "normal"})
DEFECT_NAMES = frozenset(
    {
        "anomalous",
        "anomaly",
        "abnormal",
        "bad",
        "defect",
        "defective",
        "defects",
        "fail",
        "failed",
        "faulty",
        "ko",
        "ng",
    }
    | {"nok", "reject", "rejected", "rejects", "scrap", "ground_truth", "mask", "masks"}
)

Paths = Path | str | Sequence[Path | str]


def normal_samples(paths: Paths) -> list[Sample]:
    """The samples to learn from (label 0, split "train") that `paths` mean, each image once, in the order given.

    A path is an image, a folder of good images at any depth (category None), a category folder (its train/good
    alone), or a dataset root (train/good of every category, with the category set).

    Raises DatasetError for a path that is not there, a folder without images, and one that holds defective
    images or masks: by its layout, by a name such as "defect", or as a neighbour of a folder called "good".
    """
    return _unique(sample for path in _listed(paths) for sample in _good_at(path))


def inspection_samples(paths: Paths) -> list[Sample]:
    """The samples to inspect that `paths` mean, each image once, in the order given.

    A path is an image (whatever its suffix), a dataset root or category folder (its test images, with what is known
    about them), or any other folder (all its images at any depth, nothing known about them).

    Raises DatasetError for a path that is not there and a folder without images.
    """
    return _unique(sample for path in _listed(paths) for sample in _all_at(path))


def _good_at(path: Path) -> list[Sample]:
    if os.path.isdir(path) and category_folders(path):
        return [sample for category in load_dataset(path).categories.values() for sample in category.train]
    found = _images_at(path)
    _refuse_known_defects(path, found)
    scans = _scans_at(path, found)
    if scans is not None:
        return [replace(scan, split="train") for scan in scans]
    if os.path.isdir(path):
        _refuse_telling_names(path, found)
    return [Sample(image, label=0, split="train") for image in found]


def _all_at(path: Path) -> list[Sample]:
    folders = category_folders(path) if os.path.isdir(path) else {}
    if not folders:
        found = _images_at(path)
        scans = _scans_at(path, found)
        return [Sample(image) for image in found] if scans is None else scans
    samples = [s for folder in folders.values() for s in LAYOUTS[str(layout_of(folder))].load_category(folder).test]
    if not samples:
        raise DatasetError(
            f"test pictures in '{shown(path)}'", "a dataset with none", "give the folder of pictures to inspect"
        )
    return samples


def _images_at(path: Path) -> list[Path]:
    if os.path.isfile(path):
        return [path]
    found = find_images(existing_folder(path))
    if not found:
        others = sum(len(files) for _, _, files in os.walk(path))
        raise DatasetError(
            f"pictures in the folder '{shown(path)}'",
            f"{others} other files and no picture" if others else "an empty folder",
            "check the path; .png, .jpg, .bmp, .tif, .webp and others are read",
        )
    return found


def _category_around(path: Path) -> Path | None:
    """The category folder that `path` is or lies in."""
    place = path.resolve()
    return next((a for a in (place, *place.parents) if layout_of(a)), None)


def _scans_at(path: Path, found: list[Path]) -> list[Sample] | None:
    """The samples of the images `found` at `path`, each with its points, when they lie in a dataset that has points.

    Files of points, masks and further images of the same part are no samples of their own.
    """
    folder = _category_around(path)
    layout = None if folder is None else LAYOUTS[str(layout_of(folder))]
    if folder is None or layout is None or not getattr(layout, "HAS_POINTS", False):
        return None
    category = layout.load_category(folder)
    known = {sample.image: sample for sample in (*category.train, *category.validation, *category.test)}
    place = path.resolve()
    scans = [known[place / image.relative_to(path)] for image in found if place / image.relative_to(path) in known]
    if not scans:
        raise DatasetError(
            f"pictures of parts in '{shown(path)}'",
            "points, masks or unlabelled parts alone",
            f"give '{shown(folder)}', or the folder of one split of it",
        )
    return scans


def _refuse_known_defects(path: Path, found: list[Path]) -> None:
    """Refuse images that the dataset they lie in calls defective, and its masks."""
    place, folder = path.resolve(), _category_around(path)
    if folder is None:
        return
    layout = LAYOUTS[str(layout_of(folder))]
    defective = {sample.image for sample in layout.load_category(folder).defective}
    here = [place / image.relative_to(path) for image in found]
    wrong = [p for p in here if p in defective or layout.is_mask(p.relative_to(folder).parts)]
    if wrong:
        raise DatasetError(
            f"good pictures in '{shown(path)}'",
            f"{len(wrong)} of {len(found)} that are defective or masks, first '{shown(wrong[0].relative_to(folder))}'",
            f"give '{shown(folder)}', of which only the good pictures are learned",
        )


def _refuse_telling_names(folder: Path, found: list[Path]) -> None:
    """Refuse folders whose names say that not all images in them are good."""
    neighbours: dict[Path, set[str]] = {}
    for image in found:
        for place in image.relative_to(folder).parents:
            if place.name:
                neighbours.setdefault(place.parent, set()).add(place.name)
    named = {name for names in neighbours.values() for name in names} | {folder.resolve().name}
    telling = sorted(name for name in named if name.lower() in DEFECT_NAMES)
    for names in neighbours.values():
        if any(name.lower() in GOOD_NAMES for name in names):
            telling += sorted(name for name in names if name.lower() not in GOOD_NAMES and name not in telling)
    if telling:
        raise DatasetError(
            f"good pictures alone in '{shown(folder)}'",
            f"folders that seem to hold other ones: {', '.join(shown(name) for name in telling)}",
            "give the folder of good pictures alone (or rename it, if its pictures are good)",
        )


def _listed(paths: Paths) -> list[Path]:
    listed = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not listed:
        raise DatasetError("at least one path", "none", "name a picture or a folder")
    return [Path(os.path.expanduser(path)) for path in listed]


def _unique(samples: Iterable[Sample]) -> list[Sample]:
    return list({sample.name: sample for sample in samples}.values())
