"""Which reviewed parts may move the limit: a uniform sample, and a limit that stays where it belongs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from blemish.monitoring.audit import (
    ReviewedPart,
    audit_draw,
    audit_sample,
    bank_candidates,
    estimated_rate,
)
from blemish.monitoring.flips import Decision, flips_of
from blemish.scoring.calibration import AddedScore, Calibration, CalibrationSource

SECRET = b"only the service knows"


def part(name: int, score: float, draw: float, **changes: object) -> ReviewedPart:
    return replace(ReviewedPart(str(name), score, draw, 0.1, "good", "good"), **changes)


def test_draws_are_uniform_repeatable_and_secret() -> None:
    draws = [audit_draw(f"part-{i}", SECRET) for i in range(2000)]
    assert draws == [audit_draw(f"part-{i}", SECRET) for i in range(2000)]
    assert stats.kstest(draws, "uniform").pvalue > 0.01
    others = [audit_draw(f"part-{i}", b"another") for i in range(2000)]
    assert abs(np.corrcoef(draws, others)[0, 1]) < 0.08


def test_what_counts_and_what_may_be_learned_from_never_meet() -> None:
    parts = [
        part(0, 1.0, 0.05),
        part(1, 9.0, 0.05, verdict="defective"),
        part(2, 9.0, 0.5, verdict="defective"),
        part(3, 9.0, 0.05, verdict="defective", label="defective"),
        part(4, 9.0, 0.06, verdict="unsure", in_bank=True),
        part(5, 9.0, 0.5, verdict="unsure", label="unsure"),
    ]
    assert [one.part_id for one in audit_sample(parts).counted] == ["0", "1"]
    assert [one.part_id for one in bank_candidates(parts)] == ["2"]


def test_parts_after_one_that_waits_do_not_count() -> None:
    parts = [part(0, 1, 0.05), part(1, 1, 0.05, label=None), part(2, 1, 0.05), part(3, 1, 0.5, label=None)]
    found = audit_sample(parts)
    assert [one.part_id for one in found.counted] == ["0"]
    assert [one.part_id for one in found.waiting] == ["1"]
    assert found.covered == 1
    assert audit_sample(parts[2:]).covered == 2  # what is outside the random sample may wait


def test_the_smallest_share_holds_for_all() -> None:
    parts = [part(0, 1, 0.05), part(1, 1, 0.01), part(2, 1, 0.01, share=0.02)]
    assert [one.part_id for one in audit_sample(parts).counted] == ["1", "2"]
    assert audit_sample(parts).share == 0.02
    assert audit_sample([]).counted == ()


def test_a_time_without_a_random_sample_takes_nothing_from_it() -> None:
    """Alarms of that time are no random sample, and the parts that counted before it and after it still do."""
    alarm = part(1, 9.0, 0.01, share=0.0, verdict="defective")
    parts = [part(0, 1, 0.05), alarm, part(2, 1, 0.02, share=0.05), part(3, 1, 0.04)]
    found = audit_sample(parts)
    assert [one.part_id for one in found.counted] == ["2", "3"]
    assert (found.share, found.covered) == (0.05, 4)
    assert [one.part_id for one in bank_candidates(parts)] == ["1"]
    assert audit_sample([alarm]).counted == ()


def test_reviewed_parts_after_one_that_waits_count_later() -> None:
    parts = [part(0, 1, 0.05, label=None), part(1, 1, 0.05), part(2, 1, 0.05, label="defective"), part(3, 1, 0.5)]
    assert (audit_sample(parts).counted, audit_sample(parts).later) == ((), (parts[1],))
    assert audit_sample(parts[1:]).later == ()


def reviewed(scores: np.ndarray, limit: float, share: float, first: int) -> list[ReviewedPart]:
    """What is put up for review among good parts with these `scores`, all of it answered."""
    found = []
    for place, score in enumerate(scores.tolist()):
        draw, verdict = audit_draw(str(first + place), SECRET), "defective" if score > limit else "good"
        if verdict == "defective" or draw < share:
            found.append(ReviewedPart(str(first + place), score, draw, share, verdict, "good"))
    return found


def added(parts: list[ReviewedPart] | tuple[ReviewedPart, ...]) -> list[AddedScore]:
    return [AddedScore(one.part_id, one.part_id, one.score, one.score) for one in parts]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_limit_fed_by_alarms_alone_drifts_up_and_one_fed_by_the_random_sample_does_not(seed: int) -> None:
    """Twenty rounds of 3,000 good parts, 5 % false alarms accepted, 3 % of passes audited."""
    rng = np.random.default_rng(seed)
    target, share = 0.05, 0.03
    start = rng.lognormal(sigma=0.3, size=60)
    alarms = ours = Calibration.of(start, start, target, CalibrationSource(60, 60))
    limits = []
    for place in range(20):
        scores = rng.lognormal(sigma=0.3, size=3000)
        first = (100 * seed + place) * 3000
        by_alarms = [p for p in reviewed(scores, alarms.threshold, 0.0, first) if p.is_alarm]
        alarms = alarms.with_added(added(by_alarms))
        ours = ours.with_added(added(audit_sample(reviewed(scores, ours.threshold, share, first)).counted))
        limits.append(alarms.threshold)
    rate = {name: stats.lognorm.sf(c.threshold, 0.3) for name, c in (("alarms", alarms), ("ours", ours))}
    assert np.all(np.diff(limits) >= 0)
    assert limits[-1] > limits[9] > limits[2]
    assert rate["alarms"] < target / 10
    count = len(ours.scores)
    assert count == pytest.approx(60 + 20 * 3000 * share, rel=0.15)
    error = 3.5 * np.sqrt(target * (1 - target) / count)
    assert abs(rate["ours"] - target) < error


def test_weights_estimate_the_rate_of_false_alarms_from_all_reviewed_parts() -> None:
    scores = np.random.default_rng(3).lognormal(sigma=0.3, size=20_000)
    limit = float(np.quantile(scores, 0.98))
    parts = reviewed(scores, limit, 0.02, 10**7)
    assert estimated_rate(parts, limit) == pytest.approx(0.02, rel=0.2)
    assert estimated_rate([], limit) is None
    volunteers = [part(-1, 1.0, 0.9), part(-2, 1.0, 0.9, share=0.0)]
    assert estimated_rate([*parts, *volunteers], limit) == estimated_rate(parts, limit)


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.2])
def test_the_rate_is_that_of_the_limit_asked_for_whatever_was_put_up_for_review(rate: float) -> None:
    """Alarms by a limit that 2 % exceed, unsure parts by one that 10 % do; of passes a share of 20 %."""
    scores = np.random.default_rng(4).lognormal(sigma=0.3, size=20_000)
    limit, unsure, asked = (float(np.quantile(scores, 1 - one)) for one in (0.02, 0.1, rate))
    parts = [
        replace(one, verdict="unsure") if unsure < one.score <= limit else one
        for one in reviewed(scores, unsure, 0.2, 10**7)
    ]
    assert estimated_rate(parts, asked) == pytest.approx(rate, rel=0.1)
    other = part(-1, 0.1, 0.9, verdict="unknown")  # is rejected whatever it scores
    assert (estimated_rate([*parts, other], 1e9) or 0) > 0


def test_what_nobody_has_answered_yet_does_not_bend_the_rate() -> None:
    """Alarms are answered first: of passes a fifth so far, of alarms a half, and at the beginning none."""
    rng = np.random.default_rng(5)
    scores = rng.lognormal(sigma=0.3, size=40_000)
    limit = float(np.quantile(scores, 0.98))
    parts = reviewed(scores, limit, 0.1, 10**7)
    late = [one if rng.random() < (0.5 if one.is_alarm else 0.2) else replace(one, label=None) for one in parts]
    assert estimated_rate(late, limit) == pytest.approx(0.02, rel=0.2)
    alarms = [one if one.is_alarm else replace(one, label=None) for one in parts]
    passes = [replace(one, label=None) if one.is_alarm else one for one in parts]
    assert estimated_rate(alarms, limit) is None
    assert estimated_rate(passes, limit) is None
    assert estimated_rate([replace(one, share=0.0) for one in parts], limit) is None  # no random sample
    assert estimated_rate([one for one in parts if not one.is_alarm], limit) == 0


def test_flips_are_those_of_the_verdict_path() -> None:
    scores = np.arange(1.0, 100.0)
    new = Calibration.of(scores, scores, 0.1, CalibrationSource(99, 99), unsure_rate=0.1)
    given = [Decision("a", str(s), s, "good") for s in (50.0, 85.0, 95.0)]
    given += [Decision("a", "u", 99.0, "unknown"), Decision("b", "other", 99.0, "good")]
    found = flips_of(given, {"a": new})
    assert [(one.file, one.before, one.after) for one in found] == [
        ("85.0", "good", "unsure"),
        ("95.0", "good", "defective"),
    ]
