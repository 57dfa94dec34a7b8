"""FoundAD: a projector maps patch features onto the manifold of normal ones; the residual is the anomaly score.

Zhai, Zhou, Deng, Heckler, Navab, Busam, "Foundation Visual Encoders Are Secretly Few-Shot Anomaly Detectors", ICLR
2026, https://arxiv.org/abs/2510.01934. The projector sees the features of a normal image, or of the same image with a
synthetic anomaly, and is trained to return those of the normal one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from blemish.detectors.base import Needs
from blemish.detectors.settings import (
    Count,
    CountOrZero,
    Fraction,
    FractionBelowOne,
    ImageFraming,
    Positive,
    check_heads,
)
from blemish.detectors.trained import BatchTrainedDetector
from blemish.errors import SettingsError
from blemish.numeric.attention import MlpBlock, TransformerBlock
from blemish.numeric.grids import random_window
from blemish.numeric.pooling import SEVERAL_SHARES
from blemish.numeric.residual import residual
from blemish.numeric.standardise import Standardise
from blemish.types import RGB, Batch, Features, PatchScores

ProjectorKind = Literal["vit", "mlp"]


class Projector(nn.Module):
    """Linear `dim`→`width`; `depth` blocks, each block's output added to its input; LayerNorm; Linear `width`→`dim`.

    The blocks have residual connections of their own, the outer addition comes on top. No position embedding. Linear
    weights start truncated normal (σ .02), biases at 0. The input can be standardised, which is undone in the output:
    the same functions can be represented, but training is faster where a few channels are ten times larger than the
    rest, as in most vision transformers.
    """

    def __init__(self, dim: int, width: int, depth: int, heads: int, kind: ProjectorKind = "vit") -> None:
        super().__init__()
        self.standard = Standardise(dim)
        self.enter = nn.Linear(dim, width)
        make = (lambda: TransformerBlock(width, heads)) if kind == "vit" else (lambda: MlpBlock(width))
        self.blocks = nn.ModuleList(make() for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.leave = nn.Linear(width, dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, patches: Tensor, dropout: float = 0.0) -> Tensor:
        """`patches` `(B, N, dim)` → their projection onto the normal ones, `(B, N, dim)`; `dropout` while training."""
        tokens = self.enter(functional.dropout(self.standard(patches), dropout))  # (B, N, width)
        for block in self.blocks:
            tokens = tokens + block(tokens)  # (B, N, width)
        return self.standard.back(self.leave(self.norm(tokens)).float())  # (B, N, dim)


@dataclass(kw_only=True, eq=False, repr=False)
class FoundAD(BatchTrainedDetector[Projector]):
    """One projector for all categories; patch score = mean squared residual over channels.

    `depth` blocks of `heads` heads and `width`, None for half the feature width, rounded up to a multiple of `heads`;
    `projector`: of attention ("vit") or perceptron ("mlp") blocks. `dropout` acts on the input while training, `gate`
    is the probability that an image shows its synthetic anomaly. The mean of the `top` largest patch scores is the
    image's; None joins the means of several fractions of them.

    The network, the loss, the synthetic anomalies, the augmentation and the optimiser are the authors'. Their way is
    `framing="plain", steps=2000, learning_rate=1e-3, schedule="constant", warmup_steps=0, crop=0, standardise=False,
    top=10`. By default the part is framed close up (see crop_to_part.py) and training is made short: by a warm-up and
    half a cosine; by training in the first `crop_share` of the steps on a square of `crop` patches' side only, at a
    random place of the image, which the projector allows because it knows no positions; by scaling input and output to
    the normal features (`standardise`). `rotations`: turned copies of every normal image. All others: see
    `TrainedDetector`.
    """

    depth: Count = 6
    width: Count | None = None
    heads: Count = 12
    projector: ProjectorKind = "vit"
    dropout: FractionBelowOne = 0.2
    gate: Fraction = 0.5
    steps: Count = 1200
    learning_rate: Positive = 3e-3
    crop: CountOrZero = 12
    crop_share: Fraction = 0.9
    rotations: Count = 1
    standardise: bool = True
    top: Count | None = None
    image_size: Count = 336
    framing: ImageFraming = "part"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.projector == "vit":
            check_heads(self.width or self.heads, self.heads, "change width or heads, or leave width unset")

    @property
    def needs(self) -> Needs:
        return Needs(
            layers="projection",
            rotations=self.rotations,
            augmentation=True,
            synthetic_anomalies=True,
            image_size=self.image_size,
            square=True,
            framing=self.framing,
            score_exponent=2,
            pooling=SEVERAL_SHARES if self.top is None else f"top:{self.top}",
        )

    def build_network(self, dims: Sequence[int]) -> Projector:
        """A projector for features of all `dims` joined."""
        dim = sum(dims)
        width = self.width or -(-dim // 2 // self.heads) * self.heads
        return Projector(dim, width, self.depth, self.heads, self.projector)

    def widths(self, batch: Batch) -> tuple[int, ...]:
        return (batch.features[RGB].shape[-1],)

    def fit_scales(self, network: Projector, first: Sequence[Batch]) -> None:
        # Images of one size share a batch, so that a single one may show a single category: several are looked at.
        if self.standardise:
            rows = torch.cat([batch.features[RGB].flatten(0, 2) for batch in first])  # (N, D)
            network.standard.fit(rows, raised=True)

    def training_step(self, network: Projector, batch: Batch, step: int) -> Tensor:
        """Mean squared error of the projected context to the normal features of the same patches."""
        target, context = self._windows(batch.features[RGB], self._context(batch), step)  # (B, N, D) each
        return functional.mse_loss(network(context, self.dropout), target)

    def _context(self, batch: Batch) -> Tensor:
        """What the projector sees `(B, h, w, D)`: of every image, by chance, the features with a synthetic anomaly."""
        normal = batch.features[RGB]  # (B, h, w, D)
        if batch.altered is None:
            raise SettingsError("batches with made-up defects", "batches without", "feed what `needs` asks for")
        anomalous = torch.rand(len(normal), 1, 1, 1) < self.gate  # (B, 1, 1, 1)
        return torch.where(anomalous.to(normal.device), batch.altered[RGB], normal)

    def _windows(self, target: Tensor, context: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Two `(B, h, w, D)` → two `(B, N, D)`: the same random square of both in the cropped steps, else all."""
        if self.crop and step < self.crop_share * self.steps:
            window = random_window((target.shape[1], target.shape[2]), self.crop)
            target, context = target[window], context[window]
        return target.flatten(1, 2), context.flatten(1, 2)

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """Mean squared residual of every patch `(B, h, w)`; images pass one at a time, so none attends to another."""
        patches = features[RGB]  # (B, h, w, D)
        projector = self.trained.on(patches.device)
        images = [image.flatten(0, 1)[None] for image in patches]  # each (1, N, D)
        residuals = [residual(projector(image), image) for image in images]  # each (1, N)
        return PatchScores(torch.cat(residuals).view(patches.shape[:3]))

    def graph_scores(self, features: Features, category: str) -> PatchScores:
        """As `score`, of all images at once; one projector holds for every category."""
        patches = features[RGB]  # (B, h, w, D)
        tokens = patches.flatten(1, 2)  # (B, N, D)
        return PatchScores(residual(self.trained.network(tokens), tokens).view(patches.shape[:3]))
