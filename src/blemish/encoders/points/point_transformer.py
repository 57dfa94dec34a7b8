"""The encoder network of Point-MAE: groups of points → tokens → transformer blocks.

Pang, Wang, Tay, Liu, Tian & Yuan, "Masked Autoencoders for Point Cloud Self-supervised Learning", ECCV 2022
(https://arxiv.org/abs/2203.06604).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_linear_bn_weights

from blemish.numeric.attention import TransformerBlock

WIDTH, DEPTH, HEAD_WIDTH = 384, 12, 64  # as published
EPS = 1e-5  # of layer norms, as published
POINTS_AT_ONCE = {"cpu": 1 << 13}  # in the group embedding: what stays in the cache of a core; timed on one CPU
MOST_POINTS_AT_ONCE = 1 << 19


class PointTransformer(nn.Module):
    """Groups of points, relative to their centres, as tokens; the positional embedding is added before every block.

    `width` and `depth` are the published ones by default; `width` is a multiple of 64, or at most 64.
    """

    def __init__(self, width: int = WIDTH, depth: int = DEPTH) -> None:
        super().__init__()
        self.width = width
        self.embedding = GroupEmbedding(width)
        self.positions = PositionalEmbedding(width)
        self.blocks = nn.ModuleList(point_block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, EPS)

    def forward(self, groups: Tensor, centres: Tensor, layers: Sequence[int]) -> tuple[Tensor, ...]:
        """`groups` `(B, G, K, 3)` relative to `centres` `(B, G, 3)` → normed tokens `(B, G, D)` of each layer."""
        tokens, positions, taken = self.embedding(groups), self.positions(centres), []  # (B, G, D) both
        for index, block in enumerate(self.blocks):
            tokens = block(tokens + positions)  # (B, G, D)
            if index in layers:
                taken.append(self.norm(tokens))
        return tuple(taken)


def point_block(width: int) -> TransformerBlock:
    """One block as Point-MAE has it: no bias on queries, keys and values."""
    return TransformerBlock(width, max(1, width // HEAD_WIDTH), eps=EPS, qkv_bias=False)


class GroupEmbedding(nn.Module):
    """A group's points → one token, whatever their order: a mini-PointNet (Qi et al., CVPR 2017).

    Each point goes 3 → 128 → 256; the group's maximum is concatenated with it (512) and both go 512 → 512 → `width`;
    the maximum is the token. The half of the 512 that all points of a group share is multiplied once for the group.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lift = Float32Linear(128)
        self.lift_norm: nn.Module = nn.BatchNorm1d(128)
        self.first = nn.Linear(128, 256)
        self.second = nn.Linear(512, 512)
        self.second_norm: nn.Module = nn.BatchNorm1d(512)
        self.last = nn.Linear(512, width)

    def forward(self, groups: Tensor) -> Tensor:
        """`groups` `(B, G, K, 3)` → `(B, G, width)`."""
        flat = groups.flatten(0, 1)  # (B·G, K, 3)
        if self.training:  # batch norms need the whole batch
            return self._embed(flat).view(*groups.shape[:2], -1)
        most = POINTS_AT_ONCE.get(groups.device.type, MOST_POINTS_AT_ONCE)
        parts = flat.split(max(1, most // groups.shape[2]))
        return torch.cat([self._embed(part) for part in parts]).view(*groups.shape[:2], -1)

    def _embed(self, groups: Tensor) -> Tensor:
        count, size = groups.shape[:2]
        x = functional.relu(self.lift_norm(self.lift(groups.reshape(-1, 3))))  # (M·K, 128)
        x = self.first(x)  # (M·K, 256)
        shared = x.view(count, size, -1).amax(1)  # (M, 256)
        of_shared, of_own = self.second.weight.chunk(2, dim=1)
        own = functional.linear(x, of_own).view(count, size, -1)  # (M, K, 512)
        x = own + functional.linear(shared, of_shared, self.second.bias)[:, None]  # (M, K, 512)
        x = functional.relu(self.second_norm(x.flatten(0, 1)))  # (M·K, 512)
        tokens: Tensor = self.last(x).view(count, size, -1).amax(1)  # (M, width)
        return tokens

    @torch.no_grad()
    def fold_norms(self) -> None:
        """Fold the batch norms, in evaluation mode, into the layers before them."""
        for name in ("lift", "second"):
            layer, norm = getattr(self, name), getattr(self, f"{name}_norm")
            if isinstance(norm, nn.BatchNorm1d):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                layer.weight, layer.bias = fuse_linear_bn_weights(
                    layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
                setattr(self, f"{name}_norm", nn.Identity())


class PositionalEmbedding(nn.Module):
    """A group's centre → what is added to its token: 3 → 128 → `width`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lift = Float32Linear(128)
        self.last = nn.Linear(128, width)

    def forward(self, centres: Tensor) -> Tensor:
        """`centres` `(B, G, 3)` → `(B, G, width)`."""
        embedded: Tensor = self.last(functional.gelu(self.lift(centres)))
        return embedded


class Float32Linear(nn.Module):
    """A linear layer from coordinates that stays float32 under autocast: bfloat16 would round them to three digits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        plain = nn.Linear(3, width)
        self.weight, self.bias = plain.weight, plain.bias

    def forward(self, points: Tensor) -> Tensor:
        """`(…, 3)` → `(…, width)`."""
        with torch.autocast(points.device.type, enabled=False):
            return functional.linear(points, self.weight, self.bias)
