"""An encoder's layers as patches on one grid: each averaged over its neighbourhood, resized, then concatenated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from blemish.numeric.grids import on_coarsest
from blemish.types import resize_to_finest

Grid = Literal["finest", "coarsest"]


def concatenate_layers(
    layers: Sequence[Tensor], neighbourhood_size: int = 1, grid: Grid = "finest", unit: bool = False
) -> Tensor:
    """Layers, each `(B, h, w, D)` on its own grid → `(B, h, w, ΣD)` on one of their grids.

    Each is averaged over squares of `neighbourhood_size` patches' side (odd), and, where `unit`, made unit length. On
    the "finest" grid coarser layers are interpolated, on the "coarsest" finer ones averaged down.
    """
    ready = [_averaged(layer.float(), neighbourhood_size) for layer in layers]  # each (B, h, w, D)
    ready = [normalize(layer, dim=-1) for layer in ready] if unit else ready
    ready = list(on_coarsest(ready)) if grid == "coarsest" else resize_to_finest(ready)
    return ready[0] if len(ready) == 1 else torch.cat(ready, dim=-1)  # (B, h, w, ΣD)


def _averaged(layer: Tensor, side: int) -> Tensor:
    """`layer` `(B, h, w, D)`, each patch the mean of the square of `side` patches around it that lie on the grid."""
    if side == 1:
        return layer
    planes = layer.permute(0, 3, 1, 2)  # (B, D, h, w)
    means = avg_pool2d(planes, side, stride=1, padding=side // 2, count_include_pad=False)  # (B, D, h, w)
    return means.permute(0, 2, 3, 1)  # (B, h, w, D)
