"""The category of each image, which of the fitted categories it is compared with, and names of tensors by category."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

from blemish.errors import SettingsError
from blemish.types import Features

UNNAMED = ""  # the category of images that come without one

Value = TypeVar("Value")


def categories_of(features: Features) -> tuple[str, ...]:
    """The category of each image, `UNNAMED` where there is none."""
    return features.categories if features.categories is not None else (UNNAMED,) * len(features)


def matching_category(name: str, fitted: Collection[str]) -> str:
    """Which of the `fitted` categories an image of category `name` is compared with. Raises SettingsError for none."""
    if name in fitted:
        return name
    if UNNAMED in fitted:
        return UNNAMED
    if name == UNNAMED and len(fitted) == 1:
        return next(iter(fitted))
    known = ", ".join(map(repr, fitted))
    raise SettingsError(f"a category among {known}", repr(name) if name else "none", "name the picture's category")


def state_key(kind: str, category: str) -> str:
    """The name of a category's tensor of some kind in a state: "kind/category", "kind" where it is unnamed."""
    return f"{kind}/{category}" if category else kind


def by_category(state: Mapping[str, Value], kind: str) -> dict[str, Value]:
    """All of a kind in a state, by category: takes back the names that `state_key` made."""
    return {key.partition("/")[2]: value for key, value in state.items() if key.partition("/")[0] == kind}
