"""Calibrations without a score: saved, read back, and what the first scores make of them."""

from __future__ import annotations

import json

import pytest

from blemish.errors import ModelError
from blemish.scoring.calibration import AddedScore
from blemish.scoring.uncalibrated import Uncalibrated, calibration_from


@pytest.mark.parametrize("exponent", [1, 2])
def test_how_scores_grow_is_kept(exponent: int) -> None:
    saved = json.loads(json.dumps(Uncalibrated.at_rates(0.05, None, exponent).to_dict()))
    found = calibration_from(saved)
    assert isinstance(found, Uncalibrated)
    assert found.source.score_exponent == exponent
    renewed = found.with_added([AddedScore(str(i), "", 0.1 * i, 0.2 * i) for i in range(1, 6)])
    assert not isinstance(renewed, Uncalibrated)
    assert renewed.source.score_exponent == exponent


def test_files_that_do_not_say_it_are_of_winclip() -> None:
    saved = Uncalibrated.at_rates(0.05, 0.1, 1).to_dict()
    del saved["source"]
    assert calibration_from(saved).source.score_exponent == 2
    with pytest.raises(ModelError, match="a calibration without scores"):
        calibration_from({"uncalibrated": True})
