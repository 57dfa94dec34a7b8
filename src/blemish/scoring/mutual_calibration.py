"""Limits and p-values where images judged one another and no normal image is known: the images' own scores alone.

What `Calibration` is to a fitted model. There are no held-out scores: how normal images score is what a mixture model
makes of all scores (unlabelled.py), with a prior of their standard deviation and none of their mean. That most images
are normal is assumed; where fewer than `MIN_IMAGES` scores, or scores that contradict it, leave that open, every image
is unsure. No torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from blemish.errors import SettingsError
from blemish.scoring.calibration import UNSURE_RATE, check_rates, unsure_rate_or, verdict_of
from blemish.scoring.describe import count_in_words
from blemish.scoring.tail_model import TailPrior
from blemish.scoring.unlabelled import MIN_IMAGES, UnlabelledFit, check_expected, fit_without_held_out
from blemish.types import Verdict

# Of log mutual scores of normal images, and of the largest values of their maps: 20 good training images of bottle,
# pill and screw had .06, .08 and .12, and .10, .12 and .15, re-ranked by one encoder (benchmarks/musc.py prior). By two
# encoders 18 of each of nine products have .03 to .15, .08 in the middle, and .06 to .17, .10 in the middle.
MUTUAL = TailPrior(std=0.09, weight=4.0, bias_std=0.0)
PEAKS = TailPrior(std=0.12, weight=4.0, bias_std=0.0)


@dataclass(frozen=True, eq=False)
class MutualCalibration:
    """Scores and map peaks `(n,)` of images that judged one another, and two accepted rates as in `Calibration`.

    `expected_defects` is the share of defective images that is expected among them.
    """

    scores: np.ndarray
    peaks: np.ndarray
    false_alarm_rate: float
    unsure_rate: float
    expected_defects: float

    @classmethod
    def of(
        cls,
        scores: ArrayLike,
        peaks: ArrayLike,
        false_alarm_rate: float = 0.05,
        unsure_rate: float | None = None,
        expected_defects: float = 0.1,
    ) -> MutualCalibration:
        """From scores and peaks in any order. Raises SettingsError or DatasetError for impossible rates or scores."""
        check_rates(false_alarm_rate, unsure_rate)
        check_expected(expected_defects)
        values = np.sort(np.asarray(scores, dtype=np.float64))
        if not len(values) or not np.isfinite(values).all():
            raise SettingsError("at least one finite score", f"{values[:5].tolist()}", "check the encoder's weights")
        unsure = unsure_rate_or(UNSURE_RATE, unsure_rate, false_alarm_rate)
        return cls(values, np.sort(np.asarray(peaks, dtype=np.float64)), false_alarm_rate, unsure, expected_defects)

    @property
    def is_conclusive(self) -> bool:
        """Whether scores say which images are defective; if not, all are unsure."""
        return len(self.scores) >= MIN_IMAGES and self._fit.is_plausible

    @property
    def threshold(self) -> float:
        """The score above which an image is defective; where nothing can be known, one that none exceeds."""
        return self._fit.tail.bound(self.false_alarm_rate) if self.is_conclusive else float(self.scores[-1])

    @property
    def unsure_threshold(self) -> float:
        """The score up to which an image is good."""
        return self._fit.tail.bound(self.false_alarm_rate + self.unsure_rate) if self.is_conclusive else 0.0

    @property
    def peak_threshold(self) -> float:
        """The map value that a region must reach somewhere: what normal images' maps rarely peak above."""
        return self._peak_fit.tail.bound(self.false_alarm_rate)

    @property
    def region_threshold(self) -> float:
        """The map value above which a pixel belongs to a region: where a normal image's map typically peaks."""
        return self._peak_fit.tail.bound(0.5)

    @property
    def estimated_defects(self) -> float:
        """The share of the images that is estimated to be defective."""
        return self._fit.defects

    def verdict(self, score: float, is_known: bool = True) -> Verdict:
        """See `verdict_of` in calibration.py; where nothing can be known, no score makes a known part good."""
        if is_known and not self.is_conclusive:
            return "unsure"
        return verdict_of(score, self.threshold, self.unsure_threshold, is_known)

    def p_value(self, score: float) -> float:
        """The share of normal images, in (0, 1], that are estimated to score at least `score`.

        At most `false_alarm_rate` iff `score` is over the threshold; 1 where nothing can be known.
        """
        if not self.is_conclusive:
            return 1.0
        share, rate = self._fit.tail.probability(score), self.false_alarm_rate
        # The threshold inverts the tail up to rounding; at the threshold itself the threshold decides.
        return min(share, rate) if score > self.threshold else max(share, math.nextafter(rate, 1.0))

    @property
    def words(self) -> str:
        """What the threshold rests on, as a sentence that can follow "The limit was taken from"."""
        count = count_in_words(len(self.scores), "picture")
        expected = f"{100 * self.expected_defects:g} % defective ones were expected"
        if len(self.scores) < MIN_IMAGES:
            return f"{count} alone, too few (under {MIN_IMAGES}) to say which are good: all are unsure."
        if not self._fit.is_plausible:
            return f"{count} of unknown state, whose scores do not show which are good: all are unsure ({expected})."
        found = f"about {round(100 * self.estimated_defects)} % look defective ({expected})"
        return f"the scores of these {count} alone, of which {found}; no good picture was known."

    @cached_property
    def _fit(self) -> UnlabelledFit:
        return fit_without_held_out(self.scores, MUTUAL, self.expected_defects)

    @cached_property
    def _peak_fit(self) -> UnlabelledFit:
        return fit_without_held_out(self.peaks, PEAKS, self.expected_defects)
