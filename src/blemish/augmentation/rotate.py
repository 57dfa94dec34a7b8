"""An image turned about its middle on a canvas of the same size, its corners filled with reflections."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """`image` `(H, W, 3)` uint8, counter-clockwise by `degrees`; same shape, no empty corners.

    Quarter turns of square images and half turns of any are exact; others are resampled bicubically.
    """
    height, width = image.shape[:2]
    quarters = degrees / 90
    if quarters % 2 == 0 or (height == width and quarters % 1 == 0):
        return np.ascontiguousarray(np.rot90(image, int(quarters) % 4))
    reach = math.ceil(math.hypot(height, width) / 2) + 2  # half the side of a square that any turn stays inside
    across, down = max(0, reach - width // 2), max(0, reach - height // 2)
    padded = np.pad(image, ((down, down), (across, across), (0, 0)), mode="symmetric")
    turned = np.asarray(Image.fromarray(padded).rotate(degrees, resample=Image.Resampling.BICUBIC))
    return np.ascontiguousarray(turned[down : down + height, across : across + width])
