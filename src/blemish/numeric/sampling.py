"""A uniform random sample of a stream of rows in bounded memory (reservoir sampling; Vitter, ACM TOMS 1985)."""

from __future__ import annotations

import torch
from torch import Tensor


class ReservoirSample:
    """A uniform sample of at most `size` rows of a stream: each gets a random number, the smallest stay."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.random = torch.Generator().manual_seed(seed)
        self.parts: list[tuple[Tensor, Tensor]] = []  # rows (n, D), numbers (n,)
        self.held = 0

    def add(self, rows: Tensor) -> None:
        """Take rows `(n, D)` of the stream in."""
        self.parts.append((rows, torch.rand(len(rows), generator=self.random)))
        self.held += len(rows)
        if self.held >= 2 * self.size:
            self._shrink()

    def limit(self, size: int) -> None:
        """From now on at most `size` rows stay, of those that came before as well."""
        self.size = size
        if self.held > size:
            self._shrink()

    def rows(self) -> Tensor:
        """The sample `(at most size, D)`, in the order the rows came."""
        self._shrink()
        return self.parts[0][0]

    def _shrink(self) -> None:
        rows, numbers = torch.cat([p[0] for p in self.parts]), torch.cat([p[1] for p in self.parts])
        if len(rows) > self.size:
            kept = numbers.topk(self.size, largest=False).indices.sort().values  # in the order they came
            rows, numbers = rows[kept.to(rows.device)], numbers[kept]
        self.parts, self.held = [(rows, numbers)], len(rows)
