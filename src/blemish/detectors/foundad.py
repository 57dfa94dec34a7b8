"""FoundAD: learn to map patch features back onto the manifold of good parts; the residual is the score.

Zhai et al., "Foundation Visual Encoders Are Secretly Few-Shot Anomaly Detectors", 2025. The projector sees the features
of a good image, or of the same image with a synthetic anomaly, and learns to answer with those of the good one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from blemish.detectors.base import Needs, Progress, settings_of
from blemish.detectors.trained import Learned, learned_by, training_of
from blemish.encoders.precision import Precision
from blemish.errors import SettingsError
from blemish.numeric.attention import MlpBlock, TransformerBlock
from blemish.numeric.grids import random_window
from blemish.numeric.pooling import SEVERAL_SHARES
from blemish.numeric.residual import residual
from blemish.numeric.standardise import Standardise
from blemish.numeric.training import Schedule, begun, forever, seeded
from blemish.types import RGB, Batch, Features, PatchScores
from blemish.utils.validation import among, check, flags, is_share, is_whole, whole

ProjectorKind = Literal["vit", "mlp"]
_FIRST = 8  # batches whose good features set the projector's scale


class Projector(nn.Module):
    """Linear `dim`→`width`; `depth` blocks, each one's result added to what went in; LayerNorm; Linear `width`→`dim`.

    The blocks carry residual connections of their own, the outer addition comes on top. No position embedding. Linear
    weights start truncated normal (σ .02), biases at 0. What enters can be standardised, which is taken back from what
    leaves: the same functions can be learned, but sooner where a few channels
    are ten times larger than the rest, as in most vision transformers.
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
        """`patches` `(B, N, dim)` → the good version of them, `(B, N, dim)`; `dropout` of the input, while learning."""
        tokens = self.enter(functional.dropout(self.standard(patches), dropout))
        for block in self.blocks:
            tokens = tokens + block(tokens)
        return self.standard.back(self.leave(self.norm(tokens)).float())


class FoundAD:
    """FoundAD (`foundad`): one projector for all categories, patch score = mean squared residual over channels.

    `width` None is half the feature width, rounded up to a multiple of `heads`. `dropout` acts on the input while
    learning, `gate` is the chance that an image shows its synthetic anomaly. The mean of the `top` largest patch
    scores is the image's; None joins the means of several shares of them.
    `precision` "auto" learns under bfloat16 autocast where the hardware has it; scores are always float32.

    The network, the loss, the synthetic anomalies, the augmentation and the optimiser are the authors'. Their way is
    `framing="plain", steps=2000, learning_rate=1e-3, schedule="constant", warmup=0, crop=0, standardise=False, top=10`.
    By default the part is framed close up (see crop_to_part.py) and learning is made short: a warm-up and half a cosine
    (`schedule`, `warmup`); in the first `crop_share` of the steps only a square of `crop` patches' side, at a random
    place of the image, which the projector allows because it knows no positions; its ends scaled to the good features
    (`standardise`). `rotations` turned copies of every good image are learned too.
    `average` is the decay of an exponential moving average of the weights (0: the last weights).
    """

    def __init__(
        self,
        *,
        depth: int = 6,
        width: int | None = None,
        heads: int = 12,
        projector: ProjectorKind = "vit",
        dropout: float = 0.2,
        gate: float = 0.5,
        steps: int = 1200,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-4,
        schedule: Schedule = "cosine",
        warmup: int = 20,
        crop: int = 12,
        crop_share: float = 0.9,
        rotations: int = 1,
        standardise: bool = True,
        average: float = 0.0,
        top: int | None = None,
        image_size: int = 336,
        framing: str = "part",
        precision: Precision = "auto",
        seed: int = 0,
    ) -> None:
        self.depth, self.width, self.heads, self.projector = depth, width, heads, projector
        self.dropout, self.gate, self.steps = dropout, gate, steps
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.schedule, self.warmup, self.average = schedule, warmup, average
        self.crop, self.crop_share, self.rotations = crop, crop_share, rotations
        self.standardise = standardise
        self.top, self.image_size, self.framing = top, image_size, framing
        self.precision, self.seed = precision, seed
        check(
            self,
            *whole(self, 1, "depth", "heads", "rotations", "image_size"),
            *whole(self, 0, "crop", "seed"),
            ("width", "a whole number of at least 1, or None", width is None or is_whole(width)),
            among(self, "projector", *get_args(ProjectorKind)),
            ("dropout", "a share in [0, 1)", is_share(dropout) and dropout < 1),
            ("gate", "a share in [0, 1]", is_share(gate)),
            ("crop_share", "a share in [0, 1]", is_share(crop_share)),
            ("top", "a whole number of at least 1, or None", top is None or is_whole(top)),
            among(self, "framing", "plain", "part"),
            *flags(self, "standardise"),
        )
        training_of(self).check()

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
            squared=True,
            pooling=SEVERAL_SHARES if self.top is None else f"top:{self.top}",
        )

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Learn `steps` steps from batches that carry `altered`; `loss_` `(steps,)` keeps the loss of every step."""
        # Images of one size share a batch, so that a single one may show a single category.
        first, walk = begun(forever(batches), _FIRST)
        good = torch.cat([batch.features[RGB].flatten(0, 2) for batch in first])  # (N, D)
        with seeded(self.seed):
            dims = (good.shape[-1],)
            projector = self._build(dims).to(good.device)
            if self.standardise:
                projector.standard.learn(good)

            def loss_of(step: int) -> Tensor:
                batch = next(walk)
                target, context = self._windows(batch.features[RGB], self._context(batch), step)  # (B, N, D)
                return functional.mse_loss(projector(context, self.dropout), target)

            loss = training_of(self).run(projector, loss_of, progress)
        self.learned_ = Learned(projector, dims, loss)
        return self

    @property
    def loss_(self) -> Tensor:
        """The loss of every step `(steps,)`."""
        return learned_by(self).loss

    def _context(self, batch: Batch) -> Tensor:
        """What the projector sees: for every image, by chance, the good features or those with a synthetic anomaly."""
        good = batch.features[RGB]  # (B, h, w, D)
        if batch.altered is None:
            raise SettingsError("batches with made-up defects", "batches without", "feed what `needs` asks for")
        altered = torch.rand(len(good), 1, 1, 1) < self.gate
        return torch.where(altered.to(good.device), batch.altered[RGB], good)

    def _windows(self, good: Tensor, context: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Two `(B, h, w, D)` → two `(B, N, D)`: the same square of both while crops are learned, else all patches."""
        if self.crop and step < self.crop_share * self.steps:
            part = random_window((good.shape[1], good.shape[2]), self.crop)
            good, context = good[part], context[part]
        return good.flatten(1, 2), context.flatten(1, 2)

    def _build(self, dims: Sequence[int]) -> Projector:
        dim = sum(dims)
        width = self.width or -(-dim // 2 // self.heads) * self.heads
        if width % self.heads:
            raise SettingsError(
                f"a width that {self.heads} heads divide", str(width), "change width or heads, or leave width unset"
            )
        return Projector(dim, width, self.depth, self.heads, self.projector)

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """Mean squared residual of every patch `(B, h, w)`; images go through one at a time, so none sees another."""
        patches = features[RGB]  # (B, h, w, D)
        projector = learned_by(self).on(patches.device)
        images = [image.flatten(0, 1)[None] for image in patches]  # each (1, N, D)
        residuals = [residual(projector(image), image) for image in images]
        return PatchScores(torch.cat(residuals).view(patches.shape[:3]))

    def state(self) -> dict[str, Tensor]:
        """The projector, its width and its loss (see trained.py)."""
        return learned_by(self).state()

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        self.learned_ = Learned.from_state(state, self._build)
        return self
