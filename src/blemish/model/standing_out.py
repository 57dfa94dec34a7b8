"""Fitted normal images whose scores stand apart from those of the others: named, for a person to look at.

An image among the normal ones that is defective, or the only one of its kind, raises the threshold and stays unnoticed:
it is left out on request alone (outliers.py). Where images were held out in folds, the scores that detectors gave which
did not know them are compared; those of detectors too slow for that would be few, so there it is the mutual scores of
outliers.py. The highest ones of a category stand out by a test of gaps, which reports anything for at most 5 % of the
fits to images among which none does (scoring/outlying_scores.py; the categories share the level).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from blemish.detectors.base import Progress
from blemish.model.feature_loader import FeatureLoader
from blemish.model.held_out_scores import HeldOutScores
from blemish.model.outliers import ComparedImage, mutual_scores
from blemish.scoring.calibration import Calibration
from blemish.scoring.outlying_scores import LEVEL, MIN_SCORES, outlying
from blemish.scoring.tail_model import TINY
from blemish.types import Sample
from blemish.utils.indices import group_indices


@dataclass(frozen=True)
class StandingOut(ComparedImage):
    """A fitted normal image that scores higher than the others do.

    `score` is its held-out or mutual one; `others`, in the same unit, the highest one of those that do not stand out.
    `threshold_without` is what the image threshold would be without the held-out scores of all that stand out in its
    category, None where the scores are mutual ones. `fingerprint` is that of the image.
    """

    others: float
    threshold_without: float | None = None
    fingerprint: str = ""


def scores_to_compare(
    held_out: Mapping[str, HeldOutScores],
    calibrations: Mapping[str, Calibration],
    loader: FeatureLoader,
    is_cleaned: bool,
    progress: Progress | None = None,
) -> dict[str, dict[int, float]]:
    """Scores of the loader's images by category and index: held-out ones of folds, else mutual ones.

    After outliers were removed (`is_cleaned`), which compares mutual scores, they are not compared again.
    """
    scores: dict[str, dict[int, float]] = {}
    for name, members in group_indices(loader.categories or ("",) * len(loader)).items():
        if calibrations[name].source.folds:
            scores[name] = dict(zip(held_out[name].images, held_out[name].scores, strict=True))
        elif len(members) >= MIN_SCORES and not is_cleaned:
            scores[name] = mutual_scores(loader, members, progress)
    return scores


def find_standing_out(
    scores: Mapping[str, Mapping[int, float]],
    calibrations: Mapping[str, Calibration],
    samples: Sequence[Sample],
    fingerprints: Sequence[str],
) -> tuple[StandingOut, ...]:
    """Which of the normal images stand out by `scores_to_compare`, by category, the highest score first."""
    found: list[StandingOut] = []
    for name, known in scores.items():
        count, _ = outlying(list(known.values()), LEVEL / len(scores))
        if not count:
            continue
        ordered = sorted(known, key=lambda i: (-known[i], i))
        median, others = max(float(np.median(list(known.values()))), TINY), known[ordered[count]]
        without = threshold_without(calibrations[name], count) if calibrations[name].source.folds else None
        found += [
            StandingOut(samples[i].name, name or None, known[i] / median, others / median, without, fingerprints[i])
            for i in ordered[:count]
        ]
    return tuple(found)


def threshold_without(calibration: Calibration, count: int) -> float:
    """The image threshold if the `count` highest held-out scores were not there."""
    return replace(calibration, scores=calibration.scores[: len(calibration.scores) - count]).threshold
