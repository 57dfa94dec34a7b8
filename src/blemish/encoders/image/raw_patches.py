"""Squares of raw pixels as patch features: what a transformer on pixels sees; no weights, no hub."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import pixel_unshuffle

from blemish.encoders.base import LayerRole
from blemish.encoders.image.frozen import FrozenEncoder, NetworkOutput
from blemish.encoders.layers import resolve_layers
from blemish.encoders.precision import Precision


def load_patches(
    name: str = "patches",
    *,
    role: LayerRole = "deep",
    layers: Sequence[int] | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
    side: int = 16,
) -> FrozenEncoder:
    """The one layer holds the RGB values, in [0, 1], of squares of `side` × `side` px, colour by colour.

    Every `role` gets that layer. `precision` has no effect: it is always fp32.
    """
    return FrozenEncoder(
        PixelSquares(side),
        name=name,
        layers=resolve_layers(layers, (0,), 1, name),
        stride=side,
        size_multiple=side,
        dims=(3 * side * side,),
        licence="none needed",
        weights_sha256="none",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        device=device,
        precision="fp32",
    )


class PixelSquares(nn.Module):
    """The values of every square of `side` pixels, `(B, 3, H, W)` → `(B, h, w, 3·side²)`."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: torch.Tensor) -> NetworkOutput:
        return (pixel_unshuffle(images, self.side).permute(0, 2, 3, 1),)  # (B, h, w, D)
