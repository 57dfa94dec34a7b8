"""Reverse distillation: a student rebuilds what a frozen encoder sees from a narrow summary; defects do not come back.

Deng & Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022. The teacher is the
encoder's layers. All of them are squeezed into one compact embedding, from which a convolutional decoder, the student,
answers every layer from the deepest to the shallowest. It has learned to do so for good images only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from blemish.detectors.base import Needs, Progress, settings_of
from blemish.detectors.trained import Learned, learned_by, training_of
from blemish.encoders.base import LayerRole
from blemish.encoders.precision import Precision
from blemish.numeric.grids import on_coarsest
from blemish.numeric.residual import residual
from blemish.numeric.training import Schedule, begun, forever, seeded
from blemish.types import RGB, Batch, Features, PatchScores
from blemish.utils.validation import among, check, flags, whole

_FIRST = 8  # batches whose good features set the scale of the channels


class Norm(nn.LayerNorm):
    """LayerNorm over the channels of `(B, C, h, w)`: no patch sees another, no image its batch."""

    def forward(self, planes: Tensor) -> Tensor:
        return super().forward(planes.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """x + two 3×3 convolutions, each after a norm and GELU: `(B, C, h, w)` in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(Norm(width) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, planes: Tensor) -> Tensor:
        answer = planes
        for norm, conv in zip(self.norms, self.convs, strict=True):
            answer = conv(functional.gelu(norm(answer)))
        return planes + answer


class Student(nn.Module):
    """Layers of widths `dims` → a compact embedding → the same layers again, each on its own grid.

    Bottleneck: every layer averaged down to the coarsest grid and brought to `width` channels, all joined, a
    convolution of stride 2 and `depth` residual blocks: `(B, 2·width, ⌈h/2⌉, ⌈w/2⌉)`. Decoder: from the last layer to
    the first, resized to the layer's grid, `depth` residual blocks of min(`width`, 2·D) channels and a 1×1 convolution.
    Layers are divided by `scale` `(ΣD,)`, 1 unless set.
    """

    scale: Tensor

    def __init__(self, dims: Sequence[int], width: int, depth: int) -> None:
        super().__init__()
        self.dims = tuple(dims)
        widths = [min(width, 2 * dim) for dim in dims]
        self.fuse = nn.ModuleList(nn.Conv2d(dim, width, 1) for dim in dims)
        self.shrink = nn.Conv2d(len(dims) * width, 2 * width, 3, stride=2, padding=1)
        self.embed = nn.Sequential(*(Residual(2 * width) for _ in range(depth)))
        before = [*widths[1:], 2 * width]
        self.enter = nn.ModuleList(nn.Conv2d(old, new, 1) for old, new in zip(before, widths, strict=True))
        self.stages = nn.ModuleList(nn.Sequential(*(Residual(new) for _ in range(depth))) for new in widths)
        self.heads = nn.ModuleList(
            nn.Sequential(Norm(new), nn.Conv2d(new, dim, 1)) for new, dim in zip(widths, dims, strict=True)
        )
        self.register_buffer("scale", torch.ones(sum(dims)))

    def forward(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """Scaled `layers`, each `(B, h, w, D)` → the student's answers, of the same shapes."""
        planes = self.embedding(layers)
        answers: list[Tensor] = []
        for number in reversed(range(len(self.dims))):
            entered = self.enter[number](planes)
            size = layers[number].shape[1:3]
            planes = self.stages[number](functional.interpolate(entered, size, mode="bilinear", align_corners=False))
            answers.insert(0, self.heads[number](planes).permute(0, 2, 3, 1).float())
        return answers

    def embedding(self, layers: Sequence[Tensor]) -> Tensor:
        """The one-class embedding `(B, 2·width, ⌈h/2⌉, ⌈w/2⌉)`, from the coarsest grid (h, w) on."""
        small = [layer.permute(0, 3, 1, 2) for layer in on_coarsest(layers)]
        fused = torch.cat([fuse(layer) for fuse, layer in zip(self.fuse, small, strict=True)], dim=1)
        return self.embed(self.shrink(fused))

    def scaled(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """The teacher's layers in the units that the student answers in."""
        return [layer / scale for layer, scale in zip(layers, self.scale.split(self.dims), strict=True)]

    @torch.no_grad()
    def standardise(self, batches: Sequence[Sequence[Tensor]]) -> None:
        """Take `scale` from the layers of good images: the standard deviation of each channel."""
        spreads = [torch.cat([one.flatten(0, 2) for one in same]).std(0) for same in zip(*batches, strict=True)]
        self.scale.copy_(torch.cat(spreads).clamp_min(1e-6))


class ReverseDistillation:
    """Reverse distillation: one student for all categories, patch score Σ over layers of 1 − cos.

    `width` and `depth` are the student's (see `Student`). Learning makes the mean of 1 − cos between the student's and
    the teacher's patches small, summed over layers, with AdamW for `steps` batches; `learning_rate`, `weight_decay`,
    `schedule`, `warmup`: see `Training`. `standardise`: the teacher's channels are divided by their standard deviation
    over good patches. Good images are augmented, which the teacher sees too. `rotations`, `pooling`, `image_size`,
    `square`, `framing`: see `Needs`. `precision` "auto" learns under bfloat16 autocast where the hardware has it;
    scores are always float32.
    """

    def __init__(
        self,
        *,
        layers: LayerRole = "several",
        width: int = 128,
        depth: int = 1,
        steps: int = 800,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        schedule: Schedule = "cosine",
        warmup: int = 20,
        standardise: bool = True,
        rotations: int = 1,
        pooling: str = "top:0.01",
        image_size: int = 224,
        square: bool = True,
        framing: str = "part",
        precision: Precision = "auto",
        seed: int = 0,
    ) -> None:
        self.layers, self.width, self.depth = layers, width, depth
        self.steps, self.learning_rate, self.weight_decay = steps, learning_rate, weight_decay
        self.schedule, self.warmup, self.standardise = schedule, warmup, standardise
        self.rotations, self.pooling = rotations, pooling
        self.image_size, self.square, self.framing = image_size, square, framing
        self.precision, self.seed = precision, seed
        self._check()

    @property
    def needs(self) -> Needs:
        return Needs(
            layers=self.layers,
            rotations=self.rotations,
            augmentation=True,
            image_size=self.image_size,
            square=self.square,
            framing=self.framing,
            squared=True,  # 1 − cos is half the squared distance of unit vectors
            pooling=self.pooling,
        )

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Learn `steps` steps from good images; `loss_` `(steps,)` keeps the loss of every step."""
        first, walk = begun(forever(batches), _FIRST)
        good = [batch.features.layers[RGB] for batch in first]
        with seeded(self.seed):
            dims = tuple(layer.shape[-1] for layer in good[0])
            student = self._build(dims).to(good[0][0].device)
            if self.standardise:
                student.standardise(good)

            def loss_of(step: int) -> Tensor:
                teacher = student.scaled(next(walk).features.layers[RGB])
                pairs = zip(student(teacher), teacher, strict=True)
                return torch.stack([residual(answer, layer, "cosine").mean() for answer, layer in pairs]).sum()

            loss = training_of(self).run(student, loss_of, progress)
        self.learned_ = Learned(student, dims, loss)
        return self

    @property
    def loss_(self) -> Tensor:
        """The loss of every step `(steps,)`."""
        return learned_by(self).loss

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """Σ over layers of 1 − cos, on the finest grid `(B, h, w)`; images go through one at a time."""
        layers = features.layers[RGB]
        student = learned_by(self).on(layers[0].device)
        maps = [map_of(student, [layer[i : i + 1] for layer in layers]) for i in range(len(features))]
        return PatchScores(torch.cat(maps))

    def state(self) -> dict[str, Tensor]:
        """The student, the layers' widths and its loss (see trained.py)."""
        return learned_by(self).state()

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        self.learned_ = Learned.from_state(state, self._build)
        return self

    def _build(self, dims: Sequence[int]) -> Student:
        student = Student(dims, self.width, self.depth)
        for parameter in student.parameters():
            if parameter.ndim == 4:  # channels last, as the norms want them: no copies in between
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return student

    def _check(self) -> None:
        wishes = (
            among(self, "layers", *get_args(LayerRole)),
            among(self, "framing", "plain", "part"),
            *whole(self, 1, "width", "depth", "steps", "rotations", "image_size"),
            *whole(self, 0, "warmup", "seed"),
            *flags(self, "standardise", "square"),
        )
        check(self, *wishes)
        training_of(self).check()


def map_of(student: Student, layers: Sequence[Tensor]) -> Tensor:
    """Layers, each `(B, h, w, D)` → Σ of 1 − cos to what the student makes of them, `(B, h, w)` on the finest grid."""
    teacher = student.scaled(layers)
    pairs = zip(student(teacher), teacher, strict=True)
    gaps = tuple(residual(answer, layer, "cosine")[..., None] for answer, layer in pairs)  # each (B, h, w, 1)
    return Features({RGB: gaps})[RGB].sum(dim=-1)
