"""A variance between that of the values and the one known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.numeric.shrinkage import shrunk_variance

VALUES = np.random.default_rng(0).normal(3, 2, 50)


def test_without_weight_it_is_that_of_the_sample_and_with_much_that_of_the_prior() -> None:
    assert shrunk_variance(VALUES, 0.1, 0) == pytest.approx(VALUES.var(ddof=1))
    assert shrunk_variance(VALUES, 0.1, 1e9) == pytest.approx(0.01, rel=1e-3)
    assert shrunk_variance(VALUES[:1], 0.1, 4) == pytest.approx(0.01)


def test_the_weight_counts_in_values() -> None:
    assert shrunk_variance(VALUES, 0.5, 7) == pytest.approx((49 * VALUES.var(ddof=1) + 7 * 0.25) / 56)
