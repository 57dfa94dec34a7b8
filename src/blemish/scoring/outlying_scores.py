"""Which of the highest scores of normal images stand apart from the others: a test of gaps in their upper tail.

Of scores in descending order, s₁ ≥ s₂ ≥ …, the normalised spacings k · (log sₖ − log sₖ₊₁) are independent and equally
distributed where the tail is exponential (Sukhatme, Annals of Eugenics 8, 1937). A gap under the k highest is compared
with the mean of the m − k spacings below it: the ratio follows F(2, 2(m − k)), and the k positions that are tried share
the significance level (Bonferroni). Where the hazard rate of log scores never falls, as of a normal distribution, the
function that makes exponential variables of them is convex: gaps higher up are only smaller than the exponential ones,
so that the level is kept, however skew the scores are (Barlow & Proschan, Annals of Mathematical Statistics 37, 1966).
A robust z-score has no such property: it takes long tails and clusters for outliers. numpy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from blemish.scoring.tail_model import log_scores

MIN_SCORES = 8  # fewer leave less than three spacings to compare with: a gap would have to be some 13 times their mean
LEVEL = 0.05  # share of sets without outliers, at most, of which any is reported
SHARE, MOST = 8, 10  # one in so many scores may stand apart, so many at most: more are how normal images are
# Scores from the highest down that make the tail: ten, or twice those that may stand apart. Further down, where scores
# are dense, spacings are only larger in proportion: the level is kept, but less is found.
TAIL = 10


def outlying(scores: ArrayLike, level: float = LEVEL) -> tuple[int, float]:
    """How many of the highest of `scores` `(n,)` ≥ 0 stand apart from the others, and the p-value of that.

    0 where none do at the significance `level`, or for fewer than `MIN_SCORES`. The gap of the least p-value decides.
    """
    logs = np.sort(log_scores(scores))[::-1]
    count = len(logs)
    if count < MIN_SCORES:
        return 0, 1.0
    most = min(count // SHARE, MOST)
    tail = max(2 * most, min(count // 2, TAIL))
    places = np.arange(1, most + 1)  # (K,) how many lie above the gap
    spacings = np.arange(1, tail + 1) * (logs[:tail] - logs[1 : tail + 1])  # (m,)
    below = tail - places
    sums = np.cumsum(spacings[::-1])[::-1][places]  # of all spacings below each place
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(spacings[places - 1] > 0, spacings[places - 1] / sums, 0.0)
    p_values = np.minimum(1.0, len(places) * (1 + ratios) ** -below)
    best = int(np.argmin(p_values))
    found = float(p_values[best])
    return (int(places[best]), found) if found <= level else (0, found)
