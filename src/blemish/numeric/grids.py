"""Patches on grids: layers of different strides brought onto one grid, and random windows of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d


def on_coarsest(layers: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Layers `(B, h, w, D)`, each of its own grid and width, averaged down to the grid with the fewest patches."""
    coarse = min(((layer.shape[1], layer.shape[2]) for layer in layers), key=lambda grid: grid[0] * grid[1])
    return tuple(_averaged(layer, coarse) for layer in layers)


def _averaged(layer: Tensor, grid: tuple[int, int]) -> Tensor:
    if tuple(layer.shape[1:3]) == grid:
        return layer
    return adaptive_avg_pool2d(layer.permute(0, 3, 1, 2), grid).permute(0, 2, 3, 1)


def random_window(grid: tuple[int, int], side: int) -> tuple[slice, slice, slice]:
    """The index of a square of `side` patches at a random place of `(B, h, w, …)`, smaller where the grid is."""
    top, left = (int(torch.randint(max(0, length - side) + 1, ())) for length in grid)
    return slice(None), slice(top, top + side), slice(left, left + side)
