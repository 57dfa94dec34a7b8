"""A standard deviation between that of the values and the one known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.numeric.shrinkage import shrunk_std

VALUES = np.random.default_rng(0).normal(3, 2, 50)


def test_without_weight_it_is_that_of_the_sample_and_with_much_that_of_the_prior() -> None:
    assert shrunk_std(VALUES, 0.1, 0) == pytest.approx(VALUES.std(ddof=1))
    assert shrunk_std(VALUES, 0.1, 1e9) == pytest.approx(0.1, rel=1e-3)
    assert shrunk_std(VALUES[:1], 0.1, 4) == pytest.approx(0.1)


def test_the_weight_counts_in_values() -> None:
    variance = shrunk_std(VALUES, 0.5, 7) ** 2
    assert variance == pytest.approx((49 * VALUES.var(ddof=1) + 7 * 0.25) / 56)
