"""The standardised log-gamma distribution against scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import gumbel_r, loggamma, norm

from blemish.scoring.log_gamma import log_density, survival

Z = np.linspace(-4, 9, 40)


@pytest.mark.parametrize("shape", [0.5, 1.0, 4.0, 100.0])
def test_density_and_survival_are_those_of_a_mirrored_log_gamma_variable(shape: float) -> None:
    oracle = loggamma(shape)
    values = -(Z * oracle.std() - oracle.mean())
    assert np.allclose(log_density(Z, shape), oracle.logpdf(values) + np.log(oracle.std()))
    assert np.allclose(survival(Z, shape), oracle.cdf(values))


def test_it_reaches_from_maxima_to_the_normal_distribution() -> None:
    maxima = gumbel_r()
    assert np.allclose(survival(Z, 1.0), maxima.sf(Z * maxima.std() + maxima.mean()))
    assert np.allclose(log_density(Z, math.inf), norm.logpdf(Z))
    assert np.allclose(survival(Z, math.inf), norm.sf(Z))
    assert np.allclose(survival(Z, 1e5), norm.sf(Z), atol=1e-3)


def test_far_values_stay_finite() -> None:
    far = np.array([-200.0, 200.0])
    for shape in (1.0, 4.0):
        assert np.isfinite(log_density(far, shape)).all()
        assert survival(far, shape) == pytest.approx([1, 0])
