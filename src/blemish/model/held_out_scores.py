"""Scores of good parts that a detector did not learn from: the evidence that thresholds are made of.

Three ways, by what learning costs and how many good images there are; `plan_evidence` is the one place that chooses.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from blemish.detectors.base import Detector, Needs, Progress
from blemish.errors import WeightsError
from blemish.model.feature_loader import FeatureLoader
from blemish.numeric.pooling import image_score
from blemish.scoring.anomaly_map import map_peak
from blemish.scoring.calibration import Calibration, Evidence
from blemish.types import POINTS, RGB, Features

FOLDS = 5
FEW = 10  # good images of a category; fewer are left out one by one, or not at all where learning is dear
WANTED = 60  # held-out scores of a category; folds beyond them would only cost time
ALONE = 10  # held-out scans of a category that are scored by each modality alone as well
ALONE_COPIES = 2  # changed copies of a scan that are, where no scan is held out
COPIES = 6  # slightly changed copies of an image, where new parts are not to be had
# How much higher new good parts score than slightly changed copies of parts that were learned, as a rule; measured on
# good images of solar cells, bottles, screws, plates and cookies beyond the one learned from.
INFLATION = 1.36
# Left out one by one, k images are scored by detectors that know k − 1, to which parts look stranger than to the
# final one: by the factor exp(MISSED / k), as a rule. Measured on the same images, k = 4 (benchmarks/development.py).
MISSED = 0.36


class Eyes(Protocol):
    """Encodes good images one by one as they were not learned; see fitting.py."""

    def copies_of(self, index: int, count: int, left: str = "") -> Iterable[Features]:
        """Slightly changed copies of the image at `index`; of a scan, the modality `left` alone."""

    def alone(self, index: int, modality: str) -> Features:
        """The scan at `index`, this modality alone."""


@dataclass(frozen=True)
class Plan:
    """Indices of good images: `learned` teach the final detector; the images of each of `folds` are scored by a
    detector that learned from all others; `apart` are never learned from; of `copied`, changed copies are scored."""

    learned: tuple[int, ...]
    folds: tuple[tuple[int, ...], ...] = ()
    apart: tuple[int, ...] = ()
    copied: tuple[int, ...] = ()


def learns_by_gradient(needs: Needs) -> bool:
    """Whether learning takes long: as detectors say, or by their asking for augmentations or synthetic anomalies."""
    return needs.slow or needs.augmentation or needs.synthetic_anomalies


def plan_evidence(categories: Sequence[str], needs: Needs, rate: float, seed: int = 0) -> Plan:
    """How each category's held-out scores are gained; `categories` `(n,)` names that of every good image.

    - One image: copies of it, for there is no other.
    - Cheap learning: under `FEW` images, leave one out; else `FOLDS` folds, of which only as many are learned as it
      takes to hold out `WANTED` images (more for a very small `rate`). The final detector learns from all.
    - Learning by gradient: under `FEW` images, copies of them; else a fifth (at most `WANTED`) is held out for good.
    """
    random = np.random.default_rng(seed)
    names = np.asarray(categories)
    wanted = max(WANTED, math.ceil(2 / rate))
    folds: list[list[int]] = []
    apart: list[int] = []
    copied: list[int] = []
    for name in dict.fromkeys(categories):
        members = np.flatnonzero(names == name)
        shuffled = random.permutation(members).tolist()
        few = len(members) < FEW
        spare = len(names) - (1 if few else -(-len(members) // FOLDS)) >= needs.images
        if len(members) == 1 or (learns_by_gradient(needs) and few) or not spare:
            copied += members.tolist()
        elif learns_by_gradient(needs):
            apart += shuffled[: min(wanted, max(2, len(members) // 5))]
        else:
            held = 0
            for turn, fold in enumerate(np.array_split(shuffled, len(members) if few else FOLDS)):
                if held >= wanted:
                    break
                folds += [[]] * (turn + 1 - len(folds))
                folds[turn] = [*folds[turn], *fold.tolist()]
                held += len(fold)
    learned = tuple(i for i in range(len(names)) if i not in set(apart))
    return Plan(learned, tuple(tuple(sorted(f)) for f in folds), tuple(sorted(apart)), tuple(copied))


@dataclass(frozen=True)
class HeldOut:
    """Scores of good images of one category: of the images, and the largest value of each one's map.

    `alone`: the same of scans with one modality only, by that.
    """

    scores: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    alone: dict[str, HeldOut] = field(default_factory=dict)

    def where(self, there: Sequence[str]) -> HeldOut:
        """The scores of what has the modalities `there`, of all that the detector uses or of one."""
        return self.alone.setdefault(there[0], HeldOut()) if len(there) == 1 else self

    def add(self, detector: Detector, features: Features, stride: int) -> None:
        """Score encoded good images of this category; `stride` is the encoder's."""
        scores, patches = answers(detector, features)
        grids = [tensor.shape[1:3] for layers in features.layers.values() for tensor in layers]
        input_size = (stride * max(height for height, _ in grids), stride * max(width for _, width in grids))
        self.scores.extend(scores.tolist())
        self.peaks.extend(map_peak(one, input_size) for one in patches)

    def add_mean(self, other: HeldOut) -> None:
        """Add the mean of other scores as one: copies of an image tell no more than one image does."""
        self.scores.append(float(np.mean(other.scores)))
        self.peaks.append(float(np.mean(other.peaks)))


def answers(detector: Detector, features: Features) -> tuple[np.ndarray, np.ndarray]:
    """Image scores `(B,)` and patch scores `(B, h, w)`, both float32: a detector's answer as numpy.

    Raises WeightsError when they are not finite.
    """
    scores = detector.score(features)
    patches = scores.patches.detach().float().cpu().numpy()
    if not np.isfinite(patches).all():
        raise WeightsError("finite patch scores", "NaN or infinite ones", "check the encoder's weights, and fit again")
    own = None if scores.images is None else scores.images.detach().float().cpu().numpy()
    pooled = own if own is not None else [image_score(one, detector.needs.pooling) for one in patches]
    return np.asarray(pooled, dtype=np.float32), patches


def gain_evidence(
    good: FeatureLoader,
    plan: Plan,
    detector: Detector,
    unlearned: Callable[[], Detector],
    eyes: Eyes,
    rate: float,
    progress: Progress | None = None,
) -> dict[str, Calibration]:
    """One calibration a category, as `plan` says, and of scans one for each modality alone.

    `detector` learned from `plan.learned`; `unlearned()` gives a new one of the same settings for a fold; `eyes` encode
    changed copies of an image, and scans with one modality alone.
    """
    names = good.categories or ("",) * len(good)
    found = {name: HeldOut() for name in names}
    score_images(detector, good, plan.apart, found, eyes)
    for turn, fold in enumerate(plan.folds):
        rest = sorted(set(range(len(good))) - set(fold))
        score_images(unlearned().fit(good.subset(rest)), good, fold, found, eyes)
        if progress:
            progress(turn + 1, len(plan.folds), {})
    for index in plan.copied:
        found[names[index]].add_mean(score_copies(detector, good, names[index], eyes.copies_of(index, COPIES)))
        for modality in sides_of(good.needs):
            copies = score_copies(detector, good, names[index], eyes.copies_of(index, ALONE_COPIES, modality))
            found[names[index]].where((modality,)).add_mean(copies)
    given, copied = Counter(names), {names[i] for i in plan.copied}
    folds = {name: sum(any(names[i] == name for i in fold) for fold in plan.folds) for name in found}
    return {
        name: calibrated(
            held, rate, Evidence(given[name], len(held.scores), folds[name], name in copied, squared=good.needs.squared)
        )
        for name, held in found.items()
    }


def calibrated(held: HeldOut, rate: float, evidence: Evidence) -> Calibration:
    """The calibration from held-out scores, corrected by what is known of how they differ from those of new parts."""
    alone = {
        modality: calibrated(own, rate, replace(evidence, held_out=len(own.scores)))
        for modality, own in held.alone.items()
    }
    raised = INFLATION if evidence.copies else 1.0
    if evidence.folds and evidence.images < FEW:
        raised = math.exp(-MISSED / evidence.images)
    if evidence.squared:
        raised = raised**2
    scores, peaks = (np.asarray(values, dtype=np.float64) * raised for values in (held.scores, held.peaks))
    return replace(Calibration.of(scores, peaks, rate, replace(evidence, inflation=raised)), alone=alone)


def recalibrated(old: Calibration, held: HeldOut, rate: float, squared: bool) -> Calibration:
    """`old` at another rate, with what new good images scored in the place of what they are about."""

    def new(own: HeldOut) -> Calibration:
        return Calibration.of(own.scores, own.peaks, rate, Evidence(len(own.scores), len(own.scores), squared=squared))

    kept = old.at(rate)
    alone = {modality: new(own) for modality, own in held.alone.items()}
    return replace(new(held) if held.scores else kept, alone={**kept.alone, **alone})


def score_images(
    detector: Detector, good: FeatureLoader, indices: Sequence[int], into: Mapping[str, HeldOut], eyes: Eyes
) -> None:
    """Add the scores of the images at `indices` to their categories', of a few scans also by each modality alone."""
    for index, features in zip(indices, plain_features(good, indices), strict=True):
        name = "" if good.categories is None else good.categories[index]
        into[name].add(detector, features, good.encoder.stride)
        for modality in sides_of(good.needs) if len(into[name].scores) <= ALONE else ():
            alone = eyes.alone(index, modality).with_categories([name])
            into[name].where((modality,)).add(detector, alone, good.encoder.stride)


def sides_of(needs: Needs) -> tuple[str, ...]:
    """The modalities of which an inspected scan may have one alone; none where only images are looked at."""
    return (RGB, POINTS) if POINTS in needs.modalities else ()


def score_copies(detector: Detector, good: FeatureLoader, category: str, copies: Iterable[Features]) -> HeldOut:
    """The scores of encoded copies of one image."""
    held = HeldOut()
    for features in copies:
        held.add(detector, features.with_categories([category] * len(features)), good.encoder.stride)
    return held


def plain_features(good: FeatureLoader, indices: Sequence[int]) -> Iterator[Features]:
    """The features of the images at `indices`, one by one, neither turned nor changed; encoded only if not kept."""
    if not indices:
        return
    plain = good.subset(indices)
    plain.needs = replace(good.needs, rotations=1, flips=False, augmentation=False, synthetic_anomalies=False, images=1)
    plain.batch_size = 1
    plain.progress = None
    for batch in plain:
        yield batch.features
