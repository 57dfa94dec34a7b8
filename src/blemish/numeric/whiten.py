"""Vectors measured by how those of good patches vary: Mahalanobis's distance as a map that lengths can be taken after.

Mahalanobis, "On the generalised distance in statistics", 1936.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST = 0.01  # of the mean variance that is added to every direction's: none is trusted to never vary


class Whiten(nn.Module):
    """`(…, dim)` → `(…, dim)`: every direction divided by its root mean square over good vectors; as is until `learn`.

    What a network that rebuilds features cannot know, such as grain, leaves a long residual in a few directions on
    every good patch. Divided by it, the small residuals in all other directions count as much.
    """

    matrix: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.eye(dim))

    @torch.no_grad()
    def learn(self, moments: Tensor) -> None:
        """Take the directions from `moments` `(dim, dim)`, the mean of v vᵀ over good vectors v."""
        variances, directions = torch.linalg.eigh(moments)
        spread = (variances.clamp_min(0) + LEAST * variances.mean() + 1e-12).sqrt()
        self.matrix.copy_(directions / spread)

    def forward(self, vectors: Tensor) -> Tensor:
        """`vectors` `(…, dim)`, whitened."""
        return vectors @ self.matrix
