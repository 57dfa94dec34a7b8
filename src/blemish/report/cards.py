"""One inspected image as the page shows it: small JPEGs and words, nothing that keeps its pixels or its map alive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from blemish.errors import ImageError
from blemish.report.evidence import CalibrationFacts
from blemish.report.overlays import draw_ignored, draw_mask, draw_overlay, heat_image, strongest_regions, thumbnail
from blemish.report.page import Cell, Photo, Table, photo
from blemish.report.relief import shaded_relief
from blemish.scoring.describe import count_in_words, number, rarity_in_words, region_in_words, times_in_words
from blemish.types import Prediction, Region, Scan

# Pixels at hand, or a function that gives them (or None) if they are shown.
Picture = np.ndarray | Callable[[], np.ndarray | None] | None

_SIDE, _SMALL_SIDE = 380, 168  # pixels of a shown image, of a compact one
_MOST_REGIONS = 4  # described in words
_MOST_CROPS = 2  # shown beside good parts: about 10 kB of page each
_TONES = {
    "found": "good",
    "good": "good",
    "passed": "good",
    "unknown part": "unknown",
    "unsure": "unsure",
    "false alarm": "warn",
}


@dataclass(frozen=True)
class RegionLine:
    """A region's number on the overlay, what and where it is, and the rest of its words.

    `views` are the region as inspected and the good place it is matched with; none where there is no match.
    """

    number: int
    place: str
    rest: str
    views: tuple[Photo, ...] = ()


@dataclass(frozen=True)
class Card:
    """What the page says of one image. `views` is empty where the pixels are not at hand."""

    source: str
    name: str
    outcome: str
    tone: str
    excess: float
    times: str
    category: str | None = None
    tags: tuple[str, ...] = ()
    views: tuple[Photo, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    rarity: str = ""
    regions: tuple[RegionLine, ...] = ()
    weaker: str = ""  # how many further regions there are


def outcome_of(prediction: Prediction, label: int | None) -> str:
    """ "found", "missed", "false alarm" or "passed" where the truth is known, else the verdict in a word or two."""
    if prediction.verdict in ("unknown", "unsure"):
        return "unknown part" if prediction.verdict == "unknown" else "unsure"
    if label is None:
        return prediction.verdict
    return {
        (True, True): "found",
        (False, True): "missed",
        (True, False): "false alarm",
        (False, False): "passed",
    }[prediction.is_defective, bool(label)]


def tone_of_outcome(outcome: str) -> str:
    """The tone of an outcome's badge."""
    return _TONES.get(outcome, "defect")


def scan_views(scan: Scan) -> tuple[Picture, Picture]:
    """The image of a scan and its relief; the relief in the image's place where there is none."""
    relief = None if scan.xyz is None else partial(shaded_relief, scan.xyz)
    return (relief, None) if scan.image is None else (scan.image, relief)


def pixels(given: Picture) -> np.ndarray | None:
    """The array given, or what the function given gives; None for a file that went away since it was inspected."""
    if not callable(given):
        return given
    try:
        return given()
    except (OSError, ImageError):
        return None  # no reason to lose the report


def compact_card(prediction: Prediction, label: int | None, image: Picture) -> Card:
    """A small image with its name and score."""
    card = _base(prediction, label)
    shown = pixels(image)
    if shown is None:
        return card
    small = thumbnail(shown, _SMALL_SIDE)
    if prediction.ignored is not None:
        small = draw_ignored(small, prediction.ignored)
    return replace(card, views=(photo(small, f"{card.name}, {card.outcome}, {card.times}"),))


def full_card(
    prediction: Prediction,
    label: int | None,
    image: Picture,
    relief: Picture = None,
    mask: Picture = None,
    calibration: Sequence[CalibrationFacts] = (),
) -> Card:
    """All that is worth saying about one image: its views, its score in words, its regions."""
    card = _base(prediction, label)
    shown = pixels(image)
    if shown is not None and not prediction.map.size:  # a map that was not kept: boxes still need the image's size
        prediction = replace(prediction, map=np.zeros(shown.shape[:2], np.float32))
    regions = strongest_regions(prediction)
    further = len(regions) - _MOST_REGIONS
    return replace(
        card,
        views=() if shown is None else _views(prediction, shown, pixels(relief), pixels(mask), card.name),
        facts=(
            ("score", number(prediction.score)),
            ("limit", number(prediction.threshold)),
            ("p-value", number(prediction.p_value)),
        ),
        rarity=rarity(prediction, calibration),
        regions=tuple(_region_line(prediction, r, i + 1) for i, r in enumerate(regions[:_MOST_REGIONS])),
        weaker=f"and {count_in_words(further, 'weaker region')}" if further > 0 else "",
    )


def _base(prediction: Prediction, label: int | None) -> Card:
    outcome = outcome_of(prediction, label)
    return Card(
        source=prediction.source,
        name=Path(prediction.source).name or prediction.source,
        outcome=outcome,
        tone=tone_of_outcome(outcome),
        excess=prediction.excess,
        times=times_in_words(prediction.score, prediction.threshold),
        category=prediction.category,
        tags=(() if label is None else (outcome,)) + ((prediction.category,) if prediction.category else ()),
    )


def rarity(prediction: Prediction, calibration: Sequence[CalibrationFacts]) -> str:
    """The p-value in words; the smallest value the evidence allows is said to be just that."""
    for known in calibration:
        same = known.category in (None, prediction.category)
        if same and not len(known.scores) and prediction.p_value >= 1:
            return "there is no good score yet to compare it with"
        if same and len(known.scores) and prediction.score > np.max(known.scores):
            return f"higher than all {count_in_words(len(known.scores), 'good score')} it was compared with"
    return rarity_in_words(prediction.p_value)


def _views(
    prediction: Prediction, image: np.ndarray, relief: np.ndarray | None, mask: np.ndarray | None, name: str
) -> tuple[Photo, ...]:
    """The image plain, its relief where points were measured, marked, with the true defect where it is known."""
    small = thumbnail(image, _SIDE)
    views = [photo(small, f"{name}, as inspected", "picture")]
    if relief is not None:
        alt = f"{name}, its measured surface lit from one side"
        views.append(photo(thumbnail(relief, _SIDE), alt, "surface"))
    if prediction.verdict in ("defective", "unsure") and prediction.regions:
        marked = draw_overlay(small, prediction, strip=False, scale=1.6)
        views.append(photo(marked, f"{name}, marked: {_region_words(prediction)}", "marked"))
    else:
        heat = heat_image(prediction, (small.shape[0], small.shape[1]))
        views.append(photo(heat, f"{name}, scores as heat", "heat, the limit at mid-scale"))
    if mask is not None and np.any(mask):
        true = draw_mask(small, mask, scale=1.6)
        views.append(photo(true, f"{name}, the true defect outlined in blue", "true defect"))
    return tuple(views)


def _region_words(prediction: Prediction, region: Region | None = None) -> str:
    region = region or strongest_regions(prediction)[0]
    size = (prediction.map.shape[0], prediction.map.shape[1])
    return region.words or region_in_words(region, size, prediction.region_threshold)


def _region_line(prediction: Prediction, region: Region, place: int) -> RegionLine:
    words, _, rest = _region_words(prediction, region).partition(", ")
    name = Path(prediction.source).name or prediction.source
    views = _crop_views(region, f"{name}, region {place}") if place <= _MOST_CROPS else ()
    return RegionLine(place, words[:1].upper() + words[1:], rest, views)


def _crop_views(region: Region, name: str) -> tuple[Photo, ...]:
    """A region close up, and the place of a good part that it is compared with."""
    pair, match = region.crops, None if region.attributes is None else region.attributes.match
    if pair is None or match is None:
        return ()
    return (
        photo(pair.found, f"{name}, close up", "here"),
        photo(pair.good, f"{name}, the same place of a good part, {match.file}", f"good: {match.file}"),
    )


@dataclass(frozen=True)
class Row:
    """A line of the table of all images."""

    source: str
    outcome: str
    score: float
    threshold: float
    p_value: float
    category: str | None
    excess: float


def row_of(prediction: Prediction, label: int | None) -> Row:
    """What the table says of a prediction."""
    facts = prediction.score, prediction.threshold, prediction.p_value
    return Row(prediction.source, outcome_of(prediction, label), *facts, prediction.category, prediction.excess)


def table_of(rows: Sequence[Row]) -> Table | None:
    """The rows as a table, the furthest above the limit first; a column of categories where there are any."""
    if not rows:
        return None
    columns = ["file", "verdict", "score", "limit", "p-value", "category"]
    lines = [
        [
            row.source,
            Cell(row.outcome, tone=tone_of_outcome(row.outcome)),
            *map(number, (row.score, row.threshold, row.p_value)),
            row.category,
        ]
        for row in sorted(rows, key=lambda row: (-row.excess, row.source))
    ]
    if not any(row.category for row in rows):
        columns, lines = columns[:-1], [line[:-1] for line in lines]
    return Table(columns, lines, "Furthest above the limit first", numeric=frozenset({2, 3, 4}))
