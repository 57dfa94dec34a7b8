"""Which category an image is of, and which of those that were learned answers for it."""

from __future__ import annotations

from collections.abc import Collection

from blemish.errors import SettingsError
from blemish.types import Features

UNNAMED = ""  # the category of images that come without one


def names_of(features: Features) -> tuple[str, ...]:
    """The category of each image."""
    return features.categories if features.categories is not None else (UNNAMED,) * len(features)


def answering(name: str, learned: Collection[str]) -> str:
    """Which of the `learned` categories answers for an image of category `name`. Raises SettingsError for none."""
    if name in learned:
        return name
    if UNNAMED in learned:
        return UNNAMED
    if name == UNNAMED and len(learned) == 1:
        return next(iter(learned))
    known = ", ".join(map(repr, learned))
    raise SettingsError(f"a category among {known}", repr(name) if name else "none", "name the picture's category")


def key_of(kind: str, category: str) -> str:
    """The name under which a category's tensor of some kind is kept in a state; `partition("/")` undoes it."""
    return f"{kind}/{category}" if category else kind
