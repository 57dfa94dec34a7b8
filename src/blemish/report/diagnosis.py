"""The page about a model's five failure signs: the verdicts first, then each sign with its numbers and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from blemish.report import charts
from blemish.report.overlays import draw_mask, draw_overlay, heat_image, thumbnail
from blemish.report.page import Cell, Photo, Table, Tile, code_spans, facts_of, left_out, photo, render
from blemish.scoring.describe import count_in_words, number
from blemish.utils.atomic import write_text

if TYPE_CHECKING:
    from blemish.diagnosis import Diagnosis, InspectedImage, Measure, Sign

_SIDE = 380  # pixels of a shown image
_MOST_FAILURES = 100
_TONES = {"ok": "good", "warn": "warn", "not measured": ""}
_GROUPS = {"good, learned": "calm", "good, not learned": "good", "made-up spot": "defect"}
_WITH = "milliseconds in the detector with "  # opens the names of facts that are drawn as bars


@dataclass(frozen=True)
class _SignView:
    """One sign as its section shows it; `advice` is empty where the sign does not show."""

    heading: str
    measures: Table
    advice: list[list[tuple[bool, str]]]
    shown: list[_ExampleView]
    chart: Markup | None
    facts: dict[str, object]


@dataclass(frozen=True)
class _ExampleView:
    """One image that a sign was measured on."""

    name: str
    words: str
    score: str
    views: list[Photo]


def write_diagnosis_report(
    path: str | Path,
    *,
    title: str,
    model_facts: Mapping[str, object],
    diagnosis: Diagnosis,
    made: datetime | None = None,
) -> Path:
    """Write one self-contained HTML page about a diagnosis and return its path.

    Raises OutputError when the page cannot be written.
    """
    shows = [sign.name for sign in diagnosis.warnings]
    measured = sum(sign.finding != "not measured" for sign in diagnosis.signs)
    text = render(
        "diagnosis.html",
        made=made,
        kind="diagnosis",
        title=title,
        verdict=f"Shows: {', '.join(shows)}" if shows else f"None of {count_in_words(measured, 'measured sign')} shows",
        tiles=[Tile(sign.finding, sign.name, _TONES[sign.finding]) for sign in diagnosis.signs],
        signs=[_sign(sign, diagnosis) for sign in diagnosis.signs],
        rests_on=diagnosis.rests_on,
        model_facts=facts_of(model_facts),
        failed=diagnosis.failures[:_MOST_FAILURES],
        failures=len(diagnosis.failures),
        more_failures=left_out(len(diagnosis.failures) - _MOST_FAILURES, "unreadable file", "not listed"),
    )
    return write_text(path, text)


def _sign(sign: Sign, diagnosis: Diagnosis) -> _SignView:
    rows = [
        [m.name, None if m.value is None else number(m.value), wanted_in_words(m), _verdict(m)] for m in sign.measures
    ]
    columns = ["measure", "value", "wanted", "verdict"]
    return _SignView(
        heading=f"{sign.name.capitalize()}: {sign.finding}",
        measures=Table(columns, rows, f"Looked for: {sign.means}", frozenset({1, 2})),
        advice=[code_spans(line) for line in sign.advice] if sign.finding == "warn" else [],
        shown=[_example(words, seen) for words, seen in sign.shown],
        chart=_chart(sign, diagnosis),
        facts=facts_of({name: _fact(value) for name, value in sign.facts.items() if not name.startswith(_WITH)}),
    )


def wanted_in_words(measure: Measure) -> str:
    """ "at least 0.8"."""
    return f"{'at least' if measure.at_least else 'at most'} {number(measure.threshold)}"


def _verdict(measure: Measure) -> Cell | str:
    if measure.value is None:
        return f"not measured: {measure.why}"
    return Cell(measure.finding, tone=_TONES[measure.finding])


def _fact(value: object) -> object:
    return number(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _example(words: str, seen: InspectedImage) -> _ExampleView:
    """The image, the map as heat with the limit at mid-scale, and the made-up spot outlined."""
    name = Path(seen.prediction.source).name
    small = thumbnail(seen.image, _SIDE)
    views = [photo(small, f"{name}: picture", "picture")]
    if seen.prediction.is_defective and seen.prediction.regions:
        marked = draw_overlay(small, seen.prediction, strip=False, scale=1.6)
        views.append(photo(marked, f"{name}: marked", "marked"))
    else:
        caption = "heat, the limit at mid-scale"
        heat = heat_image(seen.prediction, (small.shape[0], small.shape[1]))
        views.append(photo(heat, f"{name}: {caption}", caption))
    if seen.mask is not None and np.any(seen.mask):
        views.append(photo(draw_mask(small, seen.mask, scale=1.6), f"{name}: the made-up spot", "the made-up spot"))
    score = f"score {number(seen.prediction.score)}, limit {number(seen.prediction.threshold)}"
    return _ExampleView(name, words, score, views)


def _chart(sign: Sign, diagnosis: Diagnosis) -> Markup | None:
    if sign.name == "over-fitting" and diagnosis.scores:
        groups = [charts.Group(name, values, _GROUPS[name]) for name, values in diagnosis.scores.items()]
        return charts.histogram(groups, title="Scores, in times that of a typical good part", width=1040, bins=72)
    bars = [
        charts.Bar(name.removeprefix(_WITH), float(value), f"{number(float(value))} ms")
        for name, value in sign.facts.items()
        if name.startswith(_WITH) and isinstance(value, float)
    ]
    return charts.bar_chart(bars, title="Time in the detector by what is stored") if bars else None
