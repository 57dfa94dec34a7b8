"""Scores of good parts that the detector did not learn from → p-value, threshold, and the evidence behind both.

With n such scores the p-value of a new score s is p = (1 + #{s_i ≥ s}) / (n + 1) and the threshold at a wished
false-alarm rate F the matching order statistic (conformal prediction; Vovk, Gammerman & Shafer, 2005, §2): exact for
any distribution, but silent below 1/(n + 1). With n < 1/F − 1 the tail is therefore taken from a model: logarithms of
good scores are normal, and a new one lies above mean + t·s·√(1 + 1/n) with probability F, where t is Student's quantile
(the normal prediction bound). Because a spread from a handful of scores is hardly known, it is joined with what
good scores of parts scatter by as a rule (`PRIOR_SPREAD`, worth `PRIOR_WEIGHT` further scores). No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from blemish.errors import ModelError, SettingsError

# Standard deviation of the logarithm of good parts' scores, as a rule, and how many scores that rule is worth. Measured
# on good images of solar cells, bottles, screws, plates and cookies beyond those learned from: .05 to .2, .12 as the
# root mean square (benchmarks/development.py).
PRIOR_SPREAD, PRIOR_WEIGHT = 0.12, 4.0
# The same where scores are those of copies: how much new parts score above those differs from product to product.
COPIES_SPREAD, COPIES_WEIGHT = 0.13, 8.0
_TINY = 1e-12  # stands for a score of 0 under the logarithm


@dataclass(frozen=True)
class Evidence:
    """What a threshold rests on.

    `images` are the good images given, `held_out` the scores gained from them while the detector did not know the
    image, in `folds` learnings (0: none was needed). `copies` tells that these are mean scores of slightly changed
    copies of images that the detector did learn from. `inflation` is the factor that scores were corrected by.
    `squared` tells that scores grow like squared distances: their logarithms scatter twice as much.
    """

    images: int
    held_out: int
    folds: int = 0
    copies: bool = False
    inflation: float = 1.0
    squared: bool = False

    @property
    def words(self) -> str:
        """One sentence for reports."""
        good = f"{self.images} good picture{'' if self.images == 1 else 's'}"
        if self.copies:
            return (
                f"Threshold from slightly changed copies of {good}, "
                f"raised {self.inflation:.3g}×, as copies look more familiar than new parts do."
            )
        some = good if self.held_out == self.images else f"{self.held_out} of {good}"
        if self.folds:
            lowered = "" if self.inflation == 1 else f", times {self.inflation:.2f} for the picture it knew less"
            return (
                f"Threshold from {some}, each scored by a detector that had not seen it ({self.folds} folds){lowered}."
            )
        return f"Threshold from {some} that the detector did not learn from."


@dataclass(frozen=True)
class Calibration:
    """Good scores of one category, and the false-alarm rate wished for. `scores` and `peaks` are sorted, both (n,).

    `scores` are image scores; `peaks` the largest value of each held-out image's map. `alone` holds calibrations of
    scans that have one modality only, "rgb" or "points", whose scores are others.
    """

    scores: np.ndarray
    peaks: np.ndarray
    false_alarm_rate: float
    evidence: Evidence = field(default_factory=lambda: Evidence(0, 0))
    alone: Mapping[str, Calibration] = field(default_factory=dict)

    @classmethod
    def of(cls, scores: ArrayLike, peaks: ArrayLike, false_alarm_rate: float, evidence: Evidence) -> Calibration:
        """From held-out scores and map peaks in any order. Raises SettingsError for an impossible rate or no scores."""
        check_rate(false_alarm_rate)
        values = np.sort(np.asarray(scores, dtype=np.float64))
        if not len(values) or not np.isfinite(values).all():
            raise SettingsError(
                "at least one finite score of a good part", f"{values[:5].tolist()}", "give more good pictures"
            )
        return cls(values, np.sort(np.asarray(peaks, dtype=np.float64)), float(false_alarm_rate), evidence)

    @property
    def threshold(self) -> float:
        """The score above which a part is called defective; good parts exceed it with `false_alarm_rate`."""
        return upper_limit(self.scores, self.false_alarm_rate, *self._rule)

    @property
    def _rule(self) -> tuple[float, float]:
        spread, weight = (COPIES_SPREAD, COPIES_WEIGHT) if self.evidence.copies else (PRIOR_SPREAD, PRIOR_WEIGHT)
        return spread * (2 if self.evidence.squared else 1), weight

    @property
    def peak_threshold(self) -> float:
        """The map value that a region must reach somewhere: what good parts' maps peak above equally rarely."""
        return upper_limit(self.peaks, self.false_alarm_rate, *self._rule) if len(self.peaks) else self.threshold

    @property
    def map_threshold(self) -> float:
        """The map value above which a pixel belongs to a region: where a good part's map typically peaks.

        Lower than what a region must reach, so that a defect is outlined whole and not only its core.
        """
        return float(np.median(self.peaks)) if len(self.peaks) else self.threshold

    def where(self, there: Sequence[str]) -> Calibration:
        """The calibration of what has the modalities `there`."""
        return self.alone.get(there[0], self) if len(there) == 1 else self

    def p_value(self, score: float) -> float:
        """The share of good parts, in (0, 1], that score at least `score`; at most `false_alarm_rate` iff defective."""
        return exceedance(self.scores, score, self.false_alarm_rate, *self._rule)

    def is_defective(self, score: float) -> bool:
        return bool(score > self.threshold)

    def at(self, false_alarm_rate: float) -> Calibration:
        """The same evidence at another wished false-alarm rate."""
        alone = {modality: own.at(false_alarm_rate) for modality, own in self.alone.items()}
        return replace(Calibration.of(self.scores, self.peaks, false_alarm_rate, self.evidence), alone=alone)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; numbers keep every bit."""
        return {
            "false_alarm_rate": self.false_alarm_rate,
            "threshold": self.threshold,
            "map_threshold": self.map_threshold,
            "scores": self.scores.tolist(),
            "peaks": self.peaks.tolist(),
            "evidence": asdict(self.evidence),
            **({"alone": {modality: own.to_dict() for modality, own in self.alone.items()}} if self.alone else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Take back what `to_dict` gave. Raises ModelError when something is missing."""
        try:
            evidence = Evidence(**values["evidence"])
            found = cls.of(values["scores"], values["peaks"], values["false_alarm_rate"], evidence)
            alone = {modality: cls.from_dict(own) for modality, own in values.get("alone", {}).items()}
            return replace(found, alone=alone)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError("a calibration with scores, peaks, rate and evidence", repr(error), "fit again") from error


def check_rate(rate: float) -> float:
    """`rate` itself when it lies strictly between 0 and 1, else SettingsError."""
    if not 0 < rate < 1:
        raise SettingsError("a false-alarm rate between 0 and 1, such as 0.05", repr(rate), "set false_alarm_rate")
    return rate


def enough(count: int, rate: float) -> bool:
    """Whether `count` scores reach down to `rate` on their own: 1/(n + 1) ≤ rate."""
    return rate * (count + 1) * (1 + 1e-12) >= 1


def upper_limit(scores: np.ndarray, rate: float, spread: float = PRIOR_SPREAD, weight: float = PRIOR_WEIGHT) -> float:
    """What a new good score exceeds with probability `rate`; `scores` (n,) sorted.

    `spread` and `weight` are what is known of the scores' scatter beforehand (see `PRIOR_SPREAD`).
    """
    count = len(scores)
    if enough(count, rate):
        above = math.floor(rate * (count + 1) * (1 + 1e-12))
        return float(scores[count - above])
    mean, scale, freedom = _tail(scores, spread, weight)
    from scipy.special import stdtrit

    return float(math.exp(mean - scale * stdtrit(freedom, rate)))


def exceedance(
    scores: np.ndarray, score: float, rate: float, spread: float = PRIOR_SPREAD, weight: float = PRIOR_WEIGHT
) -> float:
    """p-value of `score`: from the order of `scores` (n,), sorted, where it reaches `rate`, else the tail model's."""
    count = len(scores)
    if enough(count, rate):
        return float((1 + count - np.searchsorted(scores, score, side="left")) / (count + 1))
    mean, scale, freedom = _tail(scores, spread, weight)
    from scipy.special import stdtr

    return float(max(stdtr(freedom, (mean - math.log(max(score, _TINY))) / scale), np.finfo(np.float64).tiny))


def _tail(scores: np.ndarray, spread: float, weight: float) -> tuple[float, float, float]:
    """Centre, scale and degrees of freedom of Student's t that a new log score follows."""
    logs = np.log(np.maximum(scores, _TINY))
    count = len(logs)
    freedom = count - 1 + weight
    variance = (((logs - logs.mean()) ** 2).sum() + weight * spread**2) / freedom
    return float(logs.mean()), math.sqrt(variance * (1 + 1 / count)), freedom
