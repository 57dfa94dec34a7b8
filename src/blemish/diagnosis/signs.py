"""What a diagnosis consists of: measures with their thresholds, the five signs of failure, images that show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from blemish.types import Prediction

Finding = Literal["ok", "warn", "not measured"]


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Beyond which a sign warns. `localisation`, `contrast`, `separability` and `prompts` are least values, all others
    largest.

    Chosen by us so that the healthy models of tests/diagnosis pass and those built to fail there do not.
    """

    localisation: float = 0.8  # AUROC
    contrast: float = 1.3  # median map value inside synthetic spots over that of the same place untouched
    generalisation_gap: float = 0.6  # 0: new normal images score as training images do, 1: as synthetic anomalies do
    unknown: float = 0.25  # share of images
    separability: float = 0.8  # AUROC
    prompts: float = 0.7  # AUROC
    milliseconds: float = 500.0  # an image: at two a second a bank no longer keeps up; busy machines double a time
    megabytes: float = 256.0


@dataclass(frozen=True)
class Measure:
    """One number and its threshold. `value` None was not measured, `why` says what was missing.

    `at_least`: whether the value must reach the threshold, or must not exceed it.
    """

    name: str
    value: float | None
    threshold: float
    at_least: bool = False
    why: str = ""

    @property
    def finding(self) -> Finding:
        """Whether the value lies on the right side of its threshold."""
        if self.value is None:
            return "not measured"
        return "ok" if (self.value >= self.threshold if self.at_least else self.value <= self.threshold) else "warn"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, in the words of the report."""
        return {
            "name": self.name,
            "value": self.value,
            "limit": self.threshold,
            "wanted": "at least" if self.at_least else "at most",
            "verdict": self.finding,
            **({"why": self.why} if self.why else {}),
        }


@dataclass(frozen=True)
class InspectedImage:
    """An image `(H, W, 3)` uint8 with its prediction; `mask` `(H, W)` bool of a synthetic spot on it, None for none."""

    image: np.ndarray
    prediction: Prediction
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Sign:
    """One way to fail: its measures, what to do where one warns, the images that show it, and further facts."""

    name: str
    means: str
    measures: tuple[Measure, ...]
    advice: tuple[str, ...] = ()
    shown: tuple[tuple[str, InspectedImage], ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def finding(self) -> Finding:
        """ "warn" where one measure warns, "ok" where one is ok and none warns."""
        findings = [measure.finding for measure in self.measures]
        return "warn" if "warn" in findings else "ok" if "ok" in findings else "not measured"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without the images."""
        return {
            "name": self.name,
            "verdict": self.finding,
            "means": self.means,
            "measures": [measure.to_dict() for measure in self.measures],
            "facts": dict(self.facts),
            "do": list(self.advice) if self.finding == "warn" else [],
            "pictures": [{"words": words, "file": one.prediction.source} for words, one in self.shown],
        }


@dataclass(frozen=True)
class Diagnosis:
    """The five signs; `rests_on` says in sentences what they were measured on and what was missing.

    `scores` are image scores by kind of image, in units of the typical score of a normal image of the category.
    `failures` are (file, error) of images that could not be read.
    """

    signs: tuple[Sign, ...]
    rests_on: tuple[str, ...]
    scores: Mapping[str, np.ndarray]
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def warnings(self) -> tuple[Sign, ...]:
        """The signs that show."""
        return tuple(sign for sign in self.signs if sign.finding == "warn")

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without the images."""
        return {
            "signs": [sign.to_dict() for sign in self.signs],
            "rests_on": list(self.rests_on),
            "scores": {name: values.tolist() for name, values in self.scores.items()},
            "failures": [list(failure) for failure in self.failures],
        }
