"""Normal scores found among scores of unknown state."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.errors import DatasetError
from blemish.scoring.calibration import LEFT_OUT
from blemish.scoring.tail_model import TailModel
from blemish.scoring.unlabelled import MIN_IMAGES, MOST_DEFECTIVE, fit_unlabelled, rounded

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
    for seed in range(25):
        scores, held_out, further = line(100, defects, seed)
        alarms.append((further > fit_unlabelled(scores, held_out, LEFT_OUT).tail.bound(0.05)).mean())
        before.append((further > TailModel.of(held_out, LEFT_OUT).bound(0.05)).mean())
    assert 0.01 < np.mean(alarms) < 0.07
    assert np.mean(before) < 0.01  # the few held-out scores alone would let most defects through


def test_more_images_find_the_threshold_more_surely() -> None:
    wanted = np.exp(SHIFT + 1.645 * STD)
    errors = {}
    for count in (10, 50, 200):
        found = [fit_unlabelled(*line(count, 0.1, seed)[:2], LEFT_OUT).tail.bound(0.05) for seed in range(12)]
        errors[count] = np.abs(np.log(found) - np.log(wanted)).mean()
    assert errors[200] < errors[50] < errors[10]


@pytest.mark.parametrize("defects", [0.0, 0.05, 0.2])
def test_the_share_of_defects_is_estimated(defects: float) -> None:
    found = []
    for seed in range(10):
        scores, held_out, _ = line(200, 0.0, seed)
        count = round(200 * defects)
        scores[:count] = np.exp(np.random.default_rng(seed).uniform(0.25, 1.0, count))  # beyond all normal ones
        found.append(fit_unlabelled(scores, held_out, LEFT_OUT).defects)
    assert np.mean(found) == pytest.approx(defects, abs=0.03)


@pytest.mark.parametrize("maxima_of", [1, 1000])
def test_the_rate_is_kept_for_skew_scores(maxima_of: int) -> None:
    """Normal images whose log score is a largest of many have a longer upper tail than a normal distribution."""
    random = np.random.default_rng(0)

    def logs(count: int) -> np.ndarray:
        largest = random.standard_normal((maxima_of, count)).max(axis=0)
        return np.asarray(SHIFT + STD * (largest - largest.mean()) / largest.std())

    further = np.exp(logs(5000))
    alarms = []
    for _ in range(30):
        scores, held_out = np.exp(logs(100)), np.exp(logs(4) - SHIFT)
        scores[:10] *= np.exp(random.uniform(0.3, 1.0, 10))
        tail = fit_unlabelled(scores, held_out, LEFT_OUT).tail
        alarms.append([(further > tail.bound(rate)).mean() for rate in (0.05, 0.2)])
    five, twenty = np.mean(alarms, axis=0)
    assert 0.025 < five < 0.07
    assert 0.14 < twenty < 0.25


def test_p_values_and_thresholds_agree_at_every_rate() -> None:
    scores, held_out, _ = line(60, 0.1, 0)
    tail = fit_unlabelled(scores, held_out, LEFT_OUT).tail
    rates = [0.9, 0.5, 0.08, 0.05, 1e-3, 1e-9, 1e-100]
    bounds = [tail.bound(rate) for rate in rates]
    assert bounds == sorted(bounds)
    assert [tail.probability(bound) for bound in bounds] == pytest.approx(rates)
    assert tail.probability(1e300) > 0
    assert tail.probability(0.0) == pytest.approx(1.0)


def test_many_images_cost_no_more_than_some_and_say_the_same_as_exact_scores() -> None:
    scores, held_out, _ = line(3000, 0.1, 0)
    wanted = np.exp(SHIFT + 1.645 * STD)
    assert fit_unlabelled(scores, held_out, LEFT_OUT).tail.bound(0.05) == pytest.approx(wanted, rel=0.02)
    values, counts = rounded(np.log(scores), LEFT_OUT.std)
    assert counts.sum() == 3000
    assert len(values) < 400
    few, ones = rounded(np.log(scores[:20]), LEFT_OUT.std)
    assert np.allclose(np.repeat(few, ones.astype(int)), np.sort(np.log(scores[:20])), atol=0.03 * LEFT_OUT.std)


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
