"""Limits from scores of unknown state alone: kept rates, and honesty where nothing can be known."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.errors import DatasetError, SettingsError
from blemish.scoring.mutual_calibration import MUTUAL, MutualCalibration
from blemish.scoring.unlabelled import MIN_IMAGES, fit_without_held_out


def drawn(normal: int, defective: int, seed: int = 0, level: float = 0.0, std: float = 0.1) -> np.ndarray:
    random = np.random.default_rng(seed)
    logs = [random.normal(level, std, normal), random.normal(level + 8 * std, 2 * std, defective)]
    return np.exp(np.concatenate(logs))


def calibrated(scores: np.ndarray, **options: float) -> MutualCalibration:
    return MutualCalibration.of(scores, scores, **options)


@pytest.mark.parametrize("defective", [0, 5, 10])
def test_the_rate_of_false_alarms_is_about_kept_and_most_defects_are_found(defective: int) -> None:
    alarms, found = [], []
    for seed in range(12):
        calibration = calibrated(drawn(50 - defective, defective, seed))
        verdicts = [calibration.verdict(score) for score in drawn(400, 100, 1000 + seed)]
        alarms.append(verdicts[:400].count("defective") / 400)
        found.append(verdicts[400:].count("defective") / 100)
    assert 0.01 < np.mean(alarms) < 0.11
    assert np.mean(found) > 0.9


def test_limits_do_not_depend_on_the_unit_of_scores() -> None:
    scores = drawn(36, 4)
    one, other = calibrated(scores), calibrated(1000 * scores)
    assert other.threshold == pytest.approx(1000 * one.threshold, rel=1e-3)
    assert other.p_value(1000 * scores[0]) == pytest.approx(one.p_value(scores[0]), rel=1e-2)


def test_verdicts_and_p_values_agree() -> None:
    calibration = calibrated(drawn(36, 4), false_alarm_rate=0.1, unsure_rate=0.05)
    for score in np.geomspace(0.5, 5, 200):
        p_value, verdict = calibration.p_value(score), calibration.verdict(score)
        assert 0 < p_value <= 1
        if verdict == "defective":
            assert p_value <= 0.1001
        elif verdict == "unsure":
            assert 0.0999 <= p_value <= 0.1501
        else:
            assert p_value >= 0.1499
    assert calibration.unsure_threshold < calibration.threshold
    assert calibration.region_threshold < calibration.peak_threshold
    assert calibration.verdict(0.1, is_known=False) == "unknown"


@pytest.mark.parametrize("rate", [0.001, 0.05, 0.2])
def test_p_values_are_within_the_rate_just_over_the_threshold_alone(rate: float) -> None:
    for seed in range(20):
        calibration = calibrated(drawn(27, 3, seed), false_alarm_rate=rate)
        threshold = calibration.threshold
        scores = [np.nextafter(threshold, 0), threshold, np.nextafter(threshold, np.inf), *calibration.scores]
        for score in scores:
            assert (calibration.p_value(score) <= rate) == (score > threshold)
        below, at, above = (calibration.p_value(score) for score in scores[:3])
        assert below == pytest.approx(at, rel=1e-9)
        assert above == pytest.approx(at, rel=1e-9)


def test_too_few_scores_leave_all_unsure() -> None:
    few, enough = (calibrated(drawn(count - 1, 1)) for count in (MIN_IMAGES - 1, MIN_IMAGES))
    assert {few.verdict(score) for score in few.scores} == {"unsure"}
    assert {few.p_value(score) for score in few.scores} == {1.0}
    assert enough.p_value(enough.scores[-1]) < 0.05
    assert "too few (under 10)" in few.words
    assert enough.is_conclusive
    assert enough.verdict(enough.scores[0]) == "good"


def test_a_score_of_zero_is_unsure_like_any_other_where_nothing_can_be_known() -> None:
    few = calibrated(np.array([0.0, 0.1, 0.2]))
    assert [few.verdict(0.0), few.verdict(0.2), few.verdict(9.0)] == ["unsure"] * 3
    assert few.verdict(0.0, is_known=False) == "unknown"


def test_scores_that_contradict_that_most_are_normal_leave_all_unsure() -> None:
    random = np.random.default_rng(0)
    for scores in (drawn(20, 20), np.exp(random.normal(0, 10 * MUTUAL.std, 40))):
        calibration = calibrated(scores)
        assert not calibration.is_conclusive
        assert {calibration.verdict(score) for score in scores} == {"unsure"}
        assert "do not show which are good" in calibration.words
        assert {calibration.p_value(score) for score in scores} == {1.0}


def test_the_share_of_defects_is_estimated_and_said() -> None:
    calibration = calibrated(drawn(40, 10), expected_defects=0.1)
    assert 0.12 < calibration.estimated_defects < 0.28
    assert f"about {round(100 * calibration.estimated_defects)} % look defective (10 % " in calibration.words
    assert "no good picture was known" in calibration.words


def test_a_vague_prior_of_the_mean_leaves_it_to_the_scores() -> None:
    for level in (-5.0, 0.0, 7.0):
        fitted = fit_without_held_out(drawn(200, 0, level=level), MUTUAL, 0.0)
        assert np.log(fitted.tail.bound(0.5)) == pytest.approx(level, abs=0.05)


def test_equal_scores_are_good_and_impossible_ones_refused() -> None:
    assert {calibrated(np.full(20, 0.3)).verdict(0.3)} == {"good"}
    with pytest.raises(SettingsError):
        calibrated(np.array([]))
    with pytest.raises(SettingsError):
        calibrated(np.array([1.0, np.nan]))
    with pytest.raises(SettingsError):
        calibrated(drawn(20, 0), false_alarm_rate=0.0)
    with pytest.raises(DatasetError, match=r"from 0 to 0\.35"):
        calibrated(drawn(20, 0), expected_defects=0.5)
