"""Networks that see every channel of the good patches with mean 0 and spread 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEAST_SPREAD = 1e-6  # of a channel that never changes


class Standardised(nn.Module):
    """A network over patches of width `dim` that carries their `mean` and `scale` `(dim,)`, 0 and 1 unless set."""

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @torch.no_grad()
    def standardise(self, patches: Tensor) -> None:
        """Take `mean` and `scale` from good patches `(…, dim)`."""
        flat = patches.flatten(0, -2)
        self.mean.copy_(flat.mean(dim=0))
        self.scale.copy_(flat.std(dim=0).clamp_min(_LEAST_SPREAD))

    def standardised(self, patches: Tensor) -> Tensor:
        """Patches `(…, dim)` in standard deviations from the mean."""
        return (patches - self.mean) / self.scale

    def restored(self, patches: Tensor) -> Tensor:
        """The way back from `standardised`."""
        return patches * self.scale + self.mean
