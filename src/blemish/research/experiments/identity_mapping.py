"""When does a reconstruction copy the defect too? Bottleneck × masking ratio → residual on normal and defective places.

Question (d) of Ben Ammar et al., "Foundation Models and Transformers for Anomaly Detection: A Survey", arXiv
2507.15905, 2025. A place with a synthetic anomaly is compared with itself before the anomaly was pasted: where both
leave the same residual, the network reconstructs any input, and its score says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, ClassVar

import numpy as np

from blemish.augmentation.cutpaste import synthetic_anomaly
from blemish.data import image_of
from blemish.evaluation import CategoryData, Run, TestResults, build_inspector, fit_run, inspect_test_images
from blemish.evaluation.probes import FitTimer
from blemish.evaluation.results import resized
from blemish.model.inspector import Inspector
from blemish.preprocessing.foreground import from_pixels
from blemish.research.experiments.base import (
    Cell,
    Chart,
    CurveChart,
    Experiment,
    Matrix,
    Row,
    Tools,
    Verdict,
    at_least,
    curves,
    gathered,
    matrix,
    places,
)
from blemish.research.experiments.comparisons import AUPRO, AUROC
from blemish.research.experiments.data import check_available, fingerprint_of, limited
from blemish.research.experiments.shots import bounded, known_settings
from blemish.research.experiments.sources import SURVEY
from blemish.research.experiments.verdicts import spearman

COPIED = 1.5  # times the residual of the same place without anomaly; under it an anomaly counts as copied (our choice)
OPEN = "none"  # no bottleneck
RATIO, REAL = "made_up_ratio", "real_ratio"


@dataclass(frozen=True, kw_only=True)
class IdentityMapping(Experiment):
    """Bottleneck widths × masking ratios of a transformer auto-encoder.

    Without masking `plain` is trained, with it `masked`, both with `bottleneck` set and, for the second, `masking`; a
    bottleneck of 0 is none at all. Residuals are not whitened (`whiten` false), or even the small residual of a copy
    would stand out.
    `defects`: synthetic ones on each normal test image. `steps`, `image_size`, `shots`: of the detector.
    """

    QUESTION: ClassVar[str] = (
        "How narrow must a reconstruction's bottleneck be, or how much must be masked, before it stops to copy defects?"
    )
    SOURCE: ClassVar[str] = f"Question (d) of {SURVEY}: bottleneck and masking ratio, until identity mapping sets in."
    KEY: ClassVar[tuple[str, ...]] = (
        *("dataset", "category", "detector", "encoder", "image_size", "shots", "seed"),
        *("bottleneck", "masking", "data"),
    )
    MEASURES: ClassVar[tuple[str, ...]] = (
        *("residual_good", "residual_before", "residual_made_up", "residual_real", RATIO, REAL),
        *(AUROC, AUPRO, "n_train", "n_good", "n_defective", "fit_seconds"),
    )
    AXES: ClassVar[frozenset[str]] = Experiment.AXES | {"bottlenecks", "maskings", "shots"}
    FULL: ClassVar[Mapping[str, Any]] = {
        "most_test": None,
        "steps": None,
        "image_size": None,
        "bottlenecks": (4, 8, 16, 32, 64, 128, 256, 0),
        "maskings": (0.0, 0.25, 0.5, 0.75, 0.9),
    }

    shots: tuple[int | None, ...] = (8,)
    bottlenecks: tuple[int, ...] = (4, 16, 64, 0)
    maskings: tuple[float, ...] = (0.0, 0.5, 0.75)
    plain: str = "vit-autoencoder"
    masked: str = "vit-mae"
    encoder: str = "auto"
    image_size: int | None = 128
    steps: int | None = 200
    defects: int = 2

    def check(self) -> None:
        super().check()
        at_least("bottlenecks", self.bottlenecks, 0)
        at_least("shots", self.shots, 1)
        at_least("image_size", (self.image_size,), 1)
        at_least("steps", (self.steps,), 1)
        at_least("defects", (self.defects,), 1)
        at_least("maskings", self.maskings, 0)
        at_least("1 - masking", [round(1 - m, 6) for m in self.maskings], 0.01)

    def cells(self, categories: Sequence[CategoryData]) -> list[Cell]:
        tested = [limited(category, self.most_test) for category in categories]
        return [
            self._cell(group, shots, seed, bottleneck, masking, data)
            for group in [(category,) for category in tested]
            for data in [fingerprint_of(group)]
            for shots in self.shots
            for seed in self.seeds
            for masking in self.maskings
            for bottleneck in self.bottlenecks
        ]

    def _cell(
        self, group: tuple[CategoryData, ...], shots: int | None, seed: int, bottleneck: int, masking: float, data: str
    ) -> Cell:
        (category,) = group
        detector = self.masked if masking else self.plain
        settings = {"bottleneck": bottleneck, **known_settings(detector, whiten=False)}
        if masking:
            settings["masking"] = masking
        run = Run(
            categories=group,
            detector=detector,
            encoder=self.encoder,
            image_size=self.image_size,
            shots=None if shots is None or shots >= len(category.train) else shots,
            seed=seed,
            device=self.device,
            settings={**settings, **bounded(detector, self.steps)},
        )
        method = build_inspector(run)
        check_available(method.chosen_encoder)
        key = {
            "dataset": category.dataset,
            "category": category.name,
            "detector": method.detector_name,
            "encoder": method.chosen_encoder,
            "image_size": method.image_size,
            "shots": "all" if run.shots is None else run.shots,
            "seed": seed,
            "bottleneck": bottleneck or OPEN,
            "masking": masking,
            "data": data,
        }
        return Cell(key, partial(self.measured, run))

    def measured(self, run: Run, tools: Tools) -> Iterator[Row]:
        encoder = tools.encoders.of(run)
        timer = FitTimer(encoder)
        inspector, counts = fit_run(run, tools.progress, encoder)
        seconds = timer.seconds()
        (category,) = run.categories
        tested = inspect_test_images(inspector, category, tools.progress)
        found = tested.measures()
        good, real = real_residuals(tested)
        before, after = synthetic_residuals(inspector, tested, self.defects, run.seed)
        yield {
            "residual_good": good,
            "residual_before": before,
            "residual_made_up": after,
            "residual_real": real,
            RATIO: after / before if before > 0 else float("nan"),
            REAL: real / good if good > 0 else float("nan"),
            **{name: found[name] for name in (AUROC, AUPRO, "n_good", "n_defective")},
            "n_train": counts[category.name],
            "fit_seconds": seconds,
        }

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        sentences = []
        for masking in places(rows, "masking"):
            here = [row for row in rows if str(row["masking"]) == masking]
            sentences.append(f"{masking_in_words(masking)}: {onset(here)}")
        aurocs = {key: fmean(found) for key, found in gathered(rows, AUROC, "masking", "bottleneck").items()}
        if aurocs:
            masking, bottleneck = max(aurocs, key=lambda key: aurocs[key])
            sentences.append(
                f"Best mean picture AUROC: {aurocs[masking, bottleneck]:.3f}, {masking_in_words(masking).lower()}, "
                f"{width_in_words(bottleneck)}."
            )
        rule = (
            "Identity mapping has set in at the narrowest bottleneck from which on, for it and every wider one, "
            f"made-up defects leave less than {COPIED:g} times the residual that the same places left before the "
            "defect was pasted (means over categories and seeds)."
        )
        return Verdict(tuple(sentences), rule)

    def charts(self, rows: Sequence[Row]) -> list[Chart]:
        named = [{**row, "line": masking_in_words(str(row["masking"]))} for row in rows]
        shown = (
            (RATIO, "Made-up defects", "residual, times that before"),
            (REAL, "Real defects", "residual, times that of good parts"),
            (AUROC, "Picture AUROC", "picture AUROC"),
        )
        threshold = ("copied under this", COPIED)
        return [
            CurveChart(
                title, "bottleneck", y, places(rows, "bottleneck"), lines, threshold if measure == RATIO else None
            )
            for measure, title, y in shown
            if (lines := curves(named, measure, "line", "bottleneck"))
        ]

    def tables(self, rows: Sequence[Row]) -> list[Matrix]:
        shown = (
            (RATIO, "Residual of made-up defects, times that of the same places before"),
            (REAL, "Residual of real defects, times that of good parts"),
            (AUROC, "Picture AUROC"),
            ("residual_good", "Residual of good parts"),
        )
        found = [
            matrix(rows, m, "masking", "bottleneck", words, higher_is_better=None if m == "residual_good" else True)
            for m, words in shown
        ]
        return [table for table in found if table.cells]

    def notes(self, rows: Sequence[Row]) -> list[str]:
        sentences = ["Residuals are means over pixels of the map; made-up defects are pasted into good test pictures."]
        if self.steps is not None:
            sentences.append(f"{self.steps} steps at {self.image_size or 'the own size in'} px.")
        if not gathered(rows, REAL, "masking"):
            sentences.append("These pictures come without masks, so that the residual of real defects is not known.")
        return sentences


def masking_in_words(masking: str) -> str:
    return "Without masking" if float(masking) == 0 else f"{100 * float(masking):.0f} % masked"


def onset(rows: Sequence[Row]) -> str:
    """From which bottleneck on synthetic anomalies are copied, and how their residual goes with the bottleneck."""
    ratios = {key[0]: fmean(found) for key, found in gathered(rows, RATIO, "bottleneck").items()}
    if not ratios:
        return "no residual was measured."
    widths = sorted(ratios, key=lambda width: float("inf") if width == OPEN else float(width))
    copied = len(widths)
    while copied and ratios[widths[copied - 1]] < COPIED:
        copied -= 1
    shown = ", ".join(f"{ratios[width]:.2f}× at {width}" for width in widths)
    trend = spearman(range(len(widths)), [ratios[width] for width in widths]) if len(widths) > 2 else float("nan")
    tail = f" Rank correlation of the two: {trend:+.2f}." if trend == trend else ""
    if copied == len(widths):
        return f"identity mapping does not set in, up to {width_in_words(widths[-1])} ({shown}).{tail}"
    if copied == 0:
        return f"defects are copied at every bottleneck ({shown}).{tail}"
    where = "only without a bottleneck" if widths[copied] == OPEN else f"at {width_in_words(widths[copied])}"
    return f"identity mapping sets in {where} ({shown}).{tail}"


def width_in_words(width: str) -> str:
    return "no bottleneck" if width == OPEN else f"a bottleneck of {width}"


def real_residuals(tested: TestResults) -> tuple[float, float]:
    """Mean of the map over normal test images, and over the masks of defective ones (nan without masks)."""
    good, real = [], []
    for sample, prediction, mask in zip(tested.samples, tested.predictions, tested.masks, strict=True):
        if not sample.label:
            good.append(float(prediction.map.mean()))
        elif mask is not None and mask.any():
            real.append(float(resized(prediction.map, mask.shape)[mask].mean()))
    return mean_or_nan(good), mean_or_nan(real)


def synthetic_residuals(inspector: Inspector, tested: TestResults, defects: int, seed: int) -> tuple[float, float]:
    """Mean of the map where an anomaly is pasted into normal test images: before, and after."""
    before, after = [], []
    for index, (sample, prediction) in enumerate(zip(tested.samples, tested.predictions, strict=True)):
        if sample.label:
            continue
        image = image_of(sample, inspector.model_.full_scale)
        foreground = from_pixels(image)
        for number in range(defects):
            altered, mask = synthetic_anomaly(image, foreground, np.random.default_rng((seed, index, number)))
            before.append(float(prediction.map[mask].mean()))
            after.append(float(inspector.inspect(altered).map[mask].mean()))
    return mean_or_nan(before), mean_or_nan(after)


def mean_or_nan(values: Sequence[float]) -> float:
    return fmean(values) if values else float("nan")
