"""Dinomaly: a noisy bottleneck and a linear-attention decoder reconstruct a vision transformer's layers; one model.

Guo, Lu, Zhang, Chen, Li, Liao, "Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection",
CVPR 2025, https://arxiv.org/abs/2405.14325. Dropout in the bottleneck is the noise, linear attention cannot focus on
single patches, layers are reconstructed in groups and not one by one ("loose" constraint), and the "loose" loss shrinks
the gradients of patches that are reconstructed well already: all keep the decoder from reconstructing anomalies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from blemish.detectors.base import Needs
from blemish.detectors.settings import (
    Count,
    CountOrZero,
    Fraction,
    FractionBelowOne,
    ImageFraming,
    NotNegative,
    Pooling,
    Positive,
    check_heads,
)
from blemish.detectors.trained import BatchTrainedDetector
from blemish.encoders.base import LayerRole
from blemish.numeric.attention import AttentionKind, DecoderBlock
from blemish.numeric.grids import on_coarsest, random_window
from blemish.numeric.residual import residual
from blemish.numeric.standardise import Standardise
from blemish.numeric.whiten import Whiten
from blemish.types import RGB, Batch, Features, PatchScores

RESIDUAL_BATCHES = 16  # batches whose residuals are measured; bounds the time of it


def in_groups(items: Sequence[Any], groups: int) -> list[Sequence[Any]]:
    """`items` in `groups` consecutive runs of lengths as equal as can be."""
    ends = [round(len(items) * k / groups) for k in range(groups + 1)]
    return [items[start:end] for start, end in pairwise(ends)]


def fused(layers: Sequence[Tensor]) -> Tensor:
    """Layers `(…, D)` as one: their mean where they are equally wide, else concatenated."""
    equal = len({layer.shape[-1] for layer in layers}) == 1
    return torch.stack(list(layers)).mean(0) if equal else torch.cat(list(layers), dim=-1)


def loose_loss(outputs: Sequence[Tensor], targets: Sequence[Tensor], easiest: float, factor: float) -> Tensor:
    """Mean over groups and images of 1 − cosine between the whole reconstruction of an image and its target.

    `outputs` and `targets` hold one `(B, N, D)` a group. Of all B·N patches, the fraction `easiest` that is
    reconstructed best passes back only `factor` of its gradient.
    """
    losses = []
    for output, target in zip(outputs, targets, strict=True):
        distance = residual(output.detach(), target, "cosine")  # (B, N)
        hard = max(1, round((1 - easiest) * distance.numel()))
        easy = distance < distance.flatten().topk(hard).values[-1]  # (B, N)
        weight = torch.where(easy, factor, 1.0)[..., None]  # (B, N, 1)
        output = weight * output + (1 - weight) * output.detach()  # (B, N, D)
        losses.append(residual(output.flatten(1), target.flatten(1), "cosine").mean())
    return torch.stack(losses).mean()


class NoisyDecoder(nn.Module):
    """Layers of widths `dims`, fused → bottleneck with dropout → `depth` blocks → one output a group of layers.

    The last blocks reconstruct the first group. `width` is that of the bottleneck and the blocks; where a group's width
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
        self.enter = _linear_or_identity(fused_width(dims), width)
        self.bottleneck = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )
        self.blocks = nn.ModuleList(DecoderBlock(width, heads, attention) for _ in range(depth))
        group_dims = [fused_width(part) for part in in_groups(dims, self.groups)]
        self.leave = nn.ModuleList(_linear_or_identity(width, dim) for dim in group_dims)
        self.whiten = nn.ModuleList(Whiten(dim) for dim in group_dims)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def targets(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """What is to be reconstructed of `layers` `(B, N, D)`: one `(B, N, D)` a group."""
        return [fused(part) for part in in_groups(self.scaled(layers), self.groups)]

    def forward(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """`layers` `(B, N, D)` → the reconstruction of each group, `(B, N, D)`."""
        tokens = self.bottleneck(self.enter(fused(self.scaled(layers))))  # (B, N, width)
        decoded = []
        for block in self.blocks:
            tokens = block(tokens)  # (B, N, width)
            decoded.append(tokens)
        parts = in_groups(decoded[::-1], self.groups)
        return [leave(fused(part)).float() for leave, part in zip(self.leave, parts, strict=True)]

    def fit_scales(self, layers: Iterable[Tensor]) -> None:
        """Standardise by normal patches `(…, D)` of each layer, one after the other."""
        for standard, layer in zip(self.standards, layers, strict=True):
            cast(Standardise, standard).fit(layer, raised=True)

    def scaled(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """Each layer `(…, D)`, standardised."""
        return [standard(layer) for standard, layer in zip(self.standards, layers, strict=True)]


def fused_width(dims: Sequence[int]) -> int:
    return dims[0] if len(set(dims)) == 1 else sum(dims)


def _linear_or_identity(have: int, want: int) -> nn.Module:
    return nn.Identity() if have == want else nn.Linear(have, want)


@torch.no_grad()
def fit_whitening(network: NoisyDecoder, batches: Iterable[Sequence[Tensor]]) -> None:
    """Whiten by the residuals of normal patches, layers `(B, N, D)`, in each group, all made unit length first."""
    moments: list[list[Tensor]] = []
    for layers in batches:
        pairs = zip(network(layers), network.targets(layers), strict=True)
        rows = [(normalize(o, dim=-1) - normalize(t, dim=-1)).flatten(0, 1) for o, t in pairs]  # each (B·N, D)
        moments.append([r.T @ r / len(r) for r in rows])  # each (D, D)
    for whiten, same in zip(network.whiten, zip(*moments, strict=True), strict=True):
        cast(Whiten, whiten).fit(torch.stack(same).mean(0))


def layers_of(batch: Batch) -> tuple[Tensor, ...]:
    """The encoder's layers of a batch on the coarsest of their grids, each `(B, h, w, D)`."""
    return on_coarsest(batch.features.layers[RGB])


@dataclass(kw_only=True, eq=False, repr=False)
class Dinomaly(BatchTrainedDetector[NoisyDecoder]):
    """One decoder for all categories; patch score = mean over groups of 1 − cosine to the reconstruction.

    `width` None is the encoder's (of layers of different widths: of all together, rounded up to a multiple of `heads`).
    `groups`: of layers that are reconstructed together, at most as many as there are layers or blocks. `dropout`: the
    noise in the bottleneck. `easiest`: the fraction of patches whose gradients are shrunk by `factor`, reached after
    `ramp` of the steps from 0 on. `crop`: patches a side of the squares that are trained on (0: whole images), which
    the network allows because it knows no positions. `standardise`: channels are scaled to the normal features first.
    `whiten`: in place of the cosine, the residual of unit vectors is measured by how those of normal images vary in
    each direction (see whiten.py); the paper's way is without both. `rotations`, `max_copies`, `pooling`,
    `image_size`, `framing`, `layers`: see `Needs`. All other settings: see `TrainedDetector`.
    """

    width: Count | None = None
    depth: Count = 8
    heads: Count = 6
    groups: Count = 2
    dropout: FractionBelowOne = 0.2
    attention: AttentionKind = "linear"
    easiest: FractionBelowOne = 0.9
    factor: Fraction = 0.1
    ramp: Fraction = 0.1
    steps: Count = 300
    learning_rate: Positive = 2e-3
    max_grad_norm: NotNegative = 0.1
    crop: CountOrZero = 12
    standardise: bool = True
    whiten: bool = True
    layers: LayerRole = "many"
    rotations: Count = 8
    max_copies: CountOrZero = 128
    pooling: Pooling = "top:0.01"
    image_size: Count = 336
    framing: ImageFraming = "part"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.width or self.heads, self.heads, "change width or heads, or leave width unset")

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
            score_exponent=2,  # 1 − cosine is half the squared distance of unit vectors
            pooling=self.pooling,
        )

    def build_network(self, dims: Sequence[int]) -> NoisyDecoder:
        width = self.width or -(-fused_width(dims) // self.heads) * self.heads
        return NoisyDecoder(dims, width, self.depth, self.heads, self.groups, self.dropout, self.attention)

    def widths(self, batch: Batch) -> tuple[int, ...]:
        return tuple(layer.shape[-1] for layer in batch.features.layers[RGB])

    def fit_scales(self, network: NoisyDecoder, first: Sequence[Batch]) -> None:
        if self.standardise:
            layers = zip(*(layers_of(batch) for batch in first), strict=True)
            network.fit_scales(torch.cat([one.flatten(0, 2) for one in layer]) for layer in layers)  # (N, D) each

    def training_step(self, network: NoisyDecoder, batch: Batch, step: int) -> Tensor:
        """The loose loss of one random square of every image."""
        layers = self._tokens(layers_of(batch))  # each (B, N, D)
        return loose_loss(network(layers), network.targets(layers), self._easiest_at(step), self.factor)

    def fit_residuals(self, network: NoisyDecoder, kept: Sequence[Tensor], stream: Iterator[Batch]) -> None:
        if self.whiten:
            fit_whitening(network, (self._tokens(layers_of(batch)) for batch in islice(stream, RESIDUAL_BATCHES)))

    def _tokens(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """The same random square of all `layers` `(B, h, w, D)`, each `(B, N, D)`."""
        if self.crop:
            window = random_window((layers[0].shape[1], layers[0].shape[2]), self.crop)
            layers = [layer[window] for layer in layers]
        return [layer.flatten(1, 2) for layer in layers]

    def _easiest_at(self, step: int) -> float:
        """The fraction of patches whose gradients are shrunk in `step`."""
        ramp = self.ramp * self.steps
        return self.easiest * min(1.0, step / ramp) if ramp else self.easiest

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """Mean over groups of 1 − cosine, `(B, h, w)`; images pass one at a time."""
        layers = on_coarsest(features.layers[RGB])
        network = self.trained.on(layers[0].device)
        scores = [self._residual(network, [layer[i : i + 1] for layer in layers]) for i in range(len(layers[0]))]
        return PatchScores(torch.cat(scores))

    def graph_scores(self, features: Features, category: str) -> PatchScores:
        """As `score`, of all images at once; one decoder holds for every category."""
        layers = on_coarsest(features.layers[RGB])
        return PatchScores(self._residual(self.trained.network, layers))

    def _residual(self, network: NoisyDecoder, layers: Sequence[Tensor]) -> Tensor:
        """How far layers `(B, h, w, D)` are from their reconstruction, `(B, h, w)`."""
        tokens = [layer.flatten(1, 2) for layer in layers]  # each (B, N, D)
        groups = zip(network.whiten, network(tokens), network.targets(tokens), strict=True)
        if self.whiten:
            scores = [
                residual(whiten(normalize(output, dim=-1)), whiten(normalize(target, dim=-1)))
                for whiten, output, target in groups
            ]
        else:
            scores = [residual(output, target, "cosine") for _, output, target in groups]  # each (B, N)
        return torch.stack(scores).mean(0).view(layers[0].shape[:3])
