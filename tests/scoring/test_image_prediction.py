"""Verdict and regions agree: what is not good has a place to look at, what is good has none."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.preprocessing.framing import Frame
from blemish.scoring.calibration import Calibration, CalibrationSource
from blemish.scoring.image_prediction import image_prediction, map_of_image

SIDE = 1024


def predicted(patches: np.ndarray, score: float) -> tuple[int, ...]:
    """The areas of the regions; the thresholds are those of ten images of scores and peaks about 1."""
    around = np.linspace(0.9, 1.1, 10)
    calibration = Calibration.of(around, around, 0.05, CalibrationSource(10, 10))
    frame = Frame(np.zeros((SIDE, SIDE, 3), np.uint8), (SIDE, SIDE))
    return tuple(one.area for one in image_prediction(frame, score, patches, calibration).regions)


@pytest.mark.parametrize("peak", [0.2, 0.9, 1.05, 3.0])
def test_a_defective_image_has_a_region_however_weak_its_map(peak: float) -> None:
    """An image score of its own may be high where no place is: its strongest place is shown."""
    patches = np.full((64, 64), 0.1, np.float32)
    patches[20:23, 30:33] = peak
    assert predicted(patches, 5.0)
    assert not predicted(patches, 0.5)


def test_a_good_image_has_no_region_where_its_map_just_reaches_the_limit() -> None:
    """As that of the held-out image does whose peak the limit is, should it be inspected."""
    patches = np.full((64, 64), 0.1, np.float32)
    patches[20:23, 30:33] = 1.05
    frame = Frame(np.zeros((SIDE, SIDE, 3), np.uint8), (SIDE, SIDE))
    peak = float(map_of_image(patches, frame).max())
    peaks, scores = np.append(np.linspace(0.5, 0.6, 19), peak), np.linspace(0.9, 1.1, 20)
    calibration = Calibration.of(scores, peaks, 0.05, CalibrationSource(20, 20))
    assert calibration.peak_threshold == peak
    found = image_prediction(frame, 0.5, patches, calibration)
    assert (found.verdict, found.regions) == ("good", ())


def test_the_strongest_place_is_kept_however_small_it_is() -> None:
    patches = np.full((512, 512), 0.1, np.float32)
    patches[100, 100] = 0.15
    areas = predicted(patches, 5.0)
    assert len(areas) == 1
    assert areas[0] < 1e-3 * SIDE**2


def test_a_map_of_zeros_has_no_region() -> None:
    assert predicted(np.zeros((64, 64), np.float32), 5.0) == ()
