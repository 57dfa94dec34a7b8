"""Perturbed copies of a normal image: the same part, placed and lit a little differently.

They stand in for further normal images where hardly any are given. A copy scores lower than a new part does; a
threshold from copies must allow for that (see scoring/calibration.py). numpy and pillow only.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageFilter

from blemish.numeric.organised_points import resampled
from blemish.types import ImageOrScan, Scan

_T = TypeVar("_T", bound=ImageOrScan)

# Chosen by hand as what varies between images of one fixture and lamp; no benchmark set them.
TURN = 4.0  # degrees, at most, either way
SHIFT = 0.02  # share of the image's sides
ZOOM = 0.03  # share, larger or smaller
LIGHT = 0.08  # share, brighter or darker; contrast alike
COLOUR = 0.02  # share, each channel on its own


def slight_copies(image: _T, count: int, seed: int) -> list[_T]:
    """`count` copies of `image` `(H, W, 3)` uint8, each moved, turned, zoomed, lit and blurred anew.

    The same `seed` gives the same copies. What comes into view at the border mirrors the image. Of a Scan the points
    move along with the pixels, and nothing is measured beyond the border.
    """
    random = np.random.default_rng(seed)
    copy: Any = _scan_copy if isinstance(image, Scan) else _copy
    return [copy(image, random) for _ in range(count)]


def _copy(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    return _changed(image, _drawn_coefficients(height, width, random), random)


def _scan_copy(scan: Scan, random: np.random.Generator) -> Scan:
    coefficients = _drawn_coefficients(*scan.shape, random)
    return Scan(scan.image, scan.xyz).map(
        rgb=lambda rgb: _changed(rgb, coefficients, random),
        xyz=lambda xyz: _resampled(xyz, coefficients).astype(np.float32),
    )


# Where each pixel of a copy comes from, centres at ½, ½: (x, y) of the image, widened by `_border` on every side, is
# (a x + b y + c, d x + e y + f).
AffineCoefficients = tuple[float, float, float, float, float, float]


def _border(height: int, width: int) -> int:
    return math.ceil(0.12 * max(height, width))  # covers turn, shift and zoom together


def _drawn_coefficients(height: int, width: int, random: np.random.Generator) -> AffineCoefficients:
    border = _border(height, width)
    angle, zoom = math.radians(random.uniform(-TURN, TURN)), 1 + random.uniform(-ZOOM, ZOOM)
    dx, dy = random.uniform(-SHIFT, SHIFT, size=2) * (width, height)
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    x, y = width / 2, height / 2
    return cos, sin, border + x - cos * x - sin * y + dx, -sin, cos, border + y + sin * x - cos * y + dy


def _changed(image: np.ndarray, coefficients: AffineCoefficients, random: np.random.Generator) -> np.ndarray:
    """The image `(H, W, 3)` uint8 resampled by `coefficients`, lit and blurred anew."""
    height, width = image.shape[:2]
    border = _border(height, width)
    wide = np.pad(image, ((border, border), (border, border), (0, 0)), mode="symmetric")
    pil_image = Image.fromarray(wide).transform(
        (width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
    )
    if random.random() < 0.5:
        pil_image = pil_image.filter(ImageFilter.GaussianBlur(random.uniform(0, 0.002) * max(height, width)))
    values = np.asarray(pil_image, dtype=np.float32)
    gain = (1 + random.uniform(-COLOUR, COLOUR, size=3)) * (1 + random.uniform(-LIGHT, LIGHT))
    contrast = 1 + random.uniform(-LIGHT, LIGHT)
    mean = values.mean()
    values = (values * gain - mean) * contrast + mean
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def _resampled(points: np.ndarray, coefficients: AffineCoefficients) -> np.ndarray:
    """Points `(H, W, 3)` resampled by `coefficients`; NaN outside."""
    height, width = points.shape[:2]
    a, b, c, d, e, f = coefficients
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    past = 0.5 + _border(height, width)
    return resampled(points, a * x + b * y + c - past, d * x + e * y + f - past)
