"""Measured surfaces: every organised point cloud enters blemish here, as `(H, W, 3)` float32 metres.

Organised: one point for each pixel of the image taken with it, as in MVTec 3D-AD (Bergmann et al., VISAPP 2022).
Where nothing was measured there is NaN; files may say so with 0, 0, 0 or with infinity too. Read are TIFF (three
channels of floats), .npy, arrays, and the depth images of Eyecandies (depth.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from blemish.data.depth import is_depth_image, load_depth
from blemish.data.files import shown
from blemish.data.images import check_pixels, reading
from blemish.errors import ImageError
from blemish.utils.optional import need

PointsSource = Path | str | np.ndarray

TIFF_SUFFIXES = (".tif", ".tiff")
LARGEST = 10.0  # metres that a scan may extend, at most: parts are far smaller, in millimetres they are far larger
FARTHEST = 100.0  # metres that it may lie away
_LOOKED_AT = 20_000  # points that tell the unit


def load_points(source: PointsSource, max_pixels: int | None = None) -> np.ndarray:
    """The points as a writable `(H, W, 3)` float32 array in metres, NaN where nothing was measured.

    `source` is a TIFF, a .npy file, NNN_depth.png with NNN_info_depth.yaml beside it, or an array `(H, W, 3)`. A cloud
    of more than `max_pixels` points (None: as for images) is refused before it is read.

    Raises ImageError, which names the file, for what cannot be read, has another shape, holds no point at all, or
    is in millimetres by the look of it; MissingPackageError where TIFFs need a package that is not installed.
    """
    if isinstance(source, np.ndarray):
        return _checked(source, "array")
    path = Path(os.path.expanduser(source))
    name = shown(path)
    if not path.is_file():
        raise ImageError(
            f"points at '{name}'", "a folder or device" if path.exists() else "nothing there", "check the path"
        )
    if path.stat().st_size == 0:
        raise ImageError(f"points in '{name}'", "an empty file (0 bytes)", "copy or record it again")
    if is_depth_image(path):
        return load_depth(path, max_pixels)
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        return _checked(_read_tiff(path, max_pixels), name)
    if suffix == ".npy":
        return _checked(_read_npy(path, max_pixels), name)
    raise ImageError(
        f"points in '{name}' as .tif, .tiff, .npy, or NNN_depth.png with its info file",
        f"a name that ends in '{suffix}'",
        "save the points as .npy: numpy.save(path, points) with points (H, W, 3) in metres",
    )


def measured(points: np.ndarray) -> np.ndarray:
    """Where points `(…, 3)` were measured, `(…)` bool."""
    return np.isfinite(points).all(axis=-1)


def _read_tiff(path: Path, max_pixels: int | None) -> np.ndarray:
    tifffile = need("tifffile", "3d", "points in TIFF files")
    with reading(path, "points"), tifffile.TiffFile(path) as file:
        _check_size(file.series[0].shape, path, max_pixels)
        return np.asarray(file.asarray(series=0))


def _read_npy(path: Path, max_pixels: int | None) -> np.ndarray:
    with reading(path, "points"):
        stored = np.load(path, mmap_mode="r", allow_pickle=False)  # only its header, until its size is known
        _check_size(stored.shape, path, max_pixels)
        return np.array(stored)


def _check_size(shape: tuple[int, ...], path: Path, max_pixels: int | None) -> None:
    if len(shape) >= 2:
        check_pixels(int(shape[0]), int(shape[1]), shown(path), max_pixels)


def _checked(array: np.ndarray, name: str) -> np.ndarray:
    """The array as float32 points with NaN in the holes, when it can be that."""
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        first = array.ndim == 3 and array.shape[0] == 3
        raise ImageError(
            f"points of shape (H, W, 3) in '{name}'",
            f"shape {array.shape}",
            "put x, y, z last: numpy.moveaxis(array, 0, -1)"
            if first
            else "give one point (x, y, z) for each pixel of the picture; a bare list of points has lost its grid",
        )
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise ImageError(f"points of a float type in '{name}'", str(array.dtype), "convert: array.astype('float32')")
    with np.errstate(over="ignore"):
        points = np.array(array, dtype=np.float32)  # a copy: holes are written into it
    hole = ~measured(points) | (points == 0).all(axis=-1)  # (H, W)
    if hole.all():
        raise ImageError(
            f"measured points in '{name}'",
            f"none: all {hole.size:,} are 0, NaN or infinite",
            "scan the part again, or give its picture alone, without points",
        )
    points[hole] = np.nan
    _check_unit(points[~hole], name)
    return points


def _check_unit(points: np.ndarray, name: str) -> None:
    """Refuse points `(N, 3)` that cannot be metres. A few that fly far off do not count."""
    few = points[:: max(1, len(points) // _LOOKED_AT)]
    low, middle, high = np.percentile(few, (2, 50, 98), axis=0)
    extent, away = float((high - low).max()), float(np.abs(middle).max())
    if extent > LARGEST or away > FARTHEST:
        raise ImageError(
            f"points in metres in '{name}'",
            f"a scan that extends {extent:,.4g} and lies {away:,.4g} away, which looks like millimetres",
            "divide the points by 1000",
        )


def resize_points(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`points` (or a mask) `(H, W, …)` at `size` `(h, w)`, each place by its nearest neighbour: none is made up."""
    height, width = points.shape[:2]
    if (height, width) == tuple(size):
        return points
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(np.int64)
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(np.int64)
    return points[rows[:, None], columns]
