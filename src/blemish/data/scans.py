"""An image and the points measured with it on one grid: a scan, `(H, W, 6)` float32.

Its layers are R, G, B in 0..255, then x, y, z in metres, NaN where nothing was measured. A missing modality is NaN all
over.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from blemish.data.files import shown
from blemish.data.images import load_image
from blemish.data.points import load_points, measured, resize_points
from blemish.errors import ImageError
from blemish.types import Sample

LAYERS = 6


def load_scan(sample: Sample) -> np.ndarray:
    """The scan `(H, W, 6)` float32 of a sample, at its image's size.

    Points of another size but the same shape are brought to the image's by nearest neighbour. A sample without
    points has none anywhere, one without an image has its points' size. A sample whose image is an array `(H, W, 6)`
    is a scan already; its points may lack, or its image, but not both.

    Raises ImageError for files that are not there or cannot be read, and for points that belong to another image.
    """
    if isinstance(sample.image, np.ndarray) and sample.image.ndim == 3 and sample.image.shape[2] == LAYERS:
        return _checked(sample.image)
    if sample.image is None:
        points = load_points(_given(sample))
        return np.concatenate([np.full_like(points, np.nan), points], axis=2)
    image = load_image(sample.image)
    scan = np.full((*image.shape[:2], LAYERS), np.nan, dtype=np.float32)
    scan[..., :3] = image
    if sample.points is not None:
        points = load_points(sample.points)
        if not _same_shape(points.shape[:2], image.shape[:2]):
            raise ImageError(
                f"points of the shape of their picture '{shown(sample.name)}', {_size(image)},"
                f" in '{'array' if isinstance(sample.points, np.ndarray) else shown(sample.points)}'",
                _size(points),
                "give the points that were measured with this picture, on its grid",
            )
        scan[..., 3:] = resize_points(points, image.shape[:2])
    return scan


def _given(sample: Sample) -> Path | np.ndarray:
    if sample.points is None:
        raise ImageError("a sample with a picture, points, or both", "neither", "leave it out")
    return sample.points


def _checked(scan: np.ndarray) -> np.ndarray:
    """A scan from memory, its points checked as those of a file would be."""
    image, points = scan[..., :3], scan[..., 3:]
    missing = np.isnan(image)
    if missing.all() and not measured(points).any():
        raise ImageError("a scan with a picture, points, or both", "nothing but NaN", "leave it out")
    if not missing.all() and (missing.any() or image.min() < 0 or image.max() > 255):
        raise ImageError(
            "R, G, B in 0..255 in the first three layers of a scan, or NaN all over",
            f"{int(missing.any(axis=-1).sum())} pixels with NaN, values in"
            f" [{np.nanmin(image):g}, {np.nanmax(image):g}]",
            "put the picture's 8-bit values there",
        )
    checked = np.array(scan, dtype=np.float32)
    checked[..., 3:] = load_points(points) if measured(points).any() else np.nan
    return checked


def _same_shape(size: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """True where one grid is the other scaled, but for the rounding of a pixel."""
    (height, width), (h, w) = size, other
    return abs(height * w - h * width) <= max(width, w, height, h) / 2 if size != other else True


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
