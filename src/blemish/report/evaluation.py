"""The page about one evaluation: how well each method does on each category, and what it gets wrong."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blemish.data.images import load_mask
from blemish.errors import ImageError
from blemish.registry import joined_names, sees_points
from blemish.report import charts
from blemish.report.overlays import draw_mask, draw_overlay, heat_image, light_copy, thumbnail
from blemish.report.page import Markup, element, figure, page, section, table, tile, write_page
from blemish.report.views import image_view, relief_view, side_by_side
from blemish.scoring.describe import count_in_words, number, times_in_words
from blemish.types import Prediction, Sample

if TYPE_CHECKING:
    from blemish.evaluation import RunDetail

Row = Mapping[str, Any]

_SIDE = 240
_METHOD = ("detector", "encoder", "image_size", "shots", "pooled")
_LOWER_IS_BETTER = frozenset({"false_alarm_rate", "miss_rate", "fit_seconds", "ms_per_picture", "peak_memory_mb"})
_SHOWN = (
    ("image_auroc", "Picture AUROC: are defective pictures ranked above good ones?"),
    ("aupro_30", "AUPRO at 30 %: are the defective areas found, small ones counting like large ones?"),
)
_AT_LIMIT = (
    ("false_alarm_rate", "False alarms at the model's own limit, share of good pictures"),
    ("miss_rate", "Missed defects at the model's own limit, share of defective pictures"),
)
_COST = (
    ("ms_per_picture", "Time a picture, ms"),
    ("fit_seconds", "Time to learn, s"),
    ("peak_memory_mb", "Peak memory, MB"),
)
_FURTHER = (
    ("image_ap", "Picture average precision"),
    ("image_f1max", "Picture F1, best threshold"),
    ("pixel_auroc", "Pixel AUROC"),
    ("pixel_ap", "Pixel average precision"),
    ("pixel_f1max", "Pixel F1, best threshold"),
    ("aupro_05", "AUPRO at 5 %"),
    ("aupro_01", "AUPRO at 1 %"),
)


@dataclass(frozen=True)
class Pivot:
    """Means over seeds: `cells[category, method]` is (mean, spread, seeds); spread is the standard deviation."""

    categories: tuple[str, ...]
    methods: tuple[str, ...]
    cells: Mapping[tuple[str, str], tuple[float, float, int]]

    def mean(self, method: str) -> float:
        """The mean over all categories, nan when the method misses one: means over different sets mislead."""
        found = [self.cells[c, method][0] for c in self.categories if (c, method) in self.cells]
        return float(np.mean(found)) if len(found) == len(self.categories) else math.nan


def write_evaluation_report(
    path: str | Path,
    rows: Sequence[Row],
    details: Sequence[RunDetail] = (),
    *,
    title: str = "Evaluation",
    command: str = "",
    images: Callable[[Sample], np.ndarray | None] | None = None,
    masks: Callable[[Sample], np.ndarray | None] | None = None,
    most_charts: int = 24,
    most_images: int = 60,
    made: datetime | None = None,
) -> Path:
    """Write one self-contained HTML page about an evaluation and return its path.

    `rows` carry the columns of `blemish.evaluation.COLUMNS`, missing measures nan; `details` explain them.
    `command` is the command line that made the rows. `images` and `masks` give the `(H, W, 3)` uint8 image and the
    `(H, W)` mask of an example, or None; without them both are read from disk. At most `most_charts` charts
    of a kind and `most_images` examples are drawn, which bounds the page at a few MB.

    Raises OutputError when the page cannot be written.
    """
    names = _Names(rows)
    when = (made or datetime.now()).strftime("%Y-%m-%d %H:%M")
    text = page(
        title,
        _headline(title, when, rows, names),
        _results(rows, names, details),
        _at_limit(rows, names, details),
        _recognition(details, names),
        _kinds(details, names, most_charts),
        _histograms(details, names, most_charts),
        _examples(details, names, images or _image_of, masks or _mask_of, most_images),
        _tables(rows, names, _COST, "Time and memory", "Measured while evaluating, on this computer."),
        _further(rows, names),
        section("How to repeat it", element("pre", element("code", command))) if command else None,
        element("footer", f"Made by blemish on {when}. This file needs no network and no other file."),
    )
    return write_page(path, text)


class _Names:
    """Short names for categories and methods: only what differs between rows is said."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.varying = [c for c in _METHOD if len({str(r.get(c)) for r in rows}) > 1]
        self.several_datasets = len({r.get("dataset") for r in rows}) > 1

    def category(self, row: Row) -> str:
        return f"{row['dataset']}/{row['category']}" if self.several_datasets else str(row["category"])

    def method(self, row: Row) -> str:
        words = [str(row.get("detector", ""))]
        words += [_setting_in_words(c, row.get(c)) for c in self.varying if c != "detector"]
        return ", ".join(w for w in words if w)


def _setting_in_words(column: str, value: object) -> str:
    if column == "shots":
        return "all pictures" if value == "all" else "1 shot" if str(value) == "1" else f"{value} shots"
    if column == "pooled":
        return "pooled" if value in (True, "True", "true") else ""
    return f"{value} px" if column == "image_size" else str(value)


def pivot(rows: Iterable[Row], measure: str, category: Callable[[Row], str], method: Callable[[Row], str]) -> Pivot:
    """Rows → category × method, averaged over what else varies (seeds); rows without the measure are left out."""
    gathered: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        value = _value(row, measure)
        if math.isfinite(value):
            gathered[category(row), method(row)].append(value)
    spread = {
        k: (float(np.mean(v)), float(np.std(v, ddof=1)) if len(v) > 1 else 0.0, len(v)) for k, v in gathered.items()
    }
    return Pivot(tuple(dict.fromkeys(c for c, _ in spread)), tuple(dict.fromkeys(m for _, m in spread)), spread)


def _value(row: Row, measure: str) -> float:
    try:
        return float(row.get(measure, math.nan))
    except (TypeError, ValueError):
        return math.nan


def _headline(title: str, when: str, rows: Sequence[Row], names: _Names) -> Markup:
    auroc = pivot(rows, "image_auroc", names.category, names.method)
    aupro = pivot(rows, "aupro_30", names.category, names.method)
    ranked = sorted((m for m in auroc.methods if math.isfinite(auroc.mean(m))), key=lambda m: -auroc.mean(m))
    tiles = []
    for method in ranked[:4]:
        area = aupro.mean(method) if method in aupro.methods else math.nan
        note = f"mean picture AUROC; AUPRO@30 % {area:.3f}" if math.isfinite(area) else "mean picture AUROC"
        tiles.append(tile(f"{auroc.mean(method):.3f}", method, "", note))
    counts = [
        count_in_words(len({names.category(r) for r in rows}), "category", "categories"),
        count_in_words(len({names.method(r) for r in rows}), "method"),
        count_in_words(len({r.get("seed") for r in rows}), "seed"),
    ]
    same = [
        f"{c.replace('_', ' ')} {rows[0].get(c)}" for c in ("encoder", "image_size") if rows and c not in names.varying
    ]
    return element(
        "header",
        element("p", f"blemish evaluation report · {when}", class_="brand"),
        element("h1", title),
        element("p", ", ".join([*counts, *same]), class_="lead"),
        element("div", *tiles, class_="tiles") if tiles else None,
    )


def _results(rows: Sequence[Row], names: _Names, details: Sequence[RunDetail]) -> Markup:
    seeds = len({r.get("seed") for r in rows})
    spread = f"Means over {seeds} seeds ± standard deviation. " if seeds > 1 else "One seed: the spread is not known. "
    note = spread + "The best of each line is bold. " + _aupro_in_words(details)
    return _tables(rows, names, _SHOWN, "Results", note) or section("Results", element("p", "No rows."))


def _aupro_in_words(details: Sequence[RunDetail]) -> str:
    used = sorted({d.aupro_thresholds or 0 for d in details})
    if not used:
        return ""
    if used == [0]:
        return "AUPRO is exact: every distinct score is a threshold."
    return (
        f"AUPRO was computed at {', '.join(str(n or 'all') for n in used)} thresholds, as some published tables do; "
        "this understates it, most at small limits."
    )


def _tables(
    rows: Sequence[Row], names: _Names, measures: Sequence[tuple[str, str]], heading: str, note: str
) -> Markup | None:
    drawn = [_pivot_table(pivot(rows, m, names.category, names.method), m, words) for m, words in measures]
    drawn = [d for d in drawn if d is not None]
    return section(heading, *drawn, note=note) if drawn else None


def _pivot_table(found: Pivot, measure: str, caption: str) -> Markup | None:
    if not found.categories:
        return None
    sign = 1 if measure in _LOWER_IS_BETTER else -1
    share = measure not in {m for m, _ in _COST}
    body: list[list[object]] = []
    for category in found.categories:
        cells = [found.cells.get((category, m)) for m in found.methods]
        best = min((sign * round(c[0], 3) for c in cells if c), default=0.0)
        line = [
            _pivot_cell(c, share, len(found.methods) > 1 and c is not None and sign * round(c[0], 3) <= best)
            for c in cells
        ]
        body.append([category, *line])
    several = len(found.categories) > 1
    if several:
        means = [found.mean(m) for m in found.methods]
        body.append(["mean", *(_said(m, share) if math.isfinite(m) else "–" for m in means)])
    numeric = frozenset(range(1, len(found.methods) + 1))
    return table(["category", *found.methods], body, caption=caption, numeric=numeric, sums=several)


def _pivot_cell(cell: tuple[float, float, int] | None, share: bool, is_best: bool) -> Markup:
    if cell is None:
        return element("td", "–", class_="n")
    mean, spread, seeds = cell
    beside = element("small", f" ± {_said(spread, share)}") if seeds > 1 else None
    return element("td", _said(mean, share), beside, class_="n best" if is_best else "n")


def _said(value: float, share: bool) -> str:
    return f"{value:.3f}" if share else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _at_limit(rows: Sequence[Row], names: _Names, details: Sequence[RunDetail]) -> Markup | None:
    drawn = [_pivot_table(pivot(rows, m, names.category, names.method), m, words) for m, words in _AT_LIMIT]
    if not any(d is not None for d in drawn):
        return None
    said = dict.fromkeys((names.category(d.row), names.method(d.row), d.threshold_source) for d in details if d.threshold_source)
    lines = [[c, m, words] for c, m, words in said]
    evidence = None
    if lines:
        summary = element("summary", "What each limit rests on")
        evidence = element("details", summary, table(["category", "method", "evidence"], lines, caption="Evidence"))
    return section("At the model's own limit", *drawn, evidence, note="What a user meets who changes nothing.")


def _recognition(details: Sequence[RunDetail], names: _Names) -> Markup | None:
    """How often pooled models took an image for its own category."""
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for detail in details:
        if (found := detail.recognised_right) is not None:
            count = counts[names.category(detail.row), names.method(detail.row)]
            count[0], count[1] = count[0] + found[0], count[1] + found[1]
    if not counts:
        return None
    right, tested = (sum(count[i] for count in counts.values()) for i in (0, 1))
    lines = [[category, method, f"{ok} of {of}"] for (category, method), (ok, of) in counts.items()]
    drawn = table(["category", "method", "recognised right"], lines, caption="By category", numeric=frozenset({2}))
    said = f"{right:,} of {tested:,} test pictures ({100 * right / max(tested, 1):.1f} %) were taken for what they are."
    return section("Which category is seen", element("p", said), drawn, note="The models were not told the category.")


def _grouped(details: Sequence[RunDetail], names: _Names) -> dict[tuple[str, str], list[RunDetail]]:
    groups: dict[tuple[str, str], list[RunDetail]] = defaultdict(list)
    for detail in details:
        groups[names.category(detail.row), names.method(detail.row)].append(detail)
    return groups


def _kinds(details: Sequence[RunDetail], names: _Names, most: int) -> Markup | None:
    """How many images of each kind of defect were found: bars for one method, a table a category for several."""
    hits: dict[str, dict[str, dict[str, list[bool]]]] = {}
    for (category, method), group in _grouped(details, names).items():
        for image in (p for d in group for p in d.images if p.label):
            kinds = hits.setdefault(category, {}).setdefault(image.defect or "defect", {})
            kinds.setdefault(method, []).append(image.is_alarm)
    methods = list(dict.fromkeys(names.method(d.row) for d in details))
    note = "Pictures above the model's own limit, all seeds together."
    if len(methods) == 1:
        drawn = [_kind_bars(category, kinds, methods[0]) for category, kinds in hits.items()]
        return _multiples(drawn, most, "Found by kind of defect", note)
    tables = [_kind_table(category, kinds, methods) for category, kinds in list(hits.items())[:most]]
    return section("Found by kind of defect", *tables, note=note) if tables else None


def _kind_bars(category: str, kinds: Mapping[str, Mapping[str, list[bool]]], method: str) -> Markup:
    found = {kind: by_method.get(method, [False]) for kind, by_method in sorted(kinds.items())}
    bars = [charts.Bar(kind, float(np.mean(h)), f"{sum(h)} of {len(h)}") for kind, h in found.items()]
    return charts.bar_chart(bars, title=category, maximum=1.0, width=480)


def _kind_table(category: str, kinds: Mapping[str, Mapping[str, list[bool]]], methods: Sequence[str]) -> Markup:
    lines = [[kind, *(_kind_cell(found.get(m)) for m in methods)] for kind, found in sorted(kinds.items())]
    return table(["kind of defect", *methods], lines, caption=category, numeric=frozenset(range(1, len(methods) + 1)))


def _kind_cell(hits: list[bool] | None) -> Markup:
    if not hits:
        return element("td", "–", class_="n")
    filled = element("i", style=f"width:{100 * sum(hits) / len(hits):.0f}%")
    level = element("span", filled, class_="level", aria_hidden="true")
    return element("td", f"{sum(hits)} of {len(hits)}", level, class_="n")


def _histograms(details: Sequence[RunDetail], names: _Names, most: int) -> Markup | None:
    """Scores as multiples of the limit, so that seeds can share a chart."""
    drawn = []
    for (category, method), group in _grouped(details, names).items():
        images = [p for d in group for p in d.images if p.threshold > 0]
        kinds = [
            charts.Group(name, np.array([p.score / p.threshold for p in images if p.label == label]), tone)
            for name, label, tone in (("good", 0, "good"), ("defective", 1, "defect"))
        ]
        if images:
            title = f"{category}, {method}"
            drawn.append(
                charts.histogram(
                    kinds, title=title, threshold=1.0, bins=40, x_label="score as multiple of the limit", width=480
                )
            )
    return _multiples(drawn, most, "Scores", "Each row is scaled on its own. Good ones belong left of the limit.")


def _multiples(drawn: list[Markup], most: int, heading: str, note: str) -> Markup | None:
    if not drawn:
        return None
    rest = len(drawn) - most
    more = element("p", f"{count_in_words(rest, 'more chart')} not drawn.", class_="left-out") if rest > 0 else None
    return section(heading, charts.small_multiples(drawn[:most]), more, note=note)


def _image_of(sample: Sample) -> np.ndarray | None:
    try:
        return image_view(sample)
    except (OSError, ImageError):
        return None  # it was read while evaluating; an image that went away since is no reason to lose the report


def _relief_of(sample: Sample) -> np.ndarray | None:
    try:
        return None if sample.image is None else relief_view(sample)
    except (OSError, ImageError):
        return None


def _mask_of(sample: Sample) -> np.ndarray | None:
    try:
        return None if sample.mask is None else load_mask(sample.mask)
    except (OSError, ImageError):
        return None


def _examples(
    details: Sequence[RunDetail],
    names: _Names,
    images: Callable[[Sample], np.ndarray | None],
    masks: Callable[[Sample], np.ndarray | None],
    most: int,
) -> Markup | None:
    """Mistakes first: what was missed, what was flagged wrongly, then what was found; each image once a method."""
    order = {"missed": 0, "false alarm": 1, "found": 2}
    kinds = sorted({kind for d in details for kind in d.examples}, key=lambda kind: order.get(kind, 3))
    parts: list[Markup] = []
    left_out = 0
    for kind in kinds:
        seen: dict[tuple[object, ...], tuple[RunDetail, Sample, Prediction]] = {}
        # The clearest example of every run before the second clearest of any, so that no category is crowded out.
        ranked = zip_longest(*([(d, *pair) for pair in d.examples.get(kind, ())] for d in details))
        for each in (e for one_a_run in ranked for e in one_a_run if e is not None):
            seen.setdefault((_identity(each[1]), names.method(each[0].row)), each)
        room = max(6, most // max(1, len(kinds)))
        shown = [_example(names, kind, *each, images, masks) for each in list(seen.values())[:room]]
        left_out += len(seen) - len(shown)
        heading = element("h3", {"missed": "Missed", "false alarm": "False alarms", "found": "Found"}.get(kind, kind))
        parts += [heading, element("div", *shown, class_="grid large", style="margin:8px 0 26px")] if shown else []
    if not parts:
        return None
    more = (
        element("p", f"{count_in_words(left_out, 'more example')} not shown.", class_="left-out") if left_out else None
    )
    return section("Best and worst pictures", *parts, more, note="True defects are outlined in blue.")


def _identity(sample: Sample) -> object:
    return sample.source if isinstance(sample.source, Path) else id(sample.source)


def _example(
    names: _Names,
    kind: str,
    detail: RunDetail,
    sample: Sample,
    prediction: Prediction,
    images: Callable[[Sample], np.ndarray | None],
    masks: Callable[[Sample], np.ndarray | None],
) -> Markup:
    """The image with what the model saw, the true defect outlined."""
    said = times_in_words(prediction.score, prediction.threshold)
    where = f"{names.category(detail.row)}, {names.method(detail.row)}"
    defect = sample.defect or ("defect" if sample.label else "good")
    image = images(sample)
    shown = element("div", "not at hand", class_="note")
    if image is not None:
        mask = masks(sample)
        small, light = thumbnail(image, _SIDE), light_copy(prediction, _SIDE)
        drawn = draw_overlay(small, light, boxes=False, strip=False)
        if mask is not None and np.any(mask):
            drawn = draw_mask(drawn, mask, tint=0.0, scale=2.0)
        if kind == "missed":
            drawn = np.concatenate([drawn, heat_image(light, (small.shape[0], small.shape[1]))], axis=1)
        relief = _relief_of(sample) if any(map(sees_points, joined_names(str(detail.row.get("encoder"))))) else None
        if relief is not None:
            drawn = side_by_side([drawn, thumbnail(relief, _SIDE)])
        shown = figure(drawn, f"{where}: {defect}, {kind}, {said}", data_zoom=True)
    told = f"{said}, {names.method(detail.row)}, {Path(sample.name).name}"
    title = element("b", f"{names.category(detail.row)}, {defect}")
    return element("figure", shown, element("figcaption", title, element("br"), told))


def _further(rows: Sequence[Row], names: _Names) -> Markup:
    """Every other measure, and the rows themselves, folded away."""
    drawn = [_pivot_table(pivot(rows, m, names.category, names.method), m, words) for m, words in _FURTHER]
    columns = list(rows[0]) if rows else []
    raw = [[_raw(row.get(c)) for c in columns] for row in rows[:500]]
    more = (
        element("p", f"{len(rows) - 500:,} more rows are in results.csv.", class_="left-out")
        if len(rows) > 500
        else None
    )
    return section(
        "More",
        element("details", element("summary", "Other measures"), *drawn),
        element("details", element("summary", "Every row"), table(columns, raw, caption="Rows of results.csv"), more),
    )


def _raw(value: object) -> object:
    if isinstance(value, float):
        return number(value) if math.isfinite(value) else "–"
    return value
