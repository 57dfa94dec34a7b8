"""A sample as the one array that a detector wants: its image, or image and points together as a scan (scans.py)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blemish.data.images import load_image
from blemish.data.scans import LAYERS, load_scan
from blemish.errors import ImageError
from blemish.types import POINTS, RGB, Sample


def load_sample(sample: Sample, modalities: Sequence[str] = (RGB,)) -> np.ndarray:
    """The image `(H, W, 3)` uint8, or a scan `(H, W, 6)` float32 where the `modalities` wanted include points.

    Raises ImageError, which names the file, for what cannot be read, and for points alone where an image is wanted.
    """
    if POINTS not in modalities:
        return image_of(sample)
    return load_scan(sample)


def image_of(sample: Sample) -> np.ndarray:
    """The sample's image `(H, W, 3)` uint8. Raises ImageError where it has points alone."""
    if isinstance(sample.image, np.ndarray) and is_scan(sample.image):
        image = colours_of(sample.image)
    else:
        image = None if sample.image is None else load_image(sample.image)
    if image is None:
        raise ImageError("a picture", f"points alone, {sample.name}", "give a picture, or use a model of points")
    return image


def has_points(sample: Sample) -> bool:
    """Whether the sample brings points, beside its image or in a scan."""
    return sample.points is not None or (isinstance(sample.image, np.ndarray) and is_scan(sample.image))


def is_scan(array: np.ndarray) -> bool:
    """Whether an array holds image and points."""
    return array.ndim == 3 and array.shape[2] == LAYERS


def colours_of(array: np.ndarray) -> np.ndarray | None:
    """The image `(H, W, 3)` uint8 in an image or scan; None where a scan has no image."""
    if not is_scan(array):
        return array
    colours = array[..., :3]
    if np.isnan(colours).all():
        return None
    return np.clip(np.nan_to_num(colours) + 0.5, 0, 255).astype(np.uint8)


def shown(array: np.ndarray) -> np.ndarray:
    """What people can look at, `(H, W, 3)` uint8: the image, or the depth in grey where there are points alone."""
    image = colours_of(array)
    return depth_in_grey(array[..., 3:]) if image is None else image


def depth_in_grey(points: np.ndarray) -> np.ndarray:
    """Points `(H, W, 3)` as `(H, W, 3)` uint8: near is bright, nothing measured is black."""
    depth = points[..., 2]
    known = np.isfinite(depth)
    if not known.any():
        return np.zeros(points.shape, np.uint8)
    low, high = np.percentile(depth[known], (1, 99))
    bright = 255 - 200 * np.clip((np.nan_to_num(depth) - low) / max(high - low, 1e-9), 0, 1)
    return np.repeat(np.where(known, bright, 0).astype(np.uint8)[..., None], 3, axis=2)
