"""Colours and their local statistics as patch features: no weights, no hub; the fallback and the encoder of tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from blemish.encoders.base import LayerRole
from blemish.encoders.image.frozen import FrozenEncoder, NetworkOutput
from blemish.encoders.layers import resolve_layers
from blemish.encoders.precision import Precision

PATCH = 8
STATISTICS = 15  # per colour: mean, spread, minimum, maximum, edge strength
ROLES: dict[LayerRole, tuple[int, ...]] = {
    "deep": (0,),
    "projection": (0,),
    "pair": (0, 1),
    "middle": (0, 1),
    "several": (0, 1),
    "many": (0, 1),
    "quarters": (0, 1),
}


def load_pixels(
    name: str = "pixels",
    *,
    role: LayerRole = "deep",
    layers: Sequence[int] | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
) -> FrozenEncoder:
    """Layer 0 describes patches of 8 × 8 px, layer 1 of 16 × 16 px. `precision` has no effect: it is always fp32."""
    taken = resolve_layers(layers, ROLES[role], 2, name)
    return FrozenEncoder(
        PatchStatistics(taken),
        name=name,
        layers=taken,
        stride=PATCH << taken[0],
        size_multiple=PATCH << taken[-1],
        dims=(STATISTICS,) * len(taken),
        licence="none needed",
        weights_sha256="none",
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        device=device,
        precision="fp32",
    )


class PatchStatistics(nn.Module):
    """Mean, spread, minimum, maximum and edge strength of each colour in square patches."""

    def __init__(self, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: torch.Tensor) -> NetworkOutput:
        edges = _edges(images)  # (B, 3, H, W)
        return tuple(self._statistics(images, edges, PATCH << layer) for layer in self.layers)

    def _statistics(self, images: torch.Tensor, edges: torch.Tensor, side: int) -> torch.Tensor:
        mean = F.avg_pool2d(images, side)  # (B, 3, h, w)
        spread = (F.avg_pool2d(images**2, side) - mean**2).clamp(min=0).sqrt()
        low, high = -F.max_pool2d(-images, side), F.max_pool2d(images, side)
        return torch.cat([mean, spread, low, high, F.avg_pool2d(edges, side)], dim=1).permute(0, 2, 3, 1)


def _edges(images: torch.Tensor) -> torch.Tensor:
    """Absolute differences to the right and lower neighbour, added; `(B, 3, H, W)`, 0 at the far borders."""
    across = F.pad((images[..., 1:] - images[..., :-1]).abs(), (0, 1))
    down = F.pad((images[..., 1:, :] - images[..., :-1, :]).abs(), (0, 0, 0, 1))
    return across + down
