"""Slightly changed copies of a good picture: the same part, put down and lit a little differently.

They stand in for further good parts where hardly any are given. A copy looks more familiar than a new part does, so
whoever draws a limit from copies must allow for that (see calibration.py). numpy and pillow only.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

TURN = 4.0  # degrees, at most, either way
SHIFT = 0.02  # share of the picture's sides
ZOOM = 0.03  # share, larger or smaller
LIGHT = 0.08  # share, brighter or darker; contrast alike
COLOUR = 0.02  # share, each channel on its own


def slight_copies(picture: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """`count` copies of `picture` `(H, W, 3)` uint8, each moved, turned, zoomed, lit and blurred anew.

    The same `seed` gives the same copies. What comes into view at the border mirrors the picture.
    """
    random = np.random.default_rng(seed)
    return [_copy(picture, random) for _ in range(count)]


def _copy(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    height, width = picture.shape[:2]
    border = math.ceil(0.12 * max(height, width))  # covers turn, shift and zoom together
    wide = np.pad(picture, ((border, border), (border, border), (0, 0)), mode="symmetric")
    angle, zoom = math.radians(random.uniform(-TURN, TURN)), 1 + random.uniform(-ZOOM, ZOOM)
    dx, dy = random.uniform(-SHIFT, SHIFT, size=2) * (width, height)
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    x, y = width / 2, height / 2
    back = (cos, sin, border + x - cos * x - sin * y + dx, -sin, cos, border + y + sin * x - cos * y + dy)
    image = Image.fromarray(wide).transform((width, height), Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)
    if random.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0, 0.002) * max(height, width)))
    values = np.asarray(image, dtype=np.float32)
    gain = (1 + random.uniform(-COLOUR, COLOUR, size=3)) * (1 + random.uniform(-LIGHT, LIGHT))
    contrast = 1 + random.uniform(-LIGHT, LIGHT)
    mean = values.mean()
    values = (values * gain - mean) * contrast + mean
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)
