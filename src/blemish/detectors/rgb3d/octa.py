"""OCTA, the object-conditioned textual feature adaptor: sentences about a normal object → one text anchor.

Li, Ye, Yu, Xie & Shen, "Text-Guided Multimodal Unified Industrial Anomaly Detection", arXiv 2604.22899, 2026
(https://arxiv.org/abs/2604.22899), section III-B, equations (5) to (8); see text_guided.py for the whole method. A
top-k mixture of experts (Shazeer et al., "Outrageously Large Neural Networks", ICLR 2017, arXiv 1701.06538) rewrites
each sentence's embedding, a learnable prototype attends to all of them, and a feed-forward block makes the anchor.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blemish.numeric.attention import attend
from blemish.numeric.perceptron import perceptron


def top_k_gates(logits: Tensor, k: int) -> Tensor:
    """Gates `(…, E)` of E experts: a softmax over the `k` largest logits of each row, 0 for the others."""
    largest, chosen = logits.topk(k, dim=-1)  # (…, k) each
    return torch.zeros_like(logits).scatter(-1, chosen, largest.softmax(dim=-1).to(logits.dtype))  # (…, E)


class MixtureOfExperts(nn.Module):
    """`(…, dim)` → `(…, dim)`: the gated sum of the `top_k` of `experts` perceptrons, equation (5)."""

    def __init__(self, dim: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.gate = nn.Linear(dim, experts)
        self.experts = nn.ModuleList(perceptron(dim, dim, dim) for _ in range(experts))

    def forward(self, text: Tensor) -> Tensor:
        gates = top_k_gates(self.gate(text), self.top_k)  # (…, E)
        outputs = torch.stack([expert(text) for expert in self.experts], dim=-2)  # (…, E, dim)
        return (gates[..., None] * outputs).sum(dim=-2)  # (…, dim)


class OCTA(nn.Module):
    """The S embedded sentences of each of C categories `(C, S, dim)` → their anchors `(C, dim)`."""

    def __init__(self, dim: int, experts: int = 4, top_k: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.experts = MixtureOfExperts(dim, experts, top_k)
        self.prototype = nn.Parameter(torch.randn(1, dim) * dim**-0.5)  # P
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))  # W_Q, W_K, W_V
        self.mlp = perceptron(dim, dim, dim)
        self.feed_forward = perceptron(dim, 4 * dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, sentences: Tensor) -> Tensor:
        text = self.experts(sentences)[:, None]  # (C, 1, S, dim), one head, equation (5)
        query = self.query(self.prototype).expand(len(text), 1, 1, -1)  # (C, 1, 1, dim)
        attended = attend(query, self.key(text), self.value(text))[:, 0, 0]  # (C, dim), equation (6)
        adapted = self.mlp(self.prototype + attended)  # (C, dim), equation (7)
        anchors: Tensor = self.norm(adapted + self.dropout(self.feed_forward(adapted)))  # (C, dim), equation (8)
        return anchors
