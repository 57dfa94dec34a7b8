"""Patches on grids: layers of different strides brought onto one grid, means over squares, and random windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d


def on_coarsest(layers: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Layers `(B, h, w, D)`, each of its own grid and width, averaged down to the grid with the fewest patches."""
    coarse = min(((layer.shape[1], layer.shape[2]) for layer in layers), key=lambda grid: grid[0] * grid[1])
    return tuple(averaged_to(layer, coarse) for layer in layers)


def averaged_to(layer: Tensor, grid: tuple[int, int]) -> Tensor:
    """A layer `(B, h, w, D)` averaged down to a `grid` (h', w'): `(B, h', w', D)`."""
    if tuple(layer.shape[1:3]) == grid:
        return layer
    return adaptive_avg_pool2d(layer.permute(0, 3, 1, 2), grid).permute(0, 2, 3, 1)


def box_mean(planes: Tensor, side: int) -> Tensor:
    """Planes `(…, h, w)`, of three or four dimensions, each value the mean of the square of `side` (odd) around it, as
    far as that lies on the grid."""
    return avg_pool2d(planes, side, stride=1, padding=side // 2, count_include_pad=False)


def random_window(grid: tuple[int, int], side: int) -> tuple[slice, slice, slice]:
    """The index of a square of `side` patches at a random place of `(B, h, w, …)`, smaller where the grid is."""
    top, left = (int(torch.randint(max(0, length - side) + 1, ())) for length in grid)
    return slice(None), slice(top, top + side), slice(left, left + side)
