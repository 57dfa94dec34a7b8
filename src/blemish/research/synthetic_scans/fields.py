"""Random fields over the plane and signed distances of flat shapes, functions of millimetres at any resolution.

Value noise on a lattice, in the spirit of Perlin (An image synthesizer, SIGGRAPH 1985).
"""

from __future__ import annotations

import numpy as np

KNOTS = 64  # knots of a lattice a side, after which it repeats


class Noise:
    """A smooth field, about standard normal, whose bumps are `cell` millimetres wide; octaves add finer ones."""

    def __init__(self, rng: np.random.Generator, cell: float, octaves: int = 2) -> None:
        self.cell = cell
        self.tables = rng.standard_normal((octaves, KNOTS * KNOTS)).astype(np.float32)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        shares = [0.5**octave for octave in range(len(self.tables))]
        scale = (
            1.6 / np.sqrt(sum(share * share for share in shares)).item()
        )  # interpolation lowers the standard deviation
        total = np.zeros_like(x)
        for octave, table in enumerate(self.tables):
            finer = 2**octave / self.cell
            total += (scale * shares[octave]) * _lattice(table, x * finer, y * finer)
        return total


def _lattice(table: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The knots of `table` interpolated smoothly at (x, y), in cells."""
    left, top = np.floor(x), np.floor(y)
    u, v = x - left, y - top
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    column, row = left.astype(np.int32) % KNOTS, top.astype(np.int32) % KNOTS
    beside, row, below = (column + 1) % KNOTS, row * KNOTS, (row + 1) % KNOTS * KNOTS
    upper = table[row + column] * (1 - u) + table[row + beside] * u
    lower = table[below + column] * (1 - u) + table[below + beside] * u
    return np.asarray(upper * (1 - v) + lower * v)


def smoothstep(distance: np.ndarray, width: float) -> np.ndarray:
    """1 inside, 0 outside, smooth over `width` millimetres around the outline."""
    t = np.clip(0.5 - distance / width, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def edge_drop(distance: np.ndarray, radius: float) -> np.ndarray:
    """How far a fillet of `radius` has dropped at a signed distance from the outline (negative inside)."""
    beyond = np.clip(radius + distance, 0, radius)
    return np.asarray(radius - np.sqrt(np.maximum(radius * radius - beyond * beyond, 0)))


def box(x: np.ndarray, y: np.ndarray, half_x: float, half_y: float, corner: float = 0.0) -> np.ndarray:
    """Signed distance from a rectangle with rounded corners around the origin."""
    across, down = np.abs(x) - (half_x - corner), np.abs(y) - (half_y - corner)
    outside = np.hypot(np.maximum(across, 0), np.maximum(down, 0))
    return np.asarray(outside + np.minimum(np.maximum(across, down), 0) - corner)


def star(x: np.ndarray, y: np.ndarray, radius: float, points: int, depth: float, sharp: float = 1.0) -> np.ndarray:
    """Distance, along the ray from the origin, from a circle whose radius swings by `depth` for each of its points.

    `sharp` above 1 turns the swing's waves into flat-topped teeth.
    """
    wave = np.cos(points * np.arctan2(y, x))
    return np.asarray(np.hypot(x, y) - radius - depth * np.clip(sharp * wave, -1, 1))
