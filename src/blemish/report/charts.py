"""Charts as SVG text: histograms, curves, bars. Colours are CSS variables of the page, so charts follow dark mode.

Every chart is a `<figure>` with its title as caption and an `<svg>` that says in `aria-label` what it shows; no script.
A chart on its own (outside a page) falls back to the light colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from markupsafe import Markup

from blemish.metrics.ranking import precision_recall_points, roc_points
from blemish.report import svg
from blemish.report.svg import BOTTOM, LEFT, RIGHT, TOP, Scale
from blemish.scoring.describe import number

_MOST_TIMES = 6  # scores beyond so many times the threshold share the last bar; chosen by eye on solar cells


@dataclass(frozen=True)
class Group:
    """Values of one kind, drawn in one tone: "calm", "good", "defect", "unknown", "warn" or "accent".

    `values` `(n,)`; `counts` `(n,)` says how often each stands, once where it is None.
    """

    name: str
    values: np.ndarray
    tone: str = "accent"
    counts: np.ndarray | None = None

    def finite(self) -> Group:
        """The same without NaN and infinite values, with counts."""
        values = np.asarray(self.values, dtype=np.float64).ravel()
        counts = np.ones(len(values), np.int64) if self.counts is None else np.asarray(self.counts)
        known = np.isfinite(values)
        return Group(self.name, values[known], self.tone, counts[known])

    def __len__(self) -> int:
        return len(self.values) if self.counts is None else int(self.counts.sum())

    def above(self, threshold: float) -> int:
        """How many values lie above a threshold."""
        over = np.asarray(self.values) > threshold
        return int(over.sum() if self.counts is None else self.counts[over].sum())


@dataclass(frozen=True)
class Line:
    """One curve: x `(n,)`, y `(n,)`; with `std` `(n,)` every point is a dot with whiskers that far up and down."""

    name: str
    x: np.ndarray
    y: np.ndarray
    tone: str = "accent"
    std: np.ndarray | None = None


@dataclass(frozen=True)
class Bar:
    """One bar: its name, its length, and the words at its end (its value when None)."""

    name: str
    value: float
    note: str | None = None
    tone: str = "accent"


def histogram(
    groups: Sequence[Group],
    *,
    title: str,
    threshold: float | None = None,
    bins: int = 48,
    x_label: str = "score",
    width: int = 640,
    row_height: int = 64,
) -> Markup:
    """One row of bars a group over a shared score axis, the threshold drawn through all rows.

    Rows are scaled on their own (a handful of calibration scores stays visible beside thousands of images); counts
    stand in the row's name. Scores beyond six times the threshold share the last bar, which the axis marks with "≥".
    """
    shown = [group.finite() for group in groups]
    low, high, cut = _score_range(shown, threshold)
    edges = np.linspace(low, high, bins + 1)  # (bins + 1,)
    left, right = LEFT + 84, width - RIGHT
    scale = svg.linear_scale(low, high, left, right)
    parts = []
    for i, group in enumerate(shown):
        base = TOP + 8 + (i + 1) * row_height
        parts.append(_histogram_row(group, edges, scale, base, row_height - 16))
    bottom = TOP + 8 + len(shown) * row_height
    ticks = svg.nice_ticks(low, high)
    if cut:
        ticks = [*(t for t in ticks if t < low + 0.85 * (high - low)), high]
    parts.append(svg.x_axis(ticks, scale, bottom, x_label, "≥ " if cut else ""))
    if threshold is not None and math.isfinite(threshold):
        parts.append(_threshold_line(scale(threshold), bottom, number(threshold), right))
    return svg.figure(title, _histogram_in_words(title, shown, threshold), width, bottom + BOTTOM, *parts)


def _histogram_in_words(title: str, groups: Sequence[Group], threshold: float | None) -> str:
    counts = ", ".join(f"{len(g)} {g.name}" for g in groups)
    if threshold is None:
        return f"{title}. Histogram of {counts}."
    over = ", ".join(f"{g.above(threshold)} {g.name}" for g in groups)
    return f"{title}. Histogram of {counts}; above the limit: {over}."


def _score_range(groups: Sequence[Group], threshold: float | None) -> tuple[float, float, bool]:
    """The axis' ends, and whether scores beyond its end were gathered in the last bar."""
    values = np.concatenate([g.values for g in groups] or [np.zeros(0)])
    known = values if threshold is None or not math.isfinite(threshold) else np.append(values, threshold)
    if known.size == 0:
        return 0.0, 1.0, False
    low, high = float(known.min()), float(known.max())
    # From zero when that costs little room, otherwise from the smallest score.
    low = 0.0 if 0 <= low < 0.5 * high else low - 0.04 * (high - low)
    cut = threshold is not None and threshold > 0 and high > _MOST_TIMES * threshold
    if cut and threshold is not None:
        high = _MOST_TIMES * threshold
    high = high if cut else high + 0.02 * (high - low)
    return (low, high, cut) if high > low else (low - 0.5, low + 0.5, False)


def _histogram_row(group: Group, edges: np.ndarray, scale: Scale, base: float, height: float) -> Markup:
    """The bars of one group standing on `base`, the tallest `height` pixels high."""
    counts, _ = np.histogram(np.clip(group.values, edges[0], edges[-1]), bins=edges, weights=group.counts)
    tallest = max(1, int(counts.max(initial=0)))
    bars = [
        svg.tag(
            "rect",
            svg.tag("title", f"{count} {group.name}, {number(edges[i])} to {number(edges[i + 1])}"),
            x=scale(edges[i]) + 0.5,
            y=base - height * count / tallest,
            width=max(0.8, scale(edges[i + 1]) - scale(edges[i]) - 1),
            height=height * count / tallest,
            rx=1,
            class_=f"bar t-{group.tone}",
        )
        for i, count in enumerate(counts.astype(np.int64).tolist())
        if count
    ]
    left, right = scale(-math.inf), scale(math.inf)
    return svg.join(
        svg.text(left - 10, base - 14, group.name, "end", "label"),
        svg.text(left - 10, base, f"n = {len(group):,}", "end", "tick"),
        *bars,
        svg.line(left, base, right, base, "axis"),
    )


def _threshold_line(x: float, bottom: float, value: str, right: float) -> Markup:
    near_end = x > right - 90
    at = x + (-6 if near_end else 6)
    words = svg.text(at, TOP + 6, f"limit {value}", "end" if near_end else "start", "limit-name")
    return svg.join(svg.line(x, TOP - 4, x, bottom, "limit"), words)


def curve_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    says: str | None = None,
    diagonal: bool = False,
    marks: Sequence[tuple[float, float, str]] = (),
    x_names: Mapping[float, str] | None = None,
    reference: tuple[str, float] | None = None,
) -> Markup:
    """Curves over a grid. `marks` are named points (x, y, name); `diagonal` draws what guessing would give.

    `x_names` stand under the places they name instead of numbers; `reference` is a named height to compare with.
    """
    width, height = 500, 270
    scale_x = svg.linear_scale(*x_range, LEFT, width - RIGHT)
    scale_y = svg.linear_scale(*y_range, height - BOTTOM, TOP)
    parts = [svg.y_axis(svg.nice_ticks(*y_range), scale_y, LEFT, width - RIGHT, y_label, height)]
    ticks = list(x_names) if x_names else svg.nice_ticks(*x_range, 5)
    parts.append(svg.x_axis(ticks, scale_x, height - BOTTOM, x_label, names=x_names))
    if diagonal:
        parts.append(svg.line(LEFT, scale_y(y_range[0]), width - RIGHT, scale_y(y_range[1]), "chance"))
    if reference is not None and y_range[0] <= reference[1] <= y_range[1]:
        y = scale_y(reference[1])
        parts.append(svg.line(LEFT, y, width - RIGHT, y, "chance"))
        parts.append(svg.text(width - RIGHT - 4, y - 5, reference[0], "end", "tick"))
    for line in lines:
        places = (f"{scale_x(x):.1f},{scale_y(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
        points = " ".join(place for place, _ in groupby(places))  # of a million images most fall on one another
        parts.append(svg.tag("polyline", points=points, class_=f"curve t-{line.tone}"))
        parts += _whiskers(line, scale_x, scale_y)
    parts += [_mark(scale_x(x), scale_y(y), name, (width, height)) for x, y, name in marks]
    below = svg.legend([(line.name, line.tone) for line in lines]) if len(lines) > 1 else None
    return svg.figure(title, says or f"{title}: {y_label} over {x_label}", width, height, *parts, below=below)


def _mark(x: float, y: float, name: str, size: tuple[int, int]) -> Markup:
    """A named point, its name where there is room for it."""
    at_right = x > 0.6 * size[0]
    below = y + 18 if y < size[1] / 2 else y - 9
    words = svg.text(x + (-8 if at_right else 8), below, name, "end" if at_right else "start", "label")
    return svg.join(svg.tag("circle", cx=x, cy=y, r=4.5, class_="mark"), words)


def _whiskers(line: Line, scale_x: Scale, scale_y: Scale) -> list[Markup]:
    """The standard deviation of every point of a line as an upright stroke, and a dot that names its value."""
    if line.std is None:
        return []
    parts = []
    for x, y, std in zip(line.x.tolist(), line.y.tolist(), line.std.tolist(), strict=True):
        at = f"{scale_x(x):.1f},{scale_y(y - std):.1f} {scale_x(x):.1f},{scale_y(y + std):.1f}"
        parts.append(svg.tag("polyline", points=at, class_=f"curve t-{line.tone}"))
        title = svg.tag("title", f"{line.name}: {number(y)}" + (f" ± {number(std)}" if std else ""))
        place = {"x": scale_x(x) - 3, "y": scale_y(y) - 3, "width": 6, "height": 6, "rx": 3}
        parts.append(svg.tag("rect", title, **place, class_=f"bar t-{line.tone}"))
    return parts


def roc_chart(
    scores: np.ndarray, labels: np.ndarray, *, threshold: float | None = None, title: str = "Found against false alarms"
) -> Markup:
    """The ROC curve of image scores `(n,)` and labels `(n,)` of 0 and 1, the model's own threshold as a dot."""
    x, y = roc_points(scores, labels)
    marks = []
    if threshold is not None:
        flagged, bad = np.asarray(scores) > threshold, np.asarray(labels) > 0
        rates = [float(flagged[kind].mean()) if kind.any() else 0.0 for kind in (~bad, bad)]
        marks.append((rates[0], rates[1], "the model's limit"))
    return curve_chart(
        [Line("ROC", x, y)],
        title=title,
        x_label="good parts flagged",
        y_label="defects found",
        x_range=(0, 1),
        y_range=(0, 1),
        diagonal=True,
        marks=marks,
    )


def precision_recall_chart(
    scores: np.ndarray, labels: np.ndarray, *, title: str = "Right alarms against defects found"
) -> Markup:
    """Precision over recall of image scores `(n,)` and labels `(n,)` of 0 and 1."""
    recall, precision = precision_recall_points(scores, labels)
    line = Line("precision", np.append(0.0, recall), np.append(precision[:1], precision))
    return curve_chart(
        [line],
        title=title,
        x_label="defects found",
        y_label="right alarms (precision)",
        x_range=(0, 1),
        y_range=(0, 1),
    )


def bar_chart(bars: Sequence[Bar], *, title: str, maximum: float | None = None, width: int = 640) -> Markup:
    """Horizontal bars with their names on the left and their values at the end."""
    values = [b.value if math.isfinite(b.value) else 0.0 for b in bars]
    top = maximum if maximum is not None else max([*values, 1e-12])
    names = min(190, 24 + 7 * max([len(b.name) for b in bars] or [0]))
    row, room = 26, 96
    parts = []
    for i, (bar, value) in enumerate(zip(bars, values, strict=True)):
        y = 6 + i * row
        length = (width - names - room) * min(1.0, max(0.0, value / top))
        note = bar.note if bar.note is not None else number(bar.value)
        parts += [
            svg.text(names - 10, y + 16, _shortened(bar.name), "end", "label"),
            svg.tag("rect", x=names, y=y + 4, width=width - names - room, height=16, rx=3, class_="trough"),
            svg.tag("rect", x=names, y=y + 4, width=length, height=16, rx=3, class_=f"bar t-{bar.tone}"),
            svg.text(width - room + 8, y + 16, note, "start", "value"),
        ]
    says = f"{title}: " + ", ".join(f"{b.name} {b.note or number(b.value)}" for b in bars[:40])
    return svg.figure(title, says, width, 12 + row * len(bars), *parts)


def _shortened(name: str, most: int = 25) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
