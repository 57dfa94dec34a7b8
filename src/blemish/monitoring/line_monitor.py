"""Is the line still what the model learned from, and if not, what has changed: one change test a measure.

Scores and each image statistic have a test of their own (martingale.py), all together at one level: each must show
evidence of as many times 1/LEVEL as there are tests (Bonferroni). An alarm also asks that the change is large enough to
matter (`least`), which can only make false alarms rarer; and it says what to look at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, median
from typing import Any

from blemish.monitoring.image_statistics import ImageStatistics
from blemish.monitoring.martingale import LEVEL, ChangeTest

RECENT = 8  # parts by whose median the size of a change is judged
REMEMBERED = 32  # latest parts that become the reference where a change is accepted


@dataclass(frozen=True)
class Measure:
    """One number of a part, on a scale on which differences mean the same everywhere.

    `step` is the grid of its ranks, `least` the change that is worth an alarm, both on that scale. `causes` name a fall
    and a rise. `is_share` says that values are 0 or 1 and a mean, not a median, is their middle.
    """

    step: float
    least: float
    causes: tuple[str, str]
    value: Callable[[ImageStatistics], float | None]
    is_share: bool = False


def _log(value: float) -> float:
    return math.log(max(value, 1e-6))


# Steps are far below what matters; `least` was chosen by what an engineer would want to hear of, not by a benchmark.
SCORE = Measure(0.01, 0.05, ("scores_down", "scores_up"), lambda _: None)  # logarithm of the score
MEASURES: Mapping[str, Measure] = {
    "brightness": Measure(0.005, 0.03, ("darker", "brighter"), lambda one: _log(one.brightness)),
    "contrast": Measure(0.005, 0.05, ("flatter", "more_contrast"), lambda one: _log(one.contrast)),
    "sharpness": Measure(0.01, 0.1, ("less_sharp", "sharper"), lambda one: _log(one.sharpness)),
    "red": Measure(0.0025, 0.02, ("less_red", "more_red"), lambda one: _log(one.red)),
    "blue": Measure(0.0025, 0.02, ("less_blue", "more_blue"), lambda one: _log(one.blue)),
    "part_seen": Measure(
        1.0, 0.3, ("part_not_seen", "part_seen"), lambda one: float(one.part_x is not None), is_share=True
    ),
    "part_x": Measure(
        0.0005, 0.001, ("left", "right"), lambda one: None if one.part_x is None else one.part_x / one.width
    ),
    "part_y": Measure(
        0.0005, 0.001, ("higher", "lower"), lambda one: None if one.part_y is None else one.part_y / one.height
    ),
    "part_size": Measure(
        0.002, 0.01, ("smaller", "larger"), lambda one: None if one.part_size is None else _log(one.part_size)
    ),
}
ALL = {"score": SCORE, **MEASURES}
_LOOK = {
    "scores_up": "parts score {percent} higher than before: look at material, tool and supplier",
    "scores_down": "parts score {percent} lower than before, which better parts rarely do: check that the camera sees "
    "them",
    "darker": "pictures are {percent} darker than those learned from: look at the lamp, the exposure and the lens",
    "brighter": "pictures are {percent} brighter than those learned from: look at the lamp, the exposure and daylight",
    "flatter": "pictures have {percent} less contrast: look for stray light, haze or dirt on the lens",
    "more_contrast": "pictures have {percent} more contrast: look at the lamp and the exposure",
    "less_sharp": "pictures are {percent} less sharp: look at focus, dirt on the lens and vibration",
    "sharper": "pictures are {percent} sharper than those learned from: focus or resolution has changed; learn again "
    "from new pictures if that is meant",
    "less_red": "pictures are {percent} less red: look at the lamp's colour and the white balance",
    "more_red": "pictures are {percent} redder: look at the lamp's colour and the white balance",
    "less_blue": "pictures are {percent} less blue: look at the lamp's colour and the white balance",
    "more_blue": "pictures are {percent} bluer: look at the lamp's colour and the white balance",
    "part_not_seen": "the part is not seen in {share} of the latest pictures: look at feeder, trigger and camera",
    "part_seen": "the part stands out from its ground in more pictures than before: look at ground and light",
    "left": "the part lies {pixels} to the left: look at fixture, trigger and camera mount",
    "right": "the part lies {pixels} to the right: look at fixture, trigger and camera mount",
    "higher": "the part lies {pixels} higher in the picture: look at fixture, trigger and camera mount",
    "lower": "the part lies {pixels} lower in the picture: look at fixture, trigger and camera mount",
    "smaller": "the part appears {percent} smaller: look at the camera's distance, its lens and the part itself",
    "larger": "the part appears {percent} larger: look at the camera's distance, its lens and the part itself",
}


@dataclass(frozen=True)
class Alarm:
    """Something has changed. `text` says what and where to look; `parts` is after how many parts it was noticed.

    `measure` names the test, `cause` what it shows. `evidence` is the martingale's value, `change` the size on the
    measure's own scale: differences of logarithms, or shares of the picture's width or height.
    """

    measure: str
    cause: str
    text: str
    evidence: float
    change: float
    parts: int


@dataclass
class LineMonitor:
    """All tests of one product at one camera. Not safe for threads: one at a time may `add`.

    `recent` holds the latest values a measure, `centres` the reference's middle where there is a reference.
    """

    tests: dict[str, ChangeTest]
    recent: dict[str, list[float]]
    centres: dict[str, float]
    alarms: list[Alarm] = field(default_factory=list)
    parts: int = 0

    @classmethod
    def started(
        cls,
        reference: Sequence[ImageStatistics] = (),
        scores: Iterable[float] = (),
        seed: int = 0,
        horizon: int | None = None,
    ) -> LineMonitor:
        """Before the first part. `reference` are statistics of the pictures that were learned from.

        `scores` are those of good pictures that the model did not learn from; give none where they come from perturbed
        copies, which new parts do not continue: then the first parts of the line are what later ones are ranked among.
        `horizon`: see martingale.py.
        """
        values = {name: _values(measure, reference) for name, measure in MEASURES.items()}
        values["score"] = [_log(score) for score in scores if math.isfinite(score)]
        return cls._of(values, seed, horizon)

    @classmethod
    def _of(cls, values: Mapping[str, list[float]], seed: int, horizon: int | None) -> LineMonitor:
        tests = {
            name: ChangeTest.started(measure.step, values[name], 1000 * seed + place, horizon)
            for place, (name, measure) in enumerate(ALL.items())
        }
        centres = {name: _middle(ALL[name], some) for name, some in values.items() if some}
        return cls(tests, {name: [] for name in ALL}, centres)

    @property
    def threshold(self) -> float:
        """The evidence at which a single test raises an alarm: all together keep the level."""
        return len(self.tests) / LEVEL

    @property
    def evidence(self) -> dict[str, float]:
        """What each test shows now."""
        return {name: test.evidence.value for name, test in self.tests.items()}

    def add(self, score: float | None, statistics: ImageStatistics) -> list[Alarm]:
        """Take one more part, of any verdict; the alarms that it raises. `score` is None where there is none."""
        self.parts += 1
        values = {name: measure.value(statistics) for name, measure in MEASURES.items()}
        values["score"] = None if score is None or not math.isfinite(score) else _log(score)
        raised = []
        standing = {alarm.measure for alarm in self.alarms}
        for name, value in values.items():
            if value is None:
                continue
            self.tests[name].add(value)
            self.recent[name] = [*self.recent[name][1 - REMEMBERED :], value]
            alarm = None if name in standing else self._alarm(name, statistics)
            if alarm is not None:
                raised.append(alarm)
        self.alarms += raised
        return raised

    def _alarm(self, name: str, statistics: ImageStatistics) -> Alarm | None:
        """The alarm of a test, if it has reached the threshold and the change matters."""
        test, measure = self.tests[name], ALL[name]
        if test.peak < self.threshold:
            return None
        latest = _middle(measure, self.recent[name][-RECENT:])
        change = latest - self.centres.get(name, test.ranks.mean if measure.is_share else test.ranks.median)
        if abs(change) < measure.least:
            return None
        cause = measure.causes[int(change > 0)]
        return Alarm(
            name, cause, _text(cause, name, change, latest, statistics), test.evidence.value, change, self.parts
        )

    def restarted(self, accept: bool) -> LineMonitor:
        """All tests anew once a person has acted: the level holds from here on again.

        With `accept` the latest parts are what later ones should be like; without, the reference is as it was, because
        the cause was mended. Without a reference the next parts become it.
        """
        first = next(iter(self.tests.values()))
        kept = {name: self.recent[name] if accept else test.reference for name, test in self.tests.items()}
        return LineMonitor._of(kept, first.seed // 1000 + 1, first.evidence.horizon)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "tests": {name: test.to_dict() for name, test in self.tests.items()},
            "recent": self.recent,
            "centres": self.centres,
            "alarms": [asdict(alarm) for alarm in self.alarms],
            "parts": self.parts,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LineMonitor:
        """Take back what `to_dict` gave."""
        return cls(
            {name: ChangeTest.from_dict(test) for name, test in values["tests"].items()},
            {name: list(some) for name, some in values["recent"].items()},
            dict(values["centres"]),
            [Alarm(**alarm) for alarm in values["alarms"]],
            values["parts"],
        )


def _values(measure: Measure, statistics: Iterable[ImageStatistics]) -> list[float]:
    found = (measure.value(one) for one in statistics)
    return [value for value in found if value is not None]


def _middle(measure: Measure, values: Sequence[float]) -> float:
    return fmean(values) if measure.is_share else median(values)


def _text(cause: str, name: str, change: float, latest: float, statistics: ImageStatistics) -> str:
    """What has changed and where to look, for the factory floor; `latest` is the middle of the latest values."""
    side = statistics.height if name == "part_y" else statistics.width
    return _LOOK[cause].format(
        percent=f"{100 * abs(math.expm1(change)):.0f} %",
        share=f"{100 * (1 - latest):.0f} %",  # of pictures in which the part is not seen
        pixels=f"{abs(change) * side:.0f} px",
    )
