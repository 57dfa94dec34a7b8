"""Normal scores found among scores of unknown state."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.errors import DatasetError
from blemish.scoring.calibration import LEFT_OUT
from blemish.scoring.tail_model import TailModel
from blemish.scoring.unlabelled import MIN_IMAGES, MOST_DEFECTIVE, fit_unlabelled

STD, SHIFT = 0.05, -0.06  # of normal log scores; held-out ones lie this much higher


def line(count: int, defects: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of a line with a share of defects, of four held-out images, and of further normal images."""
    random = np.random.default_rng(seed)
    wrong = random.random(count) < defects
    logs = random.normal(SHIFT, STD, count) + wrong * random.exponential(0.3, count)
    return np.exp(logs), np.exp(random.normal(0, STD, 4)), np.exp(random.normal(SHIFT, STD, 2000))


@pytest.mark.parametrize("defects", [0.0, 0.05, 0.1, 0.2])
def test_the_rate_is_kept_whatever_the_share_of_defects(defects: float) -> None:
    alarms, before = [], []
    for seed in range(40):
        scores, held_out, further = line(100, defects, seed)
        alarms.append((further > fit_unlabelled(scores, held_out, LEFT_OUT).tail.bound(0.05)).mean())
        before.append((further > TailModel.of(held_out, LEFT_OUT).bound(0.05)).mean())
    assert 0.01 < np.mean(alarms) < 0.07
    assert np.mean(before) < 0.01  # the few held-out scores alone would let most defects through


def test_more_images_find_the_threshold_more_surely() -> None:
    wanted = np.exp(SHIFT + 1.645 * STD)
    errors = {}
    for count in (10, 50, 200):
        found = [fit_unlabelled(*line(count, 0.1, seed)[:2], LEFT_OUT).tail.bound(0.05) for seed in range(40)]
        errors[count] = np.abs(np.log(found) - np.log(wanted)).mean()
    assert errors[200] < errors[50] < errors[10]


def test_the_share_of_defects_is_estimated() -> None:
    found = [fit_unlabelled(*line(200, 0.2, seed)[:2], LEFT_OUT).defects for seed in range(20)]
    assert np.mean(found) == pytest.approx(0.2, abs=0.06)


def test_scale_does_not_matter() -> None:
    scores, held_out, _ = line(60, 0.1, 0)
    one, other = fit_unlabelled(scores, held_out, LEFT_OUT), fit_unlabelled(7 * scores, 7 * held_out, LEFT_OUT)
    assert other.tail.bound(0.05) == pytest.approx(7 * one.tail.bound(0.05), rel=1e-6)
    assert other.defects == pytest.approx(one.defects, abs=1e-6)


def test_too_few_images_are_refused() -> None:
    scores, held_out, _ = line(MIN_IMAGES, 0.0, 0)
    fit_unlabelled(scores, held_out, LEFT_OUT)
    with pytest.raises(DatasetError, match="at least 10"):
        fit_unlabelled(scores[:-1], held_out, LEFT_OUT)
    with pytest.raises(DatasetError, match="expected share"):
        fit_unlabelled(scores, held_out, LEFT_OUT, expected_defects=MOST_DEFECTIVE + 0.01)


def test_a_line_that_mostly_fails_is_refused_and_a_fifth_of_defects_is_not() -> None:
    refused = {0.2: 0, 0.6: 0}
    for defects in refused:
        for seed in range(20):
            random = np.random.default_rng(seed)
            logs = random.normal(SHIFT, STD, 100) + (np.arange(100) < 100 * defects) * random.uniform(0.3, 1.0, 100)
            try:
                fit_unlabelled(np.exp(logs), np.exp(random.normal(0, STD, 4)), LEFT_OUT)
            except DatasetError:
                refused[defects] += 1
    assert refused[0.2] == 0
    assert refused[0.6] >= 19


@pytest.mark.parametrize("moved", [-0.8, 0.8])
def test_another_lamp_is_refused(moved: float) -> None:
    random = np.random.default_rng(0)
    with pytest.raises(DatasetError, match=r"lie (above|below)|most of which are good"):
        fit_unlabelled(np.exp(random.normal(moved, STD, 60)), np.exp(random.normal(0, STD, 4)), LEFT_OUT)
