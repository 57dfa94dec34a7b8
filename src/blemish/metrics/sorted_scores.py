"""Scores of good images or pixels, sorted once, and counted below any value.

Every measure in this folder needs only two counts per defective score: how many good scores are smaller, and how many
are smaller or equal. Good scores are many and are sorted by value alone (numpy's vectorised sort); defective ones are
few and are looked up. Counts add up over parts, so the good scores may be sorted in parts, one a thread, never merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from blemish.utils.cores import usable_cores

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class SortedScores:
    """Finite scores in ascending parts; the whole is their union. Parts share one floating type."""

    parts: Sequence[np.ndarray]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def counts(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many scores are `< value` and how many are `<= value`: two `(n,)` int64 arrays.

        `values` is `(n,)`, ascending, not empty, of the parts' own type. Each part is searched only between the
        smallest and the largest value, which keeps the search inside the cache when values come in short runs.
        """
        less = np.zeros(len(values), np.int64)
        up_to = np.zeros(len(values), np.int64)
        for part in self.parts:
            low = int(part.searchsorted(values[0], "left"))
            near = part[low : part.searchsorted(values[-1], "right")]
            left = near.searchsorted(values, "left")
            right = left.copy()
            if len(near):  # a second search only where a good score equals the value
                tied = near[np.minimum(left, len(near) - 1)] == values
                right[tied] = near.searchsorted(values[tied], "right")
            less += left + low
            up_to += right + low
        return less, up_to

    def merged(self) -> np.ndarray:
        """All scores in one ascending array."""
        if len(self.parts) == 1:
            return self.parts[0]
        merged = np.concatenate(self.parts)
        merged.sort()
        return merged


def first_of_ties(ascending: np.ndarray, start: int, stop: int) -> np.ndarray:
    """For positions start…stop of an ascending array: where the run of equal values that each belongs to begins."""
    values = ascending[start:stop]
    begins = np.arange(start, stop)
    begins[1:][values[1:] == values[:-1]] = 0
    begins[0] = ascending.searchsorted(values[0], "left")
    return np.maximum.accumulate(begins)


def available_cpus() -> int:
    """CPUs that this process may use, at most 8: beyond that the memory, not the sort, sets the pace."""
    return min(usable_cores(), 8)


def in_threads(work: Callable[[T], R], items: Iterable[T], threads: int) -> list[R]:
    """`work` over `items` in order; numpy's sorts and searches let other threads run."""
    if threads <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))
