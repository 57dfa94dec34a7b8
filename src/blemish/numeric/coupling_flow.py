"""A convolutional normalising flow of affine coupling blocks: maps features invertibly to a standard Gaussian.

Dinh, Sohl-Dickstein & Bengio, "Density Estimation Using Real NVP", ICLR 2017 (https://arxiv.org/abs/1605.08803). The
conditions, the two-sided blocks and the clamped scales are those of Rudolph et al., WACV 2023
(https://arxiv.org/abs/2210.07829).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

CLAMP = 1.9  # published: log scales lie within ± CLAMP


class CouplingBlock(nn.Module):
    """Permutes the channels, then scales and shifts each half by what a convolutional network makes of the other one.

    `channels` ≥ 2 of the features and `condition` of what both networks see beside them; `hidden` is the width of their
    one hidden layer. Before training a block only permutes.
    """

    permutation: Tensor

    def __init__(self, channels: int, condition: int, hidden: int) -> None:
        super().__init__()
        self.halves = channels // 2, channels - channels // 2
        first, second = self.halves
        self.for_first = _subnetwork(second + condition, hidden, first)
        self.for_second = _subnetwork(first + condition, hidden, second)
        self.register_buffer("permutation", torch.randperm(channels))  # drawn once, kept with the weights

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """`x` `(B, C, h, w)` → the block's output of the same shape, and log|det J| of every position `(B, h, w)`."""
        first, second = x[:, self.permutation].split(self.halves, dim=1)
        log_scale, shift = _scale_and_shift(self.for_first, second, condition)  # (B, C / 2, h, w) each
        first, log_det = first * log_scale.exp() + shift, log_scale.sum(1)
        log_scale, shift = _scale_and_shift(self.for_second, first, condition)
        second, log_det = second * log_scale.exp() + shift, log_det + log_scale.sum(1)
        return torch.cat([first, second], dim=1), log_det

    def inverse(self, y: Tensor, condition: Tensor) -> Tensor:
        """The input `(B, C, h, w)` of which `forward` makes `y`."""
        first, second = y.split(self.halves, dim=1)
        log_scale, shift = _scale_and_shift(self.for_second, first, condition)
        second = (second - shift) * (-log_scale).exp()
        log_scale, shift = _scale_and_shift(self.for_first, second, condition)
        first = (first - shift) * (-log_scale).exp()
        return torch.cat([first, second], dim=1)[:, self.permutation.argsort()]


class CouplingFlow(nn.Module):
    """`blocks` coupling blocks in a row, under one condition; see `CouplingBlock`."""

    def __init__(self, channels: int, condition: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CouplingBlock(channels, condition, hidden) for _ in range(blocks))

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """`x` `(B, C, h, w)`, `condition` `(B, K, h, w)` → z `(B, C, h, w)` and log|det dz/dx| by position `(B, h, w)`.

        The sum over positions is the log-determinant of the whole map's Jacobian.
        """
        log_det = torch.zeros_like(x[:, 0])
        for block in self.blocks:
            x, more = block(x, condition)
            log_det = log_det + more
        return x, log_det

    def inverse(self, z: Tensor, condition: Tensor) -> Tensor:
        """The features `(B, C, h, w)` of which `forward` makes `z`."""
        for block in reversed(self.blocks):
            assert isinstance(block, CouplingBlock)
            z = block.inverse(z, condition)
        return z


def negative_log_likelihood(z: Tensor, log_det: Tensor) -> Tensor:
    """½‖z‖² − log|det J| of every position `(B, h, w)`, in nats: under a standard Gaussian, but for a constant."""
    return z.square().sum(1) / 2 - log_det


def soft_clamped(x: Tensor) -> Tensor:
    """`x` within ± CLAMP, smoothly, by an arc tangent."""
    return CLAMP * 2 / math.pi * torch.atan(x / CLAMP)


def _subnetwork(enter: int, hidden: int, leave: int) -> nn.Sequential:
    """Two 3 × 3 convolutions; the last one starts at 0, so that scales are 1 and shifts 0."""
    last = nn.Conv2d(hidden, 2 * leave, 3, padding=1)
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Conv2d(enter, hidden, 3, padding=1), nn.LeakyReLU(), last)


def _scale_and_shift(network: nn.Module, other: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
    """The log scale and the shift of one half, `(B, C / 2, h, w)` each, in its precision also under autocast."""
    raw, shift = network(torch.cat([other, condition], dim=1)).to(other.dtype).chunk(2, dim=1)
    return soft_clamped(raw), shift
