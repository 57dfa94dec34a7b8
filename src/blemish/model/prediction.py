"""From an image to its prediction: decode, frame, encode, recognise the category, score, map, regions, verdict.

All functions of a `FittedModel`; none changes it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from blemish.data import load_sample
from blemish.data.content import content_warnings
from blemish.data.samples import batch_of
from blemish.detectors.base import Detector, Explains, StatesRules
from blemish.encoders.composite.two_image import rgb_encoder
from blemish.errors import BlemishError, DataWarning
from blemish.model.category_recognition import Recognised
from blemish.model.fitted import FittedModel
from blemish.model.reasons import InspectedFrame, with_reasons
from blemish.preprocessing.framing import Frame
from blemish.preprocessing.ignored_area import fill_ignored, ignored_pixels
from blemish.scoring.calibration import Calibration
from blemish.scoring.detector_scores import detector_scores
from blemish.scoring.image_prediction import image_prediction, map_of_image
from blemish.scoring.mutual_calibration import MutualCalibration
from blemish.types import BrokenRule, Failure, Features, ImageOrScan, Prediction, Region, Sample, Scan
from blemish.utils.indices import group_indices
from blemish.utils.read_ahead import ReadAhead
from blemish.utils.threads import quiet_numpy


@dataclass(frozen=True, eq=False)
class Inspected:
    """One inspected image: what was given, its decoded pixels, and either a prediction or a failure.

    `sample` is None where what was given is no image at all, `image` where it could not be decoded.
    """

    sample: Sample | None
    image: ImageOrScan | None
    prediction: Prediction | None = None
    failure: Failure | None = None

    @property
    def result(self) -> Prediction | Failure:
        """The prediction, or else the failure."""
        found = self.prediction or self.failure
        assert found is not None  # one of them is there
        return found


@dataclass(frozen=True, eq=False)
class Opened:
    """A decoded image or scan, its frame where that is known already, and the seconds that took.

    `category` is that which was given, None where it is to be recognised.
    """

    sample: Sample
    image: ImageOrScan
    frame: Frame | None
    seconds: float
    category: str | None = None


@dataclass(frozen=True, eq=False)
class Encoded:
    """One image as the encoder sees it: its frame, features `(1, h, w, D)`, and the category it shows.

    `ignored` `(h, w)` bool is the area of it that is not judged, if any.
    """

    frame: Frame
    features: Features
    recognised: Recognised
    ignored: np.ndarray | None = None


def inspect_stream(
    model: FittedModel,
    samples: Iterable[Sample | BlemishError],
    category: str | None = None,
    batch_size: int | None = None,
    is_live: bool = False,
    are_given: bool = False,
) -> Generator[Inspected]:
    """Decode ahead in a thread; inspect a few images together, in order, so that memory stays bounded.

    `category` is given for all of them, or, where `are_given`, that of each sample, which the model knows.
    `batch_size` images of equal framed size are encoded at once, by default 1 on a CPU and 16 elsewhere. Where the
    source `is_live`, an image never waits for the next one to arrive: batches are then as large as what is at hand.
    """
    size = batch_size or (16 if "cuda" in str(getattr(model.encoder, "device", "cpu")) else 1)
    batch: list[Opened] = []

    def opened_ahead(sample: Sample | BlemishError) -> Opened | Inspected:
        own = sample.category if are_given and isinstance(sample, Sample) else category
        return open_or_fail(model, sample, own)

    with closing(ReadAhead(samples, opened_ahead, 2 * size)) as stream:
        while True:
            try:
                opened = next(stream, None)
            except Exception:  # of the source: what it gave before is inspected first
                yield from inspect_batch(model, batch)
                raise
            if opened is None:
                break
            if isinstance(opened, Opened):
                batch.append(opened)
            is_due = len(batch) == size or isinstance(opened, Inspected) or (is_live and not stream.has_result)
            if batch and is_due:
                yield from inspect_batch(model, batch)
                batch = []
            if isinstance(opened, Inspected):
                yield opened
        yield from inspect_batch(model, batch)


def inspect_batch(model: FittedModel, batch: Sequence[Opened]) -> Iterator[Inspected]:
    """Each image of a batch with its prediction."""
    predictions = predict(model, batch) if batch else []
    for opened, prediction in zip(batch, predictions, strict=True):
        yield Inspected(opened.sample, opened.image, prediction)


def open_or_fail(model: FittedModel, sample: Sample | BlemishError, category: str | None) -> Opened | Inspected:
    """The opened image, or its failure. What is no image at all comes as its error."""
    if isinstance(sample, BlemishError):
        return Inspected(None, None, failure=Failure("array", str(sample)))
    try:
        return open_image(model, sample, category)
    except BlemishError as error:
        return Inspected(sample, None, failure=Failure(sample.name, str(error)))


def open_image(model: FittedModel, sample: Sample, category: str | None) -> Opened:
    """Decode an image, and frame it where its framing does not depend on a category yet to be recognised."""
    started = time.perf_counter()
    sample = model.settings.measured(sample)
    image = load_sample(sample, model.modalities, model.full_scale)
    rgb = image.image if isinstance(image, Scan) else image
    for warning in [] if rgb is None else content_warnings(rgb, sample.name):
        warnings.warn(warning, stacklevel=2)
    is_certain = model.recognition_framing is None or category is not None
    frame = frame_of(model, image, category) if is_certain else None
    return Opened(sample, image, frame, time.perf_counter() - started, category)


def frame_of(model: FittedModel, image: ImageOrScan, category: str | None) -> Frame:
    """What the encoder sees of an image of a category, without what that ignores."""
    return model.framing_of(category).frame(fill_ignored(image, model.ignored_in(category)))


@quiet_numpy()
def predict(model: FittedModel, batch: Sequence[Opened]) -> list[Prediction]:
    """The predictions for opened images."""
    started = time.perf_counter()
    encoded = encode_and_recognise(model, batch)
    scored = [detector_scores(model.detector, one.features) for one in encoded]
    shared = (time.perf_counter() - started) / len(batch)
    found = []
    for opened, one, (scores, patches) in zip(batch, encoded, scored, strict=True):
        started = time.perf_counter()
        if one.frame.note:
            warnings.warn(DataWarning("resolution", opened.sample.name, one.frame.note), stacklevel=2)
        if one.recognised.note:
            warnings.warn(DataWarning("size", opened.sample.name, one.recognised.note), stacklevel=2)
        calibration = model.calibrations[one.recognised.category or None].for_modalities(one.features.available)
        prediction = prediction_of(one, float(scores[0]), patches[0], model.detector, calibration)
        prediction = explained(model, one, prediction)
        seconds = opened.seconds + shared + time.perf_counter() - started
        found.append(replace(prediction, seconds=seconds, source=opened.sample.name))
    return found


def encode_and_recognise(model: FittedModel, batch: Sequence[Opened]) -> list[Encoded]:
    """Frames and features of opened images, each with its category, given or recognised."""
    if model.recognition_framing is None:  # all categories are seen alike: what is scored is what is recognised
        frames = [opened.frame or frame_of(model, opened.image, opened.category) for opened in batch]
        features = encode_frames(model, frames)
        recognised = recognised_in(model, batch, features)
        frames, features = framed_as_recognised(model, batch, frames, features, recognised)
    else:
        small = [model.recognition_framing.frame(opened.image) for opened in batch]
        recognised = recognised_in(model, batch, encode_frames(model, small, for_recognition=True))
        frames = [
            opened.frame or frame_of(model, opened.image, one.category)
            for opened, one in zip(batch, recognised, strict=True)
        ]
        features = encode_frames(model, frames)
    return [
        judged(Encoded(frame, one.with_categories([known.category]), known, model.ignored.get(known.category)))
        for frame, one, known in zip(frames, features, recognised, strict=True)
    ]


def recognised_in(model: FittedModel, batch: Sequence[Opened], features: Sequence[Features]) -> list[Recognised]:
    """The category of each opened image, given or recognised by its `features` `(1, h, w, D)`."""
    return [
        model.recogniser.recognise(one, opened.category, opened.image)
        for opened, one in zip(batch, features, strict=True)
    ]


def framed_as_recognised(
    model: FittedModel,
    batch: Sequence[Opened],
    frames: Sequence[Frame],
    features: Sequence[Features],
    recognised: Sequence[Recognised],
) -> tuple[list[Frame], list[Features]]:
    """Frames and features of images once their category is known: encoded again where that is framed otherwise.

    Images of a given category are framed by it from the first.
    """
    again = [
        i
        for i, (opened, known) in enumerate(zip(batch, recognised, strict=True))
        if opened.category is None and known.category in model.framed_otherwise
    ]
    own = [frame_of(model, batch[i].image, recognised[i].category) for i in again]
    framed, encoded = list(frames), list(features)
    for i, frame, one in zip(again, own, encode_frames(model, own), strict=True):
        framed[i], encoded[i] = frame, one
    return framed, encoded


def judged(encoded: Encoded) -> Encoded:
    """The same image, its features knowing what of it is ignored; an unknown part where that is all."""
    if encoded.ignored is None:
        return encoded
    features = encoded.features.with_ignored(ignored_pixels(encoded.ignored, encoded.frame))
    is_known = encoded.recognised.is_known and not features.is_ignored
    return replace(encoded, features=features, recognised=replace(encoded.recognised, is_known=is_known))


def encode_frames(model: FittedModel, frames: Sequence[Frame], for_recognition: bool = False) -> list[Features]:
    """The features of each frame, equal sizes encoded together; of joined encoders by the first to recognise."""
    encoder = rgb_encoder(model.encoder) if for_recognition else model.encoder
    found: dict[int, Features] = {}
    for members in group_indices([frame.encoder_input.shape for frame in frames]).values():
        features = encoder.encode(
            batch_of([frames[i].encoder_input for i in members])
        )  # layers (len(members), h, w, D)
        found |= {i: features.take(slice(row, row + 1)) for row, i in enumerate(members)}
    return [found[i] for i in range(len(frames))]


def prediction_of(
    encoded: Encoded,
    score: float,
    patches: np.ndarray,
    detector: Detector | None,
    calibration: Calibration | MutualCalibration,
) -> Prediction:
    """Map, regions and verdict of one image from its `score` and `patches` `(h, w)`, of a `detector` or of none."""
    return image_prediction(
        encoded.frame,
        score,
        patches,
        calibration,
        is_known=encoded.recognised.is_known,
        category=encoded.recognised.category or None,
        ignored=encoded.ignored,
        with_shares=lambda found, above: with_modality_shares(found, above, encoded, detector),
    )


def explained(model: FittedModel, encoded: Encoded, prediction: Prediction) -> Prediction:
    """The same prediction, its regions compared with good places where the model is to do so."""
    if not prediction.regions or not model.reasons.compare:
        return prediction
    inspected = InspectedFrame(
        frame=encoded.frame,
        features=encoded.features,
        scores=prediction.map,
        threshold=prediction.region_threshold,
        references=model.references.get(prediction.category or ""),
        settings=model.reasons,
        broken_rules=rules_broken_in(encoded, model.detector),
    )
    return replace(prediction, regions=with_reasons(prediction.regions, inspected, encoded.recognised.is_known))


def rules_broken_in(encoded: Encoded, detector: Detector) -> Sequence[BrokenRule]:
    """The rules of a known category that an image breaks; none where the detector learns no rules."""
    if isinstance(detector, StatesRules) and encoded.recognised.is_known:
        return detector.broken_rules(encoded.features)[0]
    return ()


def with_modality_shares(
    found: Sequence[Region], above: np.ndarray, encoded: Encoded, detector: Detector | None
) -> Sequence[Region]:
    """The regions with each modality's share of their alarm, where the detector can explain it.

    `above` `(H, W)` bool is where the map lies above its threshold.
    """
    if not found or not isinstance(detector, Explains):
        return found
    maps = {
        modality: map_of_image(values[0].detach().float().cpu().numpy(), encoded.frame)
        for modality, values in detector.explain(encoded.features).items()
    }
    return [replace(region, modalities=shares_inside(maps, region, above)) for region in found]


def shares_inside(maps: Mapping[str, np.ndarray], region: Region, above: np.ndarray) -> dict[str, float]:
    """Each modality's share of the sum of all `maps` `(H, W)` inside a region; empty where that is nothing."""
    left, top, right, bottom = region.box
    place = slice(top, bottom), slice(left, right)
    sums = {modality: float(values[place][above[place]].sum(dtype=np.float64)) for modality, values in maps.items()}
    total = sum(sums.values())
    return {modality: value / total for modality, value in sums.items()} if total > 0 else {}
