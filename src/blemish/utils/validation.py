"""Settings that cannot be are refused before anything is learned: what is wished of each, checked in one place."""

from __future__ import annotations

from blemish.errors import SettingsError

Wish = tuple[str, str, bool]  # a setting's name, what it is expected to be, whether it is


def check(owner: object, *wishes: Wish) -> None:
    """Raise SettingsError for the first wish that does not hold of `owner`'s attributes."""
    for name, expected, holds in wishes:
        if not holds:
            raise SettingsError(f"{name} to be {expected}", repr(getattr(owner, name)), "correct this setting")


def whole(owner: object, least: int, *names: str) -> list[Wish]:
    """That these settings are whole numbers of at least `least`."""
    return [(name, f"a whole number ≥ {least}", is_whole(getattr(owner, name), least)) for name in names]


def flags(owner: object, *names: str) -> list[Wish]:
    """That these settings are true or false."""
    return [(name, "true or false", isinstance(getattr(owner, name), bool)) for name in names]


def among(owner: object, name: str, *choices: str) -> Wish:
    """That a setting is one of `choices`."""
    return name, f"{', '.join(choices[:-1])} or {choices[-1]}", getattr(owner, name) in choices


def is_whole(value: object, least: int = 1) -> bool:
    """Whether it is a whole number of at least `least`; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> bool:
    """Whether it is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_share(value: object) -> bool:
    """Whether it is a number in [0, 1]."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
