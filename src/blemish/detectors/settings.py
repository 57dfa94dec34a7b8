"""Settings of detectors: fields of a keyword-only dataclass, each with its range in its type, checked on creation.

    @dataclass(kw_only=True, eq=False, repr=False)
    class KMeans(Configurable):
        clusters: Count = 8
        metric: Literal["l2", "cosine"] = "l2"
        seed: Seed = 0

`KMeans(clusters=0)` raises a SettingsError; `KMeans().settings` is what rebuilds it and goes through JSON. A setting is
declared in one place: its name, type, range and default in its field, what it means in the class docstring. Rules that
join several settings follow in `__post_init__`, after `super().__post_init__()`. What `fit` learns is no field: it is
assigned to names that end in `_` and annotated where it is assigned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from blemish.errors import SettingsError
from blemish.numeric.pooling import pooled_counts
from blemish.utils.validation import SEED, Interval, Rule, check_fields, is_seed


def _is_pooling(value: str) -> bool:
    try:
        pooled_counts(value, 1)
    except SettingsError:
        return False
    return True


Count = Annotated[int, Interval(1)]
CountOrZero = Annotated[int, Interval(0)]  # 0: none, or no limit
Seed = Annotated[int, Rule(SEED, is_seed)]
Odd = Annotated[int, Rule("an odd number ≥ 1", lambda value: value >= 1 and value % 2 == 1)]
Positive = Annotated[float, Interval(0, closed="neither")]
NotNegative = Annotated[float, Interval(0)]
Fraction = Annotated[float, Interval(0, 1)]
FractionBelowOne = Annotated[float, Interval(0, 1, closed="left")]
FractionAboveZero = Annotated[float, Interval(0, 1, closed="right")]
Pooling = Annotated[
    str, Rule("a pooling such as max, top:0.01 (a share), top:10 (a count) or top:0.01,0.1", _is_pooling)
]
ImageFraming = Literal["plain", "part"]  # of images; see preprocessing/framing.py

# Names of settings in earlier versions: saved models hold them, and so may what users type after `--set`.
OLD_NAMES = {
    "aggregation": "neighbourhood_size",
    "average": "ema_decay",
    "clip": "max_grad_norm",
    "coreset": "coreset_ratio",
    "least_patches": "min_patches",
    "most_copies": "max_copies",
    "most_patches": "max_patches",
    "reweight": "reweighting_neighbours",
    "sample": "reservoir_size",
    "warmup": "warmup_steps",
}


@dataclass(kw_only=True, eq=False, repr=False)
class Configurable:
    """What is configured by its fields alone: a detector, before and after it is fitted."""

    def __post_init__(self) -> None:
        """Raise SettingsError for the first setting that cannot be. Overridden to check what joins several settings."""
        check_fields(self)

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments that rebuild this detector, not fitted; JSON can hold them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def current_settings(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """`settings` with the names of earlier versions replaced by those of today (see `OLD_NAMES`).

        Raises SettingsError where a setting is given under both.
        """
        known = setting_names(cls)
        found: dict[str, Any] = {}
        for name, value in settings.items():
            new = OLD_NAMES.get(name, name)
            current = new if name not in known and new in known else name
            if current in found or (current != name and current in settings):
                raise SettingsError("every setting once", f"{name} and {current}", f"keep {current}")
            found[current] = value
        return found


def setting_names(configurable: type[Configurable]) -> tuple[str, ...]:
    """The names of all settings, in the order in which they are declared."""
    return tuple(field.name for field in fields(configurable))


def check_heads(width: int, heads: int, do: str = "change width or heads") -> None:
    """Raise SettingsError unless `heads` attention heads divide `width`."""
    if width % heads:
        raise SettingsError(f"a width that {heads} heads divide", str(width), do)
