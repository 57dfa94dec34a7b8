"""Channels brought to mean 0 and spread 1 by what good patches show, and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

RARE = 4.0  # standard deviations from which on good patches are rare


class Standardise(nn.Module):
    """`(x − mean) / scale`, both `(dim,)` and 0 and 1 until `learn`; what lies beyond ± `bound` is brought to it.

    In most vision transformers a few channels are ten times larger than the rest. In histograms some bins are all but
    empty on good patches: a count or two there lies a hundred standard deviations out, and would drown all others.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int, bound: float = math.inf) -> None:
        super().__init__()
        self.bound = bound
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @torch.no_grad()
    def learn(self, patches: Tensor) -> None:
        """Take mean and standard deviation from good patches `(…, dim)`."""
        flat = patches.flatten(0, -2)
        self.mean.copy_(flat.mean(dim=0))
        self.scale.copy_(flat.std(dim=0).clamp_min(1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """`x` `(…, dim)`, standardised."""
        standard = (x - self.mean) / self.scale
        return standard if self.bound == math.inf else standard.clamp(-self.bound, self.bound)

    def back(self, x: Tensor) -> Tensor:
        """What `forward` took away from `x` `(…, dim)`, put back."""
        return x * self.scale + self.mean
