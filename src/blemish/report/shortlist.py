"""The few most notable of very many things: a heap of bounded size."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")


class Shortlist(Generic[T]):
    """Keeps the `most` things with the largest score, of equal ones those that came first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._heap)

    def takes(self, score: float) -> bool:
        """Whether a thing of this score would be kept: ask before making one that costs something."""
        return len(self._heap) < self.most or (self.most > 0 and score > self._heap[0][0])

    def add(self, score: float, thing: T) -> None:
        """Keep a thing if its score belongs to the largest."""
        if self.takes(score):
            self._count += 1
            heapq.heappush(self._heap, (score, -self._count, thing))
            if len(self._heap) > self.most:
                heapq.heappop(self._heap)

    def largest_first(self) -> list[T]:
        """What is kept, from the largest score down."""
        return [thing for _, _, thing in sorted(self._heap, key=lambda kept: kept[:2], reverse=True)]
