"""The page about a model's four failure signs: the verdicts first, then each sign with its numbers and images."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from blemish.report import charts
from blemish.report.overlays import draw_mask, draw_overlay, heat_image, light_copy, thumbnail
from blemish.report.page import Markup, element, facts, figure, page, section, table, tile, write_page
from blemish.scoring.describe import count_in_words, number

if TYPE_CHECKING:
    from blemish.diagnosis.diagnosis import Diagnosis, Inspected, Measure, Sign

_SIDE = 380  # pixels of a shown image
_TONES = {"ok": "good", "warn": "warn", "not measured": ""}
_GROUPS = {"good, learned": "calm", "good, not learned": "good", "made-up spot": "defect"}
_WITH = "milliseconds in the detector with "  # opens the names of facts that are drawn as bars


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
    when = (made or datetime.now()).strftime("%Y-%m-%d %H:%M")
    text = page(
        title,
        _headline(title, when, diagnosis),
        *(_sign(sign, diagnosis) for sign in diagnosis.signs),
        section("What this rests on", *(element("p", words) for words in diagnosis.rests_on), facts(dict(model_facts))),
        _unreadable(diagnosis),
        element("footer", f"Made by blemish on {when}. This file needs no network and no other file."),
    )
    return write_page(path, text)


def _headline(title: str, when: str, diagnosis: Diagnosis) -> Markup:
    shows = [sign.name for sign in diagnosis.warnings]
    measured = sum(sign.verdict != "not measured" for sign in diagnosis.signs)
    verdict = f"Shows: {', '.join(shows)}" if shows else f"None of {count_in_words(measured, 'measured sign')} shows"
    tiles = [tile(sign.verdict, sign.name, _TONES[sign.verdict]) for sign in diagnosis.signs]
    return element(
        "header",
        element("p", f"blemish diagnosis · {when}", class_="brand"),
        element("h1", verdict),
        element("p", title, class_="lead"),
        element("div", *tiles, class_="tiles"),
    )


def _sign(sign: Sign, diagnosis: Diagnosis) -> Markup:
    rows = [
        [m.name, "–" if m.value is None else number(m.value), wanted_in_words(m), _verdict(m)] for m in sign.measures
    ]
    measured = table(
        ["measure", "value", "wanted", "verdict"],
        rows,
        caption=f"Looked for: {sign.means}",
        numeric=frozenset({1, 2}),
    )
    do = element("ul", *(element("li", _code(line)) for line in sign.advice)) if sign.verdict == "warn" else None
    shown = [_views(words, seen) for words, seen in sign.shown]
    return section(
        f"{sign.name.capitalize()}: {sign.verdict}",
        measured,
        element("h3", "What to do") if do else None,
        do,
        *shown,
        _chart(sign, diagnosis),
        facts({name: _fact(value) for name, value in sign.facts.items() if not name.startswith(_WITH)}),
    )


def wanted_in_words(measure: Measure) -> str:
    """ "at least 0.8"."""
    return f"{'at least' if measure.at_least else 'at most'} {number(measure.limit)}"


def _verdict(measure: Measure) -> Markup | str:
    if measure.value is None:
        return f"not measured: {measure.why}"
    return element("span", measure.verdict, class_=f"badge {_TONES[measure.verdict]}")


def _code(line: str) -> Markup:
    """A sentence whose parts between backquotes are code."""
    parts = line.split("`")
    return Markup("".join(element("code" if i % 2 else "span", part) for i, part in enumerate(parts) if part))


def _fact(value: object) -> object:
    return number(float(value)) if isinstance(value, (int, float)) else value


def _views(words: str, seen: Inspected) -> Markup:
    """The image, the map as heat with the limit at mid-scale, and the made-up spot outlined."""
    name = Path(seen.prediction.source).name
    small, light = thumbnail(seen.image, _SIDE), light_copy(seen.prediction, _SIDE)
    views = [(small, "picture")]
    if seen.prediction.is_defective and seen.prediction.regions:
        views.append((draw_overlay(small, light, strip=False, scale=1.6), "marked"))
    else:
        views.append((heat_image(light, (small.shape[0], small.shape[1])), "heat, the limit at mid-scale"))
    if seen.mask is not None and np.any(seen.mask):
        views.append((draw_mask(small, seen.mask, scale=1.6), "the made-up spot"))
    figures = (
        element("figure", figure(shown, f"{name}: {caption}", data_zoom=True), element("figcaption", caption))
        for shown, caption in views
    )
    score = f"score {number(seen.prediction.score)}, limit {number(seen.prediction.threshold)}"
    said = element("div", element("div", element("h3", name), class_="head"), element("p", words), element("p", score))
    return element("article", element("div", *figures, class_="views"), said, class_="part")


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


def _unreadable(diagnosis: Diagnosis) -> Markup | None:
    if not diagnosis.failures:
        return None
    items = [element("li", element("h3", file), element("p", message)) for file, message in diagnosis.failures[:100]]
    return section(f"Unreadable files ({len(diagnosis.failures):,})", element("ul", *items, class_="trouble"))
