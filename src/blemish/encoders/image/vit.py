"""A plain vision transformer in the shape of DINOv2, cut after the deepest block needed.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024 (arXiv 2304.07193): pre-norm
blocks with layer scale, one CLS token, learned position embeddings that are interpolated to any grid. Parameter names
are those of `torch.nn` modules below; whoever reads a weight file maps its names to them.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from blemish.numeric.attention import attend


class Block(nn.Module):
    """Attention, then a two-layer perceptron, each on normalised tokens, scaled per channel and added back."""

    def __init__(self, width: int, heads: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.dense = nn.Linear(width, width)
        self.scale1 = nn.Parameter(torch.ones(width))
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.scale2 = nn.Parameter(torch.ones(width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        batch, count, width = tokens.shape
        joint = self.query_key_value(self.norm1(tokens)).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = joint.permute(2, 0, 3, 1, 4)  # each (B, heads, T, width / heads)
        mixed = attend(query, key, value).transpose(1, 2).reshape(batch, count, width)
        tokens = tokens + self.scale1 * self.dense(mixed)  # (B, T, width)
        return tokens + self.scale2 * self.fc2(F.gelu(self.fc1(self.norm2(tokens))))  # (B, T, width)


class VisionTransformer(nn.Module):
    """Normalised images `(B, 3, H, W)` → the tokens after the given blocks, `(B, 1 + h·w, width)` each, CLS first."""

    def __init__(self, *, width: int, depth: int, heads: int, patch: int, grid: int) -> None:
        super().__init__()
        self.patch, self.grid = patch, grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_position = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, grid * grid, width))
        self.projection = nn.Conv2d(3, width, patch, stride=patch)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self._resized: tuple[tuple[int, int], torch.Tensor] | None = None  # the grid used last, while frozen

    def positions_for(self, height: int, width: int) -> torch.Tensor:
        """Position embeddings of an `height`×`width` patch grid, `(1, height·width, D)` (bicubic)."""
        if (height, width) == (self.grid, self.grid):
            return self.positions
        kept = self._resized
        if kept is not None and kept[0] == (height, width) and kept[1].device == self.positions.device:
            return kept[1]
        square = self.positions.reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)  # (1, D, g, g)
        resized = F.interpolate(square, (height, width), mode="bicubic", align_corners=False)  # (1, D, height, width)
        found = resized.flatten(2).transpose(1, 2)  # (1, height·width, D)
        if not self.positions.requires_grad:  # a constant; an exported graph then holds it, not its computation
            self._resized = (height, width), found
        return found

    def forward(self, images: torch.Tensor, layers: tuple[int, ...]) -> list[torch.Tensor]:
        patches = self.projection(images)  # (B, D, h, w)
        positions = self.positions_for(*patches.shape[2:])  # (1, h·w, D)
        first = (self.cls_token + self.cls_position).expand(images.shape[0], -1, -1)  # (B, 1, D)
        tokens = torch.cat([first, patches.flatten(2).transpose(1, 2) + positions], dim=1)  # (B, 1 + h·w, D)
        taken = {}
        for index, block in enumerate(self.blocks[: max(layers) + 1]):
            tokens = block(tokens)  # (B, 1 + h·w, D)
            taken[index] = tokens
        return [taken[index] for index in layers]
