"""Reverse distillation: a student decodes a frozen encoder's layers from a narrow embedding; anomalies do not pass it.

Deng, Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022,
https://arxiv.org/abs/2201.10703 (RD4AD). The teacher is the encoder's layers. All of them are squeezed into the
one-class embedding, from which a convolutional decoder, the student, reconstructs every layer from the deepest to the
shallowest. It is trained to do so for normal images only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from blemish.detectors.base import Needs
from blemish.detectors.settings import Count, ImageFraming, Pooling, Positive
from blemish.detectors.trained import BatchTrainedDetector
from blemish.encoders.base import LayerRole
from blemish.numeric.grids import on_coarsest
from blemish.numeric.residual import residual
from blemish.numeric.standardise import raised_std
from blemish.types import RGB, Batch, Features, PatchScores


class Norm(nn.LayerNorm):
    """LayerNorm over the channels of `(B, C, h, w)`: independent of other patches and of the batch."""

    def forward(self, planes: Tensor) -> Tensor:
        return super().forward(planes.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """x + two 3×3 convolutions, each after a norm and GELU: `(B, C, h, w)` in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(Norm(width) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, planes: Tensor) -> Tensor:
        output = planes
        for norm, conv in zip(self.norms, self.convs, strict=True):
            output = conv(functional.gelu(norm(output)))  # (B, C, h, w)
        return planes + output


class Student(nn.Module):
    """Layers of widths `dims` → the one-class embedding → the same layers again, each on its own grid.

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
        """Scaled `layers`, each `(B, h, w, D)` → the student's outputs, of the same shapes."""
        planes = self.embedding(layers)  # (B, 2·width, ⌈h/2⌉, ⌈w/2⌉)
        outputs: list[Tensor] = []
        for number in reversed(range(len(self.dims))):
            entered = self.enter[number](planes)
            size = layers[number].shape[1:3]
            resized = functional.interpolate(entered, size, mode="bilinear", align_corners=False)  # (B, C, h, w)
            planes = self.stages[number](resized)
            outputs.insert(0, self.heads[number](planes).permute(0, 2, 3, 1).float())  # (B, h, w, D)
        return outputs

    def embedding(self, layers: Sequence[Tensor]) -> Tensor:
        """The one-class embedding `(B, 2·width, ⌈h/2⌉, ⌈w/2⌉)`, from the coarsest grid (h, w) on."""
        small = [layer.permute(0, 3, 1, 2) for layer in on_coarsest(layers)]  # each (B, D, h, w)
        fused = torch.cat([fuse(layer) for fuse, layer in zip(self.fuse, small, strict=True)], dim=1)  # (B, ·, h, w)
        return self.embed(self.shrink(fused))

    def scaled(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """The teacher's layers in units of the channels' standard deviations, as the student reconstructs them."""
        return [layer / scale for layer, scale in zip(layers, self.scale.split(self.dims), strict=True)]

    @torch.no_grad()
    def standardise(self, batches: Sequence[Sequence[Tensor]]) -> None:
        """Take `scale` from the layers of normal images: the standard deviation of each channel (see `raised_std`)."""
        rows = (torch.cat([one.flatten(0, 2) for one in same]) for same in zip(*batches, strict=True))  # (N, D) each
        self.scale.copy_(torch.cat([raised_std(own.std(0)) for own in rows]))


@dataclass(kw_only=True, eq=False, repr=False)
class ReverseDistillation(BatchTrainedDetector[Student]):
    """One student for all categories; patch score = Σ over layers of 1 − cosine between student and teacher.

    `width` and `depth` are the student's (see `Student`). `standardise`: the teacher's channels are divided by their
    standard deviation over normal patches. Normal images are augmented, which the teacher sees too. `layers`,
    `rotations`, `pooling`, `image_size`, `square`, `framing`: see `Needs`. All other settings: see `TrainedDetector`.
    """

    layers: LayerRole = "several"
    width: Count = 128
    depth: Count = 1
    steps: Count = 800
    learning_rate: Positive = 2e-3
    standardise: bool = True
    rotations: Count = 1
    pooling: Pooling = "top:0.01"
    image_size: Count = 224
    square: bool = True
    framing: ImageFraming = "part"

    @property
    def needs(self) -> Needs:
        return Needs(
            layers=self.layers,
            rotations=self.rotations,
            augmentation=True,
            image_size=self.image_size,
            square=self.square,
            framing=self.framing,
            score_exponent=2,  # 1 − cosine is half the squared distance of unit vectors
            pooling=self.pooling,
        )

    def build_network(self, dims: Sequence[int]) -> Student:
        student = Student(dims, self.width, self.depth)
        for parameter in student.parameters():
            if parameter.ndim == 4:  # channels last, as the norms want them: no copies in between
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return student

    def widths(self, batch: Batch) -> tuple[int, ...]:
        return tuple(layer.shape[-1] for layer in batch.features.layers[RGB])

    def fit_scales(self, network: Student, first: Sequence[Batch]) -> None:
        if self.standardise:
            network.standardise([batch.features.layers[RGB] for batch in first])

    def training_step(self, network: Student, batch: Batch, step: int) -> Tensor:
        """Σ over layers of the mean 1 − cosine between the student's and the teacher's patches."""
        teacher = network.scaled(batch.features.layers[RGB])  # each (B, h, w, D)
        pairs = zip(network(teacher), teacher, strict=True)
        return torch.stack([residual(output, layer, "cosine").mean() for output, layer in pairs]).sum()

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """Σ over layers of 1 − cosine, on the finest grid `(B, h, w)`; images pass one at a time."""
        layers = features.layers[RGB]
        student = self.trained.on(layers[0].device)
        maps = [map_of(student, [layer[i : i + 1] for layer in layers]) for i in range(len(features))]
        return PatchScores(torch.cat(maps))

    def graph_scores(self, features: Features, category: str) -> PatchScores:
        """As `score`, of all images at once; one student holds for every category."""
        layers = features.layers[RGB]
        return PatchScores(map_of(self.trained.network, layers))


def map_of(student: Student, layers: Sequence[Tensor]) -> Tensor:
    """Layers, each `(B, h, w, D)` → Σ of 1 − cosine to the student's output, `(B, h, w)` on the finest grid."""
    teacher = student.scaled(layers)
    pairs = zip(student(teacher), teacher, strict=True)
    distances = tuple(residual(output, layer, "cosine")[..., None] for output, layer in pairs)  # each (B, h, w, 1)
    return Features({RGB: distances})[RGB].sum(dim=-1)
