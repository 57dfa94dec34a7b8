"""The page about one experiment: the question, what was found and by which rule, plots, tables, and every row."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from blemish.report import charts
from blemish.report.page import Cell, Table, fact, left_out, render
from blemish.research.experiments.base import BarChart
from blemish.research.experiments.verdicts import mean_and_std, rounded, std_of
from blemish.scoring.describe import count_in_words, number
from blemish.utils.atomic import write_text

if TYPE_CHECKING:
    from blemish.research.experiments.base import Chart, CurveChart, Experiment, Matrix, Row, Values

_TONES = ("accent", "defect", "good", "unknown", "calm")
_MOST_ROWS = 500
_NOT_SHOWN = ("settings", "cell", "of", "data")  # columns that only the program reads


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
    seeds = sorted({row["seed"] for row in rows})
    counts = f"{count_in_words(len(rows), 'row')}, {count_in_words(len(seeds), 'seed')} ({', '.join(map(str, seeds))})"
    left = f"Unfinished: {count_in_words(missing, 'cell')} of the plan not measured yet; the same command goes on."
    text = render(
        "experiment.html",
        made=made,
        kind=f"experiment {name}",
        title=f"Experiment {name}",
        question=experiment.QUESTION,
        source=experiment.SOURCE,
        counts=counts,
        unfinished=left if missing else "",
        verdict=experiment.verdict(rows) if rows else None,
        charts=[drawn for chart in (experiment.charts(rows) if rows else ()) for drawn in _drawn(chart)],
        tables=[_matrix(each) for each in (experiment.tables(rows) if rows else ()) if each.cells],
        notes=experiment.notes(rows) if rows else [],
        settings=json.dumps(experiment.common, indent=1),
        rows=_raw(rows) if rows else None,
        more_rows=left_out(len(rows) - _MOST_ROWS, "row", "in results.csv"),
        command=command,
    )
    return write_text(path, text)


def _drawn(chart: Chart) -> list[Markup]:
    """A chart as one image, or as several where it has more curves than there are tones."""
    if isinstance(chart, BarChart):
        return [_bars(chart)]
    lines, most = chart.curves, len(_TONES)
    return [_curves(chart, range(start, min(start + most, len(lines)))) for start in range(0, len(lines), most)]


def _bars(chart: BarChart) -> Markup:
    bars = [charts.Bar(name, fmean(values), mean_and_std(values)) for name, values in chart.bars.items()]
    return charts.bar_chart(bars, title=chart.title, maximum=chart.maximum, width=560)


def _curves(chart: CurveChart, chosen: range) -> Markup:
    position = {name: float(i) for i, name in enumerate(chart.x)}
    lines, heights = [], []
    for index in chosen:
        curve = chart.curves[index]
        known = [name for name in chart.x if curve.values.get(name)]
        means = np.array([fmean(curve.values[name]) for name in known])  # (n,)
        stds = np.array([std_of(curve.values[name]) for name in known])  # (n,)
        at = np.array([position[name] for name in known])
        lines.append(charts.Line(curve.name, at, means, _TONES[index % len(_TONES)], stds))
        heights += [*(means - stds).tolist(), *(means + stds).tolist()]
    if chart.threshold is not None:
        heights.append(chart.threshold[1])
    low, high = min(heights), max(heights)
    room = 0.06 * (high - low) or 0.05
    values = "; ".join(f"{line.name} {', '.join(number(float(y)) for y in line.y)}" for line in lines)
    return charts.curve_chart(
        lines,
        title=chart.title,
        x_label=chart.x_label,
        y_label=chart.y_label,
        x_range=(-0.3, len(chart.x) - 0.7),
        y_range=(max(0.0, low - room) if low >= 0 else low - room, high + room),
        x_names={at: name for name, at in position.items()},
        reference=chart.threshold,
        says=f"{chart.title}: {chart.y_label} at {', '.join(chart.x)}; {values}",
    )


def _matrix(found: Matrix) -> Table:
    down = list(dict.fromkeys(name for name, _ in found.cells))
    across = _ordered(dict.fromkeys(name for _, name in found.cells))
    body: list[list[object]] = []
    for name in down:
        means = [round(fmean(found.cells[name, to]), 3) for to in across if (name, to) in found.cells]
        best = max(means) if found.higher_is_better and len(means) > 1 else math.inf
        body.append([name, *(_cell(found.cells.get((name, to)), best) for to in across)])
    return Table([found.corner, *across], body, found.title, frozenset(range(1, len(across) + 1)))


def _ordered(names: Mapping[str, object]) -> list[str]:
    """Numbers by size; words stay in their order, behind them."""

    def place(name: str) -> tuple[int, float]:
        try:
            return 0, float(name)
        except ValueError:
            return 1, 0.0

    return sorted(names, key=place)


def _cell(values: Values | None, best: float) -> Cell | None:
    if not values:
        return None
    mean = fmean(values)
    beside = f"± {rounded(std_of(values), mean)}" if len(values) > 1 else ""
    return Cell(rounded(mean, mean), beside, best=round(mean, 3) >= best)


def _raw(rows: Sequence[Row]) -> Table:
    """The rows themselves, without columns that are empty throughout."""
    columns = [name for name in rows[0] if name not in _NOT_SHOWN]
    columns = [name for name in columns if any(str(row[name]) not in ("", "nan") for row in rows)]
    body = [[fact(row[name]) for name in columns] for row in rows[:_MOST_ROWS]]
    return Table(columns, body, "Rows of results.csv")
