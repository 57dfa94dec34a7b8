"""Which files of measured points a user's paths mean, to pretrain a points encoder on: those of normal parts alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blemish.data.depth_images import DEPTH_SUFFIXES
from blemish.data.files import shown
from blemish.errors import DatasetError
from blemish.utils.paths import expanded

SUFFIXES = (".tif", ".tiff", ".npy", ".npz", ".ply", ".pcd")
DEPTH = "_depth.png"  # as Eyecandies has them
DEPTH_FOLDERS = frozenset({"depth", "depths", "height", "heights", "heightmap", "heightmaps"})


def is_points_name(name: str) -> bool:
    """Whether a file of that name may hold points."""
    lower = name.lower()
    return not name.startswith(".") and (lower.endswith(SUFFIXES) or lower.endswith(DEPTH))


def is_depth_name(name: str) -> bool:
    """Whether a file of that name may hold points or depth, in a folder that is called after them."""
    return is_points_name(name) or (not name.startswith(".") and name.lower().endswith(tuple(DEPTH_SUFFIXES)))


def good_points(paths: Sequence[Path]) -> list[Path]:
    """The files of normal parts' points at `paths`, each once, in the order given.

    A path is such a file, or a folder that holds some at any depth. Where a folder has splits, as MVTec 3D-AD and
    Eyecandies do, what lies in "train" is taken and nothing else; upper and lower case are one.

    Raises DatasetError for a path that is not there, a folder without points, and one that holds points of test splits.
    """
    return list(dict.fromkeys(file for path in paths for file in _good_at(expanded(path))))


def _good_at(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(f for f in path.rglob("*") if _is_points_file(f) and f.is_file()) if path.is_dir() else []
    if not found:
        raise DatasetError(
            f"measured points at '{shown(path)}'",
            "a folder without any" if path.is_dir() else "nothing there",
            "give a folder of points or depth, or a category in the layout of MVTec 3D-AD or Eyecandies",
        )
    train = [f for f in found if "train" in _split(f, path)]
    if not train and any(part.startswith("test") for f in found for part in _split(f, path)):
        raise DatasetError(f"points of good parts at '{shown(path)}'", "those of a test split", "give the train folder")
    return train or found


def _is_points_file(file: Path) -> bool:
    in_depth = file.parent.name.lower() in DEPTH_FOLDERS
    return is_depth_name(file.name) if in_depth else is_points_name(file.name)


def _split(file: Path, folder: Path) -> tuple[str, ...]:
    """The folders between `folder`, its own name included, and a file, in lower case."""
    return tuple(name.lower() for name in (folder.resolve().name, *file.relative_to(folder).parts[:-1]))
