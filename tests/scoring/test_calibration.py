from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from blemish.errors import ModelError, SettingsError
from blemish.scoring.calibration import (
    LEFT_OUT,
    AddedScore,
    Calibration,
    CalibrationSource,
    check_rate,
    check_rates,
    order_statistics_suffice,
    verdict_of,
)
from blemish.scoring.tail_model import TailModel, TailPrior

SOURCE = CalibrationSource(4, 4, folds=4)


def calibration(scores: object, rate: float = 0.05, unsure_rate: float = 0.0) -> Calibration:
    return Calibration.of(scores, scores, rate, SOURCE, unsure_rate=unsure_rate)  # type: ignore[arg-type]


def test_p_values_are_counted() -> None:
    """p(x) = (1 + #{s_i ≥ s}) / (n + 1), against a loop."""
    scores = np.random.default_rng(0).lognormal(size=99).round(2)
    made = calibration(scores)
    for score in [0.0, *scores[:20], 1.5, 99.0]:
        assert made.p_value(score) == (1 + sum(s >= score for s in scores)) / 100


def test_what_is_no_number_is_never_good() -> None:
    scores = 0.5, 1.0, 1.5, 2.0, 2.5, float("inf"), float("nan")
    wanted = ["good", "good", "unsure", "unsure", "defective", "defective", "defective"]
    assert [verdict_of(score, 2.0, 1.0) for score in scores] == wanted
    assert verdict_of(0.5, float("nan"), 1.0) == "defective"


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.5])
@pytest.mark.parametrize("count", [1, 2, 4, 9, 18, 19, 20, 54, 99, 320])
def test_defective_exactly_when_the_p_value_says_so(count: int, rate: float) -> None:
    random = np.random.default_rng(count)
    made = calibration(random.lognormal(sigma=0.2, size=count), rate)
    for score in [*random.lognormal(sigma=0.6, size=200), *made.scores]:
        assert (score > made.threshold) == (made.p_value(score) <= rate)
        assert 0 < made.p_value(score) <= 1


def test_few_scores_are_enough_only_for_a_high_rate() -> None:
    assert [order_statistics_suffice(n, 0.05) for n in (18, 19)] == [False, True]
    assert [order_statistics_suffice(n, 0.1) for n in (8, 9)] == [False, True]
    assert order_statistics_suffice(99, 0.01)


@pytest.mark.parametrize("rate", [0.05, 0.1])
@pytest.mark.parametrize("count", [19, 54, 200])
def test_order_statistics_keep_the_wished_rate_for_any_distribution(count: int, rate: float) -> None:
    random = np.random.default_rng(1)
    drawn = random.pareto(1.5, size=(4000, count + 1))
    limits = [calibration(row[:-1], rate).threshold for row in drawn]
    alarms = (drawn[:, -1] > limits).mean()
    # Exact: the largest multiple of 1/(n + 1) that the wished rate allows.
    assert alarms == pytest.approx(np.floor(rate * (count + 1)) / (count + 1), abs=0.012)


@pytest.mark.parametrize("count", [2, 4, 8, 16])
@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_few_scores_keep_the_rate_over_products_like_those_the_prior_was_fitted_on(count: int, rate: float) -> None:
    """Variances drawn from the prior itself: the predictive rate is exact, from both sides."""
    random = np.random.default_rng(2)
    prior = TailPrior(std=0.08, weight=6.0, bias_std=0.0)
    variances = prior.weight * prior.std**2 / random.chisquare(prior.weight, size=20_000)
    drawn = np.exp(np.sqrt(variances)[:, None] * random.standard_normal((20_000, count + 1)))
    alarms = np.mean([row[-1] > TailModel.of(row[:-1], prior).bound(rate) for row in drawn])
    assert alarms == pytest.approx(rate, abs=0.015)


def test_an_uncertain_bias_is_allowed_for() -> None:
    random = np.random.default_rng(2)
    prior = TailPrior(std=0.05, weight=200.0, bias_std=0.1)
    held_out = 0.05 * random.standard_normal((20_000, 4))
    new = 0.05 * random.standard_normal(20_000) + 0.1 * random.standard_normal(20_000)
    models = [TailModel.of(np.exp(row), prior) for row in held_out]
    assert np.mean([score > np.log(m.bound(0.05)) for score, m in zip(new, models, strict=True)]) == pytest.approx(
        0.05, abs=0.01
    )


def test_says_how_many_small_defects_it_would_find() -> None:
    plain = calibration(np.random.default_rng(0).lognormal(sigma=0.05, size=4))
    margin = np.log(plain.threshold / np.exp(np.log(plain.scores).mean()))
    told = replace(plain, defect_gains=margin * np.array([0, 0.5, 0.999, 1.001, 3]))
    assert told.words.endswith("Of 5 small made-up defects it would find 2.")
    assert told.defects_found == 2
    assert told.threshold == plain.threshold
    assert "made-up" not in plain.words


def test_a_threshold_of_zero_has_a_sensitivity_too() -> None:
    told = replace(calibration(np.zeros(20)), defect_gains=np.array([0.0, 5.0]))
    assert told.threshold == 0
    assert told.words.endswith("Of 2 small made-up defects it would find 1.")


def test_the_tail_falls_smoothly() -> None:
    made = TailModel.of(np.random.default_rng(3).lognormal(sigma=0.2, size=4), LEFT_OUT)
    p = [made.probability(s) for s in np.linspace(0, 5, 300)]
    assert p == sorted(p, reverse=True)
    assert made.probability(made.bound(0.05)) == pytest.approx(0.05)
    assert made.probability(0.0) == pytest.approx(1)
    assert made.probability(1e9) > 0


@pytest.mark.parametrize("count", [1, 4, 18, 19, 60, 320])
def test_three_zones_from_two_rates(count: int) -> None:
    random = np.random.default_rng(count)
    made = calibration(random.lognormal(sigma=0.2, size=count), 0.05, 0.1)
    assert made.unsure_threshold <= made.threshold
    for score in [*random.lognormal(sigma=0.6, size=200), *made.scores]:
        p = made.p_value(score)
        assert made.verdict(score) == ("defective" if p <= 0.05 else "unsure" if p <= 0.15 else "good")
        assert made.verdict(score, is_known=False) == "unknown"
    alone = made.at(0.05, 0.0)
    assert (alone.threshold, alone.unsure_threshold) == (made.threshold, made.threshold)


@pytest.mark.parametrize("tail", ["uniform", "lognormal", "exponential"])
@pytest.mark.parametrize("count", [19, 21, 23, 24, 40])
def test_rates_of_both_thresholds_are_kept_where_order_statistics_are_coarse(count: int, tail: str) -> None:
    """Of 19 to 23 scores 5 % and 8 % are the same order statistic: still some good parts are unsure, and not too many.

    The probabilities that a new score exceeds each are known, so that their means are sharp.
    """
    random = np.random.default_rng(count)
    drawn = random.uniform(size=(3000, count))  # of every distribution, the probability to score less
    quantile = {
        "uniform": lambda u: 3 + u,
        "lognormal": lambda u: np.exp(0.1 * stats.norm.ppf(u)),
        "exponential": lambda u: 1 - np.log1p(-u),
    }[tail]
    below = {
        "uniform": lambda s: s - 3,
        "lognormal": lambda s: stats.norm.cdf(np.log(s) / 0.1),
        "exponential": lambda s: -np.expm1(1 - s),
    }[tail]
    made = [calibration(row, 0.05, 0.03) for row in quantile(drawn)]
    alarms = 1 - below(np.array([one.threshold for one in made]))
    flagged = 1 - below(np.array([one.unsure_threshold for one in made]))
    assert alarms.mean() == pytest.approx(np.floor(0.05 * (count + 1)) / (count + 1), abs=0.004)
    assert (flagged > alarms).all()
    assert flagged.mean() < 0.08 + 0.004
    if count < 24:
        assert flagged.mean() > alarms.mean() + 0.5 * (0.08 - 1 / (count + 1))
        assert tail != "uniform" or flagged.mean() == pytest.approx(0.08, abs=0.004)
    else:
        assert flagged.mean() == pytest.approx(np.floor(0.08 * (count + 1)) / (count + 1), abs=0.004)


def test_interpolated_thresholds_lie_between_order_statistics() -> None:
    scores = np.arange(1.0, 20.0)
    assert calibration(scores, 0.05, 0.03).threshold == 19
    assert calibration(scores, 0.05, 0.03).unsure_threshold == pytest.approx(19 - 0.6)  # 8 % of 20 are 1.6
    assert calibration(scores, 0.05, 0.0).unsure_threshold == 19
    assert calibration(scores, 0.05, 0.05).unsure_threshold == 18
    assert calibration(scores, 0.05, 0.94).unsure_threshold == 1
    assert calibration(scores[:1], 0.5, 0.4).unsure_threshold == 1  # there is no lower one
    assert calibration(np.ones(19), 0.05, 0.03).unsure_threshold == 1


def test_the_thresholds_themselves_belong_below() -> None:
    made = calibration([1.0, 1.1, 1.2], 0.05, 0.1)
    assert made.verdict(made.unsure_threshold) == "good"
    assert made.verdict(np.nextafter(made.unsure_threshold, 9.0)) == "unsure"
    assert made.verdict(made.threshold) == "unsure"
    assert made.verdict(np.nextafter(made.threshold, 9.0)) == "defective"


@pytest.mark.parametrize("rate", [-0.01, 0.95, 2])
def test_an_impossible_unsure_rate_is_refused(rate: float) -> None:
    with pytest.raises(SettingsError, match="unsure rate"):
        calibration([1.0], 0.05, rate)


def test_who_gives_percent_is_told_the_share() -> None:
    with pytest.raises(SettingsError, match=r"for 5 % give 0\.05$"):
        check_rate(5)
    with pytest.raises(SettingsError, match=r"for 3 % give 0\.03$"):
        check_rates(0.05, 3)
    with pytest.raises(SettingsError, match=r"give the share of the good parts$"):
        check_rates(0.05, 0.99)


def test_scale_does_not_matter() -> None:
    scores = np.random.default_rng(4).lognormal(sigma=0.2, size=4)
    assert calibration(1000 * scores).threshold == pytest.approx(1000 * calibration(scores).threshold)
    assert calibration(1000 * scores).p_value(1200) == pytest.approx(calibration(scores).p_value(1.2))


def test_scores_of_zero_do_not_break_it() -> None:
    made = calibration([0.0, 0.0, 0.0])
    assert np.isfinite(made.threshold)
    assert made.threshold < 1.0


def test_json_keeps_every_bit() -> None:
    made = calibration(np.random.default_rng(5).lognormal(size=7), 0.03, 0.1)
    made = replace(made, defect_gains=np.array([0.1, 30.0]))
    back = Calibration.from_dict(json.loads(json.dumps(made.to_dict())))
    assert np.array_equal(back.scores, made.scores)
    assert np.array_equal(back.peaks, made.peaks)
    assert (back.threshold, back.region_threshold, back.source) == (made.threshold, made.region_threshold, SOURCE)
    assert (back.unsure_rate, back.unsure_threshold) == (0.1, made.unsure_threshold)
    assert np.array_equal(back.defect_gains, made.defect_gains)


def test_reads_what_earlier_versions_saved() -> None:
    made = calibration([1.0, 2.0, 3.0])
    for exponent in (1, 2):
        source = replace(SOURCE, correction=1.25, score_exponent=exponent)
        saved = json.loads(json.dumps(replace(made, source=source).to_dict()))
        saved["source"]["inflation"] = saved["source"].pop("correction")
        saved["source"]["squared"] = saved["source"].pop("score_exponent") == 2
        del saved["unsure_rate"]
        assert Calibration.from_dict(saved).source == source


def test_how_far_scores_scatter_is_saved_and_was_as_expected_before_it_was() -> None:
    made = replace(calibration([1.0, 2.0, 3.0]), source=replace(SOURCE, score_spread=2.0))
    saved = json.loads(json.dumps(made.to_dict()))
    assert Calibration.from_dict(saved).source.score_spread == 2.0
    del saved["source"]["score_spread"]
    assert Calibration.from_dict(saved).source == SOURCE
    new = [AddedScore(str(i), f"{i}.png", 1.0 + i, 1.0 + i) for i in range(3)]
    for keep in (True, False):
        assert made.with_added(new, keep=keep).source.score_spread == 2.0


def test_another_rate_uses_the_same_held_out_scores() -> None:
    made = calibration(np.arange(1.0, 100.0))
    assert made.at(0.1).threshold < made.threshold < made.at(0.01).threshold
    assert made.at(0.1).source == SOURCE


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(SettingsError, match="false-alarm rate"):
        calibration([1.0], rate)


@pytest.mark.parametrize("scores", [[], [1.0, float("nan")], [float("inf")]])
def test_scores_must_be_there_and_finite(scores: list[float]) -> None:
    with pytest.raises(SettingsError, match="finite score"):
        calibration(scores)


def test_an_incomplete_calibration_is_a_model_error() -> None:
    with pytest.raises(ModelError):
        Calibration.from_dict({"scores": [1.0]})


def test_the_evidence_is_said() -> None:
    assert "4 good pictures" in SOURCE.words
    assert "4 rounds" in SOURCE.words
    one = CalibrationSource(1, 1, copies=True, correction=1.35)
    assert "copies of 1 good picture," in one.words
    assert "1.35×" in one.words
    assert "20 of 100 good pictures" in CalibrationSource(100, 20).words


@pytest.mark.parametrize("count", [8, 200])  # a model of the tail, and order statistics
def test_thresholds_set_by_a_person_decide_and_are_kept(count: int) -> None:
    """Both verdicts change right at them; `at` goes back to accepted rates; saving keeps every bit."""
    scores = np.random.default_rng(count).lognormal(size=count)
    usual = Calibration.of(scores, scores, 0.05, CalibrationSource(count, count), unsure_rate=0.03)
    threshold, unsure = float(np.median(scores)) * 1.5, float(np.median(scores)) * 1.2
    fixed = Calibration.from_dict(json.loads(json.dumps(usual.with_thresholds(threshold, unsure).to_dict())))
    assert (fixed.threshold, fixed.unsure_threshold) == (threshold, unsure)
    assert fixed.verdict(threshold) == "unsure"
    assert fixed.verdict(np.nextafter(threshold, np.inf)) == "defective"
    assert fixed.verdict(unsure) == "good"
    assert fixed.verdict(np.nextafter(unsure, np.inf)) == "unsure"
    back = fixed.at(0.05, 0.03)
    assert (back.threshold, back.unsure_threshold) == (usual.threshold, usual.unsure_threshold)


def test_the_rates_of_thresholds_set_by_a_person_are_those_of_good_parts() -> None:
    """New good parts exceed both thresholds as often as the calibration then says."""
    random = np.random.default_rng(0)
    scores, new = random.lognormal(size=2000), random.lognormal(size=20000)
    fixed = Calibration.of(scores, scores, 0.05, CalibrationSource(2000, 2000)).with_thresholds(2.5, 1.5)
    assert (new > 2.5).mean() == pytest.approx(fixed.false_alarm_rate, abs=0.02)
    assert (new > 1.5).mean() == pytest.approx(fixed.false_alarm_rate + fixed.unsure_rate, abs=0.03)


@pytest.mark.parametrize("pair", [(1.0, 2.0), (float("nan"), 0.5), (float("inf"), 0.5), (1.0, -0.1)])
def test_impossible_thresholds_by_hand_are_refused(pair: tuple[float, float]) -> None:
    calibration = Calibration.of([0.5, 1.0, 2.0], [0.5, 1.0, 2.0], 0.05, CalibrationSource(3, 3))
    with pytest.raises(SettingsError):
        calibration.with_thresholds(*pair)


@pytest.mark.parametrize("count", [10, 100])
def test_p_values_stand_for_the_verdict_where_a_person_set_the_threshold(count: int) -> None:
    """Whatever rate the threshold comes to: p-values are by the way that the rate was estimated."""
    scores = np.random.default_rng(0).lognormal(0, 0.2, count)
    usual = Calibration.of(scores, scores, 0.05, CalibrationSource(count, count))
    for threshold in np.quantile(scores, [0.2, 0.5, 0.9]):
        fixed = usual.with_thresholds(float(threshold), 0.0)
        again = Calibration.from_dict(json.loads(json.dumps(fixed.to_dict())))
        for score in (threshold * 0.99, threshold * 1.01, 5.0):
            assert (again.p_value(score) <= again.false_alarm_rate) == (again.verdict(score) == "defective")
            assert again.p_value(score) == usual.p_value(score)
        assert fixed.peak_threshold > 0
        assert fixed.at(0.05).threshold == usual.threshold
