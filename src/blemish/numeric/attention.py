"""Pre-norm transformer blocks (Dosovitskiy et al., ICLR 2021), with attention that trains fast on a CPU.

Softmax attention, also with masked pairs (UniAD's neighbour mask), linear attention
(Katharopoulos et al., ICML 2020), and a block with cross-attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from blemish.errors import SettingsError

AttentionKind = Literal["softmax", "linear"]
MLP_RATIO = 4  # widths of a block that its hidden layer is wide
EPS = 1e-6  # of layer normalisation
CACHE = 1 << 21  # bytes of attention matrices in one step of `BlockedAttention`: they stay in the cache of a core


class BlockedAttention(torch.autograd.Function):
    """Softmax attention, exact, a few heads at a time; the backward pass recomputes the attention weights.

    Computes what `scaled_dot_product_attention` does, whose passes on a CPU are slower for many narrow heads in
    bfloat16: forward (benchmarks/attention_speed.py) and, by several times, backward. Memory holds the attention
    matrices of as many heads as `CACHE` takes, at least one, whatever the batch. Keys are centred first, which adds the
    same to all logits of a query and so changes nothing, but smaller logits lose less when they are rounded to
    bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
        """`query` `(B·heads, N, d)`, `key`, `value` `(B·heads, M, d)`, `seen` `(N, M)` bool → `(B·heads, N, d)`."""
        scaled = query * query.shape[-1] ** -0.5
        key = (key.float() - key.float().mean(1, keepdim=True)).to(key.dtype) if key.dtype == torch.bfloat16 else key
        out = torch.empty_like(query)
        with torch.autocast(query.device.type, enabled=False):
            for part in _steps(scaled, key):
                torch.bmm(_weights(scaled[part], key[part], seen), value[part], out=out[part])
        ctx.save_for_backward(scaled, key, value)
        ctx.seen = seen
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        scaled, key, value = ctx.saved_tensors
        grad = grads[0].contiguous()
        d_query, d_key, d_value = torch.empty_like(scaled), torch.empty_like(key), torch.empty_like(value)
        for part in _steps(scaled, key):
            weights = _weights(scaled[part], key[part], ctx.seen)  # (heads at once, N, M)
            torch.bmm(weights.transpose(1, 2), grad[part], out=d_value[part])
            d_weights = torch.bmm(grad[part], value[part].transpose(1, 2))  # (heads at once, N, M)
            d_logits = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            torch.bmm(d_logits, key[part], out=d_query[part])
            torch.bmm(d_logits.transpose(1, 2), scaled[part], out=d_key[part])
        return d_query.mul_(scaled.shape[-1] ** -0.5), d_key, d_value, None


def _steps(query: Tensor, key: Tensor) -> Iterator[slice]:
    """Which heads of `(B·heads, N, d)` and `(B·heads, M, d)` are attended at once."""
    heads = max(1, CACHE // (query.shape[1] * key.shape[1] * query.element_size()))
    return (slice(i, i + heads) for i in range(0, len(query), heads))


def _weights(scaled: Tensor, key: Tensor, seen: Tensor | None) -> Tensor:
    logits = torch.bmm(scaled, key.transpose(1, 2))  # (heads at once, N, M)
    return (logits if seen is None else logits.masked_fill(~seen, -torch.inf)).softmax(-1)


def attend(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
    """Softmax attention of `(B, heads, N, d)` tensors, by the faster implementation for this device and number format.

    `seen` `(N, M)` bool says which of the M keys each query attends to (None: all); each needs at least one.
    """
    batch, heads, count, width = query.shape
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    flat = (t.reshape(batch * heads, -1, width) for t in (query, key, value))
    mixed: Tensor = BlockedAttention.apply(*flat, seen)  # type: ignore[no-untyped-call]
    return mixed.view(batch, heads, count, width)


def attend_linearly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Linear attention of `(B, heads, N, d)` tensors: φ(q)·(Σ φ(k) vᵀ) / φ(q)·Σ φ(k) with φ = ELU + 1.

    It cannot focus on single patches, which keeps a decoder from copying them (Dinomaly, CVPR 2025).
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key, value = (functional.elu(query.float()) + 1), (functional.elu(key.float()) + 1), value.float()
        summed = key.transpose(-2, -1) @ value  # (B, heads, d, d)
        norm = query @ key.sum(dim=-2, keepdim=True).transpose(-2, -1)  # (B, heads, N, 1)
        return (query @ summed) / norm.clamp_min(1e-6)


def all_but_neighbours(grid: tuple[int, int], radius: int) -> Tensor | None:
    """Which patches of a grid `(h, w)` may attend to which, `(h·w, h·w)` bool: none within `radius` patches of itself.

    The neighbour mask of UniAD (You et al., NeurIPS 2022), whose square has a side of 2·`radius` + 1 patches. `radius`
    0 hides a patch from itself alone. A patch whose neighbourhood fills the grid attends to all; None where
    this is so for every patch.
    """
    height, width = grid
    if max(height, width) - 1 <= radius:  # a corner sees no further than that, and no patch further than a corner
        return None
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    offset = torch.maximum((y[:, None] - y).abs(), (x[:, None] - x).abs())  # (N, N)
    seen = offset > radius  # (N, N)
    blind = ~seen.any(dim=1)
    return seen | blind[:, None]


class Attention(nn.Module):
    """Multi-head attention of `(B, N, width)` queries to `(B, M, width)` keys and values, themselves by default."""

    def __init__(self, width: int, heads: int, kind: AttentionKind = "softmax") -> None:
        super().__init__()
        if width % heads:
            raise SettingsError(f"a width that {heads} heads divide", str(width), "change width or heads")
        if kind not in ("softmax", "linear"):
            raise SettingsError('attention "softmax" or "linear"', repr(kind), "choose one of them")
        self.heads, self.kind = heads, kind
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, source: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        """`seen` `(N, M)` bool as in `attend` (softmax alone)."""
        source = tokens if source is None else source
        batch, count, width = tokens.shape
        query = self.query(tokens).view(batch, count, self.heads, -1).transpose(1, 2)  # (B, heads, N, d)
        pairs = self.key_value(source).view(batch, source.shape[1], 2, self.heads, -1)  # (B, M, 2, heads, d)
        key, value = pairs.permute(2, 0, 3, 1, 4)  # each (B, heads, M, d)
        mixed = attend_linearly(query, key, value) if self.kind == "linear" else attend(query, key, value, seen)
        return self.out(mixed.transpose(1, 2).reshape(batch, count, width))


class TransformerBlock(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)): `(B, N, width)` in and out."""

    def __init__(self, width: int, heads: int, eps: float = EPS, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps)
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps)
        self.widen = nn.Linear(width, MLP_RATIO * width)
        self.narrow = nn.Linear(MLP_RATIO * width, width)

    def forward(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """`tokens` `(B, N, width)` → the same shape; `seen` `(N, N)` bool as in `attend`."""
        batch, count, width = tokens.shape
        qkv = self.qkv(self.norm1(tokens)).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, width / heads)
        mixed = attend(query, key, value, seen).transpose(1, 2).reshape(batch, count, width)
        tokens = tokens + self.out(mixed)
        return tokens + self.narrow(functional.gelu(self.widen(self.norm2(tokens))))


class MlpBlock(nn.Module):
    """x + MLP(LN(x)), each token on its own: `(B, N, width)` in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, EPS)
        self.widen = nn.Linear(width, MLP_RATIO * width)
        self.narrow = nn.Linear(MLP_RATIO * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """`tokens` `(B, N, width)` → the same shape."""
        return tokens + self.narrow(functional.gelu(self.widen(self.norm(tokens))))


class DecoderBlock(nn.Module):
    """x + attention of LN(x) to `source`, then x + MLP(LN(x)): `(B, N, width)` in and out.

    Without `source` it is self-attention; with attention `kind` "linear" it is Dinomaly's decoder block.
    """

    def __init__(self, width: int, heads: int, kind: AttentionKind = "softmax") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, EPS)
        self.attention = Attention(width, heads, kind)
        self.mlp = MlpBlock(width)

    def forward(self, tokens: Tensor, source: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        """`tokens` `(B, N, width)`, `source` `(B, M, width)`, `seen` `(N, M)` bool → the shape of `tokens`."""
        return self.mlp(tokens + self.attention(self.norm(tokens), source, seen))
