"""Where a patch lies in the image, as sines and cosines (Vaswani et al., NeurIPS 2017), on any grid."""

from __future__ import annotations

import torch
from torch import Tensor

EXTENT = 14.0  # the side of an image in the units of the sines: neighbours differ on grids of up to 40 patches


def sine_positions(grid: tuple[int, int], width: int) -> Tensor:
    """`(h, w, width)`: half of the channels encode the row, half the column.

    Places are counted in shares of the image, so that the same place has the same position on every grid.
    """
    waves = -(-width // 4)
    frequency = 10000 ** -(torch.arange(waves) / waves)
    down, across = (torch.outer((torch.arange(n) + 0.5) * (EXTENT / n), frequency) for n in grid)  # (n, waves)
    parts = [wave[:, None].expand(*grid, waves) for wave in (down.sin(), down.cos())]
    parts += [wave[None].expand(*grid, waves) for wave in (across.sin(), across.cos())]
    return torch.cat(parts, dim=-1)[..., :width]
