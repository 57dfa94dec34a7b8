"""An encoder's layers as patches on one grid, each layer averaged over its neighbourhood before they are joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from blemish.numeric.grids import on_coarsest
from blemish.types import RGB, Features

Grid = Literal["finest", "coarsest"]


def joined(layers: Sequence[Tensor], aggregation: int = 1, grid: Grid = "finest", unit: bool = False) -> Tensor:
    """Layers, each `(B, h, w, D)` on its own grid → `(B, h, w, ΣD)` on one of their grids.

    Each is averaged over squares of `aggregation` patches' side (odd), and, where `unit`, made unit length. On the
    "finest" grid coarser layers are interpolated, on the "coarsest" finer ones averaged down.
    """
    ready = [_aggregated(layer.float(), aggregation) for layer in layers]
    ready = [normalize(layer, dim=-1) for layer in ready] if unit else ready
    ready = list(on_coarsest(ready)) if grid == "coarsest" else ready
    return Features({RGB: tuple(ready)})[RGB]


def _aggregated(layer: Tensor, side: int) -> Tensor:
    if side == 1:
        return layer
    planes = layer.permute(0, 3, 1, 2)
    return avg_pool2d(planes, side, stride=1, padding=side // 2, count_include_pad=False).permute(0, 2, 3, 1)
