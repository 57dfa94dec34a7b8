"""Impossible values are refused before anything is computed with them; what a field may hold is declared as data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from blemish.errors import SettingsError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SEED = "a whole number from 0 to 2**64 - 1"
LARGEST_SEED = 2**32 - 1  # that every source of random numbers takes, numpy's RandomState too
Check = tuple[str, str, bool]  # an attribute's name, what it is expected to be, whether it is


def check(owner: object, *checks: Check) -> None:
    """Raise SettingsError for the first of `checks` of `owner`'s attributes that does not hold."""
    for name, expected, holds in checks:
        if not holds:
            raise SettingsError(f"{name} to be {expected}", repr(getattr(owner, name)), "correct this setting")


def whole(owner: object, least: int, *names: str) -> list[Check]:
    """That these settings are whole numbers of at least `least`."""
    return [(name, f"a whole number ≥ {least}", is_whole(getattr(owner, name), least)) for name in names]


def is_whole(value: object, least: int = 1) -> bool:
    """Whether it is a whole number of at least `least`; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_seed(value: object) -> bool:
    """Whether torch and numpy take it to draw random numbers from."""
    return isinstance(value, int) and is_whole(value, 0) and value < 2**64


def check_seed(seed: int) -> None:
    """Raise SettingsError for a seed that torch or numpy would refuse."""
    if not is_seed(seed):
        raise SettingsError(f"seed to be {SEED}", repr(seed), "correct this setting")


def is_number(value: object) -> bool:
    """Whether it is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True)
class Interval:
    """The numbers from `least` to `most`; `closed` says which ends belong to them, as in scikit-learn's `Interval`.

    An infinite end never belongs: every number of a setting is finite.
    """

    least: float = -math.inf
    most: float = math.inf
    closed: Literal["both", "left", "right", "neither"] = "both"

    @property
    def expected(self) -> str:
        """The interval in words that follow "a number": "≥ 1", "above 0" or "in [0, 1)"."""
        from_least, to_most = self.closed in ("both", "left"), self.closed in ("both", "right")
        if self.most < math.inf:
            return f"in {'[' if from_least else '('}{self.least:g}, {self.most:g}{']' if to_most else ')'}"
        return f"≥ {self.least:g}" if from_least else f"above {self.least:g}"

    def holds(self, value: float) -> bool:
        low = value >= self.least if self.closed in ("both", "left") else value > self.least
        high = value <= self.most if self.closed in ("both", "right") else value < self.most
        return low and high


@dataclass(frozen=True)
class Rule:
    """What a value must be, in words, and whether it is."""

    expected: str
    holds: Callable[[Any], bool]


def check_fields(owner: DataclassInstance) -> None:
    """Raise SettingsError for the first field of a dataclass whose value is not of its declared type and range.

    A field's annotation says all: `bool`, `int`, `float`, `str`, a `Literal`, `Annotated[T, Interval(…)]`,
    `Annotated[T, Rule(…)]`, `Sequence[T]` (of one or more), `Mapping` and `T | None` of these. Numbers must be finite;
    true and false are no numbers.
    """
    for name, rule in _rules(type(owner)).items():
        if not rule.holds(value := getattr(owner, name)):
            raise SettingsError(f"{name} to be {rule.expected}", repr(value), "correct this setting")


@cache
def _rules(owner: type[DataclassInstance]) -> dict[str, Rule]:
    hints = get_type_hints(owner, include_extras=True)
    return {field.name: rule_of(hints[field.name]) for field in fields(owner)}


def rule_of(hint: Any) -> Rule:
    """The rule that a type hint stands for. Raises TypeError for a hint that says nothing which can be checked."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated(rule_of(arguments[0]), arguments[1:])
    if origin in (Union, UnionType) and len(arguments) == 2 and arguments[1] is NoneType:
        inner = rule_of(arguments[0])
        return Rule(f"{inner.expected}, or None", lambda value: value is None or inner.holds(value))
    if origin is Literal:
        words = [str(one) for one in arguments]
        expected = " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
        return Rule(expected, lambda value: isinstance(value, str) and value in arguments)
    if origin is Sequence:
        item = rule_of(arguments[0])
        return Rule(
            f"a list of at least one, each {item.expected}",
            lambda value: isinstance(value, (list, tuple)) and len(value) > 0 and all(map(item.holds, value)),
        )
    if origin is Mapping:
        return Rule("names and values", lambda value: isinstance(value, Mapping))
    if hint in _PLAIN:
        return _PLAIN[hint]
    raise TypeError(f"expected the type of a setting that can be checked; got {hint!r}; see check_fields")


_PLAIN: dict[Any, Rule] = {
    bool: Rule("true or false", lambda value: isinstance(value, bool)),
    int: Rule("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: Rule("a number", lambda value: is_number(value) and math.isfinite(value)),
    str: Rule("text", lambda value: isinstance(value, str)),
}


def _annotated(kind: Rule, constraints: Sequence[Any]) -> Rule:
    """`kind`, and every interval and rule of `constraints` besides; a rule's words replace those before it."""
    rules = [one for one in constraints if isinstance(one, (Interval, Rule))]
    expected = kind.expected
    for rule in rules:
        expected = f"{expected} {rule.expected}" if isinstance(rule, Interval) else rule.expected
    return Rule(expected, lambda value: kind.holds(value) and all(rule.holds(value) for rule in rules))
