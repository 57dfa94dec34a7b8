"""Scores of normal images that a detector was not fitted on: gained as a plan says, and made into calibrations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from blemish.augmentation.perturb import slight_copies
from blemish.augmentation.small_defects import SMALL_DEFECTS
from blemish.data.samples import as_rgb, batch_of
from blemish.detectors.base import Detector, LeavesOut, Needs, Progress, Scorer, WithoutImages
from blemish.encoders.base import Encoder
from blemish.encoders.composite.two_image import rgb_encoder
from blemish.model.feature_loader import FeatureLoader
from blemish.preprocessing.foreground import from_pixels
from blemish.preprocessing.framing import Framing
from blemish.preprocessing.ignored_area import fill_ignored, ignored_pixels
from blemish.scoring.anomaly_map import map_peak
from blemish.scoring.calibration import Calibration, CalibrationSource
from blemish.scoring.detector_scores import detector_scores
from blemish.scoring.held_out_plan import FEW, HeldOutPlan
from blemish.scoring.tail_model import TINY, log_scores
from blemish.types import POINTS, RGB, Features, ImageOrScan, Scan

UNIMODAL_SCANS = 10  # held-out scans of a category that are scored by each modality alone as well: bounds the cost
UNIMODAL_COPIES = 2  # perturbed copies of a scan that are, where no scan is held out
COPIES = 6  # perturbed copies of an image, where there are no further images
# How much higher new normal images score than perturbed copies of images that were fitted on (measured on further good
# images of products: benchmarks/tail_prior.py).
COPIES_CORRECTION = 1.28
# Left out one by one, k images are scored by detectors fitted on k − 1, to which they look more anomalous than to the
# final one. Log scores fall by slope · log(k / (k − 1)) with the k-th image. The slope is measured with two left out,
# shrunk towards 0 (by how much: chosen on the same images); of two images it is DEFAULT_SLOPE.
SLOPE_SHRINKAGE = 0.5
DEFAULT_SLOPE = 0.1


@dataclass
class HeldOutScores:
    """Scores of held-out images of one category, and the largest value of each one's map.

    `images` are their indices, of those that are not perturbed copies. `unimodal`: the same of scans with one modality
    only, by that. `with_two_out`: how much the logarithms of scores grow when one more image is left out.
    `with_defects`: how much they grow when a small synthetic defect is on the image.
    """

    scores: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    with_two_out: list[float] = field(default_factory=list)
    with_defects: list[float] = field(default_factory=list)
    unimodal: dict[str, HeldOutScores] = field(default_factory=dict)

    def for_modality(self, modality: str) -> HeldOutScores:
        """The scores of scans that have this modality only."""
        return self.unimodal.setdefault(modality, HeldOutScores())

    def add(self, detector: Scorer, features: Features, input_size: tuple[int, int]) -> None:
        """Score encoded images of this category; `input_size` is the (height, width) that the encoder saw."""
        scores, peaks = scores_and_peaks(detector, features, input_size)
        self.scores.extend(scores)
        self.peaks.extend(peaks)

    def add_mean(self, copies: HeldOutScores) -> None:
        """Add the mean of the scores of one image's copies: they count as one image."""
        self.scores.append(float(np.mean(copies.scores)))
        self.peaks.append(float(np.mean(copies.peaks)))


@dataclass(frozen=True, eq=False)
class HeldOutEncoder:
    """Encodes single normal images, perturbed copies of them, and scans with one modality left out.

    `framings` are those of the images; `recognition_framing` is for what is only to be recognised, where that differs;
    `ignored` are the areas of the images that are not judged, if any. What is to be scored comes with the
    (height, width) that the encoder saw.
    """

    loader: FeatureLoader
    framings: Sequence[Framing]
    encoder: Encoder
    recognition_framing: Framing | None
    seed: int
    ignored: Sequence[np.ndarray | None] | None = None

    def copies(self, index: int, count: int, modality: str = "") -> Iterable[tuple[Features, tuple[int, int]]]:
        """`count` perturbed copies of the image at `index`, one by one; of a scan this `modality` alone."""
        image = fill_ignored(self.loader.images[index], self._area(index))
        for copy in slight_copies(image, count, seed=self.seed):
            yield self._encode(index, copy, modality)

    def small_defects(self, index: int, copied: bool) -> tuple[Features, tuple[int, int]]:
        """The image at `index`, or the first of its perturbed copies, with a small defect of each kind: B = kinds."""
        image = fill_ignored(self.loader.images[index], self._area(index))
        base = next(iter(slight_copies(image, 1, seed=self.seed))) if copied else image
        frame = self.framings[index].frame(base)
        clean = as_rgb(frame.encoder_input)  # (h, w, 3)
        foreground, rng = from_pixels(clean), np.random.default_rng((self.seed, index))
        views = [make(clean, foreground, rng) for make in SMALL_DEFECTS.values()]
        area = self._area(index)
        features = self.encoder.encode(np.stack(views))
        return features.with_ignored(None if area is None else ignored_pixels(area, frame)), frame.input_size

    def unimodal(self, index: int, modality: str) -> tuple[Features, tuple[int, int]]:
        """The scan at `index` with this modality only, framed as such: without points, all of its image."""
        return self._encode(index, self.loader.images[index], modality)

    def encode_for_recognition(self, index: int, image: ImageOrScan) -> Features:
        """An image of the category of that at `index`, as category recognition takes it."""
        if self.recognition_framing is not None:  # what an image ignores is not known before its category is
            frame = self.recognition_framing.frame(image)
        else:
            frame = self.framings[index].frame(fill_ignored(image, self._area(index)))
        return rgb_encoder(self.encoder).encode(batch_of([frame.encoder_input]))

    def for_recognition(self, index: int) -> Features:
        """The image at `index` as category recognition takes it; encoded only if it has to be."""
        if self.recognition_framing is None:
            return next(iter(self.loader.plain_features([index])))
        return self.encode_for_recognition(index, self.loader.images[index])

    def _encode(self, index: int, image: ImageOrScan, modality: str) -> tuple[Features, tuple[int, int]]:
        if modality and isinstance(image, Scan):
            image = image.only(modality)
        area = self._area(index)
        frame = self.framings[index].frame(fill_ignored(image, area))
        features = self.encoder.encode(batch_of([frame.encoder_input]))
        return features.with_ignored(None if area is None else ignored_pixels(area, frame)), frame.input_size

    def _area(self, index: int) -> np.ndarray | None:
        return self.ignored[index] if self.ignored else None


def gains_with_defects(
    detector: Scorer, encoder: HeldOutEncoder, index: int, score: float, copied: bool = False
) -> list[float]:
    """How much the logarithm of the `score` of an image, or of its first copy, grows with each small defect."""
    features, input_size = encoder.small_defects(index, copied)
    names = encoder.loader.categories
    features = features.with_categories([names[index] if names else ""] * len(features))
    scores, _ = scores_and_peaks(detector, features, input_size)
    return (log_scores(scores) - log_scores([score])).tolist()


def scores_and_peaks(
    detector: Scorer, features: Features, input_size: tuple[int, int]
) -> tuple[list[float], list[float]]:
    """Image scores `(B,)` and the largest map values `(B,)` of images; the encoder saw `input_size` (height, width)."""
    scores, patches = detector_scores(detector, features)  # (B,), (B, h, w)
    return scores.tolist(), [map_peak(one, input_size) for one in patches]


def score_held_out(
    plan: HeldOutPlan,
    detector: Detector,
    unfitted: Callable[[], Detector],
    encoder: HeldOutEncoder,
    progress: Progress | None = None,
) -> dict[str, HeldOutScores]:
    """The held-out scores of each category, as `plan` says, and of scans those of each modality alone.

    `detector` was fitted on `plan.fitted`; `unfitted()` gives a new one of the same settings for a fold.
    """
    names = encoder.loader.categories or ("",) * len(encoder.loader)
    found = {name: HeldOutScores() for name in names}
    add_scores(found, detector, plan.split, encoder, plan.with_defects)
    score_left_out(found, detector, unfitted, plan, encoder, progress)
    for index in plan.copied:
        first = add_scores_of_copies(found[names[index]], detector, index, names[index], encoder)
        if index in plan.with_defects:
            found[names[index]].with_defects += gains_with_defects(detector, encoder, index, first, copied=True)
    return found


def calibrations_of(
    found: Mapping[str, HeldOutScores], plan: HeldOutPlan, loader: FeatureLoader, rate: float
) -> dict[str, Calibration]:
    """One calibration a category from its held-out scores, which were gained as `plan` says."""
    names = loader.categories or ("",) * len(loader)
    given, copied = plan.counts(names), {names[i] for i in plan.copied}
    folds = {name: sum(any(names[i] == name for i in fold) for fold in plan.folds) for name in found}
    fitted_on = Counter(names[i] for i in plan.fitted)
    return {
        name: calibrate(
            held,
            rate,
            CalibrationSource(
                images=given[name],
                held_out=len(held.scores),
                folds=folds[name],
                copies=name in copied,
                score_exponent=loader.needs.score_exponent,
                score_spread=loader.needs.score_spread,
            ),
            fitted_on[name],
        )
        for name, held in found.items()
    }


def calibrate(held: HeldOutScores, rate: float, source: CalibrationSource, fitted_on: int) -> Calibration:
    """The calibration from held-out scores, corrected by what is known of how they differ from those of new images.

    `fitted_on` is how many images of the category the final detector knows: more than `source.images` where some are
    never held out.
    """
    unimodal = {
        modality: calibrate(own, rate, replace(source, held_out=len(own.scores)), fitted_on)
        for modality, own in held.unimodal.items()
    }
    correction = COPIES_CORRECTION if source.copies else 1.0
    correction **= source.score_exponent
    if source.folds and source.images < FEW:
        correction = math.exp(-leave_one_out_bias(held.with_two_out, fitted_on, source.score_exponent))
    scores, peaks = (np.asarray(values, dtype=np.float64) * correction for values in (held.scores, held.peaks))
    found = Calibration.of(scores, peaks, rate, replace(source, correction=correction))
    return replace(found, unimodal=unimodal, defect_gains=np.sort(np.asarray(held.with_defects, dtype=np.float64)))


def leave_one_out_bias(with_two_out: Sequence[float], images: int, score_exponent: int = 1) -> float:
    """How far log scores of images that were left out one by one, of the `images` fitted on, lie above new ones'."""
    slope = DEFAULT_SLOPE * score_exponent
    if with_two_out:
        slope = max(0.0, float(np.mean(with_two_out))) / math.log((images - 1) / (images - 2))
    return SLOPE_SHRINKAGE * slope * math.log(images / (images - 1))


def score_left_out(
    into: Mapping[str, HeldOutScores],
    detector: Detector,
    unfitted: Callable[[], Detector],
    plan: HeldOutPlan,
    encoder: HeldOutEncoder,
    progress: Progress | None = None,
) -> None:
    """Add the scores of the images of every fold of the plan, by a detector that does not know them.

    Of few images also those with two left out, which tell how much one more image is worth.
    """
    loader = encoder.loader
    names = loader.categories or ("",) * len(loader)
    few = {name for name, count in plan.counts(names).items() if 3 <= count < FEW}
    pairs = [
        fold + other
        for fold, other in zip(plan.folds[::2], plan.folds[1::2], strict=False)
        if few and leaves_enough(names, fold + other, loader.needs)
    ]
    alone: dict[int, float] = {}
    total = len(plan.folds) + len(pairs)
    for done, fold in enumerate(plan.folds, start=1):
        scorer = without(detector, unfitted, loader, fold)
        alone |= zip(fold, add_scores(into, scorer, fold, encoder, plan.with_defects), strict=True)
        if progress:
            progress(done, total, {})
    for done, pair in enumerate(pairs, start=len(plan.folds) + 1):
        scorer = without(detector, unfitted, loader, pair)
        both = Counter(names[i] for i in pair)  # of a category with one in the pair, no second one is left out
        members = [i for i in pair if names[i] in few and both[names[i]] > 1]
        for index, features in zip(members, loader.plain_features(members), strict=True):
            (score,), _ = scores_and_peaks(scorer, features, loader.input_size(index))
            into[names[index]].with_two_out.append(math.log(max(score, TINY) / max(alone[index], TINY)))
        if progress:
            progress(done, total, {})


def leaves_enough(names: Sequence[str], left_out: Sequence[int], needs: Needs) -> bool:
    """Whether a detector can be fitted without the images `left_out`, by the categories `names` `(n,)` of all images.

    Of a category that goes entirely, nothing is scored.
    """
    given, gone = Counter(names), Counter(names[i] for i in left_out)
    return all(count == given[name] or needs.enough_left(given[name] - count) for name, count in gone.items())


def without(
    detector: Detector, unfitted: Callable[[], Detector], loader: FeatureLoader, left_out: Sequence[int]
) -> Scorer:
    """The detector as if the images at `left_out` had not been given: itself where it can tell, else a new one."""
    names = {"" if loader.categories is None else loader.categories[i] for i in left_out}
    if isinstance(detector, LeavesOut) and all(map(detector.can_leave_out, names)):
        return WithoutImages(detector, tuple(left_out))
    return unfitted().fit(loader.subset(sorted(set(range(len(loader))) - set(left_out))))


def add_scores(
    into: Mapping[str, HeldOutScores],
    detector: Scorer,
    indices: Sequence[int],
    encoder: HeldOutEncoder,
    with_defects: Collection[int] = (),
) -> list[float]:
    """Add the scores of the images at `indices` to their categories', of a few scans also by each modality alone.

    Those `with_defects` are scored once more with small defects. Returns the image scores.
    """
    loader = encoder.loader
    scores = []
    for index, features in zip(indices, loader.plain_features(indices), strict=True):
        name = "" if loader.categories is None else loader.categories[index]
        into[name].add(detector, features, loader.input_size(index))
        into[name].images.append(index)
        scores.append(into[name].scores[-1])
        if index in with_defects:
            into[name].with_defects += gains_with_defects(detector, encoder, index, scores[-1])
        for modality in unimodal_of(loader.needs) if len(into[name].scores) <= UNIMODAL_SCANS else ():
            alone, input_size = encoder.unimodal(index, modality)
            into[name].for_modality(modality).add(detector, alone.with_categories([name]), input_size)
    return scores


def add_scores_of_copies(
    into: HeldOutScores, detector: Detector, index: int, category: str, encoder: HeldOutEncoder
) -> float:
    """Add the mean score of perturbed copies of the image at `index`, of scans also by each modality alone.

    Returns the image score of the first copy.
    """

    def scored(copies: Iterable[tuple[Features, tuple[int, int]]]) -> HeldOutScores:
        held = HeldOutScores()
        for features, input_size in copies:
            held.add(detector, features.with_categories([category] * len(features)), input_size)
        return held

    whole = scored(encoder.copies(index, COPIES))
    into.add_mean(whole)
    for modality in unimodal_of(encoder.loader.needs):
        into.for_modality(modality).add_mean(scored(encoder.copies(index, UNIMODAL_COPIES, modality)))
    return whole.scores[0]


def unimodal_of(needs: Needs) -> tuple[str, ...]:
    """The modalities that an inspected scan may have alone; none where only images are used."""
    return (RGB, POINTS) if POINTS in needs.modalities else ()
