"""A sample's image and measured points, read and laid on one grid as a `Scan`."""

from __future__ import annotations

import numpy as np

from blemish.data.files import shown
from blemish.data.full_scale import FullScale
from blemish.data.images import load_image
from blemish.data.points import load_surface, resize_points
from blemish.errors import ImageError
from blemish.numeric.organised_points import enlarged
from blemish.types import Sample, Scan


def load_scan(sample: Sample, full_scale: FullScale | None = None) -> Scan:
    """The scan of a sample, `(H, W)` being its image's size, or that of its points where it has no image.

    `full_scale` says which level is white in images of more than 8 bits.
    Where there is no image, the colours in the file of points are taken for it, if it holds any.
    Points of another size but the same aspect ratio are brought to the image's size: more of them by nearest neighbour,
    fewer by `enlarged` of numeric/organised_points.py, between neighbours on one surface.

    Raises ImageError for files that are not there or cannot be read, and for points that belong to another image.
    """
    image = None if sample.image is None else load_image(sample.image, full_scale=full_scale)
    surface = None if sample.points is None else load_surface(sample.points, None, sample.units, sample.geometry)
    points = None if surface is None else surface.points
    if image is None and surface is not None:
        image = surface.rgb
    if image is not None and points is not None:
        if not _same_aspect(points.shape[:2], image.shape[:2]):
            raise ImageError(
                f"points of the shape of their picture '{shown(sample.name)}', {_size(image)},"
                f" in '{'array' if isinstance(sample.points, np.ndarray) else shown(str(sample.points))}'",
                _size(points),
                "give the points that were measured with this picture, on its grid",
            )
        points = _on_grid(points, (image.shape[0], image.shape[1]))
    return Scan(image, points)


def _on_grid(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The points `(H, W, 3)` on a grid `(h, w)` over the same area."""
    if points.shape[0] * points.shape[1] >= size[0] * size[1]:
        return resize_points(points, size)
    return enlarged(points, size)


def _same_aspect(size: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """True where one grid is the other scaled, but for the rounding of a pixel."""
    (height, width), (h, w) = size, other
    return abs(height * w - h * width) <= max(width, w, height, h) / 2 if size != other else True


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
