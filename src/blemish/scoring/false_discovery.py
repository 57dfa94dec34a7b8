"""Which images of a batch raise an alarm when the share of false ones among all alarms is to stay small. numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from blemish.errors import SettingsError


def benjamini_hochberg(p_values: ArrayLike, rate: float) -> np.ndarray:
    """Which of the images with these p-values `(n,)` raise an alarm, `(n,)` bool; ties are treated alike.

    Of n p-values in ascending order the k smallest, for the largest k with p_(k) ≤ rate · k / n (Benjamini and
    Hochberg, "Controlling the false discovery rate", JRSS B 57, 1995). On the mean at most `rate` of the alarms are
    then good parts. That holds for conformal p-values that share one calibration set as well (Bates, Candès, Lei,
    Romano, Sesia, "Testing for outliers with conformal p-values", Annals of Statistics 51, 2023); where p-values come
    from a modelled tail it holds as far as the model does. Raises SettingsError for a rate outside (0, 1).
    """
    if not 0 < rate < 1:
        raise SettingsError("a false-discovery rate between 0 and 1, such as 0.1", repr(rate), "set another rate")
    p = np.asarray(p_values, dtype=np.float64)
    if not len(p):
        return np.zeros(0, dtype=bool)
    ascending = np.sort(p)
    passing = np.flatnonzero(ascending <= rate * np.arange(1, len(p) + 1) / len(p))
    return p <= ascending[passing[-1]] if len(passing) else np.zeros(len(p), dtype=bool)
