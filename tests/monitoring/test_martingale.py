"""Alarms on streams: uniform p-values, the promised risk of a false alarm, and changes found from both sides."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from blemish.errors import SettingsError
from blemish.monitoring.martingale import LEVEL, POWERS, ChangeTest, Evidence, RankHistogram, starting_share

ALARM = 1 / LEVEL


def fed(test: ChangeTest, values: np.ndarray) -> ChangeTest:
    for value in values.tolist():
        test.add(value)
    return test


@pytest.mark.parametrize("horizon", [None, 500])
def test_the_value_is_the_mixture_over_all_beginnings(horizon: int | None) -> None:
    rng = np.random.default_rng(0)
    p_values = rng.uniform(size=40) ** 2
    evidence = Evidence(horizon)
    for p_value in p_values:
        evidence.add(p_value)
    bets = np.stack([k * q ** (k - 1) for k in POWERS for q in (p_values, 1 - p_values)])  # (bets, parts)
    shares = [starting_share(part, horizon) for part in range(1, len(p_values) + 1)]
    won = sum(share * bets[:, place:].prod(axis=1).mean() for place, share in enumerate(shares))
    assert evidence.value == pytest.approx(won + 1 - sum(shares))
    assert evidence.rises


def test_shares_sum_to_one() -> None:
    assert sum(starting_share(part, None) for part in range(1, 1001)) == pytest.approx(1 - 1 / math.log2(1002))
    assert sum(starting_share(part, 300) for part in range(1, 301)) == pytest.approx(1)


@pytest.mark.parametrize("start", [0.001, 0.2, 0.5, 0.9])
def test_a_bet_is_fair(start: float) -> None:
    """Over uniform p-values the next value is, in the mean, the present one."""
    evidence = Evidence()
    for _ in range(5):
        evidence.add(start)
    before = evidence.value
    roots = (np.arange(20_000) + 0.5) / 20_000
    grid, cell = roots**20, 20 * roots**19 / 20_000  # p = t²⁰: the bets' peak at 0 is integrated finely
    share = starting_share(6, None) / (2 * len(POWERS))
    mean = 1 / math.log2(8)
    for power, low, high in zip(POWERS, evidence.up, evidence.down, strict=True):
        integral = float((power * grid ** (power - 1) * cell).sum())  # that of the mirrored bet is the same
        mean += (low + high + 2 * share) * integral
    assert mean == pytest.approx(before, rel=1e-3)


def test_ranks_against_counting() -> None:
    rng = np.random.default_rng(1)
    values = np.round(rng.normal(size=200), 1)
    ranks = RankHistogram(0.25)
    cells = np.floor(values / 0.25)
    for place, value in enumerate(values.tolist()):
        before = cells[:place]
        assert ranks.add(value) == ((before > cells[place]).sum(), (before == cells[place]).sum())
    assert ranks.total == len(values)
    assert abs(ranks.median - np.median(values)) <= 0.25
    assert ranks.mean == pytest.approx(0.25 * cells.mean())


def test_p_values_of_an_exchangeable_stream_are_uniform_even_with_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    monkeypatch.setattr(Evidence, "add", lambda self, p: seen.append(p) or 1.0)
    rng = np.random.default_rng(2)
    for seed in range(40):
        fed(ChangeTest.started(0.5, rng.normal(size=10), seed), rng.normal(size=50))  # five cells hold most
    assert stats.kstest(seen, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(seen[:-1], seen[1:])[0, 1]) < 0.06


def test_false_alarms_stay_within_the_level() -> None:
    rng = np.random.default_rng(3)
    alarms = sum(
        fed(ChangeTest.started(0.01, rng.normal(0, 0.2, 20), seed), rng.normal(0, 0.2, 300)).peak >= ALARM
        for seed in range(200)
    )
    assert alarms <= stats.binom.ppf(0.999, 200, LEVEL)


@pytest.mark.slow
def test_p_values_of_one_calibration_set_raise_false_alarms_and_ranks_in_the_stream_do_not() -> None:
    """Over 10,000 good parts: 20 scores that stay the same against the same 20 as the beginning of the stream."""
    rng = np.random.default_rng(4)
    shared, ours, runs = 0, 0, 12
    for seed in range(runs):
        reference, stream = rng.normal(0, 0.2, 20), rng.normal(0, 0.2, 10_000)
        larger = 20 - np.searchsorted(np.sort(reference), stream)
        p_values = (larger + rng.uniform(size=len(stream))) / 21  # smoothed: what discreteness adds is not the point
        evidence = Evidence()
        shared += max(evidence.add(p_value) for p_value in p_values) >= ALARM
        ours += fed(ChangeTest.started(0.01, reference, seed), stream).peak >= ALARM
    assert shared >= 0.4 * runs
    assert ours <= 2


@pytest.mark.parametrize("shift", [-1.0, 1.0])
@pytest.mark.parametrize(("horizon", "most"), [(None, 30), (5000, 25)])
def test_a_late_change_is_found_up_and_down(shift: float, horizon: int | None, most: int) -> None:
    rng = np.random.default_rng(5)
    test = fed(ChangeTest.started(0.01, rng.normal(0, 0.2, 20), 0, horizon), rng.normal(0, 0.2, 2000))
    assert test.peak < ALARM
    fed(test, rng.normal(0.6 * shift, 0.2, most))
    assert test.peak >= ALARM
    assert test.evidence.rises == (shift > 0)


def test_a_change_from_the_first_part_is_found_against_a_reference() -> None:
    rng = np.random.default_rng(6)
    test = fed(ChangeTest.started(0.01, rng.normal(0, 0.2, 40)), rng.normal(0.8, 0.2, 20))
    assert test.peak >= ALARM
    alone = fed(ChangeTest.started(0.01), rng.normal(0.8, 0.2, 20))
    assert alone.peak < ALARM  # nothing to differ from


def test_a_constant_share_of_defective_parts_is_no_change() -> None:
    rng = np.random.default_rng(7)
    stream = rng.normal(0, 0.2, 3000) + 2.0 * (rng.uniform(size=3000) < 0.02)
    assert fed(ChangeTest.started(0.01, seed=1), stream).peak < ALARM


def test_the_state_goes_through_json_and_goes_on() -> None:
    rng = np.random.default_rng(8)
    one = fed(ChangeTest.started(0.01, rng.normal(size=30), 3), rng.normal(size=50))
    two = ChangeTest.from_dict(json.loads(json.dumps(one.to_dict())))
    more = rng.normal(2, 1, size=50)
    assert fed(one, more).to_dict() == fed(two, more).to_dict()
    assert one.to_dict()["ranks"] != ChangeTest.started(0.01).to_dict()["ranks"]


def test_no_value_changes_nothing_and_extremes_stay_finite() -> None:
    test = ChangeTest.started(0.01, [0.0] * 50)
    before = test.to_dict()
    test.add(math.nan)
    assert test.to_dict() == before
    fed(test, np.full(3000, 1e9))
    fed(test, np.full(3000, -1e9))
    fed(test, np.array([np.inf, -np.inf, 1e308]))
    assert math.isfinite(test.evidence.value)
    assert len(test.ranks.counts) < 10_000


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="step"):
        ChangeTest.started(0.0)
    with pytest.raises(SettingsError, match="horizon"):
        ChangeTest.started(0.1, horizon=0)
