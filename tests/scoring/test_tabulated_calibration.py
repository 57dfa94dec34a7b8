"""A calibration as fixed numbers says what the calibration says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from blemish.errors import ModelError
from blemish.scoring.calibration import Calibration, CalibrationSource
from blemish.scoring.tabulated_calibration import TabulatedCalibration


def calibration(count: int) -> Calibration:
    rng = np.random.default_rng(count)
    scores = np.exp(rng.normal(1.0, 0.1, count))
    source = CalibrationSource(count, count, folds=count)
    return Calibration.of(scores, 1.2 * scores, 0.05, source, unsure_rate=0.03)


@pytest.mark.parametrize("count", [4, 60])
@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_thresholds_verdicts_and_p_values_are_the_same(count: int, factor: float) -> None:
    model = calibration(count)
    found = TabulatedCalibration.from_dict(json.loads(json.dumps(TabulatedCalibration.of(model, factor).to_dict())))
    for name in ("threshold", "unsure_threshold", "region_threshold", "peak_threshold"):
        assert getattr(found, name) == pytest.approx(factor * getattr(model, name), rel=1e-12)
    for score in np.exp(np.linspace(0.5, 2.5, 101)):
        assert found.verdict(factor * score) == model.verdict(score)
        assert found.p_value(factor * score) == pytest.approx(model.p_value(score), rel=1e-3)
    assert found.verdict(1e9, is_known=False) == "unknown"


def test_p_values_fall_and_stay_in_range() -> None:
    found = TabulatedCalibration.of(calibration(4))
    p_values = [found.p_value(score) for score in (0.0, 1e-9, 1.0, 3.0, 10.0, 1e6)]
    assert p_values == sorted(p_values, reverse=True)
    assert all(0 < p <= 1 for p in p_values)


def test_what_is_missing_is_an_error() -> None:
    facts = TabulatedCalibration.of(calibration(4)).to_dict()
    del facts["log_p"]
    with pytest.raises(ModelError, match="export the model again"):
        TabulatedCalibration.from_dict(facts)
