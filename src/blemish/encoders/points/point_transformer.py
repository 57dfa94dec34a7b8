"""The network of Point-MAE: groups of points → tokens → transformer blocks.

Pang et al., Masked Autoencoders for Point Cloud Self-supervised Learning, ECCV 2022 (arXiv 2203.06604).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_linear_bn_weights

from blemish.numeric.attention import TransformerBlock

WIDTH, DEPTH, HEAD_WIDTH = 384, 12, 64
EPS = 1e-5  # of layer norms
POINTS_AT_ONCE = {"cpu": 1 << 13}  # in the group embedding: what stays in the cache of a core
MOST_POINTS_AT_ONCE = 1 << 19


class PointTransformer(nn.Module):
    """Groups of points, each seen from its centre, as tokens; a token's place is added before every block.

    `width` and `depth` are the published ones by default; `width` is a multiple of 64, or at most 64.
    """

    def __init__(self, width: int = WIDTH, depth: int = DEPTH) -> None:
        super().__init__()
        self.width = width
        self.embedding = GroupEmbedding(width)
        self.places = PlaceEmbedding(width)
        self.blocks = nn.ModuleList(point_block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, EPS)

    def forward(self, groups: Tensor, centres: Tensor, layers: Sequence[int]) -> tuple[Tensor, ...]:
        """`groups` `(B, G, K, 3)`, seen from `centres` `(B, G, 3)` → normed tokens after `layers`, each `(B, G, D)`."""
        tokens, places, taken = self.embedding(groups), self.places(centres), []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens + places)  # (B, G, D)
            if index in layers:
                taken.append(self.norm(tokens))
        return tuple(taken)


def point_block(width: int) -> TransformerBlock:
    """One block as Point-MAE has it: no bias on queries, keys and values."""
    return TransformerBlock(width, max(1, width // HEAD_WIDTH), eps=EPS, qkv_bias=False)


class GroupEmbedding(nn.Module):
    """A group's points → one token, whatever their order (a small PointNet).

    Each point goes 3 → 128 → 256; the group's maximum is put before it (512) and both go 512 → 512 → `width`; the
    maximum is the token. The half of the 512 that all points of a group share is multiplied once for the group.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lift = ExactLinear(128)
        self.lift_norm: nn.Module = nn.BatchNorm1d(128)
        self.first = nn.Linear(128, 256)
        self.second = nn.Linear(512, 512)
        self.second_norm: nn.Module = nn.BatchNorm1d(512)
        self.last = nn.Linear(512, width)

    def forward(self, groups: Tensor) -> Tensor:
        """`groups` `(B, G, K, 3)` → `(B, G, width)`."""
        flat = groups.flatten(0, 1)  # (B·G, K, 3)
        if self.training:  # statistics are those of the whole batch
            return self._embed(flat).view(*groups.shape[:2], -1)
        most = POINTS_AT_ONCE.get(groups.device.type, MOST_POINTS_AT_ONCE)
        parts = flat.split(max(1, most // groups.shape[2]))
        return torch.cat([self._embed(part) for part in parts]).view(*groups.shape[:2], -1)

    def _embed(self, groups: Tensor) -> Tensor:
        count, size = groups.shape[:2]
        x = functional.relu(self.lift_norm(self.lift(groups.reshape(-1, 3))))
        x = self.first(x)  # (M·K, 256)
        shared = x.view(count, size, -1).amax(1)  # (M, 256)
        of_shared, of_own = self.second.weight.chunk(2, dim=1)
        own = functional.linear(x, of_own).view(count, size, -1)
        x = own + functional.linear(shared, of_shared, self.second.bias)[:, None]  # (M, K, 512)
        x = functional.relu(self.second_norm(x.flatten(0, 1)))
        return self.last(x).view(count, size, -1).amax(1)  # (M, width)

    @torch.no_grad()
    def fold_norms(self) -> None:
        """Put the batch norms, as they are when nothing is learned, into the layers before them."""
        for name in ("lift", "second"):
            layer, norm = getattr(self, name), getattr(self, f"{name}_norm")
            if isinstance(norm, nn.BatchNorm1d):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                layer.weight, layer.bias = fuse_linear_bn_weights(
                    layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
                setattr(self, f"{name}_norm", nn.Identity())


class PlaceEmbedding(nn.Module):
    """Where a group's centre lies → what is added to its token: 3 → 128 → `width`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lift = ExactLinear(128)
        self.last = nn.Linear(128, width)

    def forward(self, centres: Tensor) -> Tensor:
        """`centres` `(B, G, 3)` → `(B, G, width)`."""
        return self.last(functional.gelu(self.lift(centres)))


class ExactLinear(nn.Module):
    """A linear layer from coordinates that stays float32 under autocast: bfloat16 would round them to three digits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        plain = nn.Linear(3, width)
        self.weight, self.bias = plain.weight, plain.bias

    def forward(self, points: Tensor) -> Tensor:
        """`(…, 3)` → `(…, width)`."""
        with torch.autocast(points.device.type, enabled=False):
            return functional.linear(points, self.weight, self.bias)
