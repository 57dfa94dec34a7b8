"""Rows of an evaluation as tables of category × method: means over the seeds and their standard deviation."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from blemish.report.page import Cell, Table

Row = Mapping[str, Any]

_METHOD = ("detector", "encoder", "image_size", "shots", "pooled")
_COSTS = frozenset({"fit_seconds", "ms_per_picture", "peak_memory_mb"})
_LOWER_IS_BETTER = frozenset(
    {"false_alarm_rate", "miss_rate", "oracle_miss_rate", "unsure_rate", "unknown_rate", *_COSTS}
)
RESULTS = (
    ("image_auroc", "Picture AUROC: are defective pictures ranked above good ones?"),
    ("aupro_30", "AUPRO at 30 %: are the defective areas found, small ones counting like large ones?"),
)
AT_LIMIT = (
    ("false_alarm_rate", "False alarms at the model's own limit, share of good pictures"),
    ("miss_rate", "Missed defects at the model's own limit, share of defective pictures"),
    (
        "oracle_miss_rate",
        "Missed defects at the 95 % quantile of the good test pictures' scores, known by hindsight only",
    ),
)
UNDECIDED = (
    ("unsure_rate", "Pictures that the model was unsure of, share of all"),
    ("unknown_rate", "Pictures unlike anything the model learned, share of all"),
)
COST = (
    ("ms_per_picture", "Time a picture, ms"),
    ("fit_seconds", "Time to learn, s"),
    ("peak_memory_mb", "Peak memory, MB"),
)
FURTHER = (
    ("image_ap", "Picture average precision"),
    ("image_f1max", "Picture F1, best threshold"),
    ("pixel_auroc", "Pixel AUROC"),
    ("pixel_ap", "Pixel average precision"),
    ("pixel_f1max", "Pixel F1, best threshold"),
    ("aupro_05", "AUPRO at 5 %"),
    ("aupro_01", "AUPRO at 1 %"),
    ("image_auroc_logical", "Picture AUROC, logical defects"),
    ("image_auroc_structural", "Picture AUROC, structural defects"),
    ("spro_05", "Saturated PRO at 5 %: of each defect as much as is enough to see it"),
    ("spro_30", "Saturated PRO at 30 %"),
    ("spro_05_logical", "Saturated PRO at 5 %, logical defects"),
    ("spro_05_structural", "Saturated PRO at 5 %, structural defects"),
)


@dataclass(frozen=True)
class Pivot:
    """Means over seeds: `cells[category, method]` is (mean, standard deviation, number of seeds)."""

    categories: tuple[str, ...]
    methods: tuple[str, ...]
    cells: Mapping[tuple[str, str], tuple[float, float, int]]

    def mean(self, method: str) -> float:
        """The mean over all categories, nan when the method misses one: means over different sets mislead."""
        found = [self.cells[c, method][0] for c in self.categories if (c, method) in self.cells]
        return float(np.mean(found)) if len(found) == len(self.categories) else math.nan


class Names:
    """Short names for categories and methods: only what differs between rows is said."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.varying = [c for c in _METHOD if len({str(r.get(c)) for r in rows}) > 1]
        self.several_datasets = len({r.get("dataset") for r in rows}) > 1

    def category(self, row: Row) -> str:
        """ "screw", or "dataset/screw" where there are several datasets."""
        return f"{row['dataset']}/{row['category']}" if self.several_datasets else str(row["category"])

    def method(self, row: Row) -> str:
        """ "patchcore", or "patchcore, 224 px, 4 shots" where those differ."""
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
    cells = {
        k: (float(np.mean(v)), float(np.std(v, ddof=1)) if len(v) > 1 else 0.0, len(v)) for k, v in gathered.items()
    }
    return Pivot(tuple(dict.fromkeys(c for c, _ in cells)), tuple(dict.fromkeys(m for _, m in cells)), cells)


def _value(row: Row, measure: str) -> float:
    try:
        return float(row.get(measure, math.nan))
    except (TypeError, ValueError):
        return math.nan


def pivot_tables(rows: Sequence[Row], names: Names, measures: Sequence[tuple[str, str]]) -> list[Table]:
    """A table for each (measure, its words) that some row holds."""
    found = [(pivot(rows, measure, names.category, names.method), measure, words) for measure, words in measures]
    return [_table(pivoted, measure, words) for pivoted, measure, words in found if pivoted.categories]


def _table(found: Pivot, measure: str, caption: str) -> Table:
    sign = 1 if measure in _LOWER_IS_BETTER else -1
    is_share = measure not in _COSTS
    body: list[list[object]] = []
    for category in found.categories:
        cells = [found.cells.get((category, m)) for m in found.methods]
        best = min((sign * round(c[0], 3) for c in cells if c), default=0.0)
        several = len(found.methods) > 1
        line = [_cell(c, is_share, several and sign * round(c[0], 3) <= best) if c else None for c in cells]
        body.append([category, *line])
    several = len(found.categories) > 1
    if several:
        means = [found.mean(m) for m in found.methods]
        body.append(["mean", *(_number(m, is_share) if math.isfinite(m) else None for m in means)])
    numeric = frozenset(range(1, len(found.methods) + 1))
    return Table(["category", *found.methods], body, caption, numeric, sums=several)


def _cell(cell: tuple[float, float, int], is_share: bool, is_best: bool) -> Cell:
    mean, std, seeds = cell
    beside = f"± {_number(std, is_share)}" if seeds > 1 else ""
    return Cell(_number(mean, is_share), beside, best=is_best)


def _number(value: float, is_share: bool) -> str:
    return f"{value:.3f}" if is_share else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
