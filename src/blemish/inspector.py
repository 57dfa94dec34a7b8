"""Encoder + framing + detector + maps + calibration behind a few verbs: fit, inspect, calibrate, save, load.

Composition only: every score, while fitting or inspecting, goes through the same framing, encoder, detector and maps.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from blemish import encoders, registry
from blemish.batches import GoodPictures
from blemish.calibration import Calibration, Evidence, check_rate
from blemish.copies import slight_copies
from blemish.datasets import load_picture
from blemish.detectors import factory
from blemish.detectors.base import Detector, Needs, Progress
from blemish.encoders.base import Encoder
from blemish.errors import BlemishError, DatasetError, ModelError, NotFittedError, SettingsError, WeightsError
from blemish.framing import FRAMINGS, Frame, Framing
from blemish.held_out import HeldOut, answers, gain_evidence, plain_features, plan_evidence
from blemish.inputs import LoadedPictures, Picture, Pictures, as_sample, distinct, fingerprint, good_samples, samples_of
from blemish.maps import full_map, regions
from blemish.model_folder import Model, load_model, save_model, thumbnail_sheet
from blemish.recognition import Recognised, Recogniser, describe
from blemish.types import Features, Prediction, Sample

DEFAULT_DETECTOR = "anomalydino"  # what "auto" means while the registry has no detector of that name
THUMBNAILS = 64  # good pictures shown in a saved model
RECOGNITION_COPIES = 4  # changed copies of every good picture that recognition learns from, while those are few


@dataclass(frozen=True)
class Failure:
    """A picture that could not be inspected, and why."""

    file: str
    error: str


class Inspector:
    """Learns what good parts look like from a few pictures, and finds what differs in others.

    `encoder` and `detector` are names (see `blemish list`), a model folder for the encoder, or objects that keep their
    promises; "auto" takes the best that can be loaded. `image_size` is what the detector sees, in pixels of the short
    side (or of the square, where the detector wants one); None is the detector's own choice. `false_alarm_rate` is the
    share of good parts that may be called defective. `layers` are the encoder's, None the detector's choice.
    Further settings go to the detector; an unknown one is a SettingsError that names those there are.

    After `fit`: `encoder_`, `framing_`, `detector_`, `recogniser_`, and `calibrations` by category.
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
        framing: str = "plain",
        **settings: Any,
    ) -> None:
        self.encoder, self.device, self.seed, self.layers = encoder, device, seed, layers
        self.false_alarm_rate = check_rate(false_alarm_rate)
        if image_size is not None and image_size < 1:
            raise SettingsError("an image_size of at least 1 pixel", str(image_size), "raise it")
        if framing not in FRAMINGS:
            raise SettingsError(f"a framing: {', '.join(FRAMINGS)}", repr(framing), "choose one of them")
        self.framing_name = framing
        if isinstance(detector, str):
            known = detector != "auto" or "auto" in registry.DETECTORS
            self.detector_name = detector if known else DEFAULT_DETECTOR
            offered = {"seed": seed} | ({} if image_size is None else {"image_size": image_size})
            self.detector = factory.build(self.detector_name, settings, offered)
        else:
            self.detector_name, self.detector = type(detector).__name__, detector
            if settings:
                raise SettingsError(
                    "no settings beside a detector object", ", ".join(settings), "set them on the object"
                )
        self.image_size: int = image_size or self.detector.needs.image_size
        self.calibrations: dict[str | None, Calibration] = {}

    def fit(
        self,
        pictures: Pictures,
        category: str | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Learn from good pictures: files, folders, dataset roots, arrays `(H, W, 3)`, PIL pictures or samples.

        Pictures of several categories make one model for all of them; `category` names that of all pictures given.
        `progress(done, total, facts)` is called while encoding, learning, and gaining evidence. Raises DatasetError
        when there are no good pictures, or some that are known to be defective.
        """
        samples, marks = distinct(good_samples(pictures, category))
        names = [sample.category or "" for sample in samples]
        loaded = LoadedPictures(samples)
        needs = needs_for(self.detector, max(Counter(names).values()))
        encoder = self._built_encoder(needs)
        framing = self._unlearned_framing(encoder, needs).fit(loaded)
        good = GoodPictures(
            loaded, encoder, needs, lambda picture: framing.frame(picture).pixels, names, self.seed, progress=progress
        )
        plan = plan_evidence(names, needs, self.false_alarm_rate, self.seed)
        settings = self.detector.settings
        make = type(self.detector)
        detector = make(**settings).fit(good.subset(plan.learned), progress)

        def copies_of(index: int, count: int) -> Iterator[Features]:
            for copy in slight_copies(loaded[index], count, seed=self.seed):
                yield encoder.encode(framing.frame(copy).pixels[None])

        found = gain_evidence(
            good, plan, detector, lambda: make(**settings), copies_of, self.false_alarm_rate, progress
        )
        recogniser = learn_recogniser(good, copies_of)
        # Everything is learned: only now does the inspector change, so that an interrupted fit leaves it as it was.
        self.encoder_, self.framing_, self.detector_, self.recogniser_ = encoder, framing, detector, recogniser
        self.calibrations = {name or None: calibration for name, calibration in found.items()}
        self.learned_ = {marks[i] for i in plan.learned}
        self.thumbnails_ = thumbnail_sheet([loaded[i] for i in spread(len(loaded), THUMBNAILS)])
        return self

    def inspect(self, picture: Picture, category: str | None = None) -> Prediction:
        """The answer for one picture; `category` when it is known. Raises PictureError when it cannot be read."""
        self._check_fitted("inspect")
        self._check_category(category)
        return self._predict([self._opened(as_sample(picture))], category)[0]

    def inspect_many(
        self,
        pictures: Pictures,
        category: str | None = None,
        batch_size: int | None = None,
    ) -> Iterator[Prediction | Failure]:
        """The answers for many pictures, in their order, as they are ready; a broken picture becomes a Failure.

        `pictures` may be endless: a few are read ahead in a thread while others are inspected, `batch_size` (by default
        1 on a CPU, 16 elsewhere) of equal prepared size at once, and memory stays bounded.
        """
        self._check_fitted("inspect")
        self._check_category(category)
        size = batch_size or (16 if "cuda" in str(getattr(self.encoder_, "device", "cpu")) else 1)
        return self._inspected(samples_of(pictures), category, size)

    def calibrate(
        self,
        pictures: Pictures,
        category: str | None = None,
        false_alarm_rate: float | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Renew the thresholds from good pictures that were not learned from, without learning again.

        Pictures of no named category are given to the one they are recognised as. Those the detector learned from are
        left out; DatasetError when no others are there. A category without new pictures keeps its calibration.
        """
        self._check_fitted("calibrate")
        rate = check_rate(self.false_alarm_rate if false_alarm_rate is None else false_alarm_rate)
        held: dict[str | None, HeldOut] = {}
        samples = good_samples(pictures, category)
        for done, sample in enumerate(samples, start=1):
            self._check_category(sample.category)
            opened = self._opened(sample)
            if fingerprint(opened.picture) not in self.learned_:
                features, recognised = self._recognised([opened], sample.category)
                name = recognised[0].category or None
                held.setdefault(name, HeldOut()).add(self.detector_, features, self.encoder_.stride)
            if progress:
                progress(done, len(samples), {})
        if not held:
            raise DatasetError(
                "good pictures that the model did not learn from", f"{len(samples)} it learned from", "give others"
            )
        new = {
            name: Calibration.of(h.scores, h.peaks, rate, Evidence(len(h.scores), len(h.scores)))
            for name, h in held.items()
        }
        self.false_alarm_rate = rate
        self.calibrations = {name: new.get(name) or old.at(rate) for name, old in self.calibrations.items()}
        return self

    def save(self, folder: str | Path) -> Path:
        """Write the model to `folder` (see model_folder.py), in place of an older one; gives back the full path."""
        self._check_fitted("save")
        import torch

        import blemish

        tensors = {f"detector.{name}": tensor for name, tensor in self.detector_.state().items()}
        for part, state in (("framing", self.framing_.state()), ("recogniser", self.recogniser_.state())):
            tensors |= {f"{part}.{name}": torch.from_numpy(np.ascontiguousarray(a)) for name, a in state.items()}
        settings = {
            "blemish": blemish.__version__,
            "encoder": {
                "name": self.encoder_name,
                "layers": list(self.encoder_.layers),
                "weights": self.encoder_.weights,
            },
            "detector": {"name": self.detector_name, "settings": self.detector_.settings},
            "framing": {"name": self.framing_name, "settings": self.framing_.settings},
            "image_size": self.image_size,
            "false_alarm_rate": self.false_alarm_rate,
            "seed": self.seed,
            "categories": list(self.calibrations),
            "learned": sorted(self.learned_),
        }
        calibration = [{"category": name} | c.to_dict() for name, c in self.calibrations.items()]
        return save_model(folder, Model(settings, tensors, calibration, self.thumbnails_))

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto", encoder: str | Path | Encoder | None = None) -> Inspector:
        """The inspector that `save` wrote; its scores are bit-identical. `encoder` says where its weights lie now.

        Raises ModelError for an incomplete, altered or newer model, WeightsError when the encoder is not the one it
        learned with.
        """
        model = load_model(folder)
        try:
            return cls._from_model(model, device, encoder)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ModelError(f"a complete model in '{folder}'", repr(error), "fit the model again") from error

    @classmethod
    def _from_model(cls, model: Model, device: str, encoder: str | Path | Encoder | None) -> Inspector:
        settings = model.settings
        saved = settings["encoder"]
        self = cls(
            encoder=encoder or saved["name"],
            detector=settings["detector"]["name"],
            image_size=settings["image_size"],
            false_alarm_rate=settings["false_alarm_rate"],
            device=device,
            seed=settings["seed"],
            layers=saved["layers"],
            framing=settings["framing"]["name"],
        )
        self.detector = factory.build(self.detector_name, settings["detector"]["settings"])
        self.encoder_ = self._built_encoder(self.detector.needs)
        if self.encoder_.weights != saved["weights"]:
            raise WeightsError(
                f"the weights of {saved['name']!r} that the model learned with (sha256 {saved['weights'][:12]}…)",
                f"others (sha256 {self.encoder_.weights[:12]}…)",
                "install the weights it learned with, or fit again with these",
            )
        self.framing_ = FRAMINGS[self.framing_name](**settings["framing"]["settings"])
        self.framing_.load_state({name: t.numpy() for name, t in part(model.tensors, "framing").items()})
        self.recogniser_ = Recogniser().load_state(
            {name: t.numpy() for name, t in part(model.tensors, "recogniser").items()}
        )
        self.detector_ = self.detector.load_state(part(model.tensors, "detector"))
        self.calibrations = {entry["category"]: Calibration.from_dict(entry) for entry in model.calibration}
        self.learned_ = set(settings["learned"])
        self.thumbnails_ = model.thumbnails
        return self

    @property
    def encoder_name(self) -> str:
        """The encoder's name: the one in use once learned, what "auto" stood for included."""
        if hasattr(self, "encoder_"):
            return self.encoder_.name
        return self.encoder.name if isinstance(self.encoder, Encoder) else str(self.encoder)

    @property
    def categories(self) -> tuple[str, ...]:
        """The named categories the model learned, none for a model of one unnamed category."""
        return tuple(name for name in self.calibrations if name is not None)

    def _inspected(
        self, samples: Iterator[Sample | BlemishError], category: str | None, size: int
    ) -> Iterator[Prediction | Failure]:
        """Read ahead in a thread; inspect runs of equal prepared size together, so that order and memory are kept."""
        batch: list[Opened] = []
        with ThreadPoolExecutor(max_workers=1) as pool:
            try:
                for opened in ahead(pool, self._opened_or_failed, samples, 2 * size):
                    if batch and (
                        isinstance(opened, Failure) or opened.frame.pixels.shape != batch[0].frame.pixels.shape
                    ):
                        yield from self._predict(batch, category)
                        batch = []
                    if isinstance(opened, Failure):
                        yield opened
                        continue
                    batch.append(opened)
                    if len(batch) == size:
                        yield from self._predict(batch, category)
                        batch = []
                if batch:
                    yield from self._predict(batch, category)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _predict(self, batch: Sequence[Opened], category: str | None) -> list[Prediction]:
        """The answers for opened pictures of equal prepared size."""
        started = time.perf_counter()
        features, recognised = self._recognised(batch, category)
        scores, patches = answers(self.detector_, features)
        shared = (time.perf_counter() - started) / len(batch)
        return [
            self._prediction(*each, seconds=shared) for each in zip(batch, recognised, scores, patches, strict=True)
        ]

    def _prediction(
        self, opened: Opened, recognised: Recognised, score: np.ndarray, patches: np.ndarray, seconds: float
    ) -> Prediction:
        started = time.perf_counter()
        frame, calibration = opened.frame, self.calibrations[recognised.category or None]
        pixels = full_map(patches, frame.pixels.shape[:2], frame.picture_size, frame.to_picture)
        value, limit = float(score), calibration.map_threshold
        return Prediction(
            score=value,
            p_value=calibration.p_value(value),
            threshold=calibration.threshold,
            is_defective=calibration.is_defective(value),
            map=pixels,
            regions=regions(pixels, limit),
            category=recognised.category or None,
            is_known=recognised.is_known,
            map_threshold=limit,
            seconds=opened.seconds + seconds + time.perf_counter() - started,
            source=opened.name,
        )

    def _recognised(self, batch: Sequence[Opened], category: str | None) -> tuple[Features, list[Recognised]]:
        """Encoded pictures that carry their categories, given or recognised."""
        features = self.encoder_.encode(np.stack([opened.frame.pixels for opened in batch]))
        recognised = [self.recogniser_.recognise(one, category) for one in describe(features)]
        return features.with_categories([one.category for one in recognised]), recognised

    def _opened(self, sample: Sample) -> Opened:
        started = time.perf_counter()
        picture = load_picture(sample.picture)
        frame = self.framing_.frame(picture)
        return Opened(sample.name, picture, frame, time.perf_counter() - started)

    def _opened_or_failed(self, sample: Sample | BlemishError) -> Opened | Failure:
        try:
            if isinstance(sample, BlemishError):
                raise sample
            return self._opened(sample)
        except BlemishError as error:
            return Failure(sample.name if isinstance(sample, Sample) else "array", str(error))

    def _built_encoder(self, needs: Needs) -> Encoder:
        if not isinstance(self.encoder, (str, Path)):
            return self.encoder
        return encoders.build(self.encoder, role=needs.layers, layers=self.layers, device=self.device)

    def _unlearned_framing(self, encoder: Encoder, needs: Needs) -> Framing:
        return FRAMINGS[self.framing_name](image_size=self.image_size, multiple=encoder.multiple, square=needs.square)

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


@dataclass(frozen=True)
class Opened:
    """A decoded picture `(H, W, 3)` uint8 with its frame, and the seconds that took."""

    name: str
    picture: np.ndarray
    frame: Frame
    seconds: float


def needs_for(detector: Detector, pictures: int) -> Needs:
    """What a detector needs when so many good pictures of a category are at hand; some then ask for fewer copies."""
    return detector.needs_for(pictures) if hasattr(detector, "needs_for") else detector.needs


def learn_recogniser(good: GoodPictures, copies_of: Any) -> Recogniser:
    """What each category looks like as a whole, from its good pictures and, while they are few, copies of them."""
    names = good.categories or ("",) * len(good)
    vectors: dict[str, list[np.ndarray]] = {name: [] for name in names}
    copies: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for index, features in enumerate(plain_features(good, range(len(good)))):
        vectors[names[index]].append(describe(features)[0])
    for name, own in vectors.items():
        for index in [i for i, n in enumerate(names) if n == name][:RECOGNITION_COPIES]:
            count = -(-RECOGNITION_COPIES // len(own))
            copies[name] += [describe(features)[0] for features in copies_of(index, count)]
    return Recogniser().fit(vectors, copies)


def part(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def spread(count: int, most: int) -> list[int]:
    """At most `most` indices, evenly spread over `range(count)`."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def ahead(pool: ThreadPoolExecutor, work: Any, items: Iterator[Any], most: int) -> Iterator[Any]:
    """`work` of every item, in order, done in `pool` at most `most` items ahead of the reader."""
    waiting: deque[Future[Any]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
