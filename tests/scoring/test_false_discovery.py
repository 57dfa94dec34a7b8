"""Alarms of a batch of which a given share may be false."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from blemish.errors import SettingsError
from blemish.scoring.calibration import Calibration, CalibrationSource
from blemish.scoring.false_discovery import benjamini_hochberg


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("count", [0, 1, 7, 200])
def test_equals_scipy(count: int, rate: float) -> None:
    p = np.random.default_rng(count).random(count) ** 3
    expected = false_discovery_control(p) <= rate if count else np.zeros(0, dtype=bool)
    assert np.array_equal(benjamini_hochberg(p, rate), expected)


def test_of_all_alarms_no_more_are_false_than_asked_for() -> None:
    """Conformal p-values with one calibration set for a whole batch, many times: the mean share of false alarms."""
    false, found = [], []
    for seed in range(400):
        random = np.random.default_rng(seed)
        calibration = Calibration.of(np.exp(random.normal(size=199)), [], 0.05, CalibrationSource(0, 199))
        defective = np.arange(100) < 20
        p = [calibration.p_value(s) for s in np.exp(random.normal(size=100) + 5 * defective)]
        alarms = benjamini_hochberg(p, 0.1)
        false.append((alarms & ~defective).sum() / max(1, alarms.sum()))
        found.append(alarms[defective].mean())
    assert 0.05 < np.mean(false) < 0.105  # 0.1 · 80 % of good parts
    assert np.mean(found) > 0.9


@pytest.mark.parametrize("rate", [0, 1, -0.1])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(SettingsError, match="false-discovery"):
        benjamini_hochberg([0.5], rate)
