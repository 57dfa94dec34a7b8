"""Images → Features: frozen networks, one loader a file, found by name through `build`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blemish.encoders.availability import Availability, automatic_encoder, availability, best_available

if TYPE_CHECKING:
    from blemish.encoders.factory import build

__all__ = ["Availability", "automatic_encoder", "availability", "best_available", "build"]


def __getattr__(name: str) -> Any:
    # Building needs torch; listing what is available does not.
    if name == "build":
        from blemish.encoders.factory import build

        return build
    raise AttributeError(name)
