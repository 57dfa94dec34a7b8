"""The object-conditioned textual adaptor (OCTA): sentences about a good part → the one anchor its cells are pulled to.

Equations (5) to (8) of the text-guided, unified multimodal detector (see text_guided.py). A mixture of experts
(Shazeer et al., ICLR 2017) rewrites each sentence's embedding, a learned prototype looks at all of them, and a
transformer's feed-forward half turns what it saw into the anchor.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blemish.numeric.attention import attend
from blemish.numeric.perceptron import perceptron


def top_k_gates(logits: Tensor, k: int) -> Tensor:
    """Weights `(…, E)` of E experts: a softmax over the `k` largest logits of each row, 0 for the others."""
    largest, chosen = logits.topk(k, dim=-1)
    return torch.zeros_like(logits).scatter(-1, chosen, largest.softmax(dim=-1))


class ExpertMixture(nn.Module):
    """`(…, dim)` → `(…, dim)`: each row rewritten by the `top_k` of `experts` perceptrons that a gate chooses."""

    def __init__(self, dim: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.gate = nn.Linear(dim, experts)
        self.experts = nn.ModuleList(perceptron(dim, dim, dim) for _ in range(experts))

    def forward(self, rows: Tensor) -> Tensor:
        weights = top_k_gates(self.gate(rows), self.top_k)  # (…, E)
        answers = torch.stack([expert(rows) for expert in self.experts], dim=-2)  # (…, E, dim)
        return (weights[..., None] * answers).sum(dim=-2)


class TextAdaptor(nn.Module):
    """The S embedded sentences of each of C categories `(C, S, dim)` → their anchors `(C, dim)`."""

    def __init__(self, dim: int, experts: int = 4, top_k: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.experts = ExpertMixture(dim, experts, top_k)
        self.prototype = nn.Parameter(torch.randn(1, dim) * dim**-0.5)  # P
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))  # W_Q, W_K, W_V
        self.mlp = perceptron(dim, dim, dim)
        self.feed_forward = perceptron(dim, 4 * dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, sentences: Tensor) -> Tensor:
        """Equations (5) to (8)."""
        text = self.experts(sentences)[:, None]  # (C, 1, S, dim): one head
        query = self.query(self.prototype).expand(len(text), 1, 1, -1)
        seen = attend(query, self.key(text), self.value(text))[:, 0, 0]  # (C, dim)
        adapted = self.mlp(self.prototype + seen)
        anchors: Tensor = self.norm(adapted + self.dropout(self.feed_forward(adapted)))
        return anchors
