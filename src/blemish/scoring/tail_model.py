"""How high new normal images score, from the few held-out scores there are: a predictive distribution.

Logarithms of normal scores are taken as normally distributed, with unknown mean and standard deviation. A new one then
follows Student's t around the mean of the n known ones, with scale √(s²(1 + 1/n) + b²) (the normal prediction bound;
Hahn & Meeker, Statistical Intervals, 1991). A standard deviation from a handful of scores is hardly known, so s² is
pooled with a prior (an inverse-gamma one; Gelman et al., Bayesian Data Analysis, 2013, §3.3); b is how far held-out
scores may lie, as a whole, beside those of new images, for they come from detectors that knew fewer images. No torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from blemish.numeric.shrinkage import shrunk_variance

TINY = 1e-12  # stands for a score of 0 under the logarithm


def log_scores(scores: ArrayLike) -> np.ndarray:
    """Logarithms of scores ≥ 0 of any shape; 0 counts as `TINY`."""
    return np.asarray(np.log(np.maximum(np.asarray(scores, dtype=np.float64), TINY)))


@dataclass(frozen=True)
class TailPrior:
    """What is known of log scores before the first is seen.

    `std` is the prior standard deviation of normal scores of one category, worth `weight` scores; `bias_std` that of
    the difference between the means of held-out scores and of new ones, over categories.
    """

    std: float
    weight: float
    bias_std: float

    def scaled(self, factor: float) -> TailPrior:
        """The prior of log scores that scatter this many times as far."""
        return TailPrior(self.std * factor, self.weight, self.bias_std * factor)


@dataclass(frozen=True)
class TailModel:
    """Student's t with `freedom` degrees of freedom, that the logarithm of a new normal score follows."""

    mean: float
    scale: float
    freedom: float

    @classmethod
    def of(cls, scores: np.ndarray, prior: TailPrior) -> TailModel:
        """From held-out scores `(n,)`, n ≥ 1."""
        logs = log_scores(scores)
        variance = shrunk_variance(logs, prior.std, prior.weight)
        scale = math.sqrt(variance * (1 + 1 / len(logs)) + prior.bias_std**2)
        return cls(float(logs.mean()), scale, len(logs) - 1 + prior.weight)

    def bound(self, rate: float) -> float:
        """The score that a new normal image exceeds with probability `rate`."""
        from scipy.special import stdtrit

        return float(math.exp(self.mean - self.scale * stdtrit(self.freedom, rate)))

    def probability(self, score: float) -> float:
        """The probability, in (0, 1], that a new normal image scores at least `score`."""
        from scipy.special import stdtr

        below = (self.mean - math.log(max(score, TINY))) / self.scale
        return float(max(stdtr(self.freedom, below), np.finfo(np.float64).tiny))
