"""Which patches of a grid an ignored area touches; `Features.ignored_on` by numpy, for who has no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def ignored_patches(pixels: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """The patches `(h, w)` bool of a `grid` (h, w) that are not judged, from ignored `pixels` `(H, W)` bool.

    They are those that ignored pixels touch and their neighbours; without the neighbours where nothing would be left.
    """
    rows = np.stack([pixels[top:bottom].any(axis=0) for top, bottom in _cells(pixels.shape[0], grid[0])])  # (h, W)
    touched = np.stack([rows[:, left:right].any(axis=1) for left, right in _cells(pixels.shape[1], grid[1])], axis=1)
    framed = np.pad(touched, 1)  # (h + 2, w + 2)
    height, width = touched.shape
    grown = np.logical_or.reduce([framed[y : y + height, x : x + width] for y in range(3) for x in range(3)])  # (h, w)
    return touched if grown.all() else grown


def _cells(length: int, count: int) -> list[tuple[int, int]]:
    """The pixels of each of `count` patches along a side of `length`; spans overlap where it does not divide."""
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
