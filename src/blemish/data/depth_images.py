"""Depth images and height maps as points: one number a pixel, and what the numbers mean (`types.ScanGeometry`).

A depth image is unprojected through its camera (camera.py). A height map, as laser profilers make it, has steps:
column, row and level times millimetres; up is towards the viewer, so z is minus the height. Nothing was measured where
a level is 0, NaN or infinite, or the largest of its type (the smallest, too, of signed ones).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from blemish.data.camera import unprojected
from blemish.data.files import shown
from blemish.data.readers.base import check_pixels, reading
from blemish.errors import ImageError
from blemish.types import UNITS, ScanGeometry

DEPTH_SUFFIXES = frozenset({".png", ".pgm"})  # of depth images, beside those of arrays


def read_depth_image(path: Path, max_pixels: int | None = None) -> np.ndarray:
    """The levels `(H, W)` of a PNG or PGM of 16 bits. Raises ImageError, which names the file."""
    with reading(path, "a depth picture"), Image.open(path, formats=("PNG", "PPM")) as image:
        check_pixels(image.height, image.width, shown(path), max_pixels)
        mode, levels = image.mode, np.asarray(image)
    if mode != "I" and not mode.startswith("I;16"):
        raise ImageError(
            f"depth as 16-bit grey in '{shown(path)}'",
            f"a picture of mode {mode}",
            "save what the camera measured, not a picture of it for people",
        )
    return levels if mode != "I" else levels.astype(np.uint16) if 0 <= levels.min() <= levels.max() < 65536 else levels


def points_of_levels(
    levels: np.ndarray, name: str, units: str | None, geometry: ScanGeometry | None
) -> tuple[np.ndarray, str | None]:
    """The points `(H, W, 3)` float64 of a depth image or height map `(H, W)`, NaN in the holes, and their unit.

    The unit is None where nobody stated one. Raises ImageError where it is not known what a level means.
    """
    if levels.dtype.kind not in "uif":
        raise ImageError(f"depth as whole numbers or floats in '{name}'", str(levels.dtype), "convert it")
    is_whole = levels.dtype.kind in "ui"
    with np.errstate(invalid="ignore"):
        hole = ~np.isfinite(levels) | (levels == 0)
    if is_whole:
        limits = np.iinfo(levels.dtype)
        hole |= (levels == limits.max) | (levels == limits.min)
    depth = np.where(hole, np.nan, levels.astype(np.float64))  # (H, W)
    if geometry is not None and geometry.mm_per_pixel is not None:
        return _steps(depth, geometry.mm_per_pixel), "mm"
    if geometry is None or geometry.camera is None:
        raise ImageError(
            f"points of shape (H, W, 3) in '{name}', or what made its one channel",
            f"shape {levels.shape} alone",
            "state the depth camera, --intrinsics FILE or fx,fy,cx,cy; or, of a height map, --mm-per-pixel x,y,z",
        )
    if geometry.depth_scale is None:
        if is_whole and units is None:
            raise ImageError(
                f"what one level of depth is in '{name}'",
                f"whole numbers up to {int(levels[~hole].max()) if not hole.all() else 0:,} and no unit",
                "state it: --units mm, or --depth-scale 0.001 (metres a level; 0.0001 for 0.1 mm)",
            )
        return unprojected(depth, geometry.camera, name), units
    return unprojected(depth * geometry.depth_scale, geometry.camera, name), units or "m"


def check_depth_scale(geometry: ScanGeometry | None, units: str | None) -> None:
    """Raise SettingsError for levels of a metre and more: some programs count levels a metre instead."""
    scale = None if geometry is None else geometry.depth_scale
    if scale is not None and scale * UNITS[units or "m"] >= 1:
        from blemish.errors import SettingsError

        raise SettingsError(
            "a --depth-scale below 1 metre a level",
            f"{scale:g} {units or 'm'}",
            f"if it is {scale:g} levels a metre, as Open3D counts, write {1 / scale:g}; if levels are mm, --units mm",
        )


def _steps(levels: np.ndarray, mm: tuple[float, float, float]) -> np.ndarray:
    """The points `(H, W, 3)` in millimetres of a height map `(H, W)`."""
    height, width = levels.shape
    x, y = np.meshgrid(np.arange(width) * mm[0], np.arange(height) * mm[1])
    return np.stack([x, y, -levels * mm[2]], axis=-1)
