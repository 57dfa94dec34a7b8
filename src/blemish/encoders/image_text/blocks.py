"""One block of a vision transformer as CLIP, SigLIP and TIPS build it, with its attention open to be replaced.

    x ← x + s₁ W_o A(norm₁ x),   x ← x + s₂ MLP(norm₂ x)

transformers hides a block's queries, keys and values; patches that are to be compared with sentences need them. The
blocks here hold the modules of a transformers model and compute the same (a test compares them).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

# What the attention A compares: queries with keys, or one of three with itself; "value": nothing, each token is its own
# value.
Compared = Literal["query-key", "value", "v-v", "q-q", "k-k"]


class Block(nn.Module):
    """One pre-norm block. `scales`: what follows attention and MLP (layer scale), or nothing."""

    def __init__(
        self,
        norms: tuple[nn.Module, nn.Module],
        projections: tuple[nn.Module, nn.Module, nn.Module, nn.Module],
        mlp: nn.Module,
        heads: int,
        scales: tuple[nn.Module, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = norms
        self.query, self.key, self.value, self.out = projections
        self.mlp, self.heads = mlp, heads
        self.scale1, self.scale2 = scales or (nn.Identity(), nn.Identity())

    @classmethod
    def of_clip(cls, layer: Any) -> Block:
        """The block of a CLIP or SigLIP of transformers."""
        attention = layer.self_attn
        projections = attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj
        return cls((layer.layer_norm1, layer.layer_norm2), projections, layer.mlp, attention.num_heads)

    @classmethod
    def of_tips(cls, layer: Any) -> Block:
        """The block of a TIPS v2 of transformers."""
        attention = layer.attention
        projections = attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
        scales = layer.layer_scale1, layer.layer_scale2
        return cls((layer.norm1, layer.norm2), projections, layer.mlp, attention.num_attention_heads, scales)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`(N, T, D)` → `(N, T, D)`."""
        return self.feed(tokens + self.attend(tokens))

    def feed(self, tokens: torch.Tensor) -> torch.Tensor:
        """The block's second half."""
        fed: torch.Tensor = tokens + self.scale2(self.mlp(self.norm2(tokens)))
        return fed

    def attend(
        self, tokens: torch.Tensor, compared: Compared = "query-key", bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What attention adds to `tokens` `(N, T, D)`; `bias` `(T, T)` is added to the logits."""
        normed = self.norm1(tokens)
        value = self._heads(self.value, normed)  # (N, heads, T, D / heads)
        if compared == "value":
            mixed = value
        else:
            first = {"query-key": self.query, "v-v": self.value, "q-q": self.query, "k-k": self.key}[compared]
            left = self._heads(first, normed)
            right = self._heads(self.key, normed) if compared == "query-key" else left
            mixed = scaled_dot_product_attention(left, right, value, attn_mask=None if bias is None else bias.to(left))
        added: torch.Tensor = self.scale1(self.out(mixed.transpose(1, 2).flatten(2)))  # (N, T, D)
        return added

    def _heads(self, projection: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        """Projected tokens `(N, T, D)` by head, `(N, heads, T, D / heads)`."""
        projected: torch.Tensor = projection(tokens)
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
