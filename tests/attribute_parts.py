"""Attributes of a region, as the least that must be said; tests change what they are about."""

from __future__ import annotations

from blemish.types import Attributes

DARK_SPOT = Attributes(
    noun="dark_spot",
    place="centre",
    centre=(5.0, 5.0),
    on_part=(0.5, 0.5),
    is_of_part=False,
    area_share=0.02,
    length=4.0,
    width=4.0,
    elongation=1.0,
    degrees=0.0,
    strength=2.0,
)
