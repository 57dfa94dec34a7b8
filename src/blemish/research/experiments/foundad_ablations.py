"""FoundAD's own ablations: which encoder, which projector, which block, how many patches make the image score.

Zhai, Zhou, Deng, Heckler, Navab & Busam, "Foundation Visual Encoders Are Secretly Few-Shot Anomaly Detectors", ICLR
2026, https://arxiv.org/abs/2510.01934. As there, one model is fitted on all categories together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

from blemish.errors import SettingsError
from blemish.evaluation import Run, fit_run, inspect_test_images
from blemish.research.experiments.base import (
    Chart,
    CurveChart,
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
from blemish.research.experiments.comparisons import (
    AUROC,
    MEASURES,
    WORDS,
    Comparison,
    Variant,
    with_settings,
)
from blemish.research.experiments.data import encoders_named
from blemish.research.experiments.shots import known_settings
from blemish.research.experiments.sources import FOUNDAD
from blemish.research.experiments.verdicts import LEAST, RULE, compared

# Measures that rest on scores alone: with another `top`, the threshold and the p-values are those of none.
COUNTED = (
    "n_good",
    "n_defective",
    "n_masks",
    *MEASURES[MEASURES.index("image_auroc") : MEASURES.index("aupro_01") + 1],
)

_FULL: Mapping[str, Any] = {
    "most_test": None,
    "shots": (1, 2, 4),
    "steps": 2000,
    "image_size": 512,
}


@dataclass(frozen=True, kw_only=True)
class FoundadAblation(Comparison):
    """`detector`, trained for `steps` on `shots` normal images of every category; `one_model` for all of them."""

    SOURCE: ClassVar[str] = f"{FOUNDAD}, ablations on MVTec AD at 1 shot, picture AUROC: "
    FULL: ClassVar[Mapping[str, Any]] = _FULL

    shots: tuple[int | None, ...] = (1,)
    image_size: int | None = 224
    detector: str = "foundad"
    steps: int = 200
    one_model: bool = True

    def check(self) -> None:
        super().check()
        at_least("steps", (self.steps,), 1)

    @property
    def pooled(self) -> bool:
        return self.one_model

    def notes(self, rows: Sequence[Row]) -> list[str]:
        models = "One model for all categories" if self.one_model else "One model a category"
        return [*super().notes(rows), f"{models}, {self.steps} steps, pictures of {self.image_size} px."]


@dataclass(frozen=True, kw_only=True)
class FoundadEncoders(FoundadAblation):
    """`encoders`: "all" takes every one that loads without a download."""

    QUESTION: ClassVar[str] = "Whose features lie on a manifold that a projector learns from a few good pictures?"
    SOURCE: ClassVar[str] = FoundadAblation.SOURCE + (
        "DINOv3 96.1, DINOv2 95.2, DINO-SigLIP 92.5, DINO 88.3, SigLIP 87.8, CLIP 79.0."
    )
    encoders: tuple[str, ...] = ("all",)

    def variants(self, seed: int) -> list[Variant]:
        names = encoders_named(self.encoders, joined=False)
        return [Variant(name, self.detector, name, {"steps": self.steps}) for name in names]

    def notes(self, rows: Sequence[Row]) -> list[str]:
        return [*super().notes(rows), "Compared are the encoders at hand; others join with --encoder."]


@dataclass(frozen=True, kw_only=True)
class FoundadProjector(FoundadAblation):
    """Projectors of attention blocks of `depths`, and of as many perceptron blocks as `mlp_depths` say."""

    QUESTION: ClassVar[str] = "Does the projector need attention, and how deep must it be?"
    SOURCE: ClassVar[str] = FoundadAblation.SOURCE + "ViT of depth 4, 6 and 8: 95.5, 96.1, 95.8; MLP of depth 6: 92.1."
    AXES: ClassVar[frozenset[str]] = FoundadAblation.AXES | {"depths", "mlp_depths"}

    encoder: str = "auto"
    depths: tuple[int, ...] = (4, 6, 8)
    mlp_depths: tuple[int, ...] = (6,)

    def check(self) -> None:
        super().check()
        at_least("depths", self.depths, 1)
        at_least("mlp_depths", self.mlp_depths, 1)

    def variants(self, seed: int) -> list[Variant]:
        return [
            Variant(
                f"{words} {depth}",
                self.detector,
                self.encoder,
                {"steps": self.steps, "projector": kind, "depth": depth},
            )
            for words, kind, depths in (("ViT", "vit", self.depths), ("MLP", "mlp", self.mlp_depths))
            for depth in depths
        ]


@dataclass(frozen=True, kw_only=True)
class FoundadLayersAndK(FoundadAblation):
    """Learns on each of the encoder's `blocks`, then takes the mean of each of the `tops` largest patches as score.

    Negative blocks count from the end.
    """

    KEY: ClassVar[tuple[str, ...]] = (*FoundadAblation.KEY, "block", "top")
    QUESTION: ClassVar[str] = (
        "Which block's features, and how many of the highest-scoring patches, separate good parts from others?"
    )
    SOURCE: ClassVar[str] = (
        f"{FOUNDAD}: the third-last block; the mean of the 10 largest patch scores on MVTec AD, of 6 on VisA."
    )
    AXES: ClassVar[frozenset[str]] = FoundadAblation.AXES | {"blocks"}

    encoder: str = "auto"
    blocks: tuple[int, ...] = (-7, -5, -3, -1)
    tops: tuple[int, ...] = (1, 3, 6, 10, 30, 100)

    def check(self) -> None:
        super().check()
        at_least("tops", self.tops, 1)
        if not known_settings(self.detector, top=1):
            raise SettingsError(
                "a detector whose picture score is a mean of patches", repr(self.detector), "take foundad"
            )

    def variants(self, seed: int) -> list[Variant]:
        return [
            Variant(
                f"block {block}",
                self.detector,
                self.encoder,
                {"steps": self.steps, "layers": [block]},
                {"block": block},
            )
            for block in self.blocks
        ]

    def measured(self, run: Run, tools: Tools) -> Iterator[Row]:
        """Fit once, then score every test image with every number of patches; thresholds belong to none of them."""
        encoder = tools.encoders.of(run)
        inspector, counts = fit_run(run, tools.progress, encoder)
        for top in self.tops:
            changed = inspector.with_detector(with_settings(inspector.detector_, top=top))
            for category in run.categories:
                found = inspect_test_images(changed, category, tools.progress).measures()
                yield {
                    "dataset": category.dataset,
                    "category": category.name,
                    "top": top,
                    **dict.fromkeys(MEASURES, float("nan")),
                    **{name: found[name] for name in COUNTED},
                    "n_train": counts[category.name],
                }

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        values = gathered(rows, AUROC, "variant", "top")
        if not values:
            return Verdict((f"No row has {WORDS[AUROC]}.",), RULE)
        means = {key: fmean(found) for key, found in values.items()}
        best = max(means, key=lambda key: means[key])
        near = [f"{name} with K = {top}" for (name, top), mean in means.items() if mean >= means[best] - LEAST]
        sentences = [f"Best mean picture AUROC: {best[0]} with K = {best[1]}, {means[best]:.3f}."]
        sentences.append(f"Within {LEAST:g} of it: {', '.join(near)}.")
        blocks = [name for name in self.names(rows) if name != best[0]]
        here = [row for row in rows if str(row["top"]) == best[1]]
        sentences += [self._block(here, best[0], other) for other in blocks]
        return Verdict(
            tuple(sentences), f"Blocks are compared at the best K. {RULE} The best of many is flattered by chance."
        )

    def _block(self, rows: Sequence[Row], best: str, other: str) -> str:
        return compared(best, other, self.against(rows, best, other, AUROC), WORDS[AUROC])

    def tables(self, rows: Sequence[Row]) -> list[Matrix]:
        return [matrix(rows, AUROC, "variant", "top", "Picture AUROC by block and K, mean over categories")]

    def charts(self, rows: Sequence[Row]) -> list[Chart]:
        lines = curves(rows, AUROC, "variant", "top")
        return [
            CurveChart("Picture AUROC", "K, patches in the picture score", WORDS[AUROC], places(rows, "top"), lines)
        ]

    def notes(self, rows: Sequence[Row]) -> list[str]:
        return [
            *super().notes(rows),
            "Measured on the test pictures: this describes the method; a choice made here would need other pictures.",
        ]
