"""Scores of any number of images in little memory: how many fell into each of many narrow bins."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

_RATIO = 1.001  # a bin is 0.1 % wide: finer than a bar of any chart, 14,000 bins from 1e-3 to 1e3


class ScoreBins:
    """Counts scores in units of their threshold; bin i holds those in (r^i, r^(i+1)] with r = 1.001.

    The threshold itself is the upper edge of a bin, so that what lies above it is counted exactly.
    """

    def __init__(self) -> None:
        self._counts: Counter[int | None] = Counter()  # None: scores of 0, which have no logarithm

    def add(self, excess: float) -> None:
        """Count one score ≥ 0, given as a multiple of its threshold; smaller ones count as 0."""
        self._counts[math.ceil(math.log(excess) / math.log(_RATIO)) - 1 if excess > 0 else None] += 1

    def __len__(self) -> int:
        return self._counts.total()

    def middles(self) -> tuple[np.ndarray, np.ndarray]:
        """The middle of every bin that holds something, `(m,)` float64, and how many it holds, `(m,)` int64."""
        middles = [0.0 if i is None else _RATIO ** (i + 0.5) for i in self._counts]
        return np.array(middles, np.float64), np.array(list(self._counts.values()), np.int64)
