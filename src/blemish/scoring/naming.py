"""Attributes of a region → a noun and the place, by stated rules; where no rule holds it is an "unusual" area.

Points missing in half of a region make it a hole; else the first of `NOUNS` whose rule holds counts
(docs/methods/reasons.md lists them). No class of defect is learned: a noun says what is seen, and how often it agrees
with what people call such defects is measured by benchmarks/reasons.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from blemish.types import Attributes

# From the literature: ΔE2000 under 2 is hardly seen, from 5 on clear to anyone (Mokrzycki, Tatol, 2011). The others
# were chosen by eye on made-up defects on good pictures; benchmarks/reasons.py measures them.
SLIGHT, CLEAR = 2.0, 5.0  # ΔE2000
LINE, THREAD = 3.0, 5.0  # length over width of a line; of one that hardly differs in colour
ROUGHER, SMOOTHER = 1.5, 0.67  # ratio of local variance, and of gradient energy
ROUGH = 4.0  # ratio of local variance that is more telling than a slight difference in colour
SPOT = 0.03  # of the part's area, up to which it is a spot
AT_THE_EDGE = 0.1  # of the inscribed radius
HEIGHT = 0.3  # mm that a surface rises or falls by to be named after it
ALL_OVER = 0.64  # of the part's box that the region's box covers
MOST = 0.5  # of the part's area that the region itself covers: an ellipse that fills ALL_OVER of a box


def noun_of(found: Attributes, missing_points: float = 0.0) -> str:
    """The key of the noun that the first rule which holds gives; "unusual" where none does."""
    if not found.is_known:
        return "unusual"
    if missing_points >= 0.5:
        return "hole"
    return next((noun for noun, rule in NOUNS.items() if rule(found)), "unusual")


def _differs(found: Attributes, least: float) -> bool:
    return found.colour_difference is not None and found.colour_difference >= least


def _is_line(found: Attributes) -> bool:
    is_edged = (found.edge_ratio or 1.0) >= ROUGHER
    return (found.elongation >= LINE and _differs(found, SLIGHT) and is_edged) or (
        found.elongation >= THREAD and (_differs(found, SLIGHT) or is_edged)
    )


def _is_chromatic(found: Attributes) -> bool:
    """Whether chromaticity changed more than lightness."""
    chroma = ((found.redness or 0) ** 2 + (found.yellowness or 0) ** 2) ** 0.5
    return _differs(found, SLIGHT) and chroma > abs(found.lightness or 0)


def _is_lightness(found: Attributes, sign: int) -> bool:
    return _differs(found, SLIGHT) and sign * (found.lightness or 0) > 0 and not _is_chromatic(found)


def _is_rough(found: Attributes) -> bool:
    least = ROUGH if _differs(found, SLIGHT) else ROUGHER
    return (found.texture_ratio or 1.0) >= least and not _differs(found, CLEAR)


NOUNS: Mapping[str, Callable[[Attributes], bool]] = MappingProxyType(
    {
        "hole": lambda a: a.presence == "missing" and a.edge_distance is not None and a.edge_distance >= AT_THE_EDGE,
        "missing": lambda a: a.presence == "missing",
        "extra": lambda a: a.presence == "extra",
        "dent": lambda a: a.height_mm is not None and a.height_mm <= -HEIGHT,
        "bump": lambda a: a.height_mm is not None and a.height_mm >= HEIGHT,
        "line": _is_line,
        "rough": _is_rough,
        "discoloured": _is_chromatic,
        "dark_spot": lambda a: _is_lightness(a, -1) and a.area_share <= SPOT,
        "dark_area": lambda a: _is_lightness(a, -1),
        "bright_spot": lambda a: _is_lightness(a, +1) and a.area_share <= SPOT,
        "bright_area": lambda a: _is_lightness(a, +1),
        "smooth": lambda a: (a.texture_ratio or 1) <= SMOOTHER,
    }
)

_ROWS, _COLUMNS = ("upper", "", "lower"), ("left", "", "right")


def place_of(on_part: tuple[float, float], extent: tuple[float, float] = (0.0, 0.0), area_share: float = 0.0) -> str:
    """The key of the place of (u, v) in [0, 1]²: one of nine, or "all_over" where the region spreads over most of it.

    `extent` is the (width, height) of the region's box over those of the part's, `area_share` the region's area over
    the part's: a ring, or a few specks in a large box, are at the place of their centre.
    """
    if extent[0] * extent[1] >= ALL_OVER and area_share >= MOST:
        return "all_over"
    row, column = (
        names[min(2, max(0, int(3 * value)))] for value, names in zip(on_part[::-1], (_ROWS, _COLUMNS), strict=True)
    )
    return "_".join(word for word in (row, column) if word) or "centre"


def differences_of(found: Attributes) -> list[str]:
    """Keys of the words on how the region differs, the most telling first; "slightly_" before colours hardly seen."""
    words: list[tuple[float, str]] = []
    if _differs(found, SLIGHT):
        slightly = "" if _differs(found, CLEAR) else "slightly_"
        lightness, red, yellow = found.lightness or 0, found.redness or 0, found.yellowness or 0
        for value, low, high in (
            (lightness, "darker", "brighter"),
            (red, "greener", "redder"),
            (yellow, "bluer", "yellower"),
        ):
            if abs(value) >= max(SLIGHT, 0.4 * max(abs(lightness), abs(red), abs(yellow))):
                words.append((abs(value), slightly + (low if value < 0 else high)))
    for ratio, low, high in (
        (found.texture_ratio, "smoother", "rougher"),
        (found.edge_ratio, "blurred", "sharper"),
    ):
        # Edges are not said beside colour: the outline of what has another colour is one.
        if ratio is not None and not (words and high == "sharper"):
            if ratio >= ROUGHER:
                words.append((min(ratio, 4.0) * 2, high))
            elif ratio <= SMOOTHER:
                words.append((min(1 / ratio, 4.0) * 2, low))
    return [word for _, word in sorted(words, key=lambda item: -item[0])]
