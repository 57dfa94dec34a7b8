"""Fields declare their type and range; every value is accepted or refused as the declaration says, at both ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from blemish.errors import SettingsError
from blemish.utils.validation import Interval, Rule, check_fields, rule_of

EVEN = Rule("an even number", lambda value: value % 2 == 0)

CASES: list[tuple[Any, list[object], list[object]]] = [
    (bool, [True, False], [0, 1, None, "true"]),
    (int, [-3, 0, 7], [True, 1.0, "1", None]),
    (float, [-0.5, 0, 2], [True, math.nan, math.inf, "1"]),
    (str, ["", "a"], [1, None]),
    (Literal["l2", "cosine"], ["l2", "cosine"], ["L2", "", None, ["l2"]]),
    (Annotated[int, Interval(1)], [1, 100], [0, -1, True, 1.5]),
    (Annotated[float, Interval(0, 1)], [0, 1, 0.3], [-1e-9, 1 + 1e-9, math.nan]),
    (Annotated[float, Interval(0, 1, closed="left")], [0, 0.999], [1, -0.1]),
    (Annotated[float, Interval(0, 1, closed="right")], [1, 0.001], [0]),
    (Annotated[float, Interval(0, closed="neither")], [1e-9, 1e9], [0, math.inf]),
    (Annotated[int, EVEN], [2, 0], [3, 2.0]),
    (Annotated[int, Interval(1)] | None, [None, 1], [0]),
    (Sequence[Annotated[float, Interval(0)]], [[0.0], (1, 2)], [[], [-1.0], 1.0, "12", [True]]),
    (Mapping[str, Any], [{}, {"a": 1}], [[], None]),
]


@pytest.mark.parametrize(("hint", "right", "wrong"), CASES, ids=lambda case: str(case)[:60])
def test_what_a_hint_lets_through(hint: Any, right: list[object], wrong: list[object]) -> None:
    rule = rule_of(hint)
    assert [value for value in right if not rule.holds(value)] == []
    assert [value for value in wrong if rule.holds(value)] == []


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Annotated[int, Interval(1)], "a whole number ≥ 1"),
        (Annotated[float, Interval(0, closed="neither")], "a number above 0"),
        (Annotated[float, Interval(0, 1, closed="left")], "a number in [0, 1)"),
        (Annotated[int, EVEN] | None, "an even number, or None"),
        (Literal["a", "b", "c"], "a, b or c"),
        (Sequence[bool], "a list of at least one, each true or false"),
    ],
)
def test_what_is_expected_is_said_in_words(hint: Any, words: str) -> None:
    assert rule_of(hint).expected == words


@dataclass(kw_only=True)
class Sized:
    width: Annotated[int, Interval(1)] = 4
    kind: Literal["plain", "part"] = "plain"


@dataclass(kw_only=True)
class Named(Sized):
    width: Annotated[int, Interval(2)] = 8  # stricter than the parent's
    name: str = ""


def test_a_message_names_the_field_the_range_the_value_and_what_to_do() -> None:
    check_fields(Sized())
    with pytest.raises(SettingsError, match="expected width to be a whole number ≥ 1; got 0; correct this setting"):
        check_fields(Sized(width=0))


def test_a_subclass_checks_its_own_fields_and_those_it_inherits() -> None:
    check_fields(Sized(width=1))
    for wrong in (Named(width=1), Named(kind="other"), Named(name=3)):  # type: ignore[arg-type]
        with pytest.raises(SettingsError):
            check_fields(wrong)


@pytest.mark.parametrize("hint", [Any, list, Callable[[], int], int | str, object])
def test_a_type_that_cannot_be_checked_is_refused(hint: Any) -> None:
    with pytest.raises(TypeError, match="can be checked"):
        rule_of(hint)
