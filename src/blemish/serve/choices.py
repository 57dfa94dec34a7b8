"""What a product can learn by on this machine: methods, encoders and picture sizes, and the check of what was chosen.

Only registered names count: a folder's name that came by the web would reach whatever the service may read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from blemish.detectors import factory
from blemish.detectors.base import Needs
from blemish.encoders.availability import availability
from blemish.errors import SettingsError
from blemish.model.settings import automatic_detector
from blemish.registry import DETECTORS, ENCODERS, joined_names, lookup
from blemish.serve.records import ProductSettings
from blemish.types import POINTS, RGB

SMALLEST, LARGEST = 32, 2048  # pixels: below nothing is seen; above a picture alone may fill a machine's memory
CHOSEN = frozenset({"detector", "detector_settings", "encoder", "image_size"})  # the settings that are checked here


@dataclass(frozen=True)
class Choice:
    """A name that can be chosen, and a few words on it."""

    name: str
    note: str


def detectors() -> list[Choice]:
    """The methods that learn from pictures alone."""
    return [
        Choice(name, entry.summary)
        for name, entry in DETECTORS.items()
        if sees_pictures_alone(factory.build(name, {}, {}).needs)
    ]


def encoders() -> list[Choice]:
    """The encoders of pictures whose weights are on this machine, those that a method takes joined included."""
    single = [Choice(name, one.note) for name, one in ENCODERS.items() if one.modality == RGB]
    joined = dict.fromkeys(name for one in detectors() for name in DETECTORS[one.name].encoders if "+" in name)
    pairs = [Choice(name, "both side by side") for name in joined if all(part in ENCODERS for part in name.split("+"))]
    return [one for one in (*pairs, *single) if availability(one.name).loads]


def choices() -> dict[str, Any]:
    """All that can be chosen, and what holds where nothing is, ready for JSON."""
    return {
        "detectors": [asdict(one) for one in detectors()],
        "encoders": [asdict(one) for one in encoders()],
        "image_size": {"least": SMALLEST, "most": LARGEST},
        "defaults": asdict(ProductSettings()),
    }


def check_choices(settings: ProductSettings) -> None:
    """Raise SettingsError for a method, encoder or picture size that a product cannot learn by here."""
    detector = automatic_detector(settings.encoder) if settings.detector == "auto" else settings.detector
    needs = factory.build(detector, dict(settings.detector_settings), {}).needs
    if not sees_pictures_alone(needs):
        raise SettingsError(
            "a method that learns from pictures alone",
            f"{detector!r}, which needs {'points' if POINTS in needs.modalities else 'sentences'}",
            "choose from GET /api/choices",
        )
    if settings.encoder != "auto":
        check_encoder(settings.encoder, detector, len(needs.layers) if isinstance(needs.layers, tuple) else 1)
    size = settings.image_size
    if size is not None and not SMALLEST <= size <= LARGEST:
        raise SettingsError(f"a picture size of {SMALLEST} to {LARGEST} pixels", str(size), "choose one between them")


def check_encoder(encoder: str, detector: str, parts: int) -> None:
    """Raise SettingsError for an encoder that cannot load here, or is not of as many `parts` as the detector needs."""
    names = joined_names(encoder)
    for name in names:
        if lookup(name, ENCODERS, "encoder").modality != RGB:
            raise SettingsError("an encoder of pictures", repr(name), "choose from GET /api/choices")
    if len(names) < parts:
        raise SettingsError(
            f"{parts} encoders joined by +, as {detector!r} needs", repr(encoder), "name one more, or choose auto"
        )
    found = availability(encoder)
    if not found.loads:
        raise SettingsError("an encoder that is on this machine", f"{encoder!r}: {found.why}", "choose auto")


def sees_pictures_alone(needs: Needs) -> bool:
    """Whether a detector needs neither points nor sentences."""
    return POINTS not in needs.modalities and needs.prompts is None
