"""The geometry-aware crossmodal mapper (GACM): image features to point features, by what of them speaks of shape.

Equations (1) to (4) of the text-guided, unified multimodal detector (see text_guided.py): the features are split
into a part that speaks of appearance and one that speaks of geometry; the second one decides, channel by channel, which
of both goes on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from blemish.numeric.perceptron import perceptron


class GeometryMapper(nn.Module):
    """`(…, enter)` → `(…, leave)`: R(f) + GELU(LN(g ⊙ G + s ⊙ (1 − G))), G = sigmoid(W g), s = φ_s(f), g = φ_g(f).

    φ_s and φ_g are linear, as published, or perceptrons with one hidden layer where its `width` is given.
    """

    def __init__(self, enter: int, leave: int, width: int | None = None) -> None:
        super().__init__()
        parts = (perceptron(enter, width, leave) if width else nn.Linear(enter, leave) for _ in range(2))
        self.semantic, self.geometric = parts  # φ_s, φ_g
        self.gate = nn.Linear(leave, leave, bias=False)  # W_g
        self.norm = nn.LayerNorm(leave)
        self.residual = nn.Linear(enter, leave)  # R

    def forward(self, image: Tensor) -> Tensor:
        """`image` `(…, enter)` → what the points' features should be, `(…, leave)`."""
        semantic, geometric = self.semantic(image), self.geometric(image)  # (…, leave)
        gate = torch.sigmoid(self.gate(geometric))
        fused = geometric * gate + semantic * (1 - gate)
        return self.residual(image) + gelu(self.norm(fused))
