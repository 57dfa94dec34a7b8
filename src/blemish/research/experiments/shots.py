"""How many normal images are enough: every detector over a growing number of shots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

from blemish.research.experiments.base import (
    Chart,
    CurveChart,
    Matrix,
    Row,
    Verdict,
    at_least,
    curves,
    gathered,
    matrix,
    places,
)
from blemish.research.experiments.comparisons import AUPRO, AUROC, WORDS, Comparison, Variant
from blemish.research.experiments.sources import ANOMALY_DINO, FOUNDAD
from blemish.research.experiments.verdicts import ranked

ENOUGH = 0.01  # of image AUROC under the best that the detector reaches: more images hardly help


@dataclass(frozen=True, kw_only=True)
class Shots(Comparison):
    """`detectors` over `shots`, each on its own encoder or on `encoder`.

    `steps` bounds the training of those that are trained in steps; None is each one's own.
    """

    QUESTION: ClassVar[str] = "How many good pictures does each detector need?"
    SOURCE: ClassVar[str] = (
        f"The few-shot tables of {FOUNDAD}: picture AUROC on MVTec AD 96.1 at 1 shot, 96.8 at 2; and of "
        f"{ANOMALY_DINO}: 96.6 at 1 shot."
    )
    FULL: ClassVar[Mapping[str, Any]] = {"most_test": None, "steps": None}

    detectors: tuple[str, ...] = ("auto", "patchcore", "anomalydino", "foundad")
    shots: tuple[int | None, ...] = (1, 2, 4, 8, None)
    encoder: str = "auto"
    steps: int | None = 200

    def check(self) -> None:
        super().check()
        at_least("steps", (self.steps,), 1)

    def variants(self, seed: int) -> list[Variant]:
        return [Variant(name, name, self.encoder, bounded(name, self.steps)) for name in self.detectors]

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        rows = with_every_number(rows)
        values = gathered(rows, AUROC, "variant", "shots")
        order = places(rows, "shots")
        sentences = []
        if not rows:
            sentences.append("No category has rows for every number of good pictures: nothing can be compared.")
        for shots in order[:1]:
            here = {name: found for (name, k), found in values.items() if k == shots}
            sentences.append(f"From {shots_in_words(shots)}, by mean picture AUROC: {ranked(here)}.")
        for name in self.names(rows):
            means = {k: fmean(values[name, k]) for k in order if (name, k) in values}
            if not means:
                continue
            best = max(means.values())
            enough = next(k for k, mean in means.items() if mean >= best - ENOUGH)
            if enough == list(means)[-1] and enough != "all" and len(means) > 1:
                sentences.append(
                    f"{name} still gains at {shots_in_words(enough)}, the most that were tried ({best:.3f})."
                )
                continue
            sentences.append(
                f"{name}: {shots_in_words(enough)} {'is' if enough == '1' else 'are'} enough ({means[enough]:.3f}; "
                f"its best mean is {best:.3f})."
            )
        rule = (
            f"A number of pictures is enough when the mean picture AUROC is within {ENOUGH:g} of the best mean that "
            "the same detector reaches with any number; means are over the categories and seeds that have every number."
        )
        return Verdict(tuple(sentences), rule)

    def charts(self, rows: Sequence[Row]) -> list[Chart]:
        found: list[Chart] = []
        for measure in (AUROC, AUPRO):
            for category in dict.fromkeys(str(row["category"]) for row in rows):
                here = [row for row in rows if row["category"] == category]
                lines = curves(here, measure, "variant", "shots")
                if lines:
                    title = f"{category}, {WORDS[measure]}"
                    found.append(CurveChart(title, "good pictures", WORDS[measure], places(here, "shots"), lines))
        return found

    def tables(self, rows: Sequence[Row]) -> list[Matrix]:
        rows = with_every_number(rows)
        found = [matrix(rows, m, "variant", "shots", f"{WORDS[m]}, mean over categories") for m in (AUROC, AUPRO)]
        found.append(matrix(rows, "fit_seconds", "variant", "shots", "Time to learn, s", higher_is_better=None))
        return [table for table in found if table.cells]

    def notes(self, rows: Sequence[Row]) -> list[str]:
        sentences = super().notes(rows)
        compared = {str(row["category"]) for row in with_every_number(rows)}
        left_out = [name for name in dict.fromkeys(str(row["category"]) for row in rows) if name not in compared]
        if left_out:
            sentences.append(
                f"Means leave out {', '.join(left_out)}: not every number of good pictures that others have was tried."
            )
        if self.steps is not None:
            sentences.append(
                f"Detectors that learn by steps learned {self.steps} of them, which may be fewer than their own."
            )
        return sentences


def with_every_number(rows: Sequence[Row]) -> list[Row]:
    """The rows of each category and seed that every detector has with every number of shots that any has, in order.

    Means over others would compare different categories: those with few normal images lack the larger numbers.
    """
    found: dict[tuple[str, ...], set[tuple[str, str]]] = {}
    for row in rows:
        found.setdefault(_tested_on(row), set()).add((str(row["variant"]), str(row["shots"])))
    every = set().union(*found.values())
    return [row for row in rows if found[_tested_on(row)] == every]


def _tested_on(row: Row) -> tuple[str, ...]:
    return str(row["dataset"]), str(row["category"]), str(row["seed"])


def shots_in_words(shots: str) -> str:
    return "all good pictures" if shots == "all" else "1 good picture" if shots == "1" else f"{shots} good pictures"


def bounded(detector: str, steps: int | None) -> dict[str, Any]:
    """The setting that bounds a detector's training, where it has one."""
    return {} if steps is None else known_settings(detector, steps=steps)


def known_settings(detector: str, **settings: Any) -> dict[str, Any]:
    """Those of the `settings` that the detector has."""
    from blemish.detectors.settings import setting_names
    from blemish.registry import DETECTORS, lookup, resolve

    if detector == "auto":
        return {}
    known = setting_names(resolve(lookup(detector, DETECTORS, "detector").target))
    return {name: value for name, value in settings.items() if name in known}
