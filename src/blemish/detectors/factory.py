"""From a detector's name and settings to a detector; settings are checked before anything is fitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blemish.detectors.base import Detector
from blemish.detectors.settings import setting_names
from blemish.errors import SettingsError
from blemish.registry import DETECTORS, lookup, resolve


def build(name: str, settings: Mapping[str, Any] | None = None, offered: Mapping[str, Any] | None = None) -> Detector:
    """The detector of that name (see `registry.DETECTORS`), not fitted.

    `settings` must all be the detector's, by their names of today or of earlier versions; of the `offered` ones it
    takes those it has and `settings` leave open.
    Raises SettingsError for an unknown name or setting.
    """
    entry = lookup(name, DETECTORS, "detector")
    make = resolve(entry.target)
    known, settings = setting_names(make), make.current_settings(settings or {})
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise SettingsError(
            f"settings of the detector {name!r}: {', '.join(known) or 'it has none'}",
            ", ".join(unknown),
            "use one of these",
        )
    extra = {key: value for key, value in (offered or {}).items() if key in known}
    try:
        return make(**{**extra, **settings})
    except (TypeError, ValueError) as error:
        raise SettingsError(f"possible settings of the detector {name!r}", str(error), "correct the value") from error
