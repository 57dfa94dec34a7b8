"""What each detector of images with points costs, and what one model for all categories loses.

Li, Ye, Yu, Xie & Shen, "Text-Guided Multimodal Unified Industrial Anomaly Detection", arXiv 2604.22899, 2026,
table VII. Memory and speed are those of a process of its own that loads the saved model and inspects scan by scan, with
nothing encoded before; accuracy comes from all test scans, the category recognised and then given.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from blemish.evaluation import CategoryData, PeakMemory, Run, fit_run, inspect_test_images
from blemish.evaluation.probes import FitTimer
from blemish.model.inspector import Inspector
from blemish.research.experiments.base import BarChart, Chart, Matrix, Row, Tools, Values, Verdict, at_least, gathered
from blemish.research.experiments.comparisons import WORDS, Variant
from blemish.research.experiments.data import evenly
from blemish.research.experiments.multimodal import (
    FUSED,
    SHOWN,
    TEXTUAL,
    Multimodal,
    measures_of,
    published_table,
    whole_rows,
)
from blemish.research.experiments.shots import bounded
from blemish.research.experiments.verdicts import RULE, paired
from blemish.types import Sample

GIVEN = {measure: f"{measure}_given" for measure in SHOWN}
RECOGNISED, MODEL, SPEED, MEMORY = "recognised", "model_mb", "scans_per_second", "peak_memory_mb"
WITHIN = 0.02  # one model for all may lose so much against one a category
RIGHT = 0.98  # of the categories must be recognised
ALL, EACH = "one model for all", "one a category"
TESTED = ("dataset", "category", "shots", "seed")  # what rows share of models that learned from other categories


@dataclass(frozen=True)
class Cost:
    """What inspecting costs: the process's peak memory in 10⁶ bytes, and the seconds that a scan takes."""

    megabytes: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class MultimodalCost(Multimodal):
    """`detectors` as they are, fitted on all categories in one model and on each in one of its own.

    `timed` test scans are inspected one by one for time and memory, in a process of their own or not (`own_process`).
    """

    MEASURES: ClassVar[tuple[str, ...]] = (*Multimodal.MEASURES, SPEED, MODEL, RECOGNISED, *GIVEN.values())
    QUESTION: ClassVar[str] = "What do memory and time buy, and what does one model for all categories lose?"
    SOURCE: ClassVar[str] = (
        f"Table VII of {Multimodal.PUBLISHED}: 1089.8 MB and 10.1 scans a second on a GPU, with AUROC and AUPRO beside."
    )
    FULL: ClassVar[Mapping[str, Any]] = {**Multimodal.FULL, "timed": 20}

    detectors: tuple[str, ...] = ("btf", "cfm", TEXTUAL)
    timed: int = 6
    own_process: bool = True

    def check(self) -> None:
        super().check()
        at_least("timed", (self.timed,), 1)

    def groups(self, categories: Sequence[CategoryData]) -> list[tuple[tuple[CategoryData, ...], bool]]:
        return [(tuple(categories), True), *(((category,), False) for category in categories)]

    def variants(self, seed: int) -> list[Variant]:
        words = {TEXTUAL: {"text_encoder": self.text_encoder}}
        return [
            Variant(name, name, self.encoder, {**bounded(name, self.steps), **words.get(name, {})})
            for name in self.detectors
        ]

    def measured(self, run: Run, tools: Tools) -> Iterator[Row]:
        encoder = tools.encoders.of(run)
        timer = FitTimer(encoder)
        inspector, counts = fit_run(run, tools.progress, encoder)
        seconds = timer.seconds()
        megabytes, cost = self.cost_of(inspector, run)
        for category in run.categories:
            tested = inspect_test_images(inspector, category, tools.progress)
            row = {
                "dataset": category.dataset,
                "category": category.name,
                "view": FUSED,
                **measures_of(tested),
                "n_train": counts[category.name],
                "fit_seconds": seconds,
                "ms_per_picture": 1000 * cost.seconds,
                SPEED: 1 / cost.seconds,
                MEMORY: cost.megabytes,
                MODEL: megabytes,
                RECOGNISED: float("nan"),
            }
            known = {measure: row[measure] for measure in SHOWN}
            if run.pooled:
                given = inspect_test_images(inspector, category, tools.progress, given_category=True).measures()
                known = {measure: given[measure] for measure in SHOWN}
                right = [prediction.category == category.name for prediction in tested.predictions]
                row[RECOGNISED] = sum(right) / len(right)
            yield row | {GIVEN[measure]: value for measure, value in known.items()}

    def cost_of(self, inspector: Inspector, run: Run) -> tuple[float, Cost]:
        """How large the saved model is, in 10⁶ bytes, and what inspecting with it costs."""
        scans = [
            Sample(s.image, s.points, units=s.units)
            for s in evenly([s for category in run.categories for s in category.test], self.timed)
        ]
        folder = Path(tempfile.mkdtemp(prefix="blemish-"))
        try:
            model = inspector.save(folder / "model")
            size = sum(file.stat().st_size for file in model.rglob("*") if file.is_file()) / 1e6
            if not self.own_process:
                return size, inspecting(model, scans, run.device)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                return size, pool.submit(inspecting, model, scans, run.device).result()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        named = _named(rows)
        pooled = [row for row in rows if row["pooled"]]
        sentences = [sentence for measure in SHOWN for sentence in self.best_against_rest(pooled, measure)]
        for name in self.names(rows):
            sentences += [*_costs(name, pooled), *_unified(name, named), *_recognised(name, pooled)]
        rule = (
            f"One model for all counts as good as one a category where its mean is not more than {WITHIN:g} below; "
            f"categories as recognised where {100 * RIGHT:g} % are right."
        )
        return Verdict(tuple(sentences), f"Detectors are compared as one model for all. {RULE} {rule}")

    def tables(self, rows: Sequence[Row]) -> list[Matrix]:
        named = _named(rows)
        costs = {
            "peak memory, MB": MEMORY,
            "scans a second": SPEED,
            "learning, s": "fit_seconds",
            "saved model, MB": MODEL,
            "category recognised": RECOGNISED,
            **{f"{WORDS[measure]}, category given": given for measure, given in GIVEN.items()},
        }
        cells = {
            (key[0], words): values
            for words, measure in costs.items()
            for key, values in gathered(named, measure, "model").items()
        }
        return [
            published_table(named, "model", "Accuracy, the category recognised; means over categories"),
            Matrix("Cost, and accuracy where the category is given", "model", cells, higher_is_better=None),
            *super().tables(pooled_rows(rows))[1:],
        ]

    def charts(self, rows: Sequence[Row]) -> list[Chart]:
        pooled = pooled_rows(rows)
        found = super().charts(pooled)
        for title, measure in (("Peak memory, MB", MEMORY), ("Scans a second", SPEED)):
            bars = {key[0]: values for key, values in gathered(pooled, measure, "variant").items()}
            found += [BarChart(title, bars, maximum=None)] if bars else []
        return found

    def notes(self, rows: Sequence[Row]) -> list[str]:
        where = "a process of its own" if self.own_process else "the process that learned it, whose memory counts too"
        sentences = [note for note in super().notes(rows) if not note.startswith("One model")]
        return [
            *sentences,
            f"Scans of {self.image_size} px. Memory and speed: {self.timed} scans one by one in {where}, after one "
            "that is not counted; files are read, points prepared and everything encoded anew.",
            "Seconds to fit are left out where features of an earlier run were used.",
            "Every detector has its own defaults.",
        ]


def inspecting(model: Path, scans: Sequence[Sample], device: str) -> Cost:
    """What a saved model costs that inspects `scans` one by one, after one that is not counted."""
    memory = PeakMemory()
    inspector = Inspector.load(model, device=device)
    inspector.inspect(scans[0])
    started = time.perf_counter()
    for scan in scans:
        inspector.inspect(scan)
    return Cost(memory.megabytes(), (time.perf_counter() - started) / len(scans))


def pooled_rows(rows: Sequence[Row]) -> list[Row]:
    """Those of one model for all categories."""
    return [row for row in whole_rows(rows) if row["pooled"]]


def _named(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows with a column `model` that says which detector it is, and of what."""
    return [{**row, "model": f"{row['variant']}, {ALL if row['pooled'] else EACH}"} for row in rows]


def _costs(name: str, rows: Sequence[Row]) -> list[str]:
    found = {measure: _of(rows, name, measure) for measure in (MEMORY, SPEED, "fit_seconds", MODEL)}
    if not all(found.values()):
        return []
    memory, speed, learning, size = (fmean(values) for values in found.values())
    return [
        f"{name}: {memory:,.0f} MB at most, {speed:.2g} scans a second, learned in {learning:,.0f} s, {size:,.0f} MB "
        "on disk."
    ]


def _unified(name: str, named: Sequence[Row]) -> list[str]:
    sentences = []
    for measure in SHOWN:
        found = paired(named, measure, _is(f"{name}, {ALL}"), _is(f"{name}, {EACH}"), TESTED)
        if found.pairs:
            far = "is within" if abs(found.mean) <= WITHIN else f"{'gains' if found.mean > 0 else 'loses'} more than"
            sentences.append(f"{found.mean:+.3f} {WORDS[measure]} ({far} {WITHIN:g})")
    return [f"{name}, {ALL} minus {EACH}: {', '.join(sentences)}."] if sentences else []


def _recognised(name: str, rows: Sequence[Row]) -> list[str]:
    shares = _of(rows, name, RECOGNISED)
    if not shares:
        return []
    gains = [
        f"{fmean(after) - fmean(before):+.3f} {WORDS[measure]}"
        for measure, given in GIVEN.items()
        if (after := _of(rows, name, given)) and (before := _of(rows, name, measure))
    ]
    enough = "" if fmean(shares) >= RIGHT else f", under {100 * RIGHT:g} %"
    return [
        f"{name} recognises {100 * fmean(shares):.1f} % of the categories{enough}; told them, it gains "
        f"{', '.join(gains) or 'nothing that can be measured'}."
    ]


def _of(rows: Sequence[Row], name: str, measure: str) -> Values:
    return gathered([row for row in rows if row["variant"] == name], measure, "variant").get((name,), ())


def _is(model: str) -> Any:
    return lambda row: row["model"] == model
