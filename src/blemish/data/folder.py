"""What a user's paths mean: the normal images to fit on, or the images to inspect; and what was not looked at."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from blemish.data.category import Category
from blemish.data.clouds import is_cloud_name
from blemish.data.decoding import pages_of, split_page
from blemish.data.files import FolderContents, existing_folder, is_output, list_folder, shown, stated_path
from blemish.data.layouts import LAYOUTS, OWN_FOLDERS, category_folders, layout_of, load_dataset
from blemish.data.names import check_names, masks_beside, meaning_of
from blemish.data.pairing import FoldersRead, loose_scans, scan_of
from blemish.errors import DatasetError, ImageError, MissingPackageError
from blemish.types import Sample

Paths = Path | str | Sequence[Path | str]

ALL_PAGES = "#*"  # what a path to a file ends in, to mean each of its pages
_TIFF_SUFFIXES = frozenset({".tif", ".tiff"})


@dataclass(frozen=True, eq=False)
class Found:
    """The samples that paths mean, and what else lay there."""

    samples: list[Sample]
    contents: FolderContents


class _Around:
    """The category folders around paths, and what lies in them, each read once, however many paths are given."""

    def __init__(self) -> None:
        self.folders = FoldersRead()
        self.layout_in = cache(_layout_in)
        self._category_of = cache(self._look_up)
        self._loaded = cache(lambda folder: self.layout_in(folder).load_category(folder))
        self.known_in = cache(self._known_in)
        self.defective_in = cache(self._defective_in)

    def category_around(self, path: Path) -> Path | None:
        """The category folder that `path` is, or in whose own folders it lies; what a user put beside them is plain."""
        place = path.resolve()
        if os.path.isdir(place):
            return self._category_of(place)
        folder = self._category_of(place.parent)
        return None if folder == place.parent else folder

    def _look_up(self, place: Path) -> Path | None:
        if layout_of(place):
            return place
        if place == place.parent:
            return None
        folder = self._category_of(place.parent)
        return None if folder == place.parent and place.name not in OWN_FOLDERS else folder

    def _known_in(self, folder: Path) -> dict[Path | np.ndarray, Sample]:
        """The samples of a category folder by their source."""
        category: Category = self._loaded(folder)
        return {sample.source: sample for sample in (*category.train, *category.validation, *category.test)}

    def _defective_in(self, folder: Path) -> set[Path | np.ndarray | None]:
        """The images that a category folder calls defective."""
        category: Category = self._loaded(folder)
        return {sample.image for sample in category.defective}


def normal_samples(paths: Paths) -> list[Sample]:
    """The samples to fit on that `paths` mean; see `find_normal`."""
    return find_normal(paths).samples


def inspection_samples(paths: Paths) -> list[Sample]:
    """The samples to inspect that `paths` mean; see `find_inspection`."""
    return find_inspection(paths).samples


def find_normal(paths: Paths, assume_good: bool = False, pages: bool = False, category: str | None = None) -> Found:
    """The samples to fit on (label 0, split "train") that `paths` mean, each image once, in the order given.

    A path is an image, a page of one ("stack.tif#3", or "#*" for all), a folder of good images at any depth (category
    None), a category folder (its train/good alone), or a dataset root (train/good of every category, with the category
    set). `pages` takes each page of every TIFF. `category` names that of all samples.

    Raises DatasetError for a path that is not there, a folder without images, and one that holds defective images or
    masks: by its layout, or by names (names.py), unless `assume_good` says that all of a plain folder are good; and for
    two categories of one name in different places, unless `category` says that they are one.
    """
    contents, samples = FolderContents(), []
    places: dict[str, Path] = {}
    listed = _listed(paths)
    if (scan := scan_of(listed)) is not None and all(map(os.path.isfile, listed)):
        contents.images += listed
        return Found([replace(scan, label=0, split="train", category=category)], contents)
    around = _Around()
    for path in listed:
        found = _normal_at(path, assume_good, pages, contents, around)
        if category is None:
            _check_apart(found, path, places)
        samples += found if category is None else [replace(sample, category=category) for sample in found]
    return Found(_unique(samples), contents)


def find_inspection(paths: Paths, pages: bool = False) -> Found:
    """The samples to inspect that `paths` mean, each image once, in the order given.

    Two paths of files, an image and points, are one scan. A path is an image (whatever its suffix), a page of one
    ("stack.tif#3", or "#*" for all), a dataset root or category folder (its test images, with what is known about
    them), or any other folder (all its images at any depth but masks, nothing known about them). `pages` takes each
    page of every TIFF.

    Raises DatasetError for a path that is not there and a folder without images.
    """
    contents = FolderContents()
    listed = _listed(paths)
    if (scan := scan_of(listed)) is not None and all(map(os.path.isfile, listed)):
        contents.images += listed
        return Found([scan], contents)
    around = _Around()
    return Found(_unique(s for path in listed for s in _all_at(path, pages, contents, around)), contents)


def _normal_at(path: Path, assume_good: bool, pages: bool, contents: FolderContents, around: _Around) -> list[Sample]:
    if os.path.isdir(path) and category_folders(path):
        contents.add(_others(path))
        return [sample for category in load_dataset(path).categories.values() for sample in category.train]
    found = _contents_at(path)
    _refuse_known_defects(path, found.images, around)
    scans = _scans_at(path, found, around)
    if os.path.isdir(path) and around.category_around(path) is None and not assume_good:
        check_names(path, [*found.images, *found.clouds])
    _leave_out_masks(found, path)
    contents.add(found)
    if scans is not None:
        return [replace(scan, label=0, split="train") for scan in scans]
    return [Sample(image, label=0, split="train") for image in _with_pages(found.images, pages)]


def _all_at(path: Path, pages: bool, contents: FolderContents, around: _Around) -> list[Sample]:
    folders = category_folders(path) if os.path.isdir(path) else {}
    if not folders:
        found = _contents_at(path)
        if around.category_around(path) is None:
            _leave_out_masks(found, path)
        scans = _scans_at(path, found, around)
        contents.add(found)
        return [Sample(image) for image in _with_pages(found.images, pages)] if scans is None else scans
    samples = [s for folder in folders.values() for s in _layout_in(folder).load_category(folder).test]
    contents.add(_others(path))
    if not samples:
        raise DatasetError(
            f"test pictures in '{shown(path)}'", "a dataset with none", "give the folder of pictures to inspect"
        )
    return samples


def _others(dataset: Path) -> FolderContents:
    """What lies in a dataset beside its images."""
    found = list_folder(dataset)
    return FolderContents(ignored=found.ignored, left_out=found.left_out)


def _contents_at(path: Path) -> FolderContents:
    """The images at `path`, a file or a folder, and what else lies there."""
    if str(path).endswith(ALL_PAGES) and os.path.isfile(str(path).removesuffix(ALL_PAGES)):
        return FolderContents(images=pages_of(str(path).removesuffix(ALL_PAGES)))
    if os.path.isfile(split_page(path)[0]):
        is_cloud = is_cloud_name(path.name)
        return FolderContents(images=[] if is_cloud else [path], clouds=[path] if is_cloud else [])
    found = list_folder(existing_folder(path, "a picture or a folder of pictures"))
    if not found.images and not found.clouds:
        others = found.ignored.total()
        empty = "a saved model or results" if found.left_out or is_output(path) else "an empty folder"
        raise DatasetError(
            f"pictures in the folder '{shown(path)}'",
            f"{others} other files and no picture" if others else empty,
            "; ".join(["check the path", *found.words(), ".png, .jpg, .bmp, .tif, .webp and others are read"]),
        )
    return found


def _leave_out_masks(found: FolderContents, path: Path) -> None:
    """Take masks out of the images of a plain folder: those beside an image, and those in folders called so."""
    if not os.path.isdir(path):
        return
    masks = set(masks_beside(found.images))
    masks |= {
        image
        for image in found.images
        if any(meaning_of(part) == "mask" for part in image.relative_to(path).parts[:-1])
    }
    if len(masks) < len(found.images):
        found.masks = [image for image in found.images if image in masks]
        found.images = [image for image in found.images if image not in masks]


def _with_pages(images: Sequence[Path], pages: bool) -> list[Path]:
    if not pages:
        return list(images)
    return [page for image in images for page in _pages(image)]


def _pages(image: Path) -> list[Path]:
    if image.suffix.lower() in _TIFF_SUFFIXES:
        with suppress(ImageError, MissingPackageError):  # loading it says why it cannot be read
            return pages_of(image)
    return [image]


def _check_apart(samples: Sequence[Sample], path: Path, places: dict[str, Path]) -> None:
    """Raise DatasetError where a category has the name of one in another place; `places` are those seen."""
    for name, folder in category_folders(path).items() if samples and os.path.isdir(path) else ():
        other = places.setdefault(name, folder.resolve())
        if other != folder.resolve():
            raise DatasetError(
                f"one category called '{shown(name)}'",
                f"two: '{shown(other)}' and '{shown(folder)}'",
                "rename one of the folders, or name the category (--category) if both hold the same part",
            )


def _layout_in(folder: Path) -> ModuleType:
    """The layout of a category folder."""
    return LAYOUTS[str(layout_of(folder))]


def _scans_at(path: Path, contents: FolderContents, around: _Around) -> list[Sample] | None:
    """The samples of what lies at `path`, each with its points, when it lies in a dataset that has points.

    So do those in parallel folders of images and points, and side by side (pairing.py). Files of points, masks and
    further images of the same part are no samples of their own.
    """
    found = contents.images
    folder = around.category_around(path)
    if folder is None:
        scans = loose_scans(found, path, contents.clouds, around.folders)
        used = {sample.points for sample in scans or ()}
        contents.ignored.update(cloud.suffix.lower() for cloud in contents.clouds if cloud not in used)
        return scans
    if not getattr(around.layout_in(folder), "HAS_POINTS", False):
        return None
    known, place = around.known_in(folder), path.resolve()
    scans = [known[place / image.relative_to(path)] for image in found if place / image.relative_to(path) in known]
    if not scans:
        raise DatasetError(
            f"pictures of parts in '{shown(path)}'",
            "points, masks or unlabelled parts alone",
            f"give '{shown(folder)}', or the folder of one split of it",
        )
    return scans


def _refuse_known_defects(path: Path, found: Sequence[Path], around: _Around) -> None:
    """Refuse images that the dataset they lie in calls defective, and its masks."""
    place, folder = path.resolve(), around.category_around(path)  # links below `path` keep their names
    if folder is None:
        return
    layout, defective = around.layout_in(folder), around.defective_in(folder)
    here = [
        place / image.relative_to(path) if os.path.isdir(path) else split_page(image)[0].resolve() for image in found
    ]
    wrong = [p for p in here if p in defective or layout.is_mask(p.relative_to(folder).parts)]
    if wrong:
        raise DatasetError(
            f"good pictures in '{shown(path)}'",
            f"{len(wrong)} of {len(found)} that are defective or masks, first '{shown(wrong[0].relative_to(folder))}'",
            f"give '{shown(folder)}', of which only the good pictures are learned",
        )


def _listed(paths: Paths) -> list[Path]:
    listed = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not listed:
        raise DatasetError("at least one path", "none", "name a picture or a folder")
    return list({os.path.abspath(path): path for path in map(stated_path, listed)}.values())


def _unique(samples: Iterable[Sample]) -> list[Sample]:
    """Each image once, however its path is written: good/1.png is good/../good/1.png."""
    return list({os.path.abspath(sample.name): sample for sample in samples}.values())
