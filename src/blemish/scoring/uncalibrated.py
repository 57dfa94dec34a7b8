"""Limits of a model that has seen no image yet, as one fitted by a product's name: none, so every part is unsure.

How a name scores good parts of a product differs from product to product and cannot be known beforehand; a fixed
probability as a threshold would be a guess that looks like a measurement. The first scores of good images that
`calibrate` adds make an ordinary `Calibration`. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from blemish.errors import DatasetError, ModelError
from blemish.scoring.calibration import Calibration, CalibrationSource, check_rates
from blemish.types import Verdict

NO_SCORE = 1.0  # scores are probabilities: none exceeds it
WINCLIP_SOURCE = {"images": 0, "held_out": 0, "score_exponent": 2}  # of files that do not say
EVEN = 0.5  # of a map of probabilities: where both kinds of sentences describe a patch equally well


@dataclass(frozen=True, eq=False)
class Uncalibrated(Calibration):
    """A `Calibration` without a single score, of a detector whose scores are probabilities."""

    @classmethod
    def at_rates(cls, false_alarm_rate: float, unsure_rate: float | None, score_exponent: int) -> Uncalibrated:
        """To be kept once there are scores, which grow as `Needs.score_exponent` of their detector says.

        Raises SettingsError for impossible rates.
        """
        check_rates(false_alarm_rate, unsure_rate)
        found = cls(np.zeros(0), np.zeros(0), false_alarm_rate, CalibrationSource(0, 0, score_exponent=score_exponent))
        kept = found.at(false_alarm_rate, unsure_rate)
        assert isinstance(kept, cls)
        return kept

    @property
    def threshold(self) -> float:
        return NO_SCORE

    @property
    def unsure_threshold(self) -> float:
        return 0.0

    @property
    def peak_threshold(self) -> float:
        return EVEN

    @property
    def region_threshold(self) -> float:
        return EVEN

    def verdict(self, score: float, is_known: bool = True) -> Verdict:
        return "unsure" if is_known else "unknown"

    def p_value(self, score: float) -> float:
        """1: (1 + 0) / (0 + 1), the conformal p-value beside no score."""
        return 1.0

    @property
    def words(self) -> str:
        return "No limit yet: no good picture was seen, so every part is unsure; run `blemish calibrate` with some."

    def with_unlabelled(self, scores: ArrayLike, peaks: ArrayLike, expected_defects: float) -> Calibration:
        raise DatasetError(
            "a model that knows how some good pictures score",
            "one that was made from a name alone",
            "calibrate it with a few good pictures first",
        )

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"uncalibrated": True}


def calibration_from(values: Mapping[str, Any]) -> Calibration:
    """The calibration that `to_dict` of either kind gave. Raises ModelError when something is missing."""
    if not values.get("uncalibrated"):
        return Calibration.from_dict(values)
    try:
        source = CalibrationSource.from_dict(values.get("source", WINCLIP_SOURCE))
        return Uncalibrated.at_rates(values["false_alarm_rate"], values["unsure_rate"], source.score_exponent)
    except (KeyError, TypeError) as error:
        raise ModelError("the rates of a calibration without scores", repr(error), "fit the model again") from error
