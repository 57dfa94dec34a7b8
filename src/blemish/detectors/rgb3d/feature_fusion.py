"""Unsupervised feature fusion (UFF) of M3DM: image and point features of a patch learn to agree.

Wang, Peng, Zhang, Yi, Wang & Wang, "Multimodal Industrial Anomaly Detection via Hybrid Fusion", CVPR 2023
(https://arxiv.org/abs/2303.00601). Two perceptrons χ, whose outputs side by side are the
fused features, and two linear heads σ for training alone:

    h = σ(χ(features)) / ‖·‖ of either modality
    L = − mean over patches j of log( exp(h_rgb(j) · h_pt(j) / τ) / Σ_k exp(h_rgb(j) · h_pt(k) / τ) )     (InfoNCE)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from blemish.numeric.perceptron import perceptron
from blemish.numeric.standardise import RARE, Standardise

HEAD_WIDTH = 256  # published
EXPANSION = 4  # published: the hidden layers of χ over its input


class FeatureFusion(nn.Module):
    """Image features (D1) and point features (D2), standardised over normal patches, → fused features (D1 + D2).

    χ is LayerNorm → Linear → GELU → Linear, of the width of its input, as in the code that the authors published.
    """

    def __init__(self, dims: tuple[int, int], temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.image_standard, self.points_standard = (Standardise(dim, RARE) for dim in dims)
        self.image, self.points = (
            nn.Sequential(nn.LayerNorm(dim), *perceptron(dim, EXPANSION * dim, dim)) for dim in dims
        )
        self.image_head, self.points_head = (nn.Linear(dim, HEAD_WIDTH) for dim in dims)

    def forward(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """χ_rgb and χ_pt of N patches: `(N, D1)` and `(N, D2)` → the same shapes."""
        return self.image(self.image_standard(image)), self.points(self.points_standard(points))

    def fused(self, image: Tensor, points: Tensor) -> Tensor:
        """Fused features `(N, D1 + D2)` of N patches, `(N, D1)` and `(N, D2)`."""
        return torch.cat(self(image, points), dim=-1)

    def loss(self, image: Tensor, points: Tensor) -> Tensor:
        """InfoNCE of N patch pairs, `(N, D1)` and `(N, D2)`; a scalar."""
        own_image, own_points = self(image, points)
        return info_nce(self.image_head(own_image).float(), self.points_head(own_points).float(), self.temperature)


def info_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """How badly each query `(N, E)` picks its own key among all `(N, E)` by cosine: the mean of −log, a scalar."""
    logits = normalize(queries, dim=-1) @ normalize(keys, dim=-1).T / temperature  # (N, N)
    return cross_entropy(logits, torch.arange(len(logits), device=logits.device))
