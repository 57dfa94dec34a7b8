"""Variances of a handful of values, shrunk towards what is known beforehand. numpy only."""

from __future__ import annotations

import numpy as np


def shrunk_variance(values: np.ndarray, prior_std: float, weight: float) -> float:
    """The variance of `values` `(n,)`, n ≥ 1, pooled with a prior standard deviation that is worth `weight` values.

    The squared scale of the scaled inverse-χ² posterior (Gelman et al., Bayesian Data Analysis, 2013, §3.3), with
    n − 1 + `weight` degrees of freedom.
    """
    freedom = len(values) - 1 + weight
    return float((((values - values.mean()) ** 2).sum() + weight * prior_std**2) / freedom)
