"""A calibration as numbers that do not change any more: four thresholds and a table of p-values. numpy only.

What a bundle carries: the models behind a `Calibration` need scipy, and change nothing once a bundle is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from blemish.errors import ModelError
from blemish.scoring.calibration import Calibration, verdict_of
from blemish.types import Verdict

POINTS = 1024  # of the table; between them p is off by about 1e-3 of itself, where thresholds are exact
_ARRAYS = ("scores", "logs", "log_p")
_NUMBERS = ("threshold", "unsure_threshold", "region_threshold", "peak_threshold", "false_alarm_rate", "unsure_rate")
LEAST, MOST = 0.1, 20.0  # the table's ends, as multiples of the lowest held-out score and of the threshold


@dataclass(frozen=True, eq=False)
class TabulatedCalibration:
    """Thresholds as in `Calibration`, and the p-value of a score as log p `(m,)` over log scores `logs` `(m,)`.

    Where p-values are order statistics of held-out scores they come in steps: `scores` `(n,)`, sorted, holds those
    scores then, and the table is empty. `words` say what the thresholds rest on.
    """

    threshold: float
    unsure_threshold: float
    region_threshold: float
    peak_threshold: float
    false_alarm_rate: float
    unsure_rate: float
    words: str
    scores: np.ndarray
    logs: np.ndarray
    log_p: np.ndarray

    @classmethod
    def of(cls, calibration: Calibration, factor: float = 1.0) -> Self:
        """As `calibration` says, of scores that are `factor` times as large as those it was made of."""
        scores = logs = log_p = np.zeros(0)
        if calibration.has_tail:
            lowest, highest = LEAST * max(float(calibration.scores[0]), 1e-12), MOST * calibration.threshold
            logs = np.linspace(math.log(lowest), math.log(max(highest, 2 * lowest)), POINTS)  # (m,)
            log_p = np.log([calibration.p_value(math.exp(log)) for log in logs])  # (m,)
            logs = logs + math.log(factor)
        else:
            scores = factor * calibration.scores
        return cls(
            threshold=factor * calibration.threshold,
            unsure_threshold=factor * calibration.unsure_threshold,
            region_threshold=factor * calibration.region_threshold,
            peak_threshold=factor * calibration.peak_threshold,
            false_alarm_rate=calibration.false_alarm_rate,
            unsure_rate=calibration.unsure_rate,
            words=calibration.words,
            scores=scores,
            logs=logs,
            log_p=log_p,
        )

    def verdict(self, score: float, is_known: bool = True) -> Verdict:
        """See `verdict_of`."""
        return verdict_of(score, self.threshold, self.unsure_threshold, is_known)

    def p_value(self, score: float) -> float:
        """The share of normal parts, in (0, 1], that score at least `score`; beyond the table as at its end."""
        if len(self.scores):
            count = len(self.scores)
            return float((1 + count - np.searchsorted(self.scores, score, side="left")) / (count + 1))
        return float(np.exp(np.interp(math.log(max(score, 1e-300)), self.logs, self.log_p)))

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Take back what `to_dict` gave. Raises ModelError where something is missing."""
        try:
            known: dict[str, Any] = {name: float(values[name]) for name in _NUMBERS}
            known |= {name: np.asarray(values[name], dtype=np.float64) for name in _ARRAYS}
            return cls(words=str(values["words"]), **known)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError("a calibration of a bundle", repr(error), "export the model again") from error
