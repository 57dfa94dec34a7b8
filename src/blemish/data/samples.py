"""A sample as what a detector asks for, an image or a scan; and images or scans as the batch an encoder takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from blemish.data.clouds import has_colours
from blemish.data.full_scale import FullScale
from blemish.data.images import load_image
from blemish.data.scans import load_scan
from blemish.errors import ImageError
from blemish.types import POINTS, RGB, EncoderInput, ImageOrScan, Sample, Scan


def load_sample(sample: Sample, modalities: Sequence[str] = (RGB,), full_scale: FullScale | None = None) -> ImageOrScan:
    """The image `(H, W, 3)` uint8, or a Scan where the `modalities` asked for include points.

    `full_scale` says which level of more than 8 bits is white.
    Raises ImageError, which names the file, for what cannot be read, and for points alone where an image is asked for.
    """
    return load_scan(sample, full_scale) if POINTS in modalities else image_of(sample, full_scale)


def image_of(sample: Sample, full_scale: FullScale | None = None) -> np.ndarray:
    """The sample's image `(H, W, 3)` uint8. Raises ImageError where it has points alone."""
    if sample.image is None and has_image(sample):
        colours = load_scan(sample).image
        assert colours is not None  # the file has some
        return colours
    if sample.image is None:
        raise ImageError("a picture", f"points alone, {sample.name}", "give a picture, or use a model of points")
    return load_image(sample.image, full_scale=full_scale)


def has_image(sample: Sample) -> bool:
    """Whether a sample has an image, be it the colours in its file of points."""
    return sample.image is not None or (isinstance(sample.points, Path) and has_colours(sample.points))


def batch_of(inputs: Sequence[ImageOrScan]) -> EncoderInput:
    """Inputs of one size as an encoder takes them: images as one array `(B, H, W, 3)`, scans as a tuple."""
    scans = tuple(one for one in inputs if isinstance(one, Scan))
    return scans if scans else np.stack([one for one in inputs if not isinstance(one, Scan)])


def as_rgb(seen: ImageOrScan) -> np.ndarray:
    """What people can look at, `(H, W, 3)` uint8: the image, or the depth in grey where a scan has points alone."""
    if not isinstance(seen, Scan):
        return seen
    if seen.image is not None:
        return seen.image
    assert seen.xyz is not None  # a scan has one of the two
    return depth_in_grey(seen.xyz)


def depth_in_grey(points: np.ndarray) -> np.ndarray:
    """Points `(H, W, 3)` as `(H, W, 3)` uint8: near is bright, nothing measured is black.

    The nearest and farthest 1 % are clipped, so that single outliers do not take up the range.
    """
    depth = points[..., 2]
    known = np.isfinite(depth)
    if not known.any():
        return np.zeros(points.shape, np.uint8)
    low, high = np.percentile(depth[known], (1, 99))
    bright = 255 - 200 * np.clip((np.nan_to_num(depth) - low) / max(high - low, 1e-9), 0, 1)
    return np.repeat(np.where(known, bright, 0).astype(np.uint8)[..., None], 3, axis=2)
