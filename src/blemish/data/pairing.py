"""Images and the points measured with them: parallel folders, such as rgb/000.png beside xyz/000.tiff, and files side
by side, such as 000.png and 000.ply, or 000_rgb.png and 000_depth.png (or rgb_000, depth_000)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from blemish.data.clouds import has_colours, is_cloud_name
from blemish.data.data_warnings import warn
from blemish.data.files import files_in, find_files, is_image_name, shown, subfolders
from blemish.data.points_files import DEPTH_FOLDERS, is_depth_name, is_points_name
from blemish.data.readers.base import points_shape
from blemish.errors import DatasetError
from blemish.types import Sample

# Names of folders of images, and of points, that lie side by side; MVTec 3D-AD has rgb and xyz.
IMAGE_FOLDERS = frozenset({"rgb", "image", "images", "color", "colour"})
POINTS_FOLDERS = frozenset({"xyz", "points", "pointcloud", "point_cloud", "cloud", "ply", "pcd"}) | DEPTH_FOLDERS
# Words that begin or end the names of files side by side.
_IMAGE_WORDS = frozenset({"rgb", "image", "img", "color", "colour", "picture", "texture"})
_POINTS_WORDS = frozenset({"depth", "xyz", "points", "cloud", "pointcloud", "pcl", "height", "heightmap"})
_WORD_LAST, _WORD_FIRST = re.compile(r"(?:(.*)[-_. ])?([A-Za-z]+)"), re.compile(r"([A-Za-z]+)[-_. ](.*)")


@dataclass(frozen=True)
class Pair:
    """The files of one scan. `stem` is what they share: their path in the folder of each kind, without its ending.

    One of the two is None where there is no such file.
    """

    stem: Path
    image: Path | None
    points: Path | None


class _NamedAlike(NamedTuple):
    """The files of one folder by what their names share: its images, its files of points, and the names of scans."""

    images: dict[str, Path]
    points: dict[str, list[Path]]  # the best one first
    scans: set[str]  # of which there are both


class FoldersRead:
    """What lies in folders of scans, each read once, however many paths in it are asked about."""

    def __init__(self) -> None:
        self.named_alike = cache(_named_alike)
        self.parallel_folders = cache(parallel_folders)
        self.pair_of = cache(_pair_of)


def pairs_in(images: Path, points: Path) -> list[Pair]:
    """The scans whose files lie in the folders `images` and `points`, at any depth, sorted by stem."""
    is_wanted = is_depth_name if points.name.lower() in DEPTH_FOLDERS else is_points_name
    seen, measured = _by_stem(images, is_image_name), _by_stem(points, is_wanted)
    return [Pair(stem, seen.get(stem), measured.get(stem)) for stem in sorted(seen.keys() | measured.keys())]


def _pair_of(images: Path, points: Path) -> dict[Path, Pair]:
    """Each file of the folders `images` and `points`, and the scan that it belongs to."""
    pairs = pairs_in(images, points)
    return {file: pair for pair in pairs for file in (pair.image, pair.points) if file is not None}


def warn_of_halves(pairs: Iterable[Pair], images: Path, points: Path) -> None:
    """Give a DataWarning for every scan that lacks its image or its points: it names both files."""
    for pair in pairs:
        if pair.points is None and pair.image is not None:
            warn_of_half(pair.image, "points", points / pair.stem)
        elif pair.image is None and pair.points is not None and not has_colours(pair.points):
            warn_of_half(pair.points, "picture", images / pair.stem)


def warn_of_half(file: Path, lacking: str, absent: Path) -> None:
    """Give a DataWarning that a scan of which there is `file` lacks its "points" or "picture", expected at `absent`."""
    warn("incomplete", shown(file), f"is a scan without its {lacking}: nothing at '{shown(absent)}'")


def loose_scans(
    files: Sequence[Path], within: Path, clouds: Sequence[Path] = (), read: FoldersRead | None = None
) -> list[Sample] | None:
    """The scans that image `files` and `clouds` belong to, where any has points; else None.

    Folders are parallel where one is called as in `IMAGE_FOLDERS` and one beside it as in `POINTS_FOLDERS`; their
    files are paired by name. Elsewhere files of one folder are paired that are called alike but for a word that says
    what they hold, or for their ending. Each scan is given once, in the order of `files`; a file outside is an image
    alone. A scan of which one file is missing is given as it is, with a DataWarning, points without their image last
    where they lie in the folder `within`. Clouds in a folder of images none of which belongs to one are left out.
    `read` keeps what lies in the folders for further calls.
    """
    read = read or FoldersRead()
    files = list(dict.fromkeys((*files, *clouds)))
    by_place: dict[Path, list[Path]] = {}
    for file in files:
        by_place.setdefault(file.parent, []).append(file)
    places = {place: read.parallel_folders(place) for place in by_place}
    by_file: dict[Path, Sample] = {}
    for images, points in dict.fromkeys(found for found in places.values() if found is not None):
        pair_of = read.pair_of(images, points)
        pairs = {pair_of[file] for file in files if file in pair_of}
        if points.is_relative_to(within):
            pairs |= {pair for pair in pair_of.values() if pair.image is None}
        in_order = sorted(pairs, key=lambda pair: pair.stem)
        warn_of_halves(in_order, images, points)
        for pair in in_order:
            sample = Sample(pair.image, pair.points)
            by_file |= {file: sample for file in (pair.image, pair.points) if file is not None}
    for place, members in by_place.items():
        if places[place] is None and any(file not in by_file for file in members):
            by_file |= _side_by_side(members, place, read)
    if not by_file:
        return None
    known = (by_file.get(file) or Sample(file) for file in files if file in by_file or not is_cloud_name(file.name))
    return list(dict.fromkeys((*known, *(sample for sample in by_file.values() if sample.image is None))))


def _side_by_side(files: Sequence[Path], place: Path, read: FoldersRead) -> dict[Path, Sample]:
    """The scans that `files` in the folder `place` belong to, by file; those beside them are looked at as well.

    Of several files of points of one scan a cloud goes before arrays, arrays before depth images.
    """
    images, points, scans = read.named_alike(place)
    by_file: dict[Path, Sample] = {}
    for core in dict.fromkeys(core_of(file.stem)[0] for file in files):
        if core in scans:
            sample = Sample(images[core], points[core][0])
            by_file |= dict.fromkeys((images[core], *points[core]), sample)
    alone = [file for file in files if is_cloud_name(file.name) and file not in by_file]
    if not scans and any(not is_cloud_name(file.name) for file in files):
        return {}  # images, and clouds that have nothing to do with them
    for file in alone:
        if not has_colours(file):
            warn_of_half(file, "picture", place / core_of(file.stem)[0])
        by_file[file] = Sample(None, file)
    for file in files if scans else ():
        core, kind = core_of(file.stem)
        if file not in by_file and kind == "points":
            warn_of_half(file, "picture", place / core)
            by_file[file] = Sample(None, file)
        elif file not in by_file:
            warn_of_half(file, "points", place / core)
            by_file[file] = Sample(file)
    return by_file


def _named_alike(place: Path) -> _NamedAlike:
    images: dict[str, list[Path]] = {}
    points: dict[str, list[Path]] = {}
    for file in files_in(place):
        core, kind = core_of(file.stem)
        if is_cloud_name(file.name) or (kind == "points" and is_depth_name(file.name)):
            points.setdefault(core, []).append(file)
        elif is_image_name(file.name) or is_points_name(file.name):
            images.setdefault(core, []).append(file)
    for core, found in images.items():  # a TIFF or an array of points beside the image it is called like
        measured = [file for file in found if len(found) > 1 and is_points_name(file.name) and points_shape(file)]
        if len(measured) < len(found):
            points.setdefault(core, []).extend(measured)
            images[core] = [file for file in found if file not in measured]
    ranked = {core: sorted(found, key=_rank) for core, found in points.items() if found}
    first = {core: sorted(found, key=lambda f: (core_of(f.stem)[1] != "image", f))[0] for core, found in images.items()}
    named = {core: file for core, file in first.items() if is_image_name(file.name)}
    return _NamedAlike(named, ranked, named.keys() & ranked.keys())


def core_of(stem: str) -> tuple[str, str]:
    """What the name of a file shares with those of its scan, and "image" or "points" where a word says what it holds.

    "part7_rgb" and "rgb_part7" are ("part7", "image"), "part7" is ("part7", ""), "depth" ("", "points").
    """
    last, first = _WORD_LAST.fullmatch(stem), _WORD_FIRST.fullmatch(stem)
    for word, core in ((last[2], last[1] or "") if last else ("", ""), (first[1], first[2]) if first else ("", "")):
        if word.lower() in _IMAGE_WORDS | _POINTS_WORDS:
            return core, "image" if word.lower() in _IMAGE_WORDS else "points"
    return stem, ""


def scan_of(files: Sequence[Path]) -> Sample | None:
    """Two files, an image and points, as one scan whatever they are called; None where they are something else.

    So they are where one of them is called like another file beside it, with which it is a scan.
    """
    if len(files) != 2:
        return None
    points = [f for f in files if is_cloud_name(f.name) or (core_of(f.stem)[1] == "points" and is_depth_name(f.name))]
    images = [file for file in files if file not in points and is_image_name(file.name)]
    if not len(points) == len(images) == 1 or any(_has_partner(file) for file in files):
        return None
    return Sample(images[0], points[0])


def _has_partner(file: Path) -> bool:
    return core_of(file.stem)[0] in _named_alike(file.parent).scans


def _rank(file: Path) -> tuple[int, Path]:
    return (0 if is_cloud_name(file.name) else 1 if is_points_name(file.name) else 2), file


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
