"""The page about one experiment: the question, what was found and by which rule, plots, tables, seeds and spread."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from blemish.report import charts
from blemish.report.page import Markup, element, page, section, table, write_page
from blemish.research.experiments.base import BarChart
from blemish.scoring.describe import count_in_words, number

if TYPE_CHECKING:
    from blemish.research.experiments.base import Chart, CurveChart, Experiment, Matrix, Row, Values

_TONES = ("accent", "defect", "good", "unknown", "calm")
_MOST_ROWS = 500


def write_experiment_report(
    path: str | Path,
    name: str,
    experiment: Experiment,
    rows: Sequence[Row],
    *,
    missing: int = 0,
    command: str = "",
    made: datetime | None = None,
) -> Path:
    """Write one self-contained HTML page from the rows of an experiment and return its path.

    `missing` cells of the plan have no rows yet. Raises OutputError when the page cannot be written.
    """
    when = (made or datetime.now()).strftime("%Y-%m-%d %H:%M")
    text = page(
        f"Experiment {name}",
        _headline(name, experiment, rows, missing, when),
        _verdict(experiment, rows),
        _plots(experiment, rows),
        _tables(experiment, rows),
        _conditions(experiment, rows),
        _raw(rows),
        section("How to repeat it", element("pre", element("code", command))) if command else None,
        element("footer", f"Made by blemish on {when}. This file needs no network and no other file."),
    )
    return write_page(path, text)


def _headline(name: str, experiment: Experiment, rows: Sequence[Row], missing: int, when: str) -> Markup:
    seeds = sorted({row["seed"] for row in rows})
    counts = f"{count_in_words(len(rows), 'row')}, {count_in_words(len(seeds), 'seed')} ({', '.join(map(str, seeds))})"
    left = f"Unfinished: {count_in_words(missing, 'cell')} of the plan not measured yet; the same command goes on."
    return element(
        "header",
        element("p", f"blemish experiment {name} · {when}", class_="brand"),
        element("h1", experiment.QUESTION),
        element("p", experiment.SOURCE, class_="lead"),
        element("p", counts, class_="note"),
        element("p", element("b", left)) if missing else None,
    )


def _verdict(experiment: Experiment, rows: Sequence[Row]) -> Markup:
    if not rows:
        return section("Verdict", element("p", "Nothing has been measured yet."))
    found = experiment.verdict(rows)
    said = element("ul", *(element("li", sentence) for sentence in found.sentences))
    return section("Verdict", said, note=f"Worked out from the numbers: {found.rule}", id_="verdict")


def _plots(experiment: Experiment, rows: Sequence[Row]) -> Markup | None:
    drawn = [image for chart in (experiment.charts(rows) if rows else []) for image in _drawn(chart)]
    if not drawn:
        return None
    note = "Means; whiskers and ± are one standard deviation over categories and seeds."
    return section("Plots", charts.small_multiples(drawn), note=note)


def _drawn(chart: Chart) -> list[Markup]:
    """A chart as one image, or as several where it has more curves than there are tones."""
    if isinstance(chart, BarChart):
        return [_bars(chart)]
    lines, most = chart.curves, len(_TONES)
    return [_curves(chart, range(start, min(start + most, len(lines)))) for start in range(0, len(lines), most)]


def _bars(chart: BarChart) -> Markup:
    bars = [charts.Bar(name, fmean(values), mean_and_spread(values)) for name, values in chart.bars.items()]
    return charts.bar_chart(bars, title=chart.title, maximum=chart.maximum, width=560)


def _curves(chart: CurveChart, chosen: range) -> Markup:
    position = {name: float(i) for i, name in enumerate(chart.x)}
    lines, heights = [], []
    for index in chosen:
        curve = chart.curves[index]
        known = [name for name in chart.x if curve.values.get(name)]
        means = np.array([fmean(curve.values[name]) for name in known])
        spread = np.array([spread_of(curve.values[name]) for name in known])
        at = np.array([position[name] for name in known])
        lines.append(charts.Line(curve.name, at, means, _TONES[index % len(_TONES)], spread))
        heights += [*(means - spread).tolist(), *(means + spread).tolist()]
    if chart.threshold is not None:
        heights.append(chart.threshold[1])
    low, high = min(heights), max(heights)
    room = 0.06 * (high - low) or 0.05
    told = "; ".join(f"{line.name} {', '.join(number(float(y)) for y in line.y)}" for line in lines)
    return charts.curve_chart(
        lines,
        title=chart.title,
        x_label=chart.x_label,
        y_label=chart.y_label,
        x_range=(-0.3, len(chart.x) - 0.7),
        y_range=(max(0.0, low - room) if low >= 0 else low - room, high + room),
        x_names={at: name for name, at in position.items()},
        level=chart.threshold,
        says=f"{chart.title}: {chart.y_label} at {', '.join(chart.x)}; {told}",
    )


def _tables(experiment: Experiment, rows: Sequence[Row]) -> Markup | None:
    drawn = [_matrix(each) for each in (experiment.tables(rows) if rows else []) if each.cells]
    note = "Mean ± standard deviation over what is not named, seeds at least; the best of each line is bold."
    return section("Tables", *drawn, note=note) if drawn else None


def _matrix(found: Matrix) -> Markup:
    down = list(dict.fromkeys(name for name, _ in found.cells))
    across = _ordered(dict.fromkeys(name for _, name in found.cells))
    body: list[list[object]] = []
    for name in down:
        means = [round(fmean(found.cells[name, to]), 3) for to in across if (name, to) in found.cells]
        best = max(means) if found.higher_is_better and len(means) > 1 else math.inf
        body.append([name, *(_cell(found.cells.get((name, to)), best) for to in across)])
    return table([found.corner, *across], body, caption=found.title, numeric=frozenset(range(1, len(across) + 1)))


def _ordered(names: Mapping[str, object]) -> list[str]:
    """Numbers by size; words stay in their order, behind them."""

    def place(name: str) -> tuple[int, float]:
        try:
            return 0, float(name)
        except ValueError:
            return 1, 0.0

    return sorted(names, key=place)


def _cell(values: Values | None, best: float) -> Markup:
    if not values:
        return element("td", "–", class_="n")
    beside = element("small", f" ± {said(spread_of(values), fmean(values))}") if len(values) > 1 else None
    is_best = round(fmean(values), 3) >= best
    return element("td", said(fmean(values), fmean(values)), beside, class_="n best" if is_best else "n")


def spread_of(values: Values) -> float:
    """The standard deviation, 0 for a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def mean_and_spread(values: Values) -> str:
    """ "0.950 ± 0.010", the mean alone where no spread is known."""
    mean = fmean(values)
    return said(mean, mean) + (f" ± {said(spread_of(values), mean)}" if len(values) > 1 else "")


def said(value: float, beside: float) -> str:
    """Three decimals for shares and the like, none for large numbers; a spread takes those of its mean."""
    size = abs(beside)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3f}"


def _conditions(experiment: Experiment, rows: Sequence[Row]) -> Markup:
    notes = element("ul", *(element("li", note) for note in experiment.notes(rows))) if rows else None
    settings = json.dumps(experiment.common, indent=1)
    return section(
        "Under which conditions",
        notes,
        element("details", element("summary", "Settings"), element("pre", element("code", settings))),
    )


def _raw(rows: Sequence[Row]) -> Markup | None:
    if not rows:
        return None
    columns = [name for name in rows[0] if name not in ("settings", "cell", "of", "data")]
    columns = [name for name in columns if any(str(row[name]) not in ("", "nan") for row in rows)]
    body = [[_shown(row[name]) for name in columns] for row in rows[:_MOST_ROWS]]
    left = len(rows) - len(body)
    more = element("p", f"{count_in_words(left, 'more row')} in results.csv.", class_="left-out") if left else None
    inner = table(columns, body, caption="Rows of results.csv")
    return section("Every row", element("details", element("summary", "Show them"), inner, more))


def _shown(value: Any) -> object:
    if isinstance(value, float):
        return number(value) if math.isfinite(value) else "–"
    return value
