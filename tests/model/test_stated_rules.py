"""What all good parts have in common and one does not, from a detector that states rules to the words of a region."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch

from blemish.detectors.base import StatesRules
from blemish.detectors.components import Components
from blemish.model.reasons import InspectedFrame, ReasonSettings, with_reasons
from blemish.preprocessing.framing import Frame
from blemish.types import RGB, Attributes, BrokenRule, Features, Region

SIZE = 90
REGIONS = ((60, 60, 80, 80), (5, 5, 25, 25))  # lower right, the strongest, and upper left


def rule(*places: tuple[float, float], component: int = 2) -> BrokenRule:
    facts = {"component": component, "quantity": "count", "low": 2.0, "high": 2.0, "found": 3.0, "images": 9}
    return BrokenRule(**facts, places=places)


def described(rules: Sequence[BrokenRule], language: str = "en") -> tuple[Region, ...]:
    scores = np.zeros((SIZE, SIZE), np.float32)
    regions = []
    for peak, (left, top, right, bottom) in zip((9.0, 4.0), REGIONS, strict=True):
        scores[top:bottom, left:right] = peak
        middle = (left + right) / 2, (top + bottom) / 2
        regions.append(Region((left, top, right, bottom), (right - left) * (bottom - top), peak, peak, middle))
    inspected = InspectedFrame(
        frame=Frame(np.zeros((SIZE, SIZE, 3), np.uint8), (SIZE, SIZE)),
        features=Features({RGB: (torch.zeros(1, 9, 9, 2),)}),
        scores=scores,
        threshold=2.0,
        references=None,
        settings=ReasonSettings(language=language),
        broken_rules=rules,
    )
    return with_reasons(regions, inspected)


def test_the_region_that_holds_the_place_says_what_is_wrong() -> None:
    found = described([rule((0.5, 0.5), (0.15, 0.15))])
    assert [one.attributes.rule is not None for one in found if one.attributes] == [False, True]
    assert "three of component 2 where good parts always have two" in found[1].words
    assert found[1].words.startswith("Unusual area upper left")
    assert "component" not in found[0].words
    stated = found[1].attributes and found[1].attributes.rule
    assert stated
    np.testing.assert_allclose(stated.places, [(45, 45), (13.5, 13.5)])
    assert stated.place == "upper_left"


def test_a_place_in_no_region_is_named_by_the_nearest() -> None:
    found = described([rule((0.5, 0.1))], "de")
    assert "(oben in der Mitte)" in found[1].words
    assert "drei von Komponente 2" in found[1].words


def test_each_region_states_its_first_rule_alone() -> None:
    found = described([rule((0.7, 0.7)), rule((0.75, 0.75), component=5), rule((0.2, 0.2), component=7)])
    stated = [one.attributes.rule.component for one in found if one.attributes and one.attributes.rule]
    assert stated == [2, 7]


def test_rules_survive_json() -> None:
    attributes = described([rule((0.7, 0.7))])[0].attributes
    assert attributes is not None
    assert Attributes.from_dict(json.loads(json.dumps(attributes.to_dict()))) == attributes


def test_components_states_rules() -> None:
    assert isinstance(Components(), StatesRules)
