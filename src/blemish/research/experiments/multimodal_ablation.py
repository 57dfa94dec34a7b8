"""Which module earns its place, and which defects each modality finds on its own.

Li, Ye, Yu, Xie & Shen, "Text-Guided Multimodal Unified Industrial Anomaly Detection", arXiv 2604.22899, 2026, table V.
A fitted model is also shown scans without points, or without an image, and asked for the map of one modality of whole
scans; its predictions are counted by what a defect changes: geometry, colour, or both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

from blemish.detectors.base import Detector, Explains
from blemish.evaluation import Run
from blemish.research.experiments.base import Matrix, Row, Verdict, gathered, matrix
from blemish.research.experiments.comparisons import AUPRO, AUROC, WORDS, Variant
from blemish.research.experiments.multimodal import ALIKE, FUSED, GROUPS, TEXTUAL, ModalityScore, Multimodal, View
from blemish.research.experiments.shots import bounded
from blemish.research.experiments.verdicts import mean_and_std
from blemish.types import POINTS, RGB

OURS = "GACM + OCTA + Ψ_proto + Ψ_missing"
DEEP = f"deep {OURS}"
WHOLE = f"{DEEP} + image alone"
IMAGE, SURFACE = "picture alone", "points alone"
MAPS = {RGB: "the picture's share", POINTS: "the points' share", "text": "√Ψ_text"}
FOUND, UNSEEN = 0.75, 0.6  # mean image AUROC from which a kind of defect is found, and up to which it is not


@dataclass(frozen=True, kw_only=True)
class MultimodalAblation(Multimodal):
    """With and without each module; `pruned`: layers of the image's encoder that take the place of its own.

    Negative layers count from the end.
    """

    QUESTION: ClassVar[str] = "What do the geometry-aware mapper, the textual adaptor and earlier layers each add?"
    SOURCE: ClassVar[str] = (
        f"Table V of {Multimodal.PUBLISHED}, I-AUROC / AUPRO@30: neither module 91.58 / 96.42, one of them 93.47 / "
        "96.72 and 94.02 / 96.81, both with pruned layers 93.99 / 96.99."
    )
    AXES: ClassVar[frozenset[str]] = Multimodal.AXES | {"pruned"}

    pruned: tuple[int, ...] = (5, 3)

    @property
    def may_be_empty(self) -> frozenset[str]:
        return frozenset({"pruned"})

    def variants(self, seed: int) -> list[Variant]:
        both = {"mapper": "gacm", "text": True}
        published = {
            "neither": {"mapper": "mlp", "text": False},
            "GACM": {"mapper": "gacm", "text": False},
            "OCTA": {"mapper": "mlp", "text": True},
            "GACM + OCTA": both,
        }
        modules = {
            name: {**own, "prototype_weight": 0.0, "missing_weight": 0.0, "image_weight": 0.0}
            for name, own in published.items()
        }
        jointly = {"image_weight": 0.0}
        modules |= {
            "GACM + OCTA + Ψ_proto": {**both, **jointly, "missing_weight": 0.0},
            OURS: {**both, **jointly},
            DEEP: {**self._whole, **jointly},
            WHOLE: self._whole,
        }
        pruned = {f"{WHOLE}, layer {layer}": {**self._whole, "layers": [[layer], None]} for layer in self.pruned}
        cfm = bounded("cfm", self.steps)
        return [
            *(Variant(name, TEXTUAL, self.encoder, self.textual(**own)) for name, own in (modules | pruned).items()),
            Variant("cfm", "cfm", self.encoder, cfm),
            Variant("cfm, same settings", "cfm", self.encoder, {**cfm, **ALIKE}),
            Variant("btf", "btf", self.encoder),
        ]

    @property
    def _whole(self) -> dict[str, Any]:
        return {"mapper": "deep-gacm", "text": True}

    def views(self, run: Run, detector: Detector) -> list[View]:
        views = [View({"view": FUSED}, by_group=True)]
        if run.settings != self.textual(**self._whole):
            return views
        views += [
            View({"view": name}, modality=modality, by_group=True)
            for modality, name in ((RGB, IMAGE), (POINTS, SURFACE))
        ]
        if isinstance(detector, Explains):
            views += [
                View({"view": name}, ModalityScore(detector, modality), by_group=True, thresholds=False)
                for modality, name in MAPS.items()
            ]
        return views

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        base = super().verdict(rows)
        rule = (
            f"A kind of defect counts as found where its mean picture AUROC is {FOUND:g} at least, as not found up to "
            f"{UNSEEN:g} (chance is 0.5), and as found in part between them."
        )
        return Verdict((*base.sentences, *_by_kind(rows)), f"{base.rule} {rule}")

    def tables(self, rows: Sequence[Row]) -> list[Matrix]:
        kinds = [{**row, "kind": row["defect"]} for row in rows if row["defect"]]
        views = [row for row in kinds if row["variant"] == WHOLE]
        whole = [{**row, "kind": "all"} for row in rows if not row["defect"] and row["variant"] == WHOLE]
        found = super().tables(rows)
        by_view = [
            matrix([*views, *whole], measure, "view", "kind", f"{WHOLE} by what a defect changes, {WORDS[measure]}")
            for measure in (AUROC, AUPRO)
        ]
        fused = [row for row in kinds if row["view"] == FUSED]
        by_variant = matrix(fused, AUROC, "variant", "kind", f"Whole scans by what a defect changes, {WORDS[AUROC]}")
        order = [without_best(one) for one in (*by_view, by_variant) if one.cells]
        return [found[0], *order, *found[1:]]

    def notes(self, rows: Sequence[Row]) -> list[str]:
        alike = ", ".join(f"{name}={str(value).lower()}" for name, value in ALIKE.items())
        return [
            *super().notes(rows),
            f"All rows but cfm and btf have {alike}, so that they differ in their modules alone; cfm has its defaults.",
            f"{IMAGE.capitalize()} and {SURFACE}: the model learned from both, and inspects scans that lack the "
            f"other. {', '.join(MAPS.values())}: the map of one modality, of whole scans.",
            "A layer is a block of the picture's encoder; those behind it are not computed. Deep: the linear "
            "parts of the GACM are perceptrons.",
        ]


def without_best(found: Matrix) -> Matrix:
    """The table without a best of each line: its columns are no rivals."""
    return Matrix(found.title, found.corner, found.cells, higher_is_better=None)


def _by_kind(rows: Sequence[Row]) -> list[str]:
    """A sentence for each group of defects: which view finds it."""
    means = {
        key: values
        for key, values in gathered(
            [row for row in rows if row["defect"] and row["variant"] == WHOLE], AUROC, "defect", "view"
        ).items()
        if key[0] in GROUPS.values()
    }
    sentences = []
    for kind in dict.fromkeys(key[0] for key in means):
        views = {view: means[kind, view] for view in (IMAGE, SURFACE, FUSED) if (kind, view) in means}
        words = [
            f"{_grade(fmean(values))} by {_named(view)} ({mean_and_std(values)})" for view, values in views.items()
        ]
        sentences.append(f"Defects of {kind if kind != 'both' else 'geometry and colour'}: {', '.join(words)}.")
    return sentences


def _grade(mean: float) -> str:
    return "found" if mean >= FOUND else "not found" if mean <= UNSEEN else "found in part"


def _named(view: str) -> str:
    return {IMAGE: "the picture alone", SURFACE: "the points alone", FUSED: "the fused map"}[view]
