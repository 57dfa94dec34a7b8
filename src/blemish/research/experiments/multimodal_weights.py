"""How much the agreement with the text should weigh in the score.

Li, Ye, Yu, Xie & Shen, "Text-Guided Multimodal Unified Industrial Anomaly Detection", arXiv 2604.22899, 2026, figure 5.
The weights α of Ψ_rgb ⊙ Ψ_3d and β = 1 − α of Ψ_text take no part in training: one fitted model is scored with each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

from blemish.detectors.base import Detector
from blemish.errors import SettingsError
from blemish.evaluation import Run
from blemish.research.experiments.base import (
    Chart,
    Curve,
    CurveChart,
    Matrix,
    Row,
    Values,
    Verdict,
    at_least,
    gathered,
    places,
)
from blemish.research.experiments.comparisons import AUPRO, AUPRO_1, AUROC, PAIR, WORDS, Variant, with_settings
from blemish.research.experiments.multimodal import FUSED, SHOWN, TEXTUAL, Multimodal, View, published_table
from blemish.research.experiments.verdicts import LEAST, RULE, compared, paired


@dataclass(frozen=True, kw_only=True)
class MultimodalWeights(Multimodal):
    """`alphas`: how much the agreement of image and points weighs, of 1; the rest is that with the words."""

    KEY: ClassVar[tuple[str, ...]] = (*Multimodal.KEY, "alpha")
    QUESTION: ClassVar[str] = "How much should agreement with the words weigh beside that of picture and points?"
    SOURCE: ClassVar[str] = f"Figure 5 of {Multimodal.PUBLISHED}: α = β = 0.5."
    FULL: ClassVar[Mapping[str, Any]] = {**Multimodal.FULL, "alphas": tuple(step / 10 for step in range(11))}

    alphas: tuple[float, ...] = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)

    def check(self) -> None:
        super().check()
        at_least("alphas", self.alphas, 0)
        if max(self.alphas) > 1:
            raise SettingsError("alphas from 0 to 1", f"{list(self.alphas)}", "lower them; β is 1 − α")

    def variants(self, seed: int) -> list[Variant]:
        return [
            Variant(
                TEXTUAL, TEXTUAL, self.encoder, self.textual(prototype_weight=0.0, missing_weight=0.0, image_weight=0.0)
            )
        ]

    def views(self, run: Run, detector: Detector) -> list[View]:
        return [
            View(
                {"view": FUSED, "alpha": alpha},
                with_settings(detector, crossmodal_weight=alpha, text_weight=1 - alpha),
                thresholds=alpha == own_alpha(detector),
            )
            for alpha in self.alphas
        ]

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        sentences = [sentence for measure in SHOWN for sentence in _best(rows, measure)]
        return Verdict(
            tuple(sentences),
            f"The best weight is compared with both ends. {RULE} The best of many is flattered by chance.",
        )

    def tables(self, rows: Sequence[Row]) -> list[Matrix]:
        return [published_table(rows, "alpha", "Means over categories, by α")]

    def charts(self, rows: Sequence[Row]) -> list[Chart]:
        found: list[Chart] = []
        for title, shown in (("Pictures", (AUROC,)), ("Pixels", (AUPRO, AUPRO_1))):
            lines = tuple(Curve(WORDS[measure], by_alpha(rows, measure)) for measure in shown)
            lines = tuple(line for line in lines if line.values)
            if lines:
                found.append(CurveChart(title, "α, β = 1 − α", "mean", places(rows, "alpha"), lines))
        return found

    def notes(self, rows: Sequence[Row]) -> list[str]:
        return [
            *super().notes(rows),
            "Measured on the test scans: this describes the method; a choice made here would need other scans.",
        ]


def own_alpha(detector: Detector) -> float:
    """The weight α that the detector was fitted with, of α + β = 1."""
    alpha, beta = detector.settings["crossmodal_weight"], detector.settings["text_weight"]
    return float(alpha / (alpha + beta))


def by_alpha(rows: Sequence[Row], measure: str) -> dict[str, Values]:
    """A measure's values by α."""
    return {key[0]: values for key, values in gathered(rows, measure, "alpha").items()}


def _best(rows: Sequence[Row], measure: str) -> list[str]:
    """Where a measure is best, how wide the top is, and whether it beats either product by itself."""
    means = {alpha: fmean(values) for alpha, values in by_alpha(rows, measure).items()}
    if not means:
        return [f"No row has {WORDS[measure]}."]
    best = max(means, key=lambda alpha: means[alpha])
    near = [alpha for alpha, mean in means.items() if mean >= means[best] - LEAST]
    sentences = [
        f"Best mean {WORDS[measure]}: {means[best]:.3f} with α = {best}; within {LEAST:g} of it: {', '.join(near)}."
    ]
    order = places(rows, "alpha")
    for end in (order[0], order[-1]):
        if end != best:
            found = paired(rows, measure, _at(best), _at(end), PAIR)
            sentences.append(compared(f"α = {best}", f"α = {end}", found, WORDS[measure]))
    return sentences


def _at(alpha: str) -> Any:
    return lambda row: str(row["alpha"]) == alpha
