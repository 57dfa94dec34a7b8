"""Drawn parts, good and defective, that tests learn from."""

from __future__ import annotations

import numpy as np


def made_up_part(
    kind: str = "disc", seed: int = 0, defective: bool = False, size: tuple[int, int] = (64, 80)
) -> np.ndarray:
    """A noisy image `size` + (3,) uint8 of a "disc", a "ring" or "stripes"; a defective one has a dark square."""
    random = np.random.default_rng((seed, len(kind)))
    height, width = size
    y, x = np.mgrid[:height, :width]
    radius = np.hypot(y - height / 2, x - width / 2) / min(size)
    image = np.full((*size, 3), 90.0)
    if kind == "disc":
        image[radius < 0.3] = (180, 170, 60)
    elif kind == "ring":
        image[(radius > 0.2) & (radius < 0.4)] = (60, 90, 200)
    else:
        image[(x + y) % 12 < 6] = (200, 30, 160)
    image += random.normal(0, 4, image.shape)
    if defective:
        top, left = int(0.45 * height), int(0.4 * width)
        image[top : top + height // 5, left : left + height // 5] = 5
    return image.clip(0, 255).astype(np.uint8)
