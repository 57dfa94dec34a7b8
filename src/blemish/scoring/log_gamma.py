"""The log-gamma distribution, standardised to mean 0 and standard deviation 1 and skewed to the right. numpy, scipy.

An image score is pooled from the largest of many patch scores, so its logarithm has a longer upper tail than a normal
distribution. The logarithm of a gamma variable, mirrored, reaches from the distribution of maxima (Gumbel's, shape 1)
to the normal one (shape ∞), with skewness falling from 1.14 to 0 (Prentice, "A log gamma model and its maximum
likelihood estimation", Biometrika 61, 1974).
"""

from __future__ import annotations

import math

import numpy as np


def log_density(z: np.ndarray, shape: float) -> np.ndarray:
    """The logarithm of the density at `z`, of any array shape; `shape` > 0, ∞ for the normal distribution."""
    from scipy.special import gammaln

    if math.isinf(shape):
        return np.asarray(-0.5 * z * z - 0.5 * math.log(2 * math.pi))
    mean, std = _moments(shape)
    logs = -(z * std + mean)  # of a gamma variable of that shape
    return np.asarray(shape * logs - np.exp(np.minimum(logs, 50.0)) - gammaln(shape) + math.log(std))


def survival(z: np.ndarray, shape: float) -> np.ndarray:
    """The probability of a value of at least `z`, of any array shape."""
    from scipy.special import gammainc, ndtr

    if math.isinf(shape):
        return np.asarray(ndtr(-z))
    mean, std = _moments(shape)
    return np.asarray(gammainc(shape, np.exp(np.minimum(-(z * std + mean), 50.0))))


def _moments(shape: float) -> tuple[float, float]:
    """Mean and standard deviation of −log G, for G a gamma variable of that shape and scale 1."""
    from scipy.special import digamma, polygamma

    return -float(digamma(shape)), math.sqrt(float(polygamma(1, shape)))
