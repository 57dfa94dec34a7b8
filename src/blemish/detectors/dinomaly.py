"""Dinomaly: a decoder that is kept from generalising rebuilds a transformer's layers; one model for all categories.

Guo et al., "Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection", CVPR 2025. Dropout in
the bottleneck is the noise, linear attention cannot focus on single patches, layers are rebuilt in groups and not one
by one, and the loss loosens its grip on patches that are rebuilt well already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from blemish.detectors.base import Needs, Progress, settings_of
from blemish.detectors.trained import Learned, learned_by, training_of
from blemish.encoders.base import LayerRole
from blemish.encoders.precision import Precision
from blemish.errors import SettingsError
from blemish.numeric.attention import AttentionKind, DecoderBlock
from blemish.numeric.grids import on_coarsest, random_window
from blemish.numeric.residual import residual
from blemish.numeric.standardise import Standardise
from blemish.numeric.training import begun, forever, seeded
from blemish.numeric.whiten import Whiten
from blemish.types import RGB, Batch, Features, PatchScores
from blemish.utils.validation import check, is_whole, whole

_FIRST = 8  # batches whose good features set the scale
_MEASURED = 16  # batches whose residuals are measured


def in_groups(items: Sequence[Any], groups: int) -> list[Sequence[Any]]:
    """`items` in `groups` runs of neighbours, as equal as can be."""
    ends = [round(len(items) * k / groups) for k in range(groups + 1)]
    return [items[start:end] for start, end in pairwise(ends)]


def side_by_side(layers: Sequence[Tensor]) -> Tensor:
    """Layers `(…, D)` as one: their mean where they are equally wide, else side by side."""
    alike = len({layer.shape[-1] for layer in layers}) == 1
    return torch.stack(list(layers)).mean(0) if alike else torch.cat(list(layers), dim=-1)


def loose_loss(answers: Sequence[Tensor], targets: Sequence[Tensor], easiest: float, factor: float) -> Tensor:
    """Mean over groups and images of 1 − cosine between all that was rebuilt of an image and what it should be.

    `answers` and `targets` hold one `(B, N, D)` a group. Of all B·N patches, the share `easiest` that is rebuilt best
    passes back only `factor` of its gradient.
    """
    losses = []
    for answer, target in zip(answers, targets, strict=True):
        distance = residual(answer.detach(), target, "cosine")  # (B, N)
        kept = max(1, round((1 - easiest) * distance.numel()))
        easy = distance < distance.flatten().topk(kept).values[-1]
        weight = torch.where(easy, factor, 1.0)[..., None]  # (B, N, 1)
        answer = weight * answer + (1 - weight) * answer.detach()
        losses.append(residual(answer.flatten(1), target.flatten(1), "cosine").mean())
    return torch.stack(losses).mean()


class NoisyDecoder(nn.Module):
    """Layers of widths `dims`, joined → bottleneck with dropout → `depth` blocks → one answer a group of layers.

    The last blocks rebuild the first group. `width` is that of the bottleneck and the blocks; where a group's width
    differs, a linear layer follows. Weights of linear layers start truncated normal (σ .02), biases at 0.
    """

    def __init__(
        self,
        dims: Sequence[int],
        width: int,
        depth: int,
        heads: int,
        groups: int,
        dropout: float,
        attention: AttentionKind = "linear",
    ) -> None:
        super().__init__()
        self.groups = min(groups, len(dims), depth)
        self.standards = nn.ModuleList(Standardise(dim) for dim in dims)
        self.enter = _fitting(_joined_width(dims), width)
        self.bottleneck = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )
        self.blocks = nn.ModuleList(DecoderBlock(width, heads, attention) for _ in range(depth))
        wide = [_joined_width(part) for part in in_groups(dims, self.groups)]
        self.leave = nn.ModuleList(_fitting(width, dim) for dim in wide)
        self.whiten = nn.ModuleList(Whiten(dim) for dim in wide)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def targets(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """What is to be rebuilt of `layers` `(B, N, D)`: one `(B, N, D)` a group."""
        return [side_by_side(part) for part in in_groups(self.scaled(layers), self.groups)]

    def forward(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """`layers` `(B, N, D)` → the answer for each group, `(B, N, D)`."""
        tokens = self.bottleneck(self.enter(side_by_side(self.scaled(layers))))  # (B, N, width)
        decoded = []
        for block in self.blocks:
            tokens = block(tokens)
            decoded.append(tokens)
        parts = in_groups(decoded[::-1], self.groups)
        return [leave(side_by_side(part)).float() for leave, part in zip(self.leave, parts, strict=True)]

    def learn_scales(self, layers: Iterable[Tensor]) -> None:
        """Standardise by good patches `(…, D)` of each layer."""
        for standard, layer in zip(self.standards, layers, strict=True):
            cast(Standardise, standard).learn(layer)

    def scaled(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """Each layer `(…, D)`, standardised."""
        return [standard(layer) for standard, layer in zip(self.standards, layers, strict=True)]


def _joined_width(dims: Sequence[int]) -> int:
    return dims[0] if len(set(dims)) == 1 else sum(dims)


def _fitting(have: int, want: int) -> nn.Module:
    return nn.Identity() if have == want else nn.Linear(have, want)


@torch.no_grad()
def learn_whitening(network: NoisyDecoder, batches: Iterable[Sequence[Tensor]]) -> None:
    """Measure how the residuals of good patches, layers `(B, N, D)`, vary in each group, all made unit length first."""
    moments: list[list[Tensor]] = []
    for layers in batches:
        pairs = zip(network(layers), network.targets(layers), strict=True)
        rows = [(normalize(a, dim=-1) - normalize(t, dim=-1)).flatten(0, 1) for a, t in pairs]  # each (B·N, D)
        moments.append([r.T @ r / len(r) for r in rows])
    for whiten, same in zip(network.whiten, zip(*moments, strict=True), strict=True):
        cast(Whiten, whiten).learn(torch.stack(same).mean(0))


class Dinomaly:
    """Dinomaly (`dinomaly`): patch score = mean over groups of 1 − cosine between what is there and what was rebuilt.

    `width` None is the encoder's (of layers of different widths: of all together, rounded up to a multiple of `heads`).
    `groups`: of layers that are rebuilt together, at most as many as there are layers or blocks. `dropout`: the noise
    in the bottleneck. `easiest`: the share of patches whose gradients are shrunk by `factor`, reached after `ramp` of
    the steps from 0 on. `crop`: patches a side of the squares that are learned (0: whole images), which the network
    allows because it knows no positions. `standardise`: channels are scaled to the good features first. `whiten`: in
    place of the cosine, the residual of unit vectors is measured by how those of good images vary in each direction
    (see whiten.py); the paper's way is without both.
    `learning_rate` falls to 0 along half a cosine. `average` is the decay of an exponential moving average of the
    weights. `rotations`, `most_copies`, `pooling`, `image_size`, `framing`, `layers`: see `Needs`.
    """

    def __init__(
        self,
        *,
        width: int | None = None,
        depth: int = 8,
        heads: int = 6,
        groups: int = 2,
        dropout: float = 0.2,
        attention: AttentionKind = "linear",
        easiest: float = 0.9,
        factor: float = 0.1,
        ramp: float = 0.1,
        steps: int = 300,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        warmup: int = 20,
        clip: float = 0.1,
        average: float = 0.0,
        crop: int = 12,
        standardise: bool = True,
        whiten: bool = True,
        layers: LayerRole = "many",
        rotations: int = 8,
        most_copies: int = 128,
        pooling: str = "top:0.01",
        image_size: int = 336,
        framing: str = "part",
        precision: Precision = "auto",
        seed: int = 0,
    ) -> None:
        self.width, self.depth, self.heads, self.groups = width, depth, heads, groups
        self.dropout, self.attention = dropout, attention
        self.easiest, self.factor, self.ramp = easiest, factor, ramp
        self.steps, self.learning_rate, self.weight_decay = steps, learning_rate, weight_decay
        self.warmup, self.clip, self.average = warmup, clip, average
        self.crop, self.layers = crop, layers
        self.standardise, self.whiten = standardise, whiten
        self.rotations, self.most_copies, self.pooling = rotations, most_copies, pooling
        self.image_size, self.framing = image_size, framing
        self.precision, self.seed = precision, seed
        check(
            self,
            *whole(self, 1, "depth", "heads", "groups", "rotations", "image_size"),
            *whole(self, 0, "crop", "most_copies"),
            ("width", "a whole number of at least 1, or None", width is None or is_whole(width)),
            ("dropout", "in [0, 1)", 0 <= dropout < 1),
            ("attention", '"linear" or "softmax"', attention in ("linear", "softmax")),
            ("easiest", "in [0, 1)", 0 <= easiest < 1),
            ("factor", "in [0, 1]", 0 <= factor <= 1),
            ("ramp", "in [0, 1]", 0 <= ramp <= 1),
        )
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
            squared=True,  # 1 − cosine is half the squared distance of unit vectors
            pooling=self.pooling,
        )

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Learn `steps` steps from good images alone; `loss_` `(steps,)` keeps the loss of every step."""
        walk = (on_coarsest(batch.features.layers[RGB]) for batch in forever(batches))
        first, learned = begun(walk, _FIRST)
        with seeded(self.seed):
            dims = tuple(layer.shape[-1] for layer in first[0])
            network = self._build(dims).to(first[0][0].device)
            if self.standardise:
                network.learn_scales(
                    [torch.cat([layer.flatten(0, 2) for layer in same]) for same in zip(*first, strict=True)]
                )

            def loss_of(step: int) -> Tensor:
                layers = self._tokens(next(learned))
                answers, targets = network(layers), network.targets(layers)
                return loose_loss(answers, targets, self._easiest_at(step), self.factor)

            loss = training_of(self).run(network, loss_of, progress)
            if self.whiten:
                learn_whitening(network, (self._tokens(next(learned)) for _ in range(_MEASURED)))
        self.learned_ = Learned(network, dims, loss)
        return self

    @property
    def loss_(self) -> Tensor:
        """The loss of every step `(steps,)`."""
        return learned_by(self).loss

    def _tokens(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """The same random square of all `layers` `(B, h, w, D)`, each `(B, N, D)`."""
        if self.crop:
            window = random_window((layers[0].shape[1], layers[0].shape[2]), self.crop)
            layers = [layer[window] for layer in layers]
        return [layer.flatten(1, 2) for layer in layers]

    def _easiest_at(self, step: int) -> float:
        """The share of patches whose gradients are shrunk in `step`."""
        ramp = self.ramp * self.steps
        return self.easiest * min(1.0, step / ramp) if ramp else self.easiest

    def _build(self, dims: Sequence[int]) -> NoisyDecoder:
        width = self.width or -(-_joined_width(dims) // self.heads) * self.heads
        if width % self.heads:
            raise SettingsError(
                f"a width that {self.heads} heads divide", str(width), "change width or heads, or leave width unset"
            )
        return NoisyDecoder(dims, width, self.depth, self.heads, self.groups, self.dropout, self.attention)

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """Mean over groups of 1 − cosine, `(B, h, w)`; images go through one at a time."""
        layers = on_coarsest(features.layers[RGB])
        network = learned_by(self).on(layers[0].device)
        scores = [self._residual(network, [layer[i : i + 1] for layer in layers]) for i in range(len(layers[0]))]
        return PatchScores(torch.cat(scores))

    def _residual(self, network: NoisyDecoder, layers: Sequence[Tensor]) -> Tensor:
        """How far layers `(B, h, w, D)` are from what was rebuilt of them, `(B, h, w)`."""
        tokens = [layer.flatten(1, 2) for layer in layers]
        groups = zip(network.whiten, network(tokens), network.targets(tokens), strict=True)
        if self.whiten:
            scores = [
                residual(whiten(normalize(answer, dim=-1)), whiten(normalize(target, dim=-1)))
                for whiten, answer, target in groups
            ]
        else:
            scores = [residual(answer, target, "cosine") for _, answer, target in groups]
        return torch.stack(scores).mean(0).view(layers[0].shape[:3])

    def state(self) -> dict[str, Tensor]:
        """The network, the layers' widths and its loss (see trained.py)."""
        return learned_by(self).state()

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        self.learned_ = Learned.from_state(state, self._build)
        return self
