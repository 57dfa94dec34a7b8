"""Whitening by the second moments of normal patches: the length of a whitened vector is its Mahalanobis distance.

Mahalanobis, "On the generalised distance in statistics", 1936.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST = 0.01  # of the mean variance that is added to every direction's: none is trusted to never vary


class Whiten(nn.Module):
    """`(…, dim)` → `(…, dim)`: every direction divided by its root mean square on normal patches; initially identity.

    What a network that reconstructs features cannot predict, such as grain, leaves a long residual in a few directions
    on every normal patch. Divided by it, the small residuals in all other directions count as much.
    """

    matrix: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.eye(dim))

    @torch.no_grad()
    def fit(self, moments: Tensor) -> None:
        """Take the directions from `moments` `(dim, dim)`, the mean of v vᵀ over normal patches."""
        variances, directions = torch.linalg.eigh(moments)
        std = (variances.clamp_min(0) + LEAST * variances.mean() + 1e-12).sqrt()
        self.matrix.copy_(directions / std)

    def forward(self, vectors: Tensor) -> Tensor:
        """`vectors` `(…, dim)`, whitened."""
        return vectors @ self.matrix
