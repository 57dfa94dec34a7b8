"""Charts as SVG text: histograms, curves, bars. Colours are CSS variables of the page, so charts follow dark mode.

Every chart is a `<figure>` with its title as caption and an `<svg>` that says in `aria-label` what it shows; no script.
A chart on its own (outside a page) falls back to the light colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from blemish.report.page import Markup, element, escape, join
from blemish.scoring.describe import number

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 38  # room for ticks and axis names, pixels


@dataclass(frozen=True)
class Group:
    """Values of one kind, drawn in one tone: "calm", "good", "defect", "unknown" or "accent"."""

    name: str
    values: np.ndarray  # (n,)
    tone: str = "accent"


@dataclass(frozen=True)
class Line:
    """One curve: x `(n,)`, y `(n,)`; with `spread` `(n,)` every point is a dot with whiskers that far up and down."""

    name: str
    x: np.ndarray
    y: np.ndarray
    tone: str = "accent"
    spread: np.ndarray | None = None


@dataclass(frozen=True)
class Bar:
    """One bar: its name, its length, and the words at its end (its value when None)."""

    name: str
    value: float
    note: str | None = None
    tone: str = "accent"


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` round numbers (steps of 1, 2, 2.5 or 5 × 10ⁿ) within low…high."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10, 20) if s * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


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
    shown = [Group(g.name, _finite(g.values), g.tone) for g in groups]
    low, high, cut = _score_range(shown, threshold)
    edges = np.linspace(low, high, bins + 1)
    left, right = _LEFT + 84, width - _RIGHT
    scale = _scale(low, high, left, right)
    parts = []
    for i, group in enumerate(shown):
        base = _TOP + 8 + (i + 1) * row_height
        parts.append(_histogram_row(group, edges, scale, base, row_height - 16, left, right))
    bottom = _TOP + 8 + len(shown) * row_height
    ticks = nice_ticks(low, high)
    if cut:
        ticks = [*(t for t in ticks if t < low + 0.92 * (high - low)), high]
    parts.append(_x_axis(ticks, scale, bottom, x_label, "≥ " if cut else ""))
    if threshold is not None and math.isfinite(threshold):
        parts.append(_threshold_line(scale(threshold), _TOP, bottom, number(threshold), right))
    counts = ", ".join(f"{len(g.values)} {g.name}" for g in shown)
    over = (
        ""
        if threshold is None
        else "; above the limit: " + ", ".join(f"{int((g.values > threshold).sum())} {g.name}" for g in shown)
    )
    return _figure(title, f"{title}. Histogram of {counts}{over}.", width, bottom + _BOTTOM, *parts)


def _score_range(groups: Sequence[Group], threshold: float | None) -> tuple[float, float, bool]:
    """The axis' ends, and whether scores beyond its end were gathered in the last bar."""
    values = np.concatenate([g.values for g in groups] or [np.zeros(0)])
    known = values if threshold is None or not math.isfinite(threshold) else np.append(values, threshold)
    if known.size == 0:
        return 0.0, 1.0, False
    low, high = float(known.min()), float(known.max())
    # From zero when that costs little room, otherwise from the smallest score.
    low = 0.0 if 0 <= low < 0.5 * high else low - 0.04 * (high - low)
    cut = threshold is not None and threshold > 0 and high > 6 * threshold
    if cut and threshold is not None:
        high = 6 * threshold
    high = high if cut else high + 0.02 * (high - low)
    return (low, high, cut) if high > low else (low - 0.5, low + 0.5, False)


def _histogram_row(
    group: Group,
    edges: np.ndarray,
    scale: Callable[[float], float],
    base: float,
    high: float,
    left: float,
    right: float,
) -> Markup:
    counts, _ = np.histogram(np.clip(group.values, edges[0], edges[-1]), bins=edges)
    tallest = max(1, int(counts.max(initial=0)))
    bars = [
        element(
            "rect",
            element("title", f"{count} {group.name}, {number(edges[i])} to {number(edges[i + 1])}"),
            x=scale(edges[i]) + 0.5,
            y=base - high * count / tallest,
            width=max(0.8, scale(edges[i + 1]) - scale(edges[i]) - 1),
            height=high * count / tallest,
            rx=1,
            class_=f"bar t-{group.tone}",
        )
        for i, count in enumerate(counts.tolist())
        if count
    ]
    return join(
        _text(left - 10, base - 14, group.name, "end", "label"),
        _text(left - 10, base, f"n = {len(group.values):,}", "end", "tick"),
        *bars,
        element("line", x1=left, x2=right, y1=base, y2=base, class_="axis"),
    )


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
    level: tuple[str, float] | None = None,
    width: int = 500,
    height: int = 270,
) -> Markup:
    """Curves over a grid. `marks` are named points (x, y, name); `diagonal` draws what guessing would give.

    `x_names` stand under the places they name instead of numbers; `level` is a named height to compare with.
    """
    scale_x = _scale(*x_range, _LEFT, width - _RIGHT)
    scale_y = _scale(*y_range, height - _BOTTOM, _TOP)
    parts = [_y_axis(nice_ticks(*y_range), scale_y, _LEFT, width - _RIGHT, y_label, height)]
    ticks = list(x_names) if x_names else nice_ticks(*x_range, 5)
    parts.append(_x_axis(ticks, scale_x, height - _BOTTOM, x_label, names=x_names))
    if diagonal:
        ends = {
            "x1": scale_x(x_range[0]),
            "y1": scale_y(y_range[0]),
            "x2": scale_x(x_range[1]),
            "y2": scale_y(y_range[1]),
        }
        parts.append(element("line", **ends, class_="chance"))
    if level is not None and y_range[0] <= level[1] <= y_range[1]:
        y = scale_y(level[1])
        parts.append(element("line", x1=_LEFT, x2=width - _RIGHT, y1=y, y2=y, class_="chance"))
        parts.append(_text(width - _RIGHT - 4, y - 5, level[0], "end", "tick"))
    for line in lines:
        points = " ".join(f"{scale_x(x):.1f},{scale_y(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
        parts.append(element("polyline", points=points, class_=f"curve t-{line.tone}"))
        parts += _whiskers(line, scale_x, scale_y)
    for x, y, name in marks:
        at_right = scale_x(x) > 0.6 * width
        parts.append(element("circle", cx=scale_x(x), cy=scale_y(y), r=4.5, class_="mark"))
        below = scale_y(y) + 18 if scale_y(y) < height / 2 else scale_y(y) - 9
        parts.append(_text(scale_x(x) + (-8 if at_right else 8), below, name, "end" if at_right else "start", "label"))
    legend = _legend([(line.name, line.tone) for line in lines]) if len(lines) > 1 else None
    return _figure(title, says or f"{title}: {y_label} over {x_label}", width, height, *parts, below=legend)


def _whiskers(line: Line, scale_x: Callable[[float], float], scale_y: Callable[[float], float]) -> list[Markup]:
    """The spread of every point of a line as an upright stroke, and a dot that tells its value."""
    if line.spread is None:
        return []
    parts = []
    for x, y, spread in zip(line.x.tolist(), line.y.tolist(), line.spread.tolist(), strict=True):
        at = f"{scale_x(x):.1f},{scale_y(y - spread):.1f} {scale_x(x):.1f},{scale_y(y + spread):.1f}"
        parts.append(element("polyline", points=at, class_=f"curve t-{line.tone}"))
        told = element("title", f"{line.name}: {number(y)}" + (f" ± {number(spread)}" if spread else ""))
        ends = {"x": scale_x(x) - 3, "y": scale_y(y) - 3, "width": 6, "height": 6, "rx": 3}
        parts.append(element("rect", told, **ends, class_=f"bar t-{line.tone}"))
    return parts


def roc_points(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False-alarm rate and found rate at every distinct score, from (0, 0) to (1, 1); ties move both at once."""
    found, false, positives, negatives = _counts(scores, labels)
    return np.append(0.0, false / max(1, negatives)), np.append(0.0, found / max(1, positives))


def precision_recall_points(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision at every distinct score, in order of falling score."""
    found, false, positives, _ = _counts(scores, labels)
    return found / max(1, positives), found / np.maximum(1, found + false)


def _counts(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, int]:
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels) > 0
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1) if len(order) else np.zeros(0, int)
    found, false = np.cumsum(labels[order])[last], np.cumsum(~labels[order])[last]
    return found, false, int(labels.sum()), int((~labels).sum())


def roc_chart(
    scores: np.ndarray, labels: np.ndarray, *, threshold: float | None = None, title: str = "Found against false alarms"
) -> Markup:
    """The ROC curve of image scores, the model's own threshold as a dot."""
    x, y = roc_points(scores, labels)
    marks = []
    if threshold is not None:
        flagged, bad = np.asarray(scores) > threshold, np.asarray(labels) > 0
        rates = [float(flagged[side].mean()) if side.any() else 0.0 for side in (~bad, bad)]
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
    scores: np.ndarray, labels: np.ndarray, *, title: str = "Precision against defects found"
) -> Markup:
    """Precision over recall of image scores."""
    x, y = precision_recall_points(scores, labels)
    line = Line("precision", np.append(0.0, x), np.append(y[:1], y))
    return curve_chart(
        [line], title=title, x_label="defects found", y_label="precision", x_range=(0, 1), y_range=(0, 1.0)
    )


def loss_chart(
    points: Sequence[tuple[float, float]], *, title: str = "Learning", most: int = 400, width: int = 640
) -> Markup:
    """Loss over steps. Long curves are averaged into at most `most` points."""
    known = np.array([p for p in points if math.isfinite(p[0]) and math.isfinite(p[1])], dtype=np.float64).reshape(
        -1, 2
    )
    if len(known) > most:
        known = np.array([chunk.mean(axis=0) for chunk in np.array_split(known, most)])
    if not len(known):
        return _figure(
            title, f"{title}: no loss was recorded", width, 60, _text(20, 34, "no loss was recorded", "start", "label")
        )
    low, high = min(0.0, float(known[:, 1].min())), float(known[:, 1].max())
    says = f"{title}: loss from {number(known[0, 1])} to {number(known[-1, 1])} over {int(known[-1, 0]):,} steps"
    return curve_chart(
        [Line("loss", known[:, 0], known[:, 1])],
        title=title,
        says=says,
        x_label="step",
        y_label="loss",
        x_range=(0.0, max(1.0, float(known[:, 0].max()))),
        y_range=(low, (high + 0.05 * (high - low)) if high > low else low + 1),
        width=width,
        height=240,
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
            _text(names - 10, y + 16, _shortened(bar.name), "end", "label"),
            element("rect", x=names, y=y + 4, width=width - names - room, height=16, rx=3, class_="trough"),
            element("rect", x=names, y=y + 4, width=length, height=16, rx=3, class_=f"bar t-{bar.tone}"),
            _text(width - room + 8, y + 16, note, "start", "value"),
        ]
    says = f"{title}: " + ", ".join(f"{b.name} {b.note or number(b.value)}" for b in bars[:40])
    return _figure(title, says, width, 12 + row * len(bars), *parts)


def small_multiples(charts: Sequence[Markup]) -> Markup:
    """Charts side by side, as many as fit a line."""
    return element("div", *charts, class_="multiples")


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64).ravel()
    return values[np.isfinite(values)]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (min(max(float(value), low), high) - low) / span * (end - start)


def _shortened(name: str, most: int = 25) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _text(x: float, y: float, words: str, anchor: str, class_: str) -> Markup:
    return element("text", words, x=float(x), y=float(y), text_anchor=anchor, class_=class_)


def _x_axis(
    ticks: Sequence[float],
    scale: Callable[[float], float],
    y: float,
    label: str,
    last_prefix: str = "",
    names: Mapping[float, str] | None = None,
) -> Markup:
    parts = [element("line", x1=scale(-math.inf), x2=scale(math.inf), y1=y, y2=y, class_="axis")]
    for i, tick in enumerate(ticks):
        prefix = last_prefix if i == len(ticks) - 1 else ""
        parts.append(element("line", x1=scale(tick), x2=scale(tick), y1=y, y2=y + 4, class_="axis"))
        words = names[tick] if names else prefix + f"{tick:,.6g}"
        parts.append(_text(scale(tick), y + 16, words, "middle", "tick"))
    middle = (scale(-math.inf) + scale(math.inf)) / 2
    return join(*parts, _text(middle, y + 33, label, "middle", "label"))


def _y_axis(
    ticks: Sequence[float], scale: Callable[[float], float], left: float, right: float, label: str, height: int
) -> Markup:
    parts = []
    for tick in ticks:
        y = scale(tick)
        parts.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(_text(left - 6, y + 4, f"{tick:.4g}", "end", "tick"))
    middle = (_TOP + height - _BOTTOM) / 2
    turned = element(
        "text",
        label,
        x=0,
        y=0,
        text_anchor="middle",
        class_="label",
        transform=f"translate(12 {middle:.0f}) rotate(-90)",
    )
    return join(*parts, turned)


def _threshold_line(x: float, top: float, bottom: float, value: str, right: float) -> Markup:
    near_end = x > right - 90
    words = _text(x + (-6 if near_end else 6), top + 6, f"limit {value}", "end" if near_end else "start", "limit-name")
    return join(element("line", x1=x, x2=x, y1=top - 4, y2=bottom, class_="limit"), words)


def _legend(entries: Sequence[tuple[str, str]]) -> Markup:
    keys = (element("li", element("span", class_=f"key t-{tone}", aria_hidden="true"), name) for name, tone in entries)
    return element("ul", *keys, class_="legend")


def _figure(title: str, says: str, width: float, height: float, *parts: object, below: Markup | None = None) -> Markup:
    drawing = element(
        "svg",
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=width,
        height=height,
        role="img",
        aria_label=says,
    )
    return element("figure", element("figcaption", escape(title)), drawing, below, class_="chart")
