"""Images → Features: frozen networks, one loader a file, found by name through `build`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blemish.encoders.availability import Availability, automatic_encoder, availability, best_available
from blemish.utils.lazy_names import resolve_in

if TYPE_CHECKING:
    from blemish.encoders.factory import build

__all__ = ["Availability", "automatic_encoder", "availability", "best_available", "build"]


def __getattr__(name: str) -> Any:
    return resolve_in(__name__, {"build": "factory"}, name)  # it needs torch; listing what is available does not
