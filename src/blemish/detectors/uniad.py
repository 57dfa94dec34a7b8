"""UniAD: rebuild good features from queries that do not see the place they rebuild; one model for all categories.

You et al., "A Unified Model for Multi-class Anomaly Detection", NeurIPS 2022. Three things keep the network from
copying its input, defects included: attention is blind to a patch's neighbourhood, every decoder layer starts from a
learned query instead of the patch, and while learning the input is jittered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from blemish.detectors.base import Needs, Progress, settings_of
from blemish.detectors.patches import joined
from blemish.detectors.trained import Learned, learned_by, training_of
from blemish.encoders.base import LayerRole
from blemish.encoders.precision import Precision
from blemish.errors import SettingsError
from blemish.numeric.attention import Attention, DecoderBlock, TransformerBlock, all_but_neighbours
from blemish.numeric.positions import sine_positions
from blemish.numeric.residual import residual
from blemish.numeric.standardise import Standardise
from blemish.numeric.training import begun, forever, seeded
from blemish.numeric.whiten import Whiten
from blemish.types import RGB, Batch, Features, PatchScores
from blemish.utils.validation import check, is_whole, whole

SIDE = 14  # places a side that queries are learned on; other grids are interpolated
_FIRST = 8  # batches whose good features set the scale
_MEASURED = 24  # batches whose residuals are measured


def jittered(patches: Tensor, scale: float, chance: float) -> Tensor:
    """Patches `(…, D)` with noise: each by `chance`, normal with a spread of `scale`·‖patch‖/D in every channel."""
    spread = patches.norm(dim=-1, keepdim=True) * (scale / patches.shape[-1])
    chosen = torch.rand(patches.shape[:-1], device=patches.device)[..., None] < chance
    return patches + chosen * spread * torch.randn_like(patches)


class QueryBlock(nn.Module):
    """A query that looks at the encoder's answer, then at the last decoder layer's: `(B, N, width)` in and out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.look = Attention(width, heads)
        self.block = DecoderBlock(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, query: Tensor, memory: Tensor, last: Tensor, seen: Tensor | None) -> Tensor:
        """All `(B, N, width)`; `seen` `(N, N)` bool, which patches may look at which."""
        return self.norm(self.block(query + self.look(query, memory, seen), last, seen))


class QueryDecoder(nn.Module):
    """Linear to `width`, `depth` masked encoder blocks, `depth` query blocks, linear back to `dim`."""

    def __init__(self, dim: int, width: int, depth: int, heads: int, radius: int | None) -> None:
        super().__init__()
        self.width, self.radius = width, radius
        self.standard = Standardise(dim)
        self.enter = nn.Linear(dim, width)
        self.encoder = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(depth, width, SIDE, SIDE))
        self.decoder = nn.ModuleList(QueryBlock(width, heads) for _ in range(depth))
        self.leave = nn.Linear(width, dim)
        self.whiten = Whiten(dim)

    def forward(self, patches: Tensor) -> Tensor:
        """Standardised patches `(B, h, w, dim)` → what good ones would be there, `(B, h, w, dim)`."""
        grid = (patches.shape[1], patches.shape[2])
        seen = None if self.radius is None else all_but_neighbours(grid, self.radius)
        seen = seen if seen is None else seen.to(patches.device)
        positions = sine_positions(grid, self.width).flatten(0, 1).to(patches.device)  # (N, width)
        memory = self.enter(patches.flatten(1, 2)) + positions  # (B, N, width)
        for block in self.encoder:
            memory = block(memory, seen)
        memory = self.norm(memory)
        answer = memory
        for query, decode in zip(self._queries_on(grid), self.decoder, strict=True):
            answer = decode((query + positions).expand_as(memory), memory, answer, seen)
        return self.leave(answer).float().unflatten(1, grid)

    def _queries_on(self, grid: tuple[int, int]) -> Tensor:
        """`(depth, h·w, width)`."""
        queries = functional.interpolate(self.queries, grid, mode="bilinear", align_corners=False)
        return queries.flatten(2).transpose(1, 2)


class UniAD:
    """UniAD (`uniad`): one network for all categories; patch score = length of the residual over √channels.

    `depth` encoder and as many decoder blocks of `width`. `radius`: how far around itself a patch is blind, 3 for the
    paper's 7 × 7 patches, None for no mask. `jitter`, `jitter_chance`: the noise on the input while learning (see
    `jittered`). `standardise`: channels are scaled to the good features before anything else, so that none outweighs
    the others in the loss or in the score. `whiten`: the residual is measured by how those of good images vary in
    each direction (see whiten.py); the paper's way is without. `average` is the decay of an exponential moving average
    of the weights. `rotations`, `most_copies`, `pooling`, `image_size`, `framing`, `layers`: see `Needs`.
    """

    def __init__(
        self,
        *,
        width: int = 256,
        depth: int = 4,
        heads: int = 8,
        radius: int | None = 3,
        jitter: float = 20.0,
        jitter_chance: float = 1.0,
        steps: int = 300,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup: int = 20,
        clip: float = 0.1,
        average: float = 0.0,
        standardise: bool = True,
        whiten: bool = True,
        layers: LayerRole = "several",
        rotations: int = 8,
        most_copies: int = 128,
        pooling: str = "top:0.01",
        image_size: int = 224,
        framing: str = "part",
        precision: Precision = "auto",
        seed: int = 0,
    ) -> None:
        self.width, self.depth, self.heads, self.radius = width, depth, heads, radius
        self.jitter, self.jitter_chance = jitter, jitter_chance
        self.steps, self.learning_rate, self.weight_decay = steps, learning_rate, weight_decay
        self.warmup, self.clip, self.average = warmup, clip, average
        self.standardise, self.whiten = standardise, whiten
        self.layers, self.rotations, self.most_copies = layers, rotations, most_copies
        self.pooling, self.image_size, self.framing = pooling, image_size, framing
        self.precision, self.seed = precision, seed
        check(
            self,
            *whole(self, 1, "width", "depth", "heads", "rotations", "image_size"),
            *whole(self, 0, "most_copies"),
            ("radius", "a whole number of at least 0, or None", radius is None or is_whole(radius, 0)),
            ("jitter", "at least 0", jitter >= 0),
            ("jitter_chance", "in [0, 1]", 0 <= jitter_chance <= 1),
        )
        if width % heads:
            raise SettingsError(f"a width that {heads} heads divide", str(width), "change width or heads")
        training_of(self).check()

    @property
    def needs(self) -> Needs:
        return Needs(
            layers=self.layers,
            rotations=self.rotations,
            most_copies=self.most_copies,
            augmentation=True,
            image_size=self.image_size,
            square=True,
            framing=self.framing,
            pooling=self.pooling,
        )

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Learn `steps` steps from good images alone; `loss_` `(steps,)` keeps the loss of every step."""
        walk = (patches_of(batch.features) for batch in forever(batches))  # each (B, h, w, D)
        first, learned = begun(walk, _FIRST)
        with seeded(self.seed):
            dims = (first[0].shape[-1],)
            network = self._build(dims).to(first[0].device)
            if self.standardise:
                network.standard.learn(torch.cat([patches.flatten(0, 2) for patches in first]))

            def loss_of(step: int) -> Tensor:
                target = network.standard(next(learned))
                return functional.mse_loss(network(jittered(target, self.jitter, self.jitter_chance)), target)

            loss = training_of(self).run(network, loss_of, progress)
        if self.whiten:
            network.whiten.learn(moments_of(network, [next(learned) for _ in range(_MEASURED)]))
        self.learned_ = Learned(network, dims, loss)
        return self

    @property
    def loss_(self) -> Tensor:
        """The loss of every step `(steps,)`."""
        return learned_by(self).loss

    def _build(self, dims: Sequence[int]) -> QueryDecoder:
        return QueryDecoder(sum(dims), self.width, self.depth, self.heads, self.radius)

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """Root of the mean squared residual over channels `(B, h, w)`; images go through one at a time."""
        patches = patches_of(features)
        network = learned_by(self).on(patches.device)
        return PatchScores(torch.cat([residual_of(network, image[None]) for image in patches]))

    def state(self) -> dict[str, Tensor]:
        """The network, its width and its loss (see trained.py)."""
        return learned_by(self).state()

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        self.learned_ = Learned.from_state(state, self._build)
        return self


@torch.no_grad()
def moments_of(network: QueryDecoder, batches: Iterable[Tensor]) -> Tensor:
    """The mean of r rᵀ over the residuals r of good patches `(B, h, w, D)`, `(D, D)`."""
    total, count = torch.zeros(()), 0
    for patches in batches:
        target = network.standard(patches)
        rows = (network(target) - target).flatten(0, 2)  # (N, D)
        total, count = total.to(rows.device) + rows.T @ rows, count + len(rows)
    return total / count


def residual_of(network: QueryDecoder, patches: Tensor) -> Tensor:
    """How far patches `(B, h, w, D)` are from what good ones would be there, `(B, h, w)`."""
    target = network.standard(patches)
    return residual(network.whiten(network(target)), network.whiten(target)).sqrt()


def patches_of(features: Features) -> Tensor:
    """All layers side by side on the coarsest grid, `(B, h, w, ΣD)`."""
    return joined(features.layers[RGB], grid="coarsest")
