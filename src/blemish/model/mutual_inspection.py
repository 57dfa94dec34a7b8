"""Inspection without a model or a good image: the images of a set judge one another (MuSc, numeric/mutual_scoring.py).

First all images are read, framed, encoded and compared; then predictions are made one by one, each image decoded again
where there are too many to keep. Features are kept as float16, what exceeds `MEMORY` in a temporary file.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from blemish.data import load_sample
from blemish.data.content import content_warnings
from blemish.data.duplicates import fingerprint
from blemish.data.full_scale import FullScale, learn_full_scale
from blemish.data.loading import ImageInputs, samples_of
from blemish.data.samples import as_rgb, batch_of
from blemish.detectors.hybrid import Hybrid, power_mean
from blemish.encoders.base import Encoder
from blemish.errors import BlemishError, DatasetError, DataWarning, WeightsError
from blemish.model.category_recognition import Recognised
from blemish.model.decoded_images import DecodedImages
from blemish.model.mutual_reasons import MutualReferences
from blemish.model.mutual_settings import MutualSettings
from blemish.model.prediction import Encoded, Inspected, prediction_of
from blemish.model.reasons import ReasonSettings
from blemish.numeric.moments import Moments
from blemish.numeric.mutual_scoring import (
    MIN_IMAGES,
    layer_normalised,
    mutual_patch_scores,
    random_groups,
    reranked,
)
from blemish.numeric.pooling import image_scores
from blemish.numeric.standardise import channel_scale
from blemish.preprocessing.crop_to_part import PartFraming, box
from blemish.preprocessing.foreground import find_part
from blemish.preprocessing.framing import MOST_IMAGES, Framing, build_framing
from blemish.scoring.anomaly_map import map_peak
from blemish.scoring.mutual_calibration import MutualCalibration
from blemish.types import CONTEXT, RGB, WHOLE, Failure, Features, Prediction, Sample
from blemish.utils.array_store import ArrayStore
from blemish.utils.indices import evenly_spaced, group_indices
from blemish.utils.progress import Progress
from blemish.utils.threads import quiet_numpy

MEMORY = 512 << 20  # bytes of features that are kept in memory; the rest goes to a temporary file
USUAL = 0.8  # share of images, those of the most usual size of part, that the framing is fitted on; chosen by hand
NAMED = 5  # files that a message names
# What a user must know of a set that judges itself.
STATEMENT = (
    "No model and no good picture: the pictures judged one another. What most of them share looks normal, "
    "also a defect."
)


@dataclass(frozen=True, eq=False)
class MutualScore:
    """What one image scored: its score, its `patches` `(h, w)` float32, the largest value of its map, and the seconds
    that it took."""

    score: float
    patches: np.ndarray
    peak: float
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class MutualInspection:
    """Images that have judged one another; iterating makes their predictions, in the order in which they were given.

    `scores` are by the index of the image; those that could not be read are in `failures`. `calibrations` and
    `framings` are by category, the unnamed one None among the former and "" among the latter.
    """

    settings: MutualSettings
    encoder: Encoder
    images: DecodedImages
    full_scale: FullScale
    framings: Mapping[str, Framing]
    calibrations: Mapping[str | None, MutualCalibration]
    scores: Mapping[int, MutualScore]
    failures: Mapping[int, Failure]
    reasons: ReasonSettings = field(default_factory=ReasonSettings)

    def with_reasons(
        self,
        language: str = "en",
        mm_per_pixel: float | None = None,
        compare: bool = True,
        defect_names: Sequence[str] | None = None,
        names_encoder: str | Path | Encoder = "auto",
        vlm: str | Path | None = None,
    ) -> Self:
        """The same, with regions described as by `Inspector.with_reasons`; the most normal images are the good ones."""
        device = str(getattr(self.encoder, "device", "cpu"))
        reasons = ReasonSettings.of(language, mm_per_pixel, compare, defect_names, names_encoder, vlm, device)
        return replace(self, reasons=reasons)

    @cached_property
    def references(self) -> MutualReferences:
        """The images that regions are compared with."""
        return MutualReferences(
            self.images.samples,
            self.images.__getitem__,
            lambda i, image: self.framings[self.images.samples[i].category or ""].frame(image),
            self.encoder,
        )

    def __len__(self) -> int:
        """Images that were given, those that cannot be read included."""
        return len(self.images)

    def __iter__(self) -> Iterator[Prediction | Failure]:
        """The prediction for each image, or why there is none; made one by one, so that memory stays bounded."""
        return (one.result for one in self.stream())

    def stream(self, samples: Sequence[Sample] | None = None) -> Generator[Inspected]:
        """The same, each together with its sample and decoded image; of the `samples` alone where some are named."""
        known = {sample.name: i for i, sample in enumerate(self.images.samples)}
        wanted = range(len(self)) if samples is None else [known[sample.name] for sample in samples]
        self.images.expect(i for i in wanted if i in self.scores)
        return (self._inspected(i) for i in wanted)

    @quiet_numpy()
    def _inspected(self, index: int) -> Inspected:
        sample = self.images.samples[index]
        if index in self.failures:
            return Inspected(sample, None, failure=self.failures[index])
        try:
            started = time.perf_counter()
            image = self.images[index]
            category = sample.category or ""
            scored, frame = self.scores[index], self.framings[category].frame(image)
            if frame.note:
                warnings.warn(DataWarning("resolution", sample.name, frame.note), stacklevel=2)
            encoded = Encoded(frame, Features({}), Recognised(category, 0.0, True))
            calibration = self.calibrations[category or None]
            found = prediction_of(encoded, scored.score, scored.patches, None, calibration)
            found = self.references.explained(
                index, frame, found, self._distinct[category], self.reasons, lambda i: self.scores[i] is scored
            )
            seconds = scored.seconds + time.perf_counter() - started
            return Inspected(sample, image, replace(found, seconds=seconds, source=sample.name))
        except BlemishError as error:  # the file has gone or changed since
            return Inspected(sample, None, failure=Failure(sample.name, str(error)))

    @cached_property
    def _distinct(self) -> dict[str, dict[int, float]]:
        """The scores of each category's images by their index; of repetitions, which share a score, the first."""
        found: dict[str, dict[int, float]] = {}
        seen: set[int] = set()
        for i in sorted(self.scores):
            own = found.setdefault(self.images.samples[i].category or "", {})
            if id(self.scores[i]) not in seen:
                seen.add(id(self.scores[i]))
                own[i] = self.scores[i].score
        return found


@quiet_numpy()
def inspect_mutually(
    images: ImageInputs, category: str | None = None, progress: Progress | None = None, **settings: Any
) -> MutualInspection:
    """Inspect images without a model: each is scored by the others, of which most must be normal.

    `images` are files, folders, arrays `(H, W, 3)`, PIL images or samples; those of several categories are judged
    apart, `category` names that of all given. `settings` are those of `MutualSettings`. `progress(done, total, facts)`
    is called while images are read, encoded and compared, with what is being done as "step".

    What most images share looks normal, and so does a defect that about a third of them have. Thresholds come from the
    scores themselves (scoring/mutual_calibration.py); where these leave open which images are normal, all are unsure.

    Iterate over what is returned for a prediction, or a Failure, for each image. Raises DatasetError for fewer than 5
    different readable images of a category, and SettingsError for impossible settings.
    """
    chosen = MutualSettings.of(settings)
    given = list(samples_of(images))
    samples = [one if isinstance(one, Sample) else Sample(np.zeros((1, 1, 3), np.uint8)) for one in given]
    if category is not None:
        samples = [replace(sample, category=category) for sample in samples]
    broken = {i: Failure("array", str(one)) for i, one in enumerate(given) if isinstance(one, BlemishError)}
    check_given(samples, broken)
    encoder = chosen.build_encoder()
    full_scale = learn_full_scale(samples, chosen.bit_depth)
    decoded = DecodedImages(samples, partial(load_sample, full_scale=full_scale))
    steps = Steps(progress, len(samples))
    marks, failures = read(decoded, broken, steps)
    check_enough(samples, marks, failures)
    scores: dict[int, MutualScore] = {}
    framings: dict[str, Framing] = {}
    calibrations: dict[str | None, MutualCalibration] = {}
    for name, members in group_indices([sample.category or "" for sample in samples]).items():
        readable = [i for i in members if i in marks]
        first = {marks[i]: i for i in reversed(readable)}  # of exact repetitions the first; they share its score
        distinct = sorted(first.values())
        framings[name] = learned_framing(chosen, encoder, decoded, distinct)
        own = scored(chosen, encoder, framings[name], decoded, distinct, steps)
        calibrations[name or None] = MutualCalibration.of(
            [one.score for one in own.values()],
            [one.peak for one in own.values()],
            chosen.false_alarm_rate,
            chosen.unsure_rate,
            chosen.expected_defects,
        )
        scores |= {i: own[first[marks[i]]] for i in readable}
    return MutualInspection(chosen, encoder, decoded, full_scale, framings, calibrations, scores, failures)


@dataclass(eq=False)
class Steps:
    """Progress over all that is done before the first prediction, in percent; the steps' shares are rough guesses."""

    progress: Progress | None
    images: int
    done: float = 0.0

    def add(self, step: str, share: float, images: float) -> None:
        """Say that a step, worth a `share` of all the work, is done for so many more images."""
        self.done += 100 * share * images / max(1, self.images)
        if self.progress:
            self.progress(min(100.0, self.done), 100, {"step": step})


def check_given(samples: Sequence[Sample], broken: Mapping[int, Failure]) -> None:
    """Raise DatasetError for too few images, and for measured points alone, before anything is read."""
    points = [i for i, sample in enumerate(samples) if sample.image is None]
    if points and len(points) + len(broken) == len(samples):
        raise DatasetError(
            "pictures that judge one another",
            f"measured points alone, first {samples[points[0]].name}",
            "learn from good scans instead: blemish fit, with an encoder of points",
        )
    if len(samples) < MIN_IMAGES:
        raise too_few(None, f"{len(samples)}")


def check_enough(samples: Sequence[Sample], marks: Mapping[int, str], failures: Mapping[int, Failure]) -> None:
    """Raise DatasetError for a category with fewer than `MIN_IMAGES` different images that can be read."""
    for name, members in group_indices([sample.category or "" for sample in samples]).items():
        different = len({marks[i] for i in members if i in marks})
        if different >= MIN_IMAGES:
            continue
        got = f"{len(members)}"
        if different and different < len(members) - sum(i in failures for i in members):
            got += f", of which {different} differ{'s' * (different == 1)} from the others"
        broken = [failures[i] for i in members if i in failures]
        if broken:
            got += f", of which {len(broken)} cannot be read: {', '.join(one.file for one in broken[:NAMED])}"
        raise too_few(name or None, got)


def too_few(category: str | None, got: str) -> DatasetError:
    """The error for images too few to judge one another."""
    return DatasetError(
        f"at least {MIN_IMAGES} different pictures{f' of {category}' if category else ''} that judge one another",
        got,
        "give more pictures, or learn from good ones (blemish fit)",
    )


def read(
    images: DecodedImages, broken: Mapping[int, Failure], steps: Steps
) -> tuple[dict[int, str], dict[int, Failure]]:
    """The fingerprint of each image that can be read, and why others cannot; warns of odd contents."""
    marks: dict[int, str] = {}
    failures = dict(broken)
    indices = [i for i in range(len(images)) if i not in broken]
    images.expect(indices)
    for i in indices:
        try:
            image = images[i]
            marks[i] = fingerprint(image)
            for warning in content_warnings(as_rgb(image), images.samples[i].name):
                warnings.warn(warning, stacklevel=2)
        except BlemishError as error:
            failures[i] = Failure(images.samples[i].name, str(error))
        steps.add("reading pictures", 0.1, 1)
    return marks, failures


def learned_framing(
    settings: MutualSettings, encoder: Encoder, images: DecodedImages, members: Sequence[int]
) -> Framing:
    """The framing fitted on some of the images at `members`, evenly spaced: no one knows which are normal.

    A framing of the part sees the images whose parts have the most usual sizes, `USUAL` of them, so that a broken part,
    or one that is not found, does not decide it. Where more images show none, the whole image is framed.
    """
    framing = build_framing(settings.framing, image_size=settings.image_size, multiple=encoder.size_multiple)
    some = [members[i] for i in evenly_spaced(len(members), MOST_IMAGES)]
    if isinstance(framing, PartFraming):
        sizes = {i: size for i in some if (size := part_size(as_rgb(images[i]))) is not None}
        most = max(1, round(USUAL * len(some)))
        if len(sizes) >= most:
            middle = np.median(list(sizes.values()), axis=0)  # (2,)
            some = sorted(sorted(sizes, key=lambda i: float(np.abs(sizes[i] - middle).max()))[:most])
    return framing.fit(as_rgb(images[i]) for i in some)


def part_size(image: np.ndarray) -> np.ndarray | None:
    """The logarithms `(2,)` of the longer and shorter side of the part's box in an image; None where it shows none."""
    part = find_part(image)
    return None if part is None else np.sort(np.log(np.maximum(box(part, 0.0)[1], 1e-9)))


def scored(
    settings: MutualSettings,
    encoder: Encoder,
    framing: Framing,
    images: DecodedImages,
    members: Sequence[int],
    steps: Steps,
) -> dict[int, MutualScore]:
    """The mutual scores of the different images at `members`, of one category, group by group."""
    found: dict[int, MutualScore] = {}
    for group in random_groups(len(members), settings.group_size, settings.seed):
        own = [members[i] for i in group]
        started = time.perf_counter()
        with ArrayStore(MEMORY) as store:
            encoded = EncodedGroup(encoder, framing, store)
            images.expect(own)
            for i in own:
                encoded.add(as_rgb(images[i]))
                steps.add("encoding pictures", 0.4, 1)
            compared = [
                mutual_patch_scores(
                    encoded.grids(half),
                    partial(encoded.layer_of, half),
                    settings.neighbourhoods,
                    device=str(getattr(encoder, "device", "cpu")),
                    progress=comparing(steps, len(own) / len(encoded.halves)),
                )
                for half in encoded.halves
            ]
        patches = compared[0] if len(compared) == 1 else joined(compared, settings.pooling)
        if not all(np.isfinite(one).all() for one in patches):
            raise WeightsError("finite patch scores", "NaN or infinite ones", "check the encoder's weights")
        raw = pooled(patches, settings.pooling)  # (n,)
        scores = reranked(raw, np.stack(encoded.whole), settings.ranks)
        seconds = (time.perf_counter() - started) / len(own)
        for i, score, own_patches, size in zip(own, scores, patches, encoded.input_sizes, strict=True):
            found[i] = MutualScore(float(score), own_patches, map_peak(own_patches, size), seconds)
    return found


def joined(compared: Sequence[Sequence[np.ndarray]], pooling: str) -> list[np.ndarray]:
    """Patch scores `(h, w)` of the halves of two joined encoders, n images each, joined as `Hybrid` joins distances.

    The unit of a half is what its median image scores.
    """
    units = [max(float(np.median(pooled(half, pooling))), 1e-12) for half in compared]
    images = zip(*compared, strict=True)
    return [
        power_mean([torch.from_numpy(one)[None] / unit for one, unit in zip(image, units, strict=True)])[0].numpy()
        for image in images
    ]


def pooled(patches: Sequence[np.ndarray], pooling: str) -> np.ndarray:
    """The image scores `(n,)` of patch scores `(h, w)` each."""
    return np.array([image_scores(one[None], pooling)[0] for one in patches])


def comparing(steps: Steps, images: float) -> Callable[[float], None]:
    """What turns the share of compared pairs of a group into progress; rarely, as pairs are many."""
    told = 0.0

    def progress(share: float) -> None:
        nonlocal told
        if share - told >= 0.01 or share >= 1:
            steps.add("comparing pictures", 0.5, (share - told) * images)
            told = share

    return progress


class EncodedGroup:
    """The images of a group as layers of patches, in float16 in a store.

    The layers of one encoder are normalised and compared one by one. Two joined encoders are compared as `Hybrid` does:
    each gives one layer, a half, and the channels of the first are standardised over the group. `halves` are the layers
    that are compared on one scale; `whole` is one vector `(D,)` for each image: what the encoder says of it as a whole,
    or else the mean of its deepest layer; `input_sizes` are what the encoder saw, (height, width).
    """

    def __init__(self, encoder: Encoder, framing: Framing, store: ArrayStore) -> None:
        self.encoder, self.framing, self.store = encoder, framing, store
        self.hybrid = Hybrid() if CONTEXT in encoder.modalities else None
        self.whole: list[np.ndarray] = []
        self.input_sizes: list[tuple[int, int]] = []
        self._grids: list[list[tuple[int, int]]] = []

    def add(self, image: np.ndarray) -> None:
        """Frame and encode one more image `(H, W, 3)` uint8."""
        pixels = self.framing.frame(image).encoder_input
        features = self.encoder.encode(batch_of([pixels]))
        if self.hybrid is None:
            layers = [layer_normalised(layer[0]) for layer in features.layers[RGB]]  # (h, w, D) each
        else:
            layers = [patches[0] for patches in self.hybrid.patches(features).values()]
        for layer in layers:
            self.store.add(layer.half().cpu().numpy())
        self._grids.append([(layer.shape[0], layer.shape[1]) for layer in layers])
        described = features.layers[WHOLE][0] if WHOLE in features.layers else features.layers[RGB][-1]
        self.whole.append(described[0].float().mean(dim=(0, 1)).cpu().numpy())
        self.input_sizes.append((pixels.shape[0], pixels.shape[1]))

    @property
    def halves(self) -> list[range]:
        """The layers that are compared on one scale: all of one encoder, or one of each of two."""
        layers = len(self._grids[0])
        return [range(layers)] if self.hybrid is None else [range(i, i + 1) for i in range(layers)]

    def grids(self, half: range) -> list[list[tuple[int, int]]]:
        """Each image's layers' (height, width), in patches."""
        return [[own[layer] for layer in half] for own in self._grids]

    def layer_of(self, half: range, image: int, layer: int) -> Tensor:
        """One layer `(h, w, D)` float32 of one image; all images have as many layers."""
        found = self._stored(image, half[layer])
        return found / self._scale if self.hybrid is not None and half[layer] == 0 else found

    def _stored(self, image: int, layer: int) -> Tensor:
        return torch.from_numpy(self.store[image * len(self._grids[0]) + layer]).float()

    @cached_property
    def _scale(self) -> Tensor:
        """What the channels of the first half are divided by, `(D,)`."""
        moments = Moments()
        for image in range(len(self._grids)):
            moments.add(self._stored(image, 0).flatten(0, 1))  # (h·w, D)
        return channel_scale(moments.std).float()
