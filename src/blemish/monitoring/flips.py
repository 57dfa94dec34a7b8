"""Which of the last decisions would be another with new limits: shown before anything is applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blemish.scoring.calibration import Calibration
from blemish.types import Verdict

if TYPE_CHECKING:
    from blemish.model.recalibration import Flip


@dataclass(frozen=True)
class Decision:
    """A verdict that was given: for which product, file or part id, by which score."""

    category: str | None
    file: str
    score: float
    verdict: Verdict


def flips_of(decisions: Iterable[Decision], calibrations: Mapping[str | None, Calibration]) -> list[Flip]:
    """The decisions whose verdict is another by `calibrations`, the newer limits of the same model.

    Scores must be those of the present model; unknown parts stay unknown, and products without a calibration stay out.
    """
    from blemish.model.recalibration import Flip  # here, because it loads torch

    found = []
    for one in decisions:
        calibration = calibrations.get(one.category)
        if calibration is None:
            continue
        after = calibration.verdict(one.score, is_known=one.verdict != "unknown")
        if after != one.verdict:
            found.append(Flip(one.category, one.file, one.score, one.verdict, after))
    return found
