"""A fitted model of images as one network: framed images in, scores, maps and verdicts out.

What `FittedModel` does step by step in Python, for one category and one size of frame, with the batch left open. Each
step is the one that prediction takes, by operations that a graph format has: encoders by their networks, detectors by
`Exportable.graph_scores`, strips in the encoder's tiles, pooling by the largest scores of the same windows, the map by
the same two matrices as `scoring/anomaly_map.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from blemish.detectors.base import Exportable
from blemish.encoders.base import Encoder
from blemish.encoders.composite.two_image import JointEncoder
from blemish.encoders.image.frozen import FrozenEncoder
from blemish.encoders.image.tiling import LONG, kept, tiles
from blemish.errors import SettingsError
from blemish.model.category_recognition import recognition_step
from blemish.model.fitted import FittedModel
from blemish.numeric.pooling import pooled_counts, windows
from blemish.runtime.engines import INPUT as INPUT
from blemish.scoring.anomaly_map import BLUR, axis_operator
from blemish.scoring.calibration import Calibration
from blemish.types import CONTEXT, RGB, Features
from blemish.utils.indices import group_indices

# The first four are those that users of anomalib know; the last two are what blemish's own runtime reads.
OUTPUTS = ("pred_score", "pred_label", "anomaly_map", "pred_mask", "patch_scores", "distance")


class InspectionGraph(nn.Module):
    """`images` `(B, H, W, 3)` uint8, framed, of one category → `OUTPUTS`, in order.

    `pred_score` `(B,)`, `pred_label` `(B,)` bool (score over the threshold), `anomaly_map` `(B, H, W)`, `pred_mask`
    `(B, H, W)` bool (map over the threshold of regions), `patch_scores` `(B, h, w)`, `distance` `(B,)` to what was
    fitted (see category_recognition.py). Raises SettingsError for what has no such form.
    """

    def __init__(self, model: FittedModel, category: str | None, size: tuple[int, int]) -> None:
        super().__init__()
        self.encoder = encoder_graph(model.encoder, size)
        self.detector, self.category = exportable(model), category or ""
        self.network = network_of(model.detector)
        self.pooling = model.detector.needs.pooling
        calibration = model.calibrations[category]
        for name, value in graph_thresholds(calibration).items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32))
        self.size = size
        own = model.recogniser.by_source_[RGB]
        references = torch.from_numpy(own.reference_patches_[own.names_.index(self.category)])  # (N, D)
        self.register_buffer("references", references)
        with torch.inference_mode(False), torch.no_grad():  # what detectors keep of their own is made before tracing
            self(torch.zeros(1, *size, 3, dtype=torch.uint8))

    references: Tensor
    threshold: Tensor
    region_threshold: Tensor

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.encoder(images)
        scores = self.detector.graph_scores(features, self.category)
        patches = scores.patches.float()  # (B, h, w)
        pooled = pooled_graph(patches, self.pooling) if scores.images is None else scores.images
        down, across = (
            torch.from_numpy(axis_operator(patches.shape[1 + i], self.size[i], BLUR).copy()) for i in range(2)
        )
        anomaly_map = down @ patches @ across.T  # (B, H, W)
        label, mask = pooled > self.threshold, anomaly_map >= self.region_threshold
        return pooled, label, anomaly_map, mask, patches, self.distance(features)

    def distance(self, features: Features) -> Tensor:
        """The mean distance `(B,)` of evenly spaced patches to the category's, as `CategoryRecogniser` measures it."""
        layer = features.layers[RGB][-1].float()  # (B, h, w, D)
        step = recognition_step(layer.shape[1], layer.shape[2])
        patches = normalize(layer[:, ::step, ::step].flatten(1, 2), dim=-1)  # (B, P, D)
        likeness = (patches @ self.references.T).amax(-1)  # (B, P)
        return (2 - 2 * likeness).clamp_min(0).sqrt().mean(1)


def exportable(model: FittedModel) -> Exportable:
    """The model's detector. Raises SettingsError where no graph can hold its scores."""
    return exportable_detector(model.detector, model.settings.detector_name)


def exportable_detector(detector: object, name: str) -> Exportable:
    """The detector of this name itself. Raises SettingsError where no graph can hold its scores."""
    if not isinstance(detector, Exportable):
        raise SettingsError(
            "a detector that can be exported",
            repr(name),
            "inspect with the model itself, or fit another detector: `blemish list detectors`",
        )
    return detector


def network_of(detector: object) -> nn.Module:
    """The network that a detector trained, which a graph must own; an empty one where it trained none."""
    trained = getattr(detector, "trained_", None)
    network: nn.Module = nn.Identity() if trained is None else trained.network
    return network


def has_pooling(model: FittedModel) -> bool:
    """Whether image scores are pooled from patch scores; not so where a detector has image scores of its own."""
    return not getattr(model.detector, "reweighting_neighbours", 0)


def distance_threshold(model: FittedModel, category: str | None) -> float:
    """The distance to what was fitted up to which an image of a category is known; 1e30 where any is."""
    recogniser = model.recogniser.by_source_[RGB]
    threshold = float(recogniser.distance_thresholds_[recogniser.names_.index(category or "")])
    return threshold if math.isfinite(threshold) else 1e30


def graph_thresholds(calibration: Calibration) -> dict[str, float]:
    """What a graph compares scores and map values with, by the name that the number has in it."""
    return {
        "threshold": calibration.threshold,
        "region_threshold": min(calibration.region_threshold, calibration.peak_threshold),
    }


def pooled_graph(patches: Tensor, pooling: str) -> Tensor:
    """Image scores `(B,)` from patch scores `(B, h, w)`, as `numeric.pooling.image_scores`."""
    pieces = [patches[:, down, across] for down, across in windows(tuple(patches.shape[1:]))]
    return torch.stack([pooled_piece(piece, pooling) for piece in pieces], dim=1).amax(1)


def pooled_piece(patches: Tensor, pooling: str) -> Tensor:
    """One score `(B,)` for all of the patch scores `(B, h, w)`, as `numeric.pooling.image_score`."""
    flat = patches.flatten(1)  # (B, N)
    counts = pooled_counts(pooling, flat.shape[1])
    largest = flat.topk(max(counts), dim=1).values  # (B, most), descending
    means = torch.stack([largest[:, :count].mean(1) for count in counts], dim=1)  # (B, counts)
    return means[:, 0] if len(counts) == 1 else means.clamp_min(1e-12).log().mean(1).exp()


class FrozenGraph(nn.Module):
    """A `FrozenEncoder` as a network from `(B, H, W, 3)`, levels 0 to 255, to its layers, under `modality`.

    Strips go through it in tiles, as through the encoder; where these lie depends on the size alone.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, encoder: FrozenEncoder, modality: str = RGB) -> None:
        super().__init__()
        self.network, self.modality = deepcopy(encoder.network).float(), modality  # the model's own stays as it is
        self.multiple = encoder.size_multiple
        scale, shift = encoder.scale_and_shift
        self.register_buffer("scale", scale.flatten())  # (3,)
        self.register_buffer("shift", shift.flatten())  # (3,)

    def forward(self, images: Tensor) -> Features:
        # Channels last: OpenVINO fails to fuse a scale of the second axis of three into the product before it.
        planes = (images.float() * self.scale + self.shift).permute(0, 3, 1, 2)  # (B, 3, H, W)
        height, width = planes.shape[2:]
        is_strip = max(height, width) > LONG * min(height, width)
        layers = self.in_tiles(planes) if is_strip else self.network(planes)
        return Features({self.modality: tuple(layer.float() for layer in layers)})

    def in_tiles(self, planes: Tensor) -> Sequence[Tensor]:
        """The layers of long images `(B, 3, H, W)`, as `tiling.encode_in_tiles`; tiles of one length together."""
        height, width = planes.shape[2:]
        side = 1 if height > width else 2  # the long one, of layers; one more of planes
        places = list(tiles(max(height, width), min(height, width), self.multiple))
        parts: dict[int, list[Tensor]] = {}  # of each tile the layers that it adds
        for members in group_indices([place[3] - place[2] for place in places]).values():
            stacked = torch.cat([planes.narrow(side + 1, places[i][2], places[i][3] - places[i][2]) for i in members])
            found = [layer.unflatten(0, (len(members), -1)) for layer in self.network(stacked)]  # (tiles, B, h, w, D)
            for row, i in enumerate(members):
                start, end, outer, outer_end = places[i]
                parts[i] = [kept(layer[row], side, start - outer, end - start, outer_end - outer) for layer in found]
        return [torch.cat(same, dim=side) for same in zip(*(parts[i] for i in range(len(places))), strict=True)]


class JointGraph(nn.Module):
    """A `JointEncoder` as a network; frames of one `size` are downsampled for its second half by two matrices."""

    down: Tensor
    across: Tensor

    def __init__(self, encoder: JointEncoder, size: tuple[int, int]) -> None:
        super().__init__()
        first, second = (plain_encoder(part) for part in encoder.parts)
        self.first, self.second = FrozenGraph(first), FrozenGraph(second, CONTEXT)
        height, width = encoder.context_size(*size)
        self.resizes = (height, width) != size
        self.register_buffer("down", resampling(size[0], height))  # (h, H)
        self.register_buffer("across", resampling(size[1], width))  # (w, W)

    def forward(self, images: Tensor) -> Features:
        small = images
        if self.resizes:
            planes = images.float().permute(0, 3, 1, 2)  # (B, 3, H, W)
            # Torch resizes whole levels along one side after the other; after each it rounds, halves upwards.
            narrow = (planes @ self.across.T + 0.5).floor()  # (B, 3, H, w)
            small = (self.down @ narrow + 0.5).floor().clamp(0, 255).permute(0, 2, 3, 1)  # (B, h, w, 3)
        return Features({**self.first(images).layers, **self.second(small).layers})


def resampling(length: int, target: int) -> Tensor:
    """The matrix `(target, length)` by which an axis is resized: bilinear, antialiased."""
    unit = torch.eye(length, dtype=torch.float64)[None, None]  # (1, 1, length, length): each column has a pixel of 1
    return interpolate(unit, (target, length), mode="bilinear", antialias=True)[0, 0].float().contiguous()


def plain_encoder(encoder: Encoder) -> FrozenEncoder:
    """The encoder itself where it is one network of images; else SettingsError."""
    if not isinstance(encoder, FrozenEncoder):
        raise SettingsError(
            "an encoder of pictures that is one network", repr(encoder.name), "export a model of another encoder"
        )
    return encoder


def encoder_graph(encoder: Encoder, size: tuple[int, int]) -> nn.Module:
    """The encoder as a network of framed images of a `size` (height, width)."""
    if isinstance(encoder, JointEncoder):
        return JointGraph(encoder, size)
    return FrozenGraph(plain_encoder(encoder))
