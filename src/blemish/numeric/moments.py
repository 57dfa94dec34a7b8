"""Mean and standard deviation of each channel over a stream of rows, which need not fit into memory."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Number, sum and sum of squares of the rows `(n, D)` added so far, in float64."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, rows: Tensor) -> None:
        """Take in rows `(n, D)`, of any number."""
        exact = rows.double()
        self.count += len(rows)
        self.total = self.total.to(exact) + exact.sum(0)  # (D,)
        self.squares = self.squares.to(exact) + exact.square().sum(0)  # (D,)

    @property
    def mean(self) -> Tensor:
        """`(D,)` float64; 0 without rows."""
        return self.total / max(self.count, 1)

    @property
    def std(self) -> Tensor:
        """`(D,)` float64, of the rows as the whole population; 0 without rows."""
        return (self.squares / max(self.count, 1) - self.mean.square()).clamp_min(0).sqrt()
