"""Whether a threshold and the p-values behind it keep their promise on parts that were not used to set them.

A prediction calls a score above the threshold (`score > threshold`) defective. The p-values of good parts must be
uniform: at a wished false-alarm rate a, a share a of good parts should have p <= a.

Sources: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World" (conformal p-values); Massart, Annals of
Probability 1990 (the bound on the Kolmogorov-Smirnov distance); Geifman et al., ICLR 2019 (AURC).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from blemish.errors import DatasetError, SettingsError
from blemish.metrics.ranking import checked


class Uniformity(NamedTuple):
    """How far the p-values of good parts are from uniform.

    `distance` is the Kolmogorov-Smirnov distance, in [0, 1]; `excess` its harmful side: the most by which a share of
    good parts with p <= a exceeds a (more false alarms than promised); `area` the mean of |share − a| over all a in
    [0, 1], the expected calibration error; `bound` the distance that chance alone stays below with the confidence
    asked for; `parts` the number of good parts seen.
    """

    distance: float
    excess: float
    area: float
    bound: float
    parts: int

    @property
    def keeps_promise(self) -> bool:
        """Whether good parts raise no more false alarms than promised, as far as `parts` of them can tell."""
        return not self.excess > self.bound


class RiskCoverage(NamedTuple):
    """`risk[k - 1]` is the share of errors among the k most certain answers, `coverage[k - 1]` = k / n.

    `aurc` is the mean of `risk`: 0 with no errors, smaller when errors come with low certainty.
    """

    coverage: np.ndarray
    risk: np.ndarray
    aurc: float


def false_alarm_rate(scores: ArrayLike, labels: ArrayLike, threshold: ArrayLike) -> float:
    """Share of good parts (label 0) with `score > threshold`; nan without good parts.

    `scores` and `labels` are `(n,)`; `threshold` one number, or `(n,)` where each part has its category's own.
    Raises `DatasetError` for lengths that differ, NaN or infinite scores, NaN thresholds, labels other than 0 and 1.
    """
    alarms, defective = _verdicts(scores, labels, threshold)
    return _share(alarms[~defective])


def miss_rate(scores: ArrayLike, labels: ArrayLike, threshold: ArrayLike) -> float:
    """Share of defective parts (label 1) with `score <= threshold`; nan without any. See `false_alarm_rate`."""
    alarms, defective = _verdicts(scores, labels, threshold)
    return _share(~alarms[defective])


def promised_and_kept(
    p_values: ArrayLike, wished: Sequence[float] = (0.01, 0.02, 0.05, 0.1, 0.2)
) -> dict[float, float]:
    """For each wished false-alarm rate, the rate that good parts with these p-values `(n,)` really show."""
    p = _checked_p_values(p_values)
    return {rate: float(np.mean(p <= rate)) for rate in wished}


def uniformity(p_values: ArrayLike, evidence: int | None = None, confidence: float = 0.95) -> Uniformity:
    """Compare the p-values `(n,)` in [0, 1] of good parts with the uniform distribution.

    `evidence` is the number of good scores that the p-values were counted over; they can then only be multiples of
    1 / (evidence + 1), and are compared with the uniform distribution on those. None compares with the continuous one.

    The bound (Dvoretzky-Kiefer-Wolfowitz with Massart's constant) holds for parts independent of one another; that all
    share one set of calibration scores adds a scatter of about 1 / √evidence, which the bound does not include.
    Raises `DatasetError` for an empty list or values outside [0, 1], `SettingsError` for settings out of range.
    """
    if not 0 < confidence < 1 or (evidence is not None and evidence < 1):
        raise SettingsError(
            "a confidence between 0 and 1 and at least one score of evidence",
            f"confidence {confidence}, evidence {evidence}",
            "pass e.g. confidence=0.95 and the number of calibration scores",
        )
    p = np.sort(_checked_p_values(p_values))
    count = len(p)
    values, ends = np.unique(p, return_counts=True)
    at_most = np.cumsum(ends) / count  # share with p <= value
    below = np.concatenate([[0.0], at_most[:-1]])  # share with p < value
    if evidence is None:
        expected = expected_below = values
    else:
        steps = np.rint(values * (evidence + 1))
        expected, expected_below = steps / (evidence + 1), np.maximum(steps - 1, 0) / (evidence + 1)
    excess = max(float((at_most - expected).max()), 0.0)
    shortfall = max(float((expected_below - below).max()), 0.0)
    bound = math.sqrt(math.log(2 / (1 - confidence)) / (2 * count))
    return Uniformity(max(excess, shortfall), excess, _mean_gap(p), bound, count)


def risk_coverage(certainty: ArrayLike, is_wrong: ArrayLike) -> RiskCoverage:
    """Errors kept when the least certain answers are handed to a person.

    `certainty` `(n,)` is any finite number, larger is surer (for p-values and a threshold: the distance from it);
    `is_wrong` `(n,)` is 1 where the answer was wrong. Equal certainties count with their average risk, so that the
    order of the list does not matter. Raises `DatasetError` as `false_alarm_rate` does, and for an empty list.
    """
    values, wrong = checked(certainty, is_wrong)
    if not len(values):
        raise DatasetError("at least one answer", "an empty list", "inspect labelled parts first")
    _, group, sizes = np.unique(-values, return_inverse=True, return_counts=True)
    errors_before = np.concatenate([[0.0], np.cumsum(np.bincount(group, wrong))])
    answers = np.arange(1, len(values) + 1)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    risk = np.interp(answers, ends, errors_before) / answers
    return RiskCoverage(answers / len(values), risk, float(risk.mean()))


def _verdicts(scores: ArrayLike, labels: ArrayLike, threshold: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    values, defective = checked(scores, labels)
    limits = np.asarray(threshold)
    if limits.shape not in ((), values.shape) or np.isnan(limits).any():
        raise DatasetError(
            "one threshold, or one for each score, and no NaN",
            f"thresholds of shape {limits.shape} for {len(values)} scores",
            "pass the model's threshold, or each part's category's own",
        )
    return values.astype(np.float64, copy=False) > limits, defective


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else math.nan


def _checked_p_values(p_values: ArrayLike) -> np.ndarray:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not len(p) or not ((p >= 0) & (p <= 1)).all():
        raise DatasetError(
            "a flat list of p-values in [0, 1]",
            f"shape {p.shape}, from {p.min() if p.size else 'nothing'} to {p.max() if p.size else 'nothing'}",
            "pass the p_value of each good part",
        )
    return p


def _mean_gap(p: np.ndarray) -> float:
    """∫ |share of p <= a − a| da over [0, 1], for ascending p."""
    edges = np.concatenate([[0.0], p, [1.0]])
    share = np.arange(len(p) + 1) / len(p)  # constant between edges
    left, right = share - edges[:-1], share - edges[1:]  # the gap falls along each piece, from left to right
    same_sign = np.abs(left + right) / 2 * (edges[1:] - edges[:-1])
    crossing = (left**2 + right**2) / 2
    return float(np.where(left * right < 0, crossing, same_sign).sum())
