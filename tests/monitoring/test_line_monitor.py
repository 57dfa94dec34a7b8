"""The line's alarm names the cause, keeps its state, and stays silent over good parts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from blemish.monitoring.image_statistics import ImageStatistics
from blemish.monitoring.line_monitor import _LOOK, ALL, LineMonitor


def parts(count: int, seed: int, **factors: float) -> Iterator[tuple[float, ImageStatistics]]:
    """Scores and statistics of good parts, some of them times a factor or, for the place, moved by pixels."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        noise = rng.normal(size=9)
        one = ImageStatistics(
            width=1000,
            height=800,
            brightness=120 * np.exp(0.01 * noise[0]),
            contrast=0.5 * np.exp(0.02 * noise[1]),
            sharpness=0.4 * np.exp(0.05 * noise[2]),
            red=1.0 + 0.002 * noise[3],
            blue=0.9 + 0.002 * noise[4],
            part_x=500 + noise[5],
            part_y=400 + noise[6],
            part_size=300 * np.exp(0.003 * noise[7]),
        )
        score = 1.5 * np.exp(0.2 * noise[8]) * factors.get("score", 1.0)
        moved = {
            name: getattr(one, name) + by if name in ("part_x", "part_y") else getattr(one, name) * by
            for name, by in factors.items()
            if name != "score"
        }
        yield score, replace(one, **moved)


def started(seed: int = 0) -> LineMonitor:
    scores, statistics = zip(*parts(40, 1000 + seed), strict=True)
    return LineMonitor.started(statistics, scores, seed)


def fed(monitor: LineMonitor, stream: Iterator[tuple[float, ImageStatistics]]) -> LineMonitor:
    for score, statistics in stream:
        monitor.add(score, statistics)
    return monitor


@pytest.mark.parametrize(
    ("factors", "cause", "words"),
    [
        ({"brightness": 0.82}, "darker", "18 % darker"),
        ({"brightness": 1.1}, "brighter", "10 % brighter"),
        ({"contrast": 0.8}, "flatter", "less contrast"),
        ({"sharpness": 0.6}, "less_sharp", "focus"),
        ({"red": 0.95}, "less_red", "lamp's colour"),
        ({"part_x": -12.0}, "left", "12 px to the left"),
        ({"part_y": 12.0}, "lower", "12 px lower"),
        ({"part_size": 1.05}, "larger", "5 % larger"),
        ({"score": 2.0}, "scores_up", "material"),
        ({"score": 0.4}, "scores_down", "camera"),
    ],
)
def test_the_cause_is_named(factors: dict[str, float], cause: str, words: str) -> None:
    monitor = fed(started(), parts(300, 1))
    assert monitor.alarms == []
    fed(monitor, parts(40, 2, **factors))
    assert [alarm.cause for alarm in monitor.alarms] == [cause]
    assert monitor.alarms[0].parts <= 330
    assert words.split()[-1] in monitor.alarms[0].text


def test_the_size_of_a_change_is_told_rightly() -> None:
    monitor = fed(fed(started(), parts(300, 1)), parts(40, 2, brightness=0.82, part_x=-12.0))
    texts = {alarm.cause: alarm for alarm in monitor.alarms}
    assert np.expm1(texts["darker"].change) == pytest.approx(-0.18, abs=0.02)
    assert 1000 * texts["left"].change == pytest.approx(-12, abs=2)
    assert "px to the left: look at fixture" in texts["left"].text


def test_every_cause_has_its_words() -> None:
    assert {cause for measure in ALL.values() for cause in measure.causes} == _LOOK.keys()


def test_a_change_too_small_to_matter_raises_nothing() -> None:
    monitor = fed(started(), parts(300, 1))
    fed(monitor, parts(400, 2, brightness=0.985))
    assert monitor.tests["brightness"].peak >= monitor.threshold
    assert monitor.alarms == []


def test_a_part_that_is_gone_is_an_alarm() -> None:
    monitor = fed(started(), parts(300, 1))
    for score, one in parts(30, 2):
        monitor.add(score, replace(one, part_x=None, part_y=None, part_size=None))
    assert [alarm.cause for alarm in monitor.alarms] == ["part_not_seen"]


def test_good_parts_raise_nothing_most_of_the_time() -> None:
    assert sum(bool(fed(started(seed), parts(150, seed)).alarms) for seed in range(12)) <= 3


def test_the_state_goes_through_json() -> None:
    one = fed(fed(started(), parts(60, 1)), parts(30, 2, brightness=0.8))
    two = LineMonitor.from_dict(json.loads(json.dumps(one.to_dict())))
    assert two == one
    assert fed(two, parts(10, 3)).to_dict() == fed(one, parts(10, 3)).to_dict()


def test_a_new_start_accepts_the_change_or_goes_back() -> None:
    monitor = fed(fed(started(), parts(60, 1)), parts(60, 2, brightness=0.8))
    assert monitor.alarms
    accepted, mended = monitor.restarted(accept=True), monitor.restarted(accept=False)
    assert accepted.alarms == mended.alarms == []
    assert not fed(accepted, parts(60, 3, brightness=0.8)).alarms
    assert fed(mended, parts(60, 3, brightness=0.8)).alarms
    assert not fed(monitor.restarted(accept=False), parts(60, 3)).alarms


def test_without_a_reference_the_first_parts_are_it() -> None:
    monitor = fed(LineMonitor.started(), parts(200, 1))
    assert monitor.alarms == []
    fed(monitor, parts(40, 2, brightness=0.85))
    assert [alarm.cause for alarm in monitor.alarms] == ["darker"]


@pytest.mark.parametrize("is_known", [True, False])
def test_how_often_the_part_is_not_seen_is_told_rightly(is_known: bool) -> None:
    monitor = fed(started() if is_known else LineMonitor.started(), parts(300, 1))
    for place, (score, one) in enumerate(parts(60, 2)):
        is_seen = place % 2 > 0
        monitor.add(score, one if is_seen else replace(one, part_x=None, part_y=None, part_size=None))
    (alarm,) = monitor.alarms
    assert alarm.text.startswith("the part is not seen in 50 % of the latest pictures")
    assert alarm.change == pytest.approx(-0.5, abs=0.05)


def test_scores_that_are_no_numbers_are_no_reference() -> None:
    scores = [1.0, np.nan, 2.0, np.inf, 3.0]
    assert LineMonitor.started(scores=scores) == LineMonitor.started(scores=[1.0, 2.0, 3.0])
