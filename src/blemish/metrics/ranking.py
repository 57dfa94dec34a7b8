"""How well scores rank defective above good: AUROC, average precision and the largest F1.

All three are exact with ties and depend on the order of the scores alone, so that any strictly increasing change of
scale leaves them as they are. "Defective" is the positive class, and a threshold t calls a score >= t defective.

Sources: AUROC as the Mann-Whitney statistic (Hanley and McNeil, Radiology 1982); average precision as the step-wise
area under the precision-recall curve (the definition of scikit-learn and PASCAL VOC 2010+).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from blemish.errors import DatasetError
from blemish.metrics.sorted_scores import SortedScores, first_of_ties


class F1Max(NamedTuple):
    """The largest F1 over all thresholds, and the largest threshold that reaches it (`score >= threshold`)."""

    value: float
    threshold: float


class RankingMeasures(NamedTuple):
    """AUROC, average precision, largest F1 (all in [0, 1]) and its threshold; nan where a class is missing."""

    auroc: float
    ap: float
    f1max: float
    f1max_threshold: float


class RankSums(NamedTuple):
    """What a run of defective scores adds to the three measures; runs are joined by `ranking_from`."""

    half_pairs: int  # 2 × (defective, good) pairs in right order, a tie counting half
    precision: float  # Σ precision at each defective score's threshold
    f1max: float
    f1max_threshold: float


def ranking_measures(scores: ArrayLike, labels: ArrayLike) -> RankingMeasures:
    """AUROC, average precision and largest F1 of image scores.

    Parameters
    ----------
    scores
        `(n,)` finite numbers of any range and type, larger is more anomalous.
    labels
        `(n,)` bool or 0/1, 1 for defective.

    Returns nan for everything when either class is missing: nothing can be ranked then, and a table of results goes on.

    Raises `DatasetError` for differing lengths, NaN or infinite scores, and labels other than 0 and 1.
    """
    values, defective = checked(scores, labels)
    good, bad = np.sort(values[~defective]), np.sort(values[defective])
    if not len(good) or not len(bad):
        return ranking_from([], len(good), len(bad))
    less, up_to = SortedScores([good]).counts(bad)
    return ranking_from([rank_sums(bad, 0, len(bad), less, up_to, len(good))], len(good), len(bad))


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Probability that a defective image scores above a good one, ties counting half. See `ranking_measures`."""
    return ranking_measures(scores, labels).auroc


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Precision averaged over the steps of recall, without interpolation. See `ranking_measures`."""
    return ranking_measures(scores, labels).ap


def f1_max(scores: ArrayLike, labels: ArrayLike) -> F1Max:
    """The largest F1 over all thresholds and where it is reached. See `ranking_measures`."""
    measures = ranking_measures(scores, labels)
    return F1Max(measures.f1max, measures.f1max_threshold)


def roc_points(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """False-positive and true-positive rates `(m + 1,)` at every distinct score, from (0, 0) to (1, 1).

    Thresholds fall from point to point; tied scores move both rates at once. A rate whose class is missing stays 0.
    Arguments and errors as in `ranking_measures`.
    """
    found, false, positives, negatives = _counts_by_threshold(scores, labels)
    return np.append(0.0, false / max(1, negatives)), np.append(0.0, found / max(1, positives))


def precision_recall_points(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision `(m,)` at every distinct score, in order of falling thresholds.

    Recall is 0 throughout where nothing is defective. Arguments and errors as in `ranking_measures`.
    """
    found, false, positives, _ = _counts_by_threshold(scores, labels)
    return found / max(1, positives), found / (found + false)


def _counts_by_threshold(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray, int, int]:
    """True and false positives `(m,)` at the m distinct scores as thresholds, falling; positives and negatives."""
    values, defective = checked(scores, labels)
    order = np.argsort(-values, kind="stable")
    # The last position of each run of ties; nothing without scores.
    last = np.append(np.flatnonzero(np.diff(values[order])), len(order) - 1) if len(order) else np.zeros(0, int)
    found, false = np.cumsum(defective[order])[last], np.cumsum(~defective[order])[last]
    return found, false, int(defective.sum()), int((~defective).sum())


def checked(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Scores as a float array and labels as a bool array, both `(n,)`; raises `DatasetError` on anything else."""
    values, truth = np.asarray(scores), np.asarray(labels)
    if values.ndim != 1 or values.shape != truth.shape:
        raise DatasetError(
            "one label for each score, both as flat lists",
            f"scores of shape {values.shape} and labels of shape {truth.shape}",
            "pass the two in the same order and length",
        )
    if values.dtype.kind not in "fiub":
        raise DatasetError("scores that are real numbers", f"an array of {values.dtype}", "pass floats or integers")
    values = values.astype(np.result_type(np.float32, values.dtype), copy=False)
    broken = np.flatnonzero(~np.isfinite(values))
    if len(broken):
        raise DatasetError(
            "finite scores",
            f"{len(broken)} NaN or infinite of {len(values)}, the first at position {broken[0]}",
            "leave out the pictures that could not be scored, or check the model's weights",
        )
    is_known = np.isin(truth, (0, 1))
    if not is_known.all():
        raise DatasetError("labels 0 (good) and 1 (defective)", f"{truth[~is_known][:5]}", "map your labels to 0 and 1")
    return values, truth.astype(bool)


def rank_sums(bad: np.ndarray, start: int, stop: int, less: np.ndarray, up_to: np.ndarray, good_count: int) -> RankSums:
    """What `bad[start:stop]` adds; `bad` is all defective scores ascending, `less` and `up_to` count the good ones.

    Recall changes at defective scores only, and between two of them a lower threshold only adds false alarms, so that
    average precision and the largest F1 need no threshold at a good score.
    """
    found = len(bad) - first_of_ties(bad, start, stop)  # (n,) defective scores >= this one
    alarms = found + (good_count - less)  # (n,) scores of either class >= this one
    f1 = 2 * found / (alarms + len(bad))
    best = len(f1) - 1 - int(np.argmax(f1[::-1]))
    return RankSums(
        half_pairs=int(less.sum()) + int(up_to.sum()),
        precision=float((found / alarms).sum()),
        f1max=float(f1[best]),
        f1max_threshold=float(bad[start + best]),
    )


def ranking_from(sums: Sequence[RankSums], good_count: int, bad_count: int) -> RankingMeasures:
    """Join the sums of all runs; nan when a class is missing."""
    if not good_count or not bad_count:
        return RankingMeasures(math.nan, math.nan, math.nan, math.nan)
    best = max(sums, key=lambda s: (s.f1max, s.f1max_threshold))
    return RankingMeasures(
        auroc=sum(s.half_pairs for s in sums) / (2 * good_count * bad_count),
        ap=math.fsum(s.precision for s in sums) / bad_count,
        f1max=best.f1max,
        f1max_threshold=best.f1max_threshold,
    )
