"""The reader of scans in .npz files: xyz or points (H, W, 3), or depth (H, W), and rgb (H, W, 3) where there is one."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blemish.data.files import npy_header
from blemish.errors import ImageError

MAGIC = (b"PK\x03\x04",)
POINTS_KEYS = ("xyz", "points", "pointcloud", "point_cloud", "cloud")
DEPTH_KEYS = ("depth", "height", "heights", "z")
COLOUR_KEYS = ("rgb", "colors", "colours", "color", "colour", "image")


@dataclass(frozen=True, eq=False)
class StoredScan:
    """What a file holds: `points` `(H, W, 3)` or `(N, 3)`, or `depth` `(H, W)`; and `colours` of the same, or None."""

    points: np.ndarray | None
    depth: np.ndarray | None
    colours: np.ndarray | None


def read_npz(path: Path, name: str, check_count: Callable[[int], None]) -> StoredScan:
    """Read the arrays of a scan; `check_count` refuses too many points before they are read. Raises ImageError."""
    with zipfile.ZipFile(path) as archive:
        keys = _keys(archive)
        points, depth, colours = (_key_of(keys, known) for known in (POINTS_KEYS, DEPTH_KEYS, COLOUR_KEYS))
        if points is None and depth is None:
            raise ImageError(
                f"an array called {', '.join(POINTS_KEYS[:2])} or depth in '{name}'",
                ", ".join(list(keys)[:8]) or "none",
                "save it so: numpy.savez(path, xyz=points, rgb=picture)",
            )
        return StoredScan(
            points=None if points is None else _read(archive, points, name, check_count),
            depth=None if depth is None or points is not None else _read(archive, depth, name, check_count),
            colours=None if colours is None else _read(archive, colours, name, check_count),
        )


def has_colours(path: Path) -> bool:
    """Whether a file has an array of colours, by the names in it."""
    with zipfile.ZipFile(path) as archive:
        return _key_of(_keys(archive), COLOUR_KEYS) is not None


def _keys(archive: zipfile.ZipFile) -> dict[str, str]:
    """Names of arrays in lower case → those of their members."""
    members = (member for member in archive.namelist() if member.endswith(".npy"))
    return {member.removesuffix(".npy").lower(): member for member in members}


def _key_of(keys: dict[str, str], known: Sequence[str]) -> str | None:
    return next((keys[name] for name in known if name in keys), None)


def _read(archive: zipfile.ZipFile, member: str, name: str, check_count: Callable[[int], None]) -> np.ndarray:
    """One array, read where its header says that it may be one of a scan."""
    with archive.open(member) as file:
        shape, dtype = npy_header(file)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)) or dtype.kind not in "buif":
        is_first = len(shape) == 3 and shape[0] == 3 and dtype.kind in "buif"
        raise ImageError(
            f"'{member}' as numbers (H, W, 3) or (H, W) in '{name}'",
            f"{dtype} {shape}",
            "put the three numbers of a pixel last: numpy.moveaxis(array, 0, -1)"
            if is_first
            else "save one scan in a file",
        )
    check_count(int(shape[0]) if len(shape) == 2 and shape[1] == 3 else int(shape[0]) * int(shape[1]))
    with archive.open(member) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
