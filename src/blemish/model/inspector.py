"""Encoder + framing + detector + maps + calibration behind a few verbs: fit, inspect, calibrate, save, load.

Composition only: every score, while fitting or inspecting, goes through the same framing, encoder, detector and maps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np

from blemish import encoders, registry
from blemish.data import load_sample
from blemish.data.loading import (
    ImageInput,
    ImageInputs,
    ahead,
    as_sample,
    check_complete,
    distinct,
    fingerprint,
    good_samples,
    samples_of,
)
from blemish.data.samples import shown
from blemish.detectors import factory
from blemish.detectors.base import Detector, Progress
from blemish.encoders.base import Encoder
from blemish.encoders.composite.two_image import nearest_part
from blemish.encoders.feature_cache import lasting
from blemish.errors import BlemishError, DatasetError, ModelError, NotFittedError, SettingsError
from blemish.model.category_recognition import Recognisers, positions, spread
from blemish.model.fitting import SCAN, Eyes, Look, check_fitting, embedded_prompts
from blemish.model.held_out_scores import HeldOut, answers, gain_evidence, plan_evidence, recalibrated, sides_of
from blemish.model.model_folder import load_model, save_model, thumbnail_sheet
from blemish.model.outliers import set_aside
from blemish.model.persistence import arguments_of, model_of, restore
from blemish.model.prediction import Failure, Opened, Seen, prediction_of
from blemish.preprocessing.framing import FRAMINGS, Frame, Framing
from blemish.scoring.calibration import Calibration, check_rate
from blemish.types import POINTS, Features, Prediction, Sample
from blemish.utils.threads import quiet_numpy

__all__ = ["Failure", "Inspector"]

THUMBNAILS = 64  # good images shown in a saved model


class Inspector:
    """Learns what good parts look like from a few images, and finds what differs in others.

    `encoder` and `detector` are names (see `blemish list`), a model folder for the encoder, or objects that keep their
    promises; "auto" takes the best that can be loaded. `image_size` is what the detector sees, in pixels of the short
    side (or of the square, where the detector wants one); None is the detector's own choice. `false_alarm_rate` is the
    share of good parts that may be called defective. `layers` are the encoder's, None the detector's choice. `framing`
    is how images become the encoder's input ("plain": whole; "part": the part alone, in one pose), None the
    detector's choice. `text_encoder` reads the sentences of detectors that learn from text; inspecting needs none.
    Further settings go to the detector; an unknown one is a SettingsError that names those there are.

    After `fit`: `encoder_`, `framings_` by category, `detector_`, `recogniser_`, `set_aside_`, and `calibrations` by
    category.
    """

    def __init__(
        self,
        encoder: str | Path | Encoder = "auto",
        detector: str | Detector = "auto",
        image_size: int | None = None,
        false_alarm_rate: float = 0.05,
        device: str = "auto",
        seed: int = 0,
        layers: Sequence[int] | None = None,
        framing: str | None = None,
        text_encoder: str = "auto",
        **settings: Any,
    ) -> None:
        self.encoder, self.device, self.seed, self.layers = encoder, device, seed, layers
        self.false_alarm_rate = check_rate(false_alarm_rate)
        if image_size is not None and image_size < 1:
            raise SettingsError("an image_size of at least 1 pixel", str(image_size), "raise it")
        if framing is not None and framing not in FRAMINGS:
            raise SettingsError(f"a framing: {', '.join(FRAMINGS)}", repr(framing), "choose one of them")
        if isinstance(detector, str):
            offered = {"seed": seed} | ({} if image_size is None else {"image_size": image_size})
            self.detector_name = self._automatic_detector() if detector == "auto" else detector
            self.detector = factory.build(self.detector_name, settings, offered)
        elif settings:
            raise SettingsError("no settings beside a detector object", ", ".join(settings), "set them on the object")
        else:
            self.detector_name, self.detector = type(detector).__name__, detector
        self.image_size: int = image_size or self.detector.needs.image_size
        self.framing: str = framing or (SCAN if POINTS in self.modalities else self.detector.needs.framing)
        self.text_encoder = text_encoder
        self.calibrations: dict[str | None, Calibration] = {}

    @quiet_numpy()
    def fit(
        self,
        images: ImageInputs,
        category: str | None = None,
        progress: Progress | None = None,
        clean: bool = False,
        cache: str | Path | None = None,
    ) -> Self:
        """Learn from good images: files, folders, dataset roots, arrays `(H, W, 3)`, PIL images or samples.

        Images of several categories make one model for all of them; `category` names that of all images given.
        `clean` sets aside those that are probably no good ones (see outliers.py); `set_aside_` names them. `cache` is a
        folder where features are kept, rounded to float16, for learning again from the same images.
        `progress(done, total, facts)` is called while encoding, learning, and gaining evidence. Raises DatasetError
        when there are no good images, some that are known to be defective, or some without the points that the
        detector needs.
        """
        given = good_samples(images, category)
        check_complete(given, self.modalities)
        samples, marks = distinct(given, self.modalities)
        encoder, needs = self.built_encoder(), self.detector.needs
        check_fitting(needs, encoder, self.framing, self.detector_name)
        learning = encoder if cache is None else lasting(encoder, Path(cache))
        names = [sample.category or "" for sample in samples]
        prompts, text_encoder = embedded_prompts(names, needs, self.text_encoder, self.device)
        good, framings = self.look.normal_samples(samples, learning, needs, self.seed, progress, prompts)
        aside = set_aside(good, samples, marks, progress) if clean else ()
        if aside:
            gone = {(one.category, one.mark) for one in aside}
            left = [i for i, sample in enumerate(samples) if (sample.category, marks[i]) not in gone]
            samples, marks = [samples[i] for i in left], [marks[i] for i in left]
            good, framings = self.look.normal_samples(samples, learning, needs, self.seed, progress, prompts)
        loaded, names = good.images, list(good.categories or ())
        plan = plan_evidence(names, good.needs, self.false_alarm_rate, self.seed)
        settings = self.detector.settings
        make = type(self.detector)
        detector = make(**settings).fit(good.subset(plan.learned), progress)
        glance = self.look.glance(encoder, len(framings))
        eyes = Eyes(good, [framings[name] for name in names], encoder, glance, self.seed)
        found = gain_evidence(good, plan, detector, lambda: make(**settings), eyes, self.false_alarm_rate, progress)
        recogniser = Recognisers().fit(names, loaded, eyes.seen, eyes.look, POINTS in needs.modalities)
        # Everything is learned: only now does the inspector change, so that an interrupted fit leaves it as it was.
        self.encoder_, self.framings_, self.detector_, self.recogniser_ = encoder, framings, detector, recogniser
        self.glance_, self.text_encoder = glance, text_encoder
        self.calibrations = {name or None: calibration for name, calibration in found.items()}
        self.learned_ = {marks[i] for i in plan.learned}
        self.set_aside_ = aside
        self.thumbnails_ = thumbnail_sheet([shown(loaded[i]) for i in spread(len(loaded), THUMBNAILS)])
        return self

    @quiet_numpy()
    def inspect(self, image: ImageInput, category: str | None = None) -> Prediction:
        """The answer for one image; `category` when it is known. Raises ImageError when it cannot be read."""
        self._check_fitted("inspect")
        self._check_category(category)
        return self._predict([self._opened(as_sample(image), category)], category)[0]

    def inspect_many(
        self,
        images: ImageInputs,
        category: str | None = None,
        batch_size: int | None = None,
    ) -> Iterator[Prediction | Failure]:
        """The answers for many images, in their order, as they are ready; a broken image becomes a Failure.

        `images` may be endless: a few are read ahead in a thread while others are inspected, `batch_size` (by default
        1 on a CPU, 16 elsewhere) of equal prepared size at once, and memory stays bounded.
        """
        self._check_fitted("inspect")
        self._check_category(category)
        size = batch_size or (16 if "cuda" in str(getattr(self.encoder_, "device", "cpu")) else 1)
        return self._inspected(samples_of(images), category, size)

    @quiet_numpy()
    def calibrate(
        self,
        images: ImageInputs,
        category: str | None = None,
        false_alarm_rate: float | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Renew the thresholds from good images that were not learned from, without learning again.

        Images of no named category are given to the one they are recognised as. Those the detector learned from are
        left out; DatasetError when no others are there. A category without new images keeps its calibration, and of
        scans each modality alone keeps its own unless scans with nothing else are among them.
        """
        self._check_fitted("calibrate")
        rate = check_rate(self.false_alarm_rate if false_alarm_rate is None else false_alarm_rate)
        held: dict[str | None, HeldOut] = {}
        samples = good_samples(images, category)
        for done, sample in enumerate(samples, start=1):
            self._check_category(sample.category)
            opened = self._opened(sample, sample.category)
            if fingerprint(opened.image) not in self.learned_:
                seen = self._seen([opened], sample.category)[0]
                mine = held.setdefault(seen.recognised.category or None, HeldOut())
                there = seen.features.available if sides_of(self.detector_.needs) else ()
                mine.where(there).add(self.detector_, seen.features, self.encoder_.stride)
            if progress:
                progress(done, len(samples), {})
        if not held:
            raise DatasetError(
                "good pictures that the model did not learn from", f"{len(samples)} it learned from", "give others"
            )
        squared = self.detector_.needs.squared
        self.false_alarm_rate = rate
        self.calibrations = {
            name: recalibrated(old, held.get(name, HeldOut()), rate, squared) for name, old in self.calibrations.items()
        }
        return self

    def save(self, folder: str | Path) -> Path:
        """Write the model to `folder` (see model_folder.py), in place of an older one; gives back the full path."""
        self._check_fitted("save")
        return save_model(folder, model_of(self))

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto", encoder: str | Path | Encoder | None = None) -> Inspector:
        """The inspector that `save` wrote; its scores are bit-identical. `encoder` says where its weights lie now.

        Raises ModelError for an incomplete, altered or newer model, WeightsError when the encoder is not the one it
        learned with.
        """
        model = load_model(folder)
        try:
            arguments = arguments_of(model)
            self = cls(**arguments | {"device": device, "encoder": encoder or arguments["encoder"]})
            restore(self, model)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ModelError(f"a complete model in '{folder}'", repr(error), "fit the model again") from error
        return self

    @property
    def encoder_name(self) -> str:
        """The encoder's name: the one in use once learned, what "auto" stood for included."""
        if hasattr(self, "encoder_"):
            return self.encoder_.name
        return self.encoder.name if isinstance(self.encoder, Encoder) else str(self.encoder)

    @property
    def chosen_encoder(self) -> str:
        """The encoder's name or folder, what "auto" stands for beside this detector included."""
        if self.encoder != "auto":
            return self.encoder_name
        entry = registry.DETECTORS.get(self.detector_name)
        return encoders.best_available(entry.encoders if entry else ())[0]

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the detector looks at: images, measured points, or both."""
        return self.detector.needs.modalities

    @property
    def look(self) -> Look:
        """How images are framed, whatever the category."""
        return Look(self.framing, self.image_size)

    @property
    def categories(self) -> tuple[str, ...]:
        """The named categories the model learned, none for a model of one unnamed category."""
        return tuple(name for name in self.calibrations if name is not None)

    def _inspected(
        self, samples: Iterator[Sample | BlemishError], category: str | None, size: int
    ) -> Iterator[Prediction | Failure]:
        """Read ahead in a thread; inspect a few images together, so that order and memory are kept."""
        batch: list[Opened] = []
        with ThreadPoolExecutor(max_workers=1) as pool:
            try:
                for opened in ahead(pool, lambda sample: self._opened_or_failed(sample, category), samples, 2 * size):
                    if isinstance(opened, Opened):
                        batch.append(opened)
                    if batch and (len(batch) == size or isinstance(opened, Failure)):
                        yield from self._predict(batch, category)
                        batch = []
                    if isinstance(opened, Failure):
                        yield opened
                if batch:
                    yield from self._predict(batch, category)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    @quiet_numpy()
    def _predict(self, batch: Sequence[Opened], category: str | None) -> list[Prediction]:
        """The answers for opened images."""
        started = time.perf_counter()
        seen = self._seen(batch, category)
        scored = [answers(self.detector_, one.features) for one in seen]
        shared = (time.perf_counter() - started) / len(batch)
        return [
            prediction_of(
                opened,
                one,
                float(score[0]),
                patches[0],
                self.detector_,
                self.calibrations[one.recognised.category or None].where(one.features.available),
                shared,
            )
            for opened, one, (score, patches) in zip(batch, seen, scored, strict=True)
        ]

    def _seen(self, batch: Sequence[Opened], category: str | None) -> list[Seen]:
        """Frames and features of opened images, each with its category, given or recognised."""
        if self.glance_ is None:  # every category is framed alike: what the detector sees, recognition sees too
            frames = [opened.frame or self._framing(category).frame(opened.image) for opened in batch]
            features = self._encoded(frames)
            recognised = [self.recogniser_.recognise(one, category) for one in features]
        else:
            glances = self._encoded([self.glance_.frame(opened.image) for opened in batch], recognising=True)
            recognised = [self.recogniser_.recognise(one, category) for one in glances]
            frames = [
                opened.frame or self.framings_[one.category].frame(opened.image)
                for opened, one in zip(batch, recognised, strict=True)
            ]
            features = self._encoded(frames)
        return [
            Seen(frame, one.with_categories([known.category]), known)
            for frame, one, known in zip(frames, features, recognised, strict=True)
        ]

    def _encoded(self, frames: Sequence[Frame], recognising: bool = False) -> list[Features]:
        """The features of each frame, those of equal size encoded together; by one encoder alone to recognise."""
        encoder = nearest_part(self.encoder_) if recognising else self.encoder_
        found: list[Features | None] = [None] * len(frames)
        for members in positions([frame.pixels.shape for frame in frames]).values():
            features = encoder.encode(np.stack([frames[i].pixels for i in members]))
            for row, i in enumerate(members):
                found[i] = features.take(slice(row, row + 1))
        return [one for one in found if one is not None]

    def _automatic_detector(self) -> str:
        """What "auto" stands for beside the encoder; the encoder itself may be left open as well."""
        if self.encoder != "auto":
            return registry.automatic(self.encoder_name)
        return registry.automatic(encoders.automatic_encoder())

    def _framing(self, category: str | None) -> Framing:
        """The framing of a category, or of all where they are framed alike."""
        return self.framings_[category] if category in self.framings_ else next(iter(self.framings_.values()))

    def _opened(self, sample: Sample, category: str | None = None) -> Opened:
        started = time.perf_counter()
        image = load_sample(sample, self.modalities)
        sure = self.glance_ is None or category is not None
        frame = self._framing(category).frame(image) if sure else None
        return Opened(sample.name, image, frame, time.perf_counter() - started)

    def _opened_or_failed(self, sample: Sample | BlemishError, category: str | None) -> Opened | Failure:
        try:
            if isinstance(sample, BlemishError):
                raise sample
            return self._opened(sample, category)
        except BlemishError as error:
            return Failure(sample.name if isinstance(sample, Sample) else "array", str(error))

    def built_encoder(self) -> Encoder:
        """The encoder as the detector needs it, loaded now. Raises WeightsError when it cannot load."""
        if not isinstance(self.encoder, (str, Path)):
            return self.encoder
        needs = self.detector.needs
        return encoders.build(
            self.chosen_encoder,
            role=needs.layers,
            layers=self.layers,
            device=self.device,
            points_stride=needs.points_stride,
        )

    def _check_fitted(self, verb: str) -> None:
        if not hasattr(self, "detector_"):
            raise NotFittedError(
                f"a fitted inspector for {verb!r}", "one that has not learned", "call fit or load first"
            )

    def _check_category(self, category: str | None) -> None:
        if category is not None and category not in self.calibrations:
            raise SettingsError(
                f"a category the model learned: {', '.join(self.categories) or 'it has no named one'}",
                repr(category),
                "leave the category out to have it recognised" if self.categories else "leave the category out",
            )
