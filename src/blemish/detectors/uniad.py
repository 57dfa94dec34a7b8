"""UniAD: a transformer reconstructs normal features from learned queries; one model for all categories.

You, Cui, Shen, Yang, Lu, Zheng, Le, "A Unified Model for Multi-class Anomaly Detection", NeurIPS 2022,
https://arxiv.org/abs/2206.03687. Three things keep the network from copying its input, anomalies included
("identical shortcut"): attention is masked in a patch's neighbourhood, every decoder layer starts from a learned query
instead of the patch, and features are jittered while training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional

from blemish.detectors.base import Needs
from blemish.detectors.patches import concatenate_layers
from blemish.detectors.settings import (
    Count,
    CountOrZero,
    Fraction,
    ImageFraming,
    NotNegative,
    Pooling,
    check_heads,
)
from blemish.detectors.trained import BatchTrainedDetector
from blemish.encoders.base import LayerRole
from blemish.numeric.attention import Attention, DecoderBlock, TransformerBlock, all_but_neighbours
from blemish.numeric.positions import sine_positions
from blemish.numeric.residual import residual
from blemish.numeric.standardise import Standardise
from blemish.numeric.whiten import Whiten
from blemish.types import RGB, Batch, Features, PatchScores

QUERY_SIDE = 14  # queries a side, the paper's feature grid; interpolated to the grid at hand
RESIDUAL_BATCHES = 24  # batches whose residuals are measured; bounds the time of it


def jittered(patches: Tensor, scale: float, chance: float) -> Tensor:
    """Patches `(…, D)`, each by `chance` with Gaussian noise of σ = `scale`·‖patch‖/D in every channel."""
    std = patches.norm(dim=-1, keepdim=True) * (scale / patches.shape[-1])  # (…, 1)
    chosen = torch.rand(patches.shape[:-1], device=patches.device)[..., None] < chance  # (…, 1)
    return patches + chosen * std * torch.randn_like(patches)


class QueryBlock(nn.Module):
    """A query attends to the encoder's output, then to that of the decoder layer before: `(B, N, width)` in and out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.look = Attention(width, heads)
        self.block = DecoderBlock(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, query: Tensor, memory: Tensor, last: Tensor, mask: Tensor | None) -> Tensor:
        """All `(B, N, width)`; `mask` `(N, N)` bool, which patches may attend to which."""
        return self.norm(self.block(query + self.look(query, memory, mask), last, mask))


class QueryDecoder(nn.Module):
    """Linear to `width`, `depth` masked encoder blocks, `depth` query blocks, linear back to `dim`.

    `radius`: of the square of patches around itself that a patch may not attend to; None: no mask.
    """

    def __init__(self, dim: int, width: int, depth: int, heads: int, radius: int | None) -> None:
        super().__init__()
        self.width, self.radius = width, radius
        self.standard = Standardise(dim)
        self.enter = nn.Linear(dim, width)
        self.encoder = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(depth, width, QUERY_SIDE, QUERY_SIDE))
        self.decoder = nn.ModuleList(QueryBlock(width, heads) for _ in range(depth))
        self.leave = nn.Linear(width, dim)
        self.whiten = Whiten(dim)

    def forward(self, patches: Tensor) -> Tensor:
        """Standardised patches `(B, h, w, dim)` → their reconstruction `(B, h, w, dim)`."""
        grid = (patches.shape[1], patches.shape[2])
        mask = None if self.radius is None else all_but_neighbours(grid, self.radius)  # (N, N)
        mask = mask if mask is None else mask.to(patches.device)
        positions = sine_positions(grid, self.width).flatten(0, 1).to(patches.device)  # (N, width)
        memory = self.enter(patches.flatten(1, 2)) + positions  # (B, N, width)
        for block in self.encoder:
            memory = block(memory, mask)  # (B, N, width)
        memory = self.norm(memory)
        decoded = memory
        for query, decode in zip(self._queries_on(grid), self.decoder, strict=True):
            decoded = decode((query + positions).expand_as(memory), memory, decoded, mask)  # (B, N, width)
        return self.leave(decoded).float().unflatten(1, grid)  # (B, h, w, dim)

    def _queries_on(self, grid: tuple[int, int]) -> Tensor:
        """The queries of all decoder layers on a grid, `(depth, h·w, width)`."""
        queries = functional.interpolate(self.queries, grid, mode="bilinear", align_corners=False)
        return queries.flatten(2).transpose(1, 2)


@dataclass(kw_only=True, eq=False, repr=False)
class UniAD(BatchTrainedDetector[QueryDecoder]):
    """One network for all categories; patch score = length of the reconstruction residual over √channels.

    `depth` encoder and as many decoder blocks of `width`. `radius`: how far around itself a patch may not attend, 3 for
    the paper's 7 × 7 patches, None for no mask. `jitter`, `jitter_chance`: the noise on the input while training (see
    `jittered`). `standardise`: channels are scaled to the normal features before anything else, so that none outweighs
    the others in the loss or in the score. `whiten`: the residual is measured by how those of normal images vary in
    each direction (see whiten.py); the paper's way is without. `rotations`, `max_copies`, `pooling`, `image_size`,
    `framing`, `layers`: see `Needs`. All other settings: see `TrainedDetector`.
    """

    width: Count = 256
    depth: Count = 4
    heads: Count = 8
    radius: CountOrZero | None = 3
    jitter: NotNegative = 20.0
    jitter_chance: Fraction = 1.0
    steps: Count = 300
    max_grad_norm: NotNegative = 0.1
    standardise: bool = True
    whiten: bool = True
    layers: LayerRole = "several"
    rotations: Count = 8
    max_copies: CountOrZero = 128
    pooling: Pooling = "top:0.01"
    image_size: Count = 224
    framing: ImageFraming = "part"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.width, self.heads)

    @property
    def needs(self) -> Needs:
        return Needs(
            layers=self.layers,
            rotations=self.rotations,
            max_copies=self.max_copies,
            augmentation=True,
            image_size=self.image_size,
            square=True,
            framing=self.framing,
            pooling=self.pooling,
        )

    def build_network(self, dims: Sequence[int]) -> QueryDecoder:
        return QueryDecoder(sum(dims), self.width, self.depth, self.heads, self.radius)

    def widths(self, batch: Batch) -> tuple[int, ...]:
        return (sum(layer.shape[-1] for layer in batch.features.layers[RGB]),)

    def fit_scales(self, network: QueryDecoder, first: Sequence[Batch]) -> None:
        if self.standardise:
            rows = torch.cat([patches_of(batch.features).flatten(0, 2) for batch in first])  # (N, D)
            network.standard.fit(rows, raised=True)

    def training_step(self, network: QueryDecoder, batch: Batch, step: int) -> Tensor:
        """Mean squared error of what is reconstructed from jittered features to the features without jitter."""
        target = network.standard(patches_of(batch.features))  # (B, h, w, D)
        return functional.mse_loss(network(jittered(target, self.jitter, self.jitter_chance)), target)

    def fit_residuals(self, network: QueryDecoder, kept: Sequence[Tensor], stream: Iterator[Batch]) -> None:
        if self.whiten:
            network.whiten.fit(moments_of(network, islice(stream, RESIDUAL_BATCHES)))

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """Root of the mean squared residual over channels `(B, h, w)`; images pass one at a time."""
        patches = patches_of(features)  # (B, h, w, D)
        network = self.trained.on(patches.device)
        return PatchScores(torch.cat([residual_of(network, image[None]) for image in patches]))

    def graph_scores(self, features: Features, category: str) -> PatchScores:
        """As `score`, of all images at once; one network holds for every category."""
        patches = patches_of(features)  # (B, h, w, D)
        return PatchScores(residual_of(self.trained.network, patches))


@torch.no_grad()
def moments_of(network: QueryDecoder, batches: Iterable[Batch]) -> Tensor:
    """The mean of r rᵀ over the residuals r of normal patches, `(D, D)`."""
    total, count = torch.zeros(()), 0
    for batch in batches:
        target = network.standard(patches_of(batch.features))  # (B, h, w, D)
        rows = (network(target) - target).flatten(0, 2)  # (N, D)
        total, count = total.to(rows.device) + rows.T @ rows, count + len(rows)
    return total / count


def residual_of(network: QueryDecoder, patches: Tensor) -> Tensor:
    """How far patches `(B, h, w, D)` are from their reconstruction, `(B, h, w)`."""
    target = network.standard(patches)  # (B, h, w, D)
    return residual(network.whiten(network(target)), network.whiten(target)).sqrt()


def patches_of(features: Features) -> Tensor:
    """All layers joined on the coarsest grid, `(B, h, w, ΣD)`."""
    return concatenate_layers(features.layers[RGB], grid="coarsest")
