"""The pre-norm transformer block (Dosovitskiy et al., ICLR 2021), with attention that learns fast on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

HEADS_AT_ONCE = 2  # attention matrices of one step of `BlockedAttention`: they stay in the cache of a core


class BlockedAttention(torch.autograd.Function):
    """Softmax attention, exact, a few heads at a time; the weights are worked out again on the way back.

    Computes what `scaled_dot_product_attention` does, whose way back is several times slower on a CPU for many narrow
    heads in bfloat16. Memory holds `HEADS_AT_ONCE` attention matrices, whatever the batch.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`query`, `key`, `value` `(B·heads, N, d)` of one dtype → `(B·heads, N, d)`."""
        scaled = query * query.shape[-1] ** -0.5
        out = torch.empty_like(query)
        with torch.autocast(query.device.type, enabled=False):
            for i in range(0, len(query), HEADS_AT_ONCE):
                part = slice(i, i + HEADS_AT_ONCE)
                weights = torch.bmm(scaled[part], key[part].transpose(1, 2)).softmax(-1)
                torch.bmm(weights, value[part], out=out[part])
        ctx.save_for_backward(scaled, key, value)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scaled, key, value = ctx.saved_tensors
        grad = grads[0].contiguous()
        d_query, d_key, d_value = torch.empty_like(scaled), torch.empty_like(key), torch.empty_like(value)
        for i in range(0, len(grad), HEADS_AT_ONCE):
            part = slice(i, i + HEADS_AT_ONCE)
            weights = torch.bmm(scaled[part], key[part].transpose(1, 2)).softmax(-1)
            torch.bmm(weights.transpose(1, 2), grad[part], out=d_value[part])
            d_weights = torch.bmm(grad[part], value[part].transpose(1, 2))
            d_logits = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            torch.bmm(d_logits, key[part], out=d_query[part])
            torch.bmm(d_logits.transpose(1, 2), scaled[part], out=d_key[part])
        return d_query.mul_(scaled.shape[-1] ** -0.5), d_key, d_value


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention of `(B, heads, N, d)` tensors, by whichever way is quicker here."""
    batch, heads, count, width = query.shape
    learning = torch.is_grad_enabled() and query.requires_grad
    if not learning or query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return functional.scaled_dot_product_attention(query, key, value)
    flat = (t.reshape(batch * heads, -1, width) for t in (query, key, value))
    return BlockedAttention.apply(*flat).view(batch, heads, count, width)


class TransformerBlock(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)): `(B, N, width)` in and out."""

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps)
        self.widen = nn.Linear(width, int(width * mlp_ratio))
        self.narrow = nn.Linear(int(width * mlp_ratio), width)

    def forward(self, tokens: Tensor) -> Tensor:
        """`tokens` `(B, N, width)` → the same shape."""
        batch, count, width = tokens.shape
        qkv = self.qkv(self.norm1(tokens)).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, width / heads)
        mixed = attend(query, key, value).transpose(1, 2).reshape(batch, count, width)
        tokens = tokens + self.out(mixed)
        return tokens + self.narrow(functional.gelu(self.widen(self.norm2(tokens))))


class MlpBlock(nn.Module):
    """x + MLP(LN(x)), each token on its own: `(B, N, width)` in and out."""

    def __init__(self, width: int, mlp_ratio: float = 4.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps)
        self.widen = nn.Linear(width, int(width * mlp_ratio))
        self.narrow = nn.Linear(int(width * mlp_ratio), width)

    def forward(self, tokens: Tensor) -> Tensor:
        """`tokens` `(B, N, width)` → the same shape."""
        return tokens + self.narrow(functional.gelu(self.widen(self.norm(tokens))))
