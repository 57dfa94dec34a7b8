"""What decides the features of an encoder: its weights, and the settings that come beside them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from blemish.utils.hashing import json_sha256

if TYPE_CHECKING:
    from blemish.encoders.base import Encoder, PointsEncoder


def feature_settings(encoder: Encoder | PointsEncoder) -> dict[str, Any]:
    """What beside weights, layers and precision decides an encoder's features, by name, as JSON holds it.

    Encoders state it as an attribute `feature_settings`; {} for those without one.
    """
    found: dict[str, Any] = json.loads(json.dumps(getattr(encoder, "feature_settings", {})))
    return found


def joined_settings(**parts: Encoder | PointsEncoder) -> dict[str, Any]:
    """The feature settings of several encoders in one: `PART.NAME`."""
    return {f"{part}.{name}": value for part, one in parts.items() for name, value in feature_settings(one).items()}


def identity(encoder: Encoder | PointsEncoder) -> str:
    """A sha256 of an encoder's weights and its feature settings; that of the weights where it states no settings.

    Two encoders of one identity give the same features for the same layers in the same precision.
    """
    settings = feature_settings(encoder)
    return json_sha256({"weights": encoder.weights_sha256, **settings}) if settings else encoder.weights_sha256
