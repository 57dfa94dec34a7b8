"""Images and the points measured with them in parallel folders, such as rgb/000.png beside xyz/000.tiff."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from blemish.data.data_warnings import warn
from blemish.data.files import find_files, is_image_name, shown, subfolders
from blemish.data.points_files import is_points_name
from blemish.errors import DatasetError
from blemish.types import Sample

# Names of folders of images, and of points, that lie side by side; MVTec 3D-AD has rgb and xyz.
IMAGE_FOLDERS = frozenset({"rgb", "image", "images", "color", "colour"})
POINTS_FOLDERS = frozenset({"xyz", "points", "pointcloud", "point_cloud", "cloud"})


@dataclass(frozen=True)
class Pair:
    """The files of one scan. `stem` is what they share: their path in the folder of each kind, without its ending.

    One of the two is None where there is no such file.
    """

    stem: Path
    image: Path | None
    points: Path | None


def pairs_in(images: Path, points: Path) -> list[Pair]:
    """The scans whose files lie in the folders `images` and `points`, at any depth, sorted by stem."""
    seen, measured = _by_stem(images, is_image_name), _by_stem(points, is_points_name)
    return [Pair(stem, seen.get(stem), measured.get(stem)) for stem in sorted(seen.keys() | measured.keys())]


def warn_of_halves(pairs: Iterable[Pair], images: Path, points: Path) -> None:
    """Give a DataWarning for every scan that lacks its image or its points: it names both files."""
    for pair in pairs:
        if pair.points is None and pair.image is not None:
            warn_of_half(pair.image, "points", points / pair.stem)
        elif pair.image is None and pair.points is not None:
            warn_of_half(pair.points, "picture", images / pair.stem)


def warn_of_half(file: Path, lacking: str, absent: Path) -> None:
    """Give a DataWarning that a scan of which there is `file` lacks its "points" or "picture", expected at `absent`."""
    warn("incomplete", shown(file), f"is a scan without its {lacking}: nothing at '{shown(absent)}'")


def loose_scans(files: Sequence[Path], within: Path) -> list[Sample] | None:
    """The scans that image `files` belong to where they lie in parallel folders of images and points, else None.

    Folders are parallel where one is called as in `IMAGE_FOLDERS` and one beside it as in `POINTS_FOLDERS`; their
    files are paired by name. Each scan is given once, in the order of `files`; a file outside is an image alone. A
    scan of which one file is missing is given as it is, with a DataWarning, points without their image last where they
    lie in the folder `within`.
    """
    places = {place: parallel_folders(place) for place in dict.fromkeys(file.parent for file in files)}
    by_file: dict[Path, Sample] = {}
    asked = set(files)
    for images, points in dict.fromkeys(found for found in places.values() if found is not None):
        pairs = [
            pair
            for pair in pairs_in(images, points)
            if {pair.image, pair.points} & asked or (pair.image is None and points.is_relative_to(within))
        ]
        warn_of_halves(pairs, images, points)
        for pair in pairs:
            sample = Sample(pair.image, pair.points)
            by_file |= {file: sample for file in (pair.image, pair.points) if file is not None}
    if not by_file:
        return None
    known = (by_file.get(file) or Sample(file) for file in files)
    return list(dict.fromkeys((*known, *(sample for sample in by_file.values() if sample.image is None))))


def parallel_folders(place: Path) -> tuple[Path, Path] | None:
    """The folder of images and that of points of which `place` is one or lies in one; None where there is no pair."""
    for folder in (place, *place.parents):
        is_image, is_points = (folder.name.lower() in names for names in (IMAGE_FOLDERS, POINTS_FOLDERS))
        if not (is_image or is_points):
            continue
        wanted = POINTS_FOLDERS if is_image else IMAGE_FOLDERS
        try:
            beside = [other for other in subfolders(folder.parent) if other.name.lower() in wanted]
        except DatasetError:  # a folder that may not be read
            continue
        if len(beside) == 1:
            return (folder, beside[0]) if is_image else (beside[0], folder)
    return None


def _by_stem(folder: Path, is_wanted: Callable[[str], bool]) -> dict[Path, Path]:
    files = find_files(folder, is_wanted) if folder.is_dir() else []
    return {file.relative_to(folder).with_suffix(""): file for file in files}
