"""Whether verdicts, and the p-values behind them, keep the promised false-alarm rate on images that set no threshold.

A normal image whose verdict is "defective" or "unknown" is a false alarm, a defective one that is called "good" is
missed; "unsure", which is left to a person, counts half in either. The p-values of normal images must be uniform: at a
target false-alarm rate a, a share a of them has p <= a.

Sources: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", Springer 2005 (conformal p-values);
Massart, "The Tight Constant in the Dvoretzky-Kiefer-Wolfowitz Inequality", Annals of Probability 1990; Clopper and
Pearson, "The Use of Confidence or Fiducial Limits", Biometrika 1934 (intervals of shares); Geifman et al.,
"Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", ICLR 2019 (AURC).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from blemish.errors import DatasetError, SettingsError
from blemish.metrics.ranking import checked
from blemish.types import Verdict

PROMISED = (0.01, 0.02, 0.05, 0.1, 0.2)  # false-alarm rates that people ask for


class KeptRate(NamedTuple):
    """A share that was measured, with its confidence interval [`low`, `high`] (Clopper-Pearson)."""

    share: float
    low: float
    high: float


class Uniformity(NamedTuple):
    """How far the p-values of normal images are from uniform.

    `distance` is the Kolmogorov-Smirnov distance, in [0, 1]; `excess` its harmful side: the most by which the share of
    normal images with p <= a exceeds a (more false alarms than promised); `area` the mean of |share − a| over all a in
    [0, 1], the expected calibration error; `bound` the distance that chance alone stays below with the confidence
    asked for; `images` the number of p-values.
    """

    distance: float
    excess: float
    area: float
    bound: float
    images: int

    @property
    def keeps_promise(self) -> bool:
        """Whether normal images raise no more false alarms than promised, as far as so many `images` can show."""
        return not self.excess > self.bound


class RiskCoverage(NamedTuple):
    """`risk[k - 1]` is the share of errors among the k most certain verdicts, `coverage[k - 1]` = k / n.

    `aurc` is the mean of `risk`: 0 with no errors, smaller when errors come with low certainty.
    """

    coverage: np.ndarray
    risk: np.ndarray
    aurc: float


def false_alarm_rate(verdicts: Sequence[Verdict], labels: ArrayLike) -> float:
    """Share of normal images (label 0) that are called "defective" or "unknown"; an "unsure" one counts half.

    Both `(n,)`; nan without normal images. Raises DatasetError for lengths that differ or labels other than 0 and 1.
    """
    passed, defective = _passed(verdicts, labels)
    return _share(1 - passed[~defective])


def miss_rate(verdicts: Sequence[Verdict], labels: ArrayLike) -> float:
    """Share of defective images (label 1) that are called "good"; an "unsure" one counts half; nan without any."""
    passed, defective = _passed(verdicts, labels)
    return _share(passed[defective])


def oracle_miss_rate(scores: ArrayLike, labels: ArrayLike, rate: float = 0.05) -> float:
    """Share of defective images at or below the 1 − `rate` quantile of these very normal ones, known by hindsight only.

    The quantile is interpolated, so that small sets compare with large ones: of fewer than 1/`rate` normal images one
    lies above it. Scores and labels `(n,)`; nan without both kinds. Raises DatasetError for lengths that differ, scores
    that are not finite, and labels other than 0 and 1.
    """
    values, defective = checked(scores, labels)
    if not defective.any() or defective.all():
        return math.nan
    return _share(values[defective] <= np.quantile(values[~defective], 1 - rate))


def verdict_rate(verdicts: Sequence[Verdict], verdict: Verdict) -> float:
    """Share of the images with this verdict; nan for none."""
    return _share(np.array([one == verdict for one in verdicts], dtype=bool))


def kept_rate(share: float, images: int, confidence: float = 0.95) -> KeptRate:
    """The interval of a share in [0, 1] of so many independent `images`; nan for none.

    Clopper-Pearson, continued to counts that are no whole numbers, so that the mean share of several models on the
    same test images has the interval of these images.
    """
    if not images or math.isnan(share):
        return KeptRate(math.nan, math.nan, math.nan)
    from scipy.special import betaincinv

    hits, tail = share * images, (1 - confidence) / 2
    low = float(betaincinv(hits, images - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, images - hits, 1 - tail)) if hits < images else 1.0
    return KeptRate(share, low, high)


def promised_and_kept(
    p_values: ArrayLike,
    promised: Sequence[float] = PROMISED,
    images: int | None = None,
    confidence: float = 0.95,
) -> dict[float, KeptRate]:
    """For each promised false-alarm rate, the rate that normal images with these p-values `(n,)` show.

    `images` is the number of different images among the n, where several models inspected the same ones; None for n.
    """
    p = _checked_p_values(p_values)
    return {rate: kept_rate(float(np.mean(p <= rate)), images or len(p), confidence) for rate in promised}


def uniformity(
    p_values: ArrayLike, held_out: int | None = None, images: int | None = None, confidence: float = 0.95
) -> Uniformity:
    """Compare the p-values `(n,)` in [0, 1] of normal images with the uniform distribution.

    `held_out` is the number of held-out scores that the p-values were counted over; they can then only be multiples of
    1 / (held_out + 1), and are compared with the uniform distribution on those. None compares with the continuous one.

    `images` is as in `promised_and_kept`.

    The bound (Dvoretzky-Kiefer-Wolfowitz with Massart's constant) holds for images independent of one another; that
    all share one calibration set adds a scatter of about 1 / √held_out, which the bound does not include.
    Raises `DatasetError` for an empty list or values outside [0, 1], `SettingsError` for settings out of range.
    """
    if not 0 < confidence < 1 or (held_out is not None and held_out < 1):
        raise SettingsError(
            "a confidence between 0 and 1 and at least one held-out score",
            f"confidence {confidence}, held_out {held_out}",
            "pass e.g. confidence=0.95 and the number of calibration scores",
        )
    p = np.sort(_checked_p_values(p_values))
    count = len(p)
    values, ends = np.unique(p, return_counts=True)
    at_most = np.cumsum(ends) / count  # share with p <= value
    below = np.concatenate([[0.0], at_most[:-1]])  # share with p < value
    if held_out is None:
        expected = expected_below = values
    else:
        steps = np.rint(values * (held_out + 1))
        expected, expected_below = steps / (held_out + 1), np.maximum(steps - 1, 0) / (held_out + 1)
    excess = max(float((at_most - expected).max()), 0.0)
    shortfall = max(float((expected_below - below).max()), 0.0)
    bound = math.sqrt(math.log(2 / (1 - confidence)) / (2 * (images or count)))
    return Uniformity(max(excess, shortfall), excess, _mean_gap(p), bound, images or count)


def risk_coverage(certainty: ArrayLike, is_wrong: ArrayLike) -> RiskCoverage:
    """Errors that remain when the least certain verdicts are handed to a person.

    `certainty` `(n,)` is any finite number, larger is surer (for scores: the distance from the threshold);
    `is_wrong` `(n,)` is 1 where the verdict was wrong. Equal certainties count with their average risk, so that the
    order of the list does not matter. Raises DatasetError for lengths that differ, certainties that are not finite,
    and an empty list.
    """
    values, wrong = checked(certainty, is_wrong)
    if not len(values):
        raise DatasetError("at least one verdict", "an empty list", "inspect labelled pictures first")
    _, group, sizes = np.unique(-values, return_inverse=True, return_counts=True)
    errors_before = np.concatenate([[0.0], np.cumsum(np.bincount(group, wrong))])
    kept = np.arange(1, len(values) + 1)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    risk = np.interp(kept, ends, errors_before) / kept  # (n,)
    return RiskCoverage(kept / len(values), risk, float(risk.mean()))


def _passed(verdicts: Sequence[Verdict], labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """How far each image passes as good (1; unsure: ½; else 0) and which are defective: `(n,)` float and bool."""
    passed = np.array([{"good": 1.0, "unsure": 0.5}.get(verdict, 0.0) for verdict in verdicts], dtype=np.float64)
    _, defective = checked(passed, labels)
    return passed, defective


def _share(weights: np.ndarray) -> float:
    return float(weights.mean()) if len(weights) else math.nan


def _checked_p_values(p_values: ArrayLike) -> np.ndarray:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not len(p) or not ((p >= 0) & (p <= 1)).all():
        raise DatasetError(
            "a flat list of p-values in [0, 1]",
            f"shape {p.shape}, from {p.min() if p.size else 'nothing'} to {p.max() if p.size else 'nothing'}",
            "pass the p_value of each good picture",
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
