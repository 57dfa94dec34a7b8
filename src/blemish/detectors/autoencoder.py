"""A transformer auto-encoder of patches: all that may keep it from copying its input can be set.

Dosovitskiy et al., ICLR 2021 (blocks); He et al., CVPR 2022 (hidden patches never enter the encoder); Gong et al.,
"Memorizing Normality to Detect Anomaly", ICCV 2019 (prototypes); You et al., "A Unified Model for Multi-class Anomaly
Detection", NeurIPS 2022 (learned queries, neighbour-masked attention).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from blemish.numeric.attention import DecoderBlock, TransformerBlock, all_but_neighbours
from blemish.numeric.positions import sine_positions
from blemish.numeric.standardise import Standardise
from blemish.numeric.whiten import Whiten

QUERY_GRID = 16  # learned queries a side, interpolated to the grid at hand
TEMPERATURE = 0.1  # of the softmax over the cosines of a token to the prototypes


@dataclass(frozen=True)
class Window:
    """The rectangle of a `grid` `(H, W)` that starts at `corner` and is `size` large, or what of it there is."""

    grid: tuple[int, int]
    corner: tuple[int, int] = (0, 0)
    size: tuple[int, int] | None = None

    def of(self, cells: Tensor) -> Tensor:
        """`(B, H, W, D)` → `(B, h, w, D)`."""
        (top, left), (height, width) = self.corner, self.size or self.grid
        return cells[:, top : top + height, left : left + width]


class AutoEncoder(nn.Module):
    """Encoder blocks, a bottleneck, decoder blocks, between linear layers that enter and leave.

    `bottleneck`: channels that a token is squeezed to (0: none). `prototypes`: how many there are to mix tokens from
    (0: none). `queries`: the decoder starts from learned queries and looks at the encoded tokens, instead of starting
    from these. `neighbourhood`: radius of the square of patches that attention may not look at, in all blocks (0: it
    may look everywhere). Positions are sines of the place in the image, so any grid will do.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        depth: int,
        decoder_depth: int,
        heads: int,
        bottleneck: int = 0,
        prototypes: int = 0,
        queries: bool = False,
        neighbourhood: int = 0,
    ) -> None:
        super().__init__()
        self.standard = Standardise(dim)
        self.neighbourhood = neighbourhood
        self.enter = nn.Linear(dim, width)
        self.encoder = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.encoded = nn.LayerNorm(width, eps=1e-6)
        self.squeeze = nn.Linear(width, bottleneck) if bottleneck else nn.Identity()
        self.prototypes = Prototypes(prototypes, bottleneck or width) if prototypes else nn.Identity()
        self.widen = nn.Linear(bottleneck, width) if bottleneck else nn.Identity()
        self.hidden = nn.Parameter(torch.zeros(width))
        block = DecoderBlock if queries else TransformerBlock
        self.queries = nn.Parameter(torch.zeros(1, width, QUERY_GRID, QUERY_GRID)) if queries else None
        self.decoder = nn.ModuleList(block(width, heads) for _ in range(decoder_depth))
        self.decoded = nn.LayerNorm(width, eps=1e-6)
        self.leave = nn.Linear(width, dim)
        self.whiten = Whiten(dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for learned in (self.hidden, self.queries):
            if learned is not None:
                nn.init.normal_(learned, std=0.02)

    def forward(self, patches: Tensor, hidden: Tensor | None = None, window: Window | None = None) -> Tensor:
        """Standardised `patches` `(B, H, W, dim)` → what those in the `window` should be, `(B, N, dim)`.

        `hidden` `(N,)` bool says which patches of the window the network may not see; these are answered from the
        others alone. Patches beyond the window (None: there are none) are not looked at, but places count from theirs.
        """
        window = window or Window((patches.shape[1], patches.shape[2]))
        patches, device = window.of(patches), patches.device  # (B, h, w, dim)
        grid, patches = (patches.shape[1], patches.shape[2]), patches.flatten(1, 2)  # (B, N, dim)
        places = window.of(sine_positions(window.grid, len(self.hidden)).to(device)[None]).flatten(0, 2)  # (N, width)
        seen = all_but_neighbours(grid, self.neighbourhood) if self.neighbourhood else None  # (N, N)
        seen = None if seen is None else seen.to(device)
        hidden = torch.zeros(len(places), dtype=torch.bool, device=device) if hidden is None else hidden
        shown = (~hidden).nonzero()[:, 0]  # (V,)
        codes = self._encode(patches, places, seen, shown)  # (B, V, width)
        source = self.hidden.expand(len(patches), *places.shape).index_copy(1, shown, codes) + places
        return self._decode(source, places, seen, window)

    def _encode(self, patches: Tensor, places: Tensor, seen: Tensor | None, shown: Tensor) -> Tensor:
        """What the encoder makes of the patches at `shown` `(V,)`, past the bottleneck: `(B, V, width)`."""
        tokens = self.enter(patches[:, shown]) + places[shown]
        if seen is not None:
            seen = seen[shown][:, shown]  # (V, V)
            seen = seen | ~seen.any(dim=1, keepdim=True)  # nobody is left to look at: everybody
        for block in self.encoder if len(shown) else ():
            tokens = block(tokens, seen)
        return self.widen(self.prototypes(self.squeeze(self.encoded(tokens)))).to(self.hidden.dtype)

    def _decode(self, source: Tensor, places: Tensor, seen: Tensor | None, window: Window) -> Tensor:
        """From the codes of all patches `(B, N, width)` to what they should be, `(B, N, dim)`."""
        tokens = source
        if self.queries is not None:
            queries = interpolate(self.queries, window.grid, mode="bilinear", align_corners=False)  # (1, width, H, W)
            tokens = window.of(queries.permute(0, 2, 3, 1)).flatten(1, 2).expand_as(source) + places
        for block in self.decoder:
            tokens = block(tokens, seen) if self.queries is None else block(tokens, source, seen)
        return self.leave(self.decoded(tokens)).float()


class Prototypes(nn.Module):
    """A memory of `count` learned prototypes; each token becomes a sparse mixture of those it resembles.

    Softmax over cosines; shares below 1 / `count` are dropped (MemAE's hard shrinkage) and the rest adds up to 1.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.items = nn.Parameter(torch.randn(count, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """`tokens` `(B, N, width)` → the same shape, inside the convex hull of the prototypes."""
        alike = normalize(tokens.float(), dim=-1) @ normalize(self.items, dim=-1).T / TEMPERATURE  # (B, N, count)
        shares = alike.softmax(dim=-1)
        shares = torch.where(shares >= 1 / len(self.items), shares, 0)
        return normalize(shares, p=1.0, dim=-1) @ self.items
