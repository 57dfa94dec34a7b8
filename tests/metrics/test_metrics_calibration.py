"""Error rates at a threshold, and whether p-values are what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from blemish.errors import DatasetError, SettingsError
from blemish.metrics import (
    false_alarm_rate,
    kept_rate,
    miss_rate,
    oracle_miss_rate,
    promised_and_kept,
    risk_coverage,
    uniformity,
    verdict_rate,
)
from blemish.types import Verdict


def test_only_good_passes() -> None:
    verdicts: list[Verdict] = ["good", "defective", "unsure", "unknown", "good", "unknown", "unsure", "defective"]
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    assert false_alarm_rate(verdicts, labels) == (1 + 0.5 + 1) / 4  # an unsure one counts half
    assert miss_rate(verdicts, labels) == (1 + 0.5) / 4
    assert verdict_rate(verdicts, "unknown") == 2 / 8


def test_rates_without_a_class_are_nan() -> None:
    assert math.isnan(false_alarm_rate(["good"], [1]))
    assert math.isnan(miss_rate(["good"], [0]))
    assert math.isnan(oracle_miss_rate([1.0], [0]))
    assert math.isnan(oracle_miss_rate([1.0], [1]))
    for scores, labels in (([1.0, 2.0], [0]), ([math.nan, 1.0], [0, 1]), ([1.0, 2.0], [0, 2])):
        with pytest.raises(DatasetError):
            oracle_miss_rate(scores, labels)
    assert math.isnan(verdict_rate([], "unknown"))


def test_no_threshold_of_the_same_rate_misses_fewer_than_the_oracle() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [40, 60])
    scores = random.normal(labels * 1.5)
    missed = oracle_miss_rate(scores, labels, rate=0.05)
    for threshold in scores:
        alarms = (scores[labels == 0] > threshold).mean()
        if alarms <= 0.05:
            assert (scores[labels == 1] <= threshold).mean() >= missed
    assert 0 < missed < 1
    assert oracle_miss_rate([0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1]) == 0


def test_labels_that_do_not_fit_are_named() -> None:
    for labels in ([0, 1], [2]):
        with pytest.raises(DatasetError):
            false_alarm_rate(["good"], labels)


@pytest.mark.parametrize(("hits", "images"), [(0, 12), (1, 12), (5, 40), (40, 40)])
def test_intervals_are_those_of_scipy(hits: int, images: int) -> None:
    wanted = stats.binomtest(hits, images).proportion_ci(0.9, method="exact")
    assert kept_rate(hits / images, images, confidence=0.9) == pytest.approx((hits / images, wanted.low, wanted.high))


def test_models_on_the_same_images_do_not_narrow_the_interval() -> None:
    p = np.random.default_rng(0).random(30)
    once, thrice = promised_and_kept(p), promised_and_kept(np.tile(p, 3), images=30)
    assert once == thrice
    assert promised_and_kept(np.tile(p, 3))[0.2].high < once[0.2].high
    assert math.isnan(kept_rate(math.nan, 4).low)


@pytest.mark.parametrize("count", [1, 5, 300])
def test_distance_is_that_of_kolmogorov_and_smirnov(count: int) -> None:
    p = np.round(np.random.default_rng(count).beta(1, 1.5, count), 3)
    got = uniformity(p)
    assert got.distance == pytest.approx(stats.kstest(p, "uniform").statistic)
    assert got.excess == pytest.approx(max(stats.kstest(p, "uniform", alternative="greater").statistic, 0))
    grid = (np.arange(200_000) + 0.5) / 200_000
    gap = np.abs((p[None] <= grid[:, None]).mean(1) - grid).mean() if count < 10 else got.area
    assert got.area == pytest.approx(gap, abs=1e-4)


def test_conformal_p_values_lie_on_their_own_grid() -> None:
    held_out = 4
    every_value_once = np.arange(1, held_out + 2) / (held_out + 1)
    assert uniformity(every_value_once, held_out).distance == pytest.approx(0)
    assert uniformity(every_value_once).distance == pytest.approx(1 / (held_out + 1))


def test_verdict_on_honest_and_on_optimistic_p_values() -> None:
    rng = np.random.default_rng(0)
    honest, good = rng.normal(size=2000), rng.normal(size=400)
    p = (1 + (honest[None] >= good[:, None]).sum(1)) / (len(honest) + 1)
    assert uniformity(p, len(honest)).keeps_promise
    assert promised_and_kept(p)[0.1].share == pytest.approx(0.1, abs=0.05)
    shifted = (1 + (honest[None] >= good[:, None] + 0.5).sum(1)) / (
        len(honest) + 1
    )  # normal images score higher than seen
    assert not uniformity(shifted, len(honest)).keeps_promise
    assert promised_and_kept(shifted)[0.1].low > 0.1
    careful = (1 + (honest[None] >= good[:, None] - 0.5).sum(1)) / (len(honest) + 1)
    assert uniformity(careful, len(honest)).keeps_promise  # too few false alarms break no promise
    assert uniformity(careful, len(honest)).distance > uniformity(careful, len(honest)).bound


def test_bound_holds_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    outside = np.mean([u.distance > u.bound for u in (uniformity(rng.random(40), confidence=0.8) for _ in range(500))])
    assert outside <= 0.25


def test_p_values_out_of_range_are_named() -> None:
    for p in ([], [1.2], [-0.1], [math.nan], [[0.5]]):
        with pytest.raises(DatasetError, match="p-values"):
            uniformity(p)
    with pytest.raises(SettingsError, match="confidence"):
        uniformity([0.5], confidence=1.0)
    with pytest.raises(SettingsError, match="held_out"):
        uniformity([0.5], held_out=0)


def test_risk_grows_with_coverage_when_errors_are_uncertain() -> None:
    got = risk_coverage([0.9, 0.8, 0.7, 0.1], [0, 0, 0, 1])
    assert got.risk.tolist() == [0, 0, 0, 0.25]
    assert got.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert got.aurc == pytest.approx(0.0625)
    assert risk_coverage([0.9, 0.8, 0.7, 0.1], [1, 0, 0, 0]).aurc > got.aurc


def test_equal_certainties_do_not_depend_on_order() -> None:
    rng = np.random.default_rng(2)
    certainty, wrong = rng.integers(0, 3, 12), rng.integers(0, 2, 12)
    orders = [rng.permutation(12) for _ in range(3000)]
    got = [risk_coverage(certainty[o], wrong[o]).aurc for o in orders[:5]]
    assert got == pytest.approx([got[0]] * 5)
    broken_ties = [risk_coverage(certainty[o] + 1e-6 * np.arange(12), wrong[o]).aurc for o in orders]
    assert got[0] == pytest.approx(np.mean(broken_ties), abs=0.01)
    with pytest.raises(DatasetError, match="empty"):
        risk_coverage([], [])
