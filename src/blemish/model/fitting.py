"""From normal images to a fitted model: survey, encode, leave out outliers, fit, hold out, calibrate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from blemish.data import load_sample
from blemish.data.loading import ImageInputs, complete_samples, fingerprint, good_samples
from blemish.data.samples import as_rgb
from blemish.detectors.base import Detector, Needs, Progress
from blemish.encoders.base import Encoder
from blemish.encoders.feature_cache import lasting
from blemish.encoders.precision import precision_of
from blemish.errors import DatasetError
from blemish.model.category_recognition import CategoryRecognisers, evenly_spaced, group_indices
from blemish.model.decoded_images import DecodedImages
from blemish.model.feature_loader import FeatureLoader
from blemish.model.fitted import FittedModel
from blemish.model.held_out_scores import HeldOutEncoder, held_out_calibrations
from blemish.model.model_folder import thumbnail, thumbnail_sheet
from blemish.model.outliers import Outlier, find_outliers
from blemish.model.settings import ModelSettings, check_compatible
from blemish.preprocessing.framing import Framing, pixels_of
from blemish.scoring.calibration import Calibration
from blemish.scoring.held_out_plan import plan_held_out
from blemish.types import POINTS, ImageOrScan, Prompts, Sample

if TYPE_CHECKING:
    from blemish.encoders.text.factory import TextEncoder

THUMBNAILS = 64  # normal images shown in a saved model


@dataclass(frozen=True, eq=False)
class NormalImages:
    """Different normal images, ready to be encoded: their decoded pixels, fingerprints, framings and thumbnails.

    `framings` are by category; `thumbnails` by index, of some of them.
    """

    images: DecodedImages
    fingerprints: Sequence[str]
    framings: Mapping[str, Framing]
    thumbnails: Mapping[int, np.ndarray]

    @property
    def samples(self) -> Sequence[Sample]:
        return self.images.samples

    @property
    def categories(self) -> list[str]:
        """The category of each image, "" for the unnamed one."""
        return [sample.category or "" for sample in self.samples]

    def subset(self, indices: Sequence[int], framings: Mapping[str, Framing]) -> NormalImages:
        """The images at `indices` alone, framed anew."""
        return NormalImages(
            self.images.subset(indices),
            [self.fingerprints[i] for i in indices],
            framings,
            {new: self.thumbnails[old] for new, old in enumerate(indices) if old in self.thumbnails},
        )


def fit(
    settings: ModelSettings,
    images: ImageInputs,
    category: str | None = None,
    progress: Progress | None = None,
    clean: bool = False,
    cache: str | Path | None = None,
) -> FittedModel:
    """Fit a model on normal images; see `Inspector.fit` for the arguments and what it raises.

    What is cheap to check is checked before the first image is decoded.
    """
    needs = settings.detector.needs
    samples = complete_samples(good_samples(images, category), needs.modalities)
    check_enough(len(samples), needs)
    encoder = settings.build_encoder()
    check_compatible(needs, encoder, settings.framing, settings.detector_name)
    prompts, text_encoder = embedded_prompts([sample.category or "" for sample in samples], settings)
    learning = encoder if cache is None else lasting(encoder, Path(cache))
    normal = survey(samples, needs.modalities, partial(settings.build_framing, encoder))
    check_enough(len(normal.samples), needs)
    loader = feature_loader(normal, learning, settings, prompts, progress)
    outliers: tuple[Outlier, ...] = ()
    if clean and (outliers := find_outliers(loader, normal.samples, normal.fingerprints, progress)):
        normal, loader = without_outliers(normal, loader, settings, outliers, encoder)
    plan = plan_held_out(normal.categories, loader.needs, settings.false_alarm_rate, settings.seed)
    detector = unfitted(settings.detector).fit(loader.subset(plan.fitted), progress)
    framings = [normal.framings[name] for name in normal.categories]
    recognition = settings.recognition_framing(encoder, len(normal.framings))
    held_out = HeldOutEncoder(loader, framings, encoder, recognition, settings.seed)
    calibrations: Mapping[str, Calibration] = held_out_calibrations(
        loader, plan, detector, partial(unfitted, settings.detector), held_out, settings.false_alarm_rate, progress
    )
    recogniser = CategoryRecognisers().fit(
        normal.categories,
        normal.images,
        held_out.for_recognition,
        held_out.encode_for_recognition,
        POINTS in needs.modalities,
    )
    return FittedModel(
        settings=replace(settings, text_encoder=text_encoder, precision=precision_of(encoder)),
        encoder=encoder,
        detector=detector,
        framings=normal.framings,
        recognition_framing=recognition,
        recogniser=recogniser,
        calibrations={name or None: calibration for name, calibration in calibrations.items()},
        fingerprints=frozenset(normal.fingerprints[i] for i in plan.fitted),
        outliers=outliers,
        thumbnails=thumbnail_sheet([one for _, one in sorted(normal.thumbnails.items())]),
    )


def unfitted(detector: Detector) -> Detector:
    """A new detector of the same settings."""
    return type(detector)(**detector.settings)


def check_enough(images: int, needs: Needs) -> None:
    """Raise DatasetError where there are fewer normal images than a detector needs."""
    if images < max(1, needs.images):
        raise DatasetError(f"at least {max(1, needs.images)} good pictures", str(images), "give more good pictures")


def survey(samples: Sequence[Sample], modalities: Sequence[str], build_framing: Callable[[], Framing]) -> NormalImages:
    """Decode every image once: find repetitions, fit the framing of each category, make thumbnails.

    An image that is given twice in a category would be compared with itself, and make thresholds far too low: it counts
    once. Raises ImageError for one that cannot be read.
    """
    images = DecodedImages(samples, partial(load_sample, modalities=modalities))
    groups = group_indices([sample.category or "" for sample in samples])
    images.expect(i for members in groups.values() for i in members)
    chosen = set(evenly_spaced(len(samples), THUMBNAILS))
    fingerprints: dict[int, str] = {}
    thumbnails: dict[int, np.ndarray] = {}

    def distinct(members: Sequence[int]) -> Iterator[ImageOrScan]:
        seen: set[str] = set()
        for i in members:
            image = images[i]
            mark = fingerprint(image)
            if mark in seen:
                continue
            seen.add(mark)
            fingerprints[i] = mark
            if i in chosen:
                thumbnails[i] = thumbnail(as_rgb(image))
            yield image

    framings = {}
    for name, members in groups.items():
        stream = distinct(members)
        framings[name] = build_framing().fit(stream)
        for _ in stream:  # what the framing had no need to see
            pass
    kept = sorted(fingerprints)
    everything = NormalImages(images, [fingerprints.get(i, "") for i in range(len(samples))], framings, thumbnails)
    return everything.subset(kept, framings)


def feature_loader(
    normal: NormalImages,
    encoder: Encoder,
    settings: ModelSettings,
    prompts: Mapping[str, Prompts] | None,
    progress: Progress | None,
) -> FeatureLoader:
    """The normal images as batches for the detector."""
    names = normal.categories
    framings = [normal.framings[name] for name in names]
    return FeatureLoader.of(
        normal.images,
        encoder,
        settings.detector.needs.affordable(max(Counter(names).values())),
        [partial(pixels_of, framing) for framing in framings],
        names,
        settings.seed,
        progress=progress,
        poses=[framing.poses for framing in framings],
        prompts=prompts,
    )


def without_outliers(
    normal: NormalImages,
    loader: FeatureLoader,
    settings: ModelSettings,
    outliers: Sequence[Outlier],
    encoder: Encoder,
) -> tuple[NormalImages, FeatureLoader]:
    """The images that are left, and their features; encoded again only where a framing has changed."""
    gone = {(one.category, one.fingerprint) for one in outliers}
    left = [
        i
        for i, (sample, mark) in enumerate(zip(normal.samples, normal.fingerprints, strict=True))
        if (sample.category, mark) not in gone
    ]
    groups = group_indices([normal.categories[i] for i in left])
    framings = {
        name: settings.build_framing(encoder).fit(normal.images[left[i]] for i in members)
        for name, members in groups.items()
    }
    unchanged = {name for name, framing in framings.items() if same_state(framing, normal.framings[name])}
    rest = normal.subset(left, framings)
    again = feature_loader(rest, loader.encoder, settings, loader.prompts, loader.progress)
    again.store.take(loader.store, {old: new for new, old in enumerate(left) if normal.categories[old] in unchanged})
    return rest, again


def same_state(one: Framing, other: Framing) -> bool:
    """Whether two framings of the same settings have learned the same."""
    left, right = one.state(), other.state()
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def embedded_prompts(categories: Sequence[str], settings: ModelSettings) -> tuple[Mapping[str, Prompts] | None, str]:
    """The sentences that a detector needs about each of `categories`, and the name of the encoder that embedded them.

    None and the name as it was given where it needs none. Raises WeightsError when no text encoder loads.
    """
    needs = settings.detector.needs
    if needs.text is None:
        return None, settings.text_encoder
    from blemish.encoders.text.factory import build
    from blemish.encoders.text.prompts import embed_sentences, prompts_for

    encoder: TextEncoder = build(settings.text_encoder, device=settings.device)
    names = dict.fromkeys(categories)
    return {name: embed_sentences(prompts_for(name, needs.text), encoder) for name in names}, encoder.name
