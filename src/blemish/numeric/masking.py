"""Which patches of a grid are hidden: at random in training, by complementary patterns at inspection.

Random masks as in He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022; patches are hidden in
squares, because a defect is larger than a patch.
"""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor


def random_mask(grid: tuple[int, int], share: float, side: int = 1) -> Tensor:
    """About `share` of the patches of a grid `(h, w)`, in squares of `side` patches, as `(h·w,)` bool.

    The squares lie anywhere, at least one is hidden and, where there are several, at least one is not.
    """
    side = _fitting(side, grid)
    start = torch.randint(side, (2,))
    rows, columns = (((torch.arange(n) + int(s)) // side) for n, s in zip(grid, start, strict=True))
    squares = (rows[:, None] * (int(columns[-1]) + 1) + columns).flatten()  # (h·w,)
    count = int(squares[-1]) + 1
    hidden = min(max(1, round(share * count)), max(1, count - 1))
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[torch.randperm(count)[:hidden]] = True
    return chosen[squares]


def complementary_masks(grid: tuple[int, int], count: int, side: int = 1) -> Tensor:
    """`count` masks of a grid `(h, w)` in squares of `side` patches, `(count, h·w)` bool: each patch is in one of them.

    The squares of a mask are evenly spaced: along a row every `count`-th is hidden, and the next row is shifted.
    """
    side = _fitting(side, grid)
    rows, columns = (torch.arange(n) // side for n in grid)
    number = ((rows[:, None] * isqrt(count) + columns) % count).flatten()  # (h·w,)
    return number == torch.arange(count)[:, None]


def _fitting(side: int, grid: tuple[int, int]) -> int:
    """`side`, or less where a square would fill the grid."""
    return max(1, min(side, max(grid) // 2))
