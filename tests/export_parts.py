"""Small parts for tests of exporting."""

from __future__ import annotations

import numpy as np

SIDE = 64


def part(seed: int, spot: bool = False, side: int = SIDE) -> np.ndarray:
    """A striped plate `(side, side, 3)` uint8, with a dark spot or without."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    image = 120 + 40 * np.sin(x / 3.0)[..., None] + rng.normal(0, 4, (side, side, 3))
    if spot:
        image[(y - 40) ** 2 + (x - 24) ** 2 < 30] = 10
    return image.clip(0, 255).astype(np.uint8)
