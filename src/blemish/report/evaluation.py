"""The page about one evaluation: how well each method does on each category, and what it gets wrong."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from blemish.report import charts
from blemish.report.evidence import percent
from blemish.report.examples import ImageOf, example_groups
from blemish.report.page import Cell, Table, Tile, fact, left_out, render
from blemish.report.pivot import AT_LIMIT, COST, FURTHER, RESULTS, UNDECIDED, Names, Row, pivot, pivot_tables
from blemish.scoring.describe import count_in_words
from blemish.utils.atomic import write_text

if TYPE_CHECKING:
    from blemish.evaluation import RunDetail

_MOST_ROWS, _MOST_TILES = 500, 4
Hits = Mapping[str, Mapping[str, list[bool]]]  # kind of defect → method → whether each image was found


def write_evaluation_report(
    path: str | Path,
    rows: Sequence[Row],
    details: Sequence[RunDetail] = (),
    *,
    title: str = "Evaluation",
    command: str = "",
    images: ImageOf | None = None,
    masks: ImageOf | None = None,
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
    names = Names(rows)
    groups, omitted = example_groups(details, names, images, masks, most_images)
    text = render(
        "evaluation.html",
        made=made,
        kind="evaluation report",
        title=title,
        lead=_lead(rows, names),
        notes=_notes(details, names),
        tiles=_tiles(rows, names),
        results=pivot_tables(rows, names, RESULTS),
        results_note=_results_note(rows, names, details),
        at_limit=[*pivot_tables(rows, names, AT_LIMIT), *_undecided(rows, names)],
        evidence=_evidence(details, names),
        promised=_promised(details),
        recognition=_recognition(details, names),
        kinds=_kinds(details, names, most_charts),
        scores=_scores(details, names, most_charts),
        groups=groups,
        more_examples=left_out(omitted, "example", "not shown"),
        cost=pivot_tables(rows, names, COST),
        further=pivot_tables(rows, names, FURTHER),
        every_row=_every_row(rows),
        more_rows=left_out(len(rows) - _MOST_ROWS, "row", "in results.csv"),
        command=command,
    )
    return write_text(path, text)


def _lead(rows: Sequence[Row], names: Names) -> str:
    counts = [
        count_in_words(len({names.category(r) for r in rows}), "category", "categories"),
        count_in_words(len({names.method(r) for r in rows}), "method"),
        count_in_words(len({r.get("seed") for r in rows}), "seed"),
    ]
    same = [
        f"{c.replace('_', ' ')} {rows[0].get(c)}" for c in ("encoder", "image_size") if rows and c not in names.varying
    ]
    return ", ".join([*counts, *same])


def _tiles(rows: Sequence[Row], names: Names) -> list[Tile]:
    """The methods with the best mean AUROC."""
    auroc = pivot(rows, "image_auroc", names.category, names.method)
    aupro = pivot(rows, "aupro_30", names.category, names.method)
    ranked = sorted((m for m in auroc.methods if math.isfinite(auroc.mean(m))), key=lambda m: -auroc.mean(m))
    tiles = []
    for method in ranked[:_MOST_TILES]:
        area = aupro.mean(method) if method in aupro.methods else math.nan
        note = f"mean picture AUROC; AUPRO@30 % {area:.3f}" if math.isfinite(area) else "mean picture AUROC"
        tiles.append(Tile(f"{auroc.mean(method):.3f}", method, "", note))
    return tiles


def _results_note(rows: Sequence[Row], names: Names, details: Sequence[RunDetail]) -> str:
    seeds = len({r.get("seed") for r in rows})
    std = f"Means over {seeds} seeds ± standard deviation." if seeds > 1 else "One seed: the deviation is not known."
    several = len({names.method(r) for r in rows}) > 1
    best = "The best of each line is bold." if several else "One method only: there is nothing to compare it with."
    return " ".join(words for words in (std, best, _aupro_in_words(details)) if words)


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


def _evidence(details: Sequence[RunDetail], names: Names) -> Table | None:
    """What each limit rests on."""
    words = dict.fromkeys((names.category(d.row), names.method(d.row), d.threshold_source) for d in details)
    lines = [line for line in words if line[-1]]
    return Table(["category", "method", "evidence"], lines, "Evidence") if lines else None


def _undecided(rows: Sequence[Row], names: Names) -> list[Table]:
    """Shares of the unsure and the unknown, where there are any."""
    some = [(m, words) for m, words in UNDECIDED if any(row.get(m) not in (None, "", 0, "0") for row in rows)]
    return [table for table in pivot_tables(rows, names, some) if any(_is_positive(c) for r in table.rows for c in r)]


def _is_positive(cell: object) -> bool:
    return isinstance(cell, Cell) and float(cell.text) > 0


def _promised(details: Sequence[RunDetail]) -> Table | None:
    """Whether each method keeps the false-alarm rate that was asked for, as far as the good test pictures can show."""
    from blemish.evaluation import calibration_quality

    lines = [
        [
            method,
            percent(found.target),
            percent(found.kept.share),
            f"{percent(found.kept.low)} to {percent(found.kept.high)}",
            f"{found.images:,}",
            found.in_words,
        ]
        for method, found in calibration_quality(details).items()
    ]
    columns = ["method", "promised", "kept", "95 % confidence", "good pictures", "what they show"]
    return Table(columns, lines, "False alarms, promised and kept", frozenset({1, 2, 3, 4})) if lines else None


def _notes(details: Sequence[RunDetail], names: Names) -> list[str]:
    """What a reader of the numbers must know, such as masks that are missing."""
    return list(dict.fromkeys(f"{names.category(d.row)}: {note}" for d in details for note in d.notes))


def _recognition(details: Sequence[RunDetail], names: Names) -> dict[str, object] | None:
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
    share = f"{100 * right / max(tested, 1):.1f} %"
    return {
        "words": f"{right:,} of {tested:,} test pictures ({share}) were taken for what they are.",
        "table": Table(["category", "method", "recognised right"], lines, "By category", frozenset({2})),
    }


def _kinds(details: Sequence[RunDetail], names: Names, most: int) -> dict[str, object]:
    """How many images of each kind of defect were found: bars for one method, a table a category for several."""
    hits: dict[str, dict[str, dict[str, list[bool]]]] = {}
    for detail in details:
        for image in (one for one in detail.images if one.label):
            kinds = hits.setdefault(names.category(detail.row), {}).setdefault(image.defect or "defect", {})
            kinds.setdefault(names.method(detail.row), []).append(image.verdict != "good")
    methods = list(dict.fromkeys(names.method(d.row) for d in details))
    some = list(hits.items())[:most]
    alone = len(methods) == 1
    return {
        "charts": [_kind_bars(category, kinds, methods[0]) for category, kinds in some] if alone else [],
        "tables": [] if alone else [_kind_table(category, kinds, methods) for category, kinds in some],
        "more": left_out(len(hits) - len(some), "chart" if alone else "table", "not drawn"),
    }


def _kind_bars(category: str, kinds: Hits, method: str) -> Markup:
    found = {kind: by_method.get(method, [False]) for kind, by_method in sorted(kinds.items())}
    bars = [charts.Bar(kind, float(np.mean(h)), f"{sum(h)} of {len(h)}") for kind, h in found.items()]
    return charts.bar_chart(bars, title=category, maximum=1.0, width=480)


def _kind_table(category: str, kinds: Hits, methods: Sequence[str]) -> Table:
    lines = [[kind, *(_kind_cell(found.get(m)) for m in methods)] for kind, found in sorted(kinds.items())]
    return Table(["kind of defect", *methods], lines, category, frozenset(range(1, len(methods) + 1)))


def _kind_cell(hits: list[bool] | None) -> Cell | None:
    return Cell(f"{sum(hits)} of {len(hits)}", share=sum(hits) / len(hits)) if hits else None


def _scores(details: Sequence[RunDetail], names: Names, most: int) -> dict[str, object]:
    """Scores as multiples of the limit, so that seeds can share a chart."""
    groups: dict[tuple[str, str], list[RunDetail]] = defaultdict(list)
    for detail in details:
        if any(image.threshold > 0 for image in detail.images):
            groups[names.category(detail.row), names.method(detail.row)].append(detail)
    drawn = [_histogram(f"{category}, {method}", group) for (category, method), group in list(groups.items())[:most]]
    return {"charts": drawn, "more": left_out(len(groups) - len(drawn), "chart", "not drawn")}


def _histogram(title: str, details: Sequence[RunDetail]) -> Markup:
    images = [image for d in details for image in d.images if image.threshold > 0]
    kinds = [
        charts.Group(name, np.array([one.score / one.threshold for one in images if one.label == label]), tone)
        for name, label, tone in (("good", 0, "good"), ("defective", 1, "defect"))
    ]
    x_label = "score as multiple of the limit"
    return charts.histogram(kinds, title=title, threshold=1.0, bins=40, x_label=x_label, width=480)


def _every_row(rows: Sequence[Row]) -> Table:
    columns = list(rows[0]) if rows else ["category"]
    return Table(columns, [[fact(row.get(c)) for c in columns] for row in rows[:_MOST_ROWS]], "Rows of results.csv")
