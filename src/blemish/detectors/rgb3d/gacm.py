"""GACM, the geometry-aware crossmodal mapper: image features → point features, gated by their geometric component.

Li, Ye, Yu, Xie & Shen, "Text-Guided Multimodal Unified Industrial Anomaly Detection", arXiv 2604.22899, 2026
(https://arxiv.org/abs/2604.22899), section III-A, equations (1) to (4); see text_guided.py for the whole method.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from blemish.numeric.perceptron import perceptron


class GACM(nn.Module):
    """`(…, image_dim)` → `(…, point_dim)`: R(f) + GELU(LN(g ⊙ G + s ⊙ (1 − G))).

    s = φ_s(f) is the semantic and g = φ_g(f) the geometric component of image features f, G = sigmoid(W_g g) the
    geometry prior gate, R a linear residual. φ_s and φ_g are linear, as published, or perceptrons with one hidden layer
    of `hidden_width`.
    """

    def __init__(self, image_dim: int, point_dim: int, hidden_width: int | None = None) -> None:
        super().__init__()
        self.semantic = _embedding(image_dim, point_dim, hidden_width)  # φ_s
        self.geometric = _embedding(image_dim, point_dim, hidden_width)  # φ_g
        self.gate = nn.Linear(point_dim, point_dim, bias=False)  # W_g
        self.norm = nn.LayerNorm(point_dim)
        self.residual = nn.Linear(image_dim, point_dim)  # R

    def forward(self, image: Tensor) -> Tensor:
        """Image features `(…, image_dim)` → predicted point features `(…, point_dim)`."""
        semantic, geometric = self.semantic(image), self.geometric(image)  # (…, point_dim), equations (1) and (2)
        gate = torch.sigmoid(self.gate(geometric))  # (…, point_dim)
        fused = geometric * gate + semantic * (1 - gate)  # equation (3)
        predicted: Tensor = self.residual(image) + gelu(self.norm(fused))  # (…, point_dim), equation (4)
        return predicted


def _embedding(enter: int, leave: int, hidden_width: int | None) -> nn.Module:
    return perceptron(enter, hidden_width, leave) if hidden_width else nn.Linear(enter, leave)
