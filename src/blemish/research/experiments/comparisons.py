"""Methods compared on the same test images, each fitted on the same normal ones: the evaluation's rows, and pairs.

Ben Ammar et al., "Foundation Models and Transformers for Anomaly Detection: A Survey", arXiv 2507.15905, 2025, raises
the questions: (a) does a memory bank gain from patches with context gathered by attention (SA-PatchCore) over those of
a convolutional network (PatchCore), (b) how much of a memory bank's success is the pretraining of its frozen
transformer, (e) which defects need global attention: those of place, count and co-occurrence, or those of texture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from blemish.detectors.base import Detector
from blemish.errors import DatasetError, SettingsError
from blemish.evaluation import COLUMNS, CategoryData, Run, RunDetail, build_inspector, evaluate_run
from blemish.evaluation.runs import check_names
from blemish.metrics import auroc
from blemish.research.experiments.base import (
    BarChart,
    Cell,
    Chart,
    Experiment,
    Matrix,
    Row,
    Tools,
    Verdict,
    at_least,
    gathered,
    matrix,
)
from blemish.research.experiments.data import check_available, encoders_named, fingerprint_of, limited, made_once
from blemish.research.experiments.sources import PATCHCORE, SA_PATCHCORE, SURVEY
from blemish.research.experiments.verdicts import RULE, Paired, compared, paired, ranked

MEASURES = COLUMNS[COLUMNS.index("n_train") :]
TIMED = 5  # test images that a time is measured on: experiments have many cells
PAIR = ("dataset", "category", "shots", "seed", "learned")  # what two rows share that are compared
AUROC, AUPRO, AUPRO_1 = "image_auroc", "aupro_30", "aupro_01"
WORDS = {AUROC: "picture AUROC", AUPRO: "AUPRO at 30 %", AUPRO_1: "AUPRO at 1 %"}


@dataclass(frozen=True)
class Variant:
    """One method under comparison; `facts` are further columns of its rows."""

    name: str
    detector: str
    encoder: str = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison(Experiment):
    """Variants × categories × shots × seeds. `shots`: normal images to fit on, None for all."""

    KEY: ClassVar[tuple[str, ...]] = (
        *("dataset", "category", "variant", "detector", "encoder", "image_size"),
        *("shots", "seed", "pooled", "learned", "defect", "data"),
    )
    MEASURES: ClassVar[tuple[str, ...]] = MEASURES
    AXES: ClassVar[frozenset[str]] = Experiment.AXES | {"shots", "detectors", "encoders"}

    shots: tuple[int | None, ...] = (4,)
    image_size: int | None = None

    def check(self) -> None:
        super().check()
        at_least("shots", self.shots, 1)
        at_least("image_size", (self.image_size,), 1)

    @property
    def pooled(self) -> bool:
        """Whether one model is fitted on all categories."""
        return False

    def variants(self, seed: int) -> list[Variant]:
        """The methods to compare."""
        raise NotImplementedError

    def cells(self, categories: Sequence[CategoryData]) -> list[Cell]:
        tested = [limited(category, self.most_test) for category in categories]
        groups = self.groups(tested)
        check_names([Run(group, "") for group, _ in groups])
        planned = [cell for group, pooled in groups for cell in self._cells_of(group, pooled)]
        if not planned:
            raise DatasetError(
                f"at least {min(k for k in self.shots if k)} good pictures of each category",
                ", ".join(f"{len(category.train)} of {category.name}" for category in categories),
                "ask for fewer with --shots, or give more pictures",
            )
        return planned

    def groups(self, categories: Sequence[CategoryData]) -> list[tuple[tuple[CategoryData, ...], bool]]:
        """Which categories one model is fitted on, and whether it is a model for several."""
        return [(tuple(categories), True)] if self.pooled else [((category,), False) for category in categories]

    def _cells_of(self, group: tuple[CategoryData, ...], pooled: bool) -> Iterator[Cell]:
        data = fingerprint_of(group)
        available = min(len(category.train) for category in group)
        for shots in self.shots:
            if shots is not None and shots > available:
                continue
            for seed in self.seeds:
                for variant in self.variants(seed):
                    yield self._cell(group, pooled, variant, shots, seed, data)

    def _cell(
        self, group: tuple[CategoryData, ...], pooled: bool, variant: Variant, shots: int | None, seed: int, data: str
    ) -> Cell:
        run = Run(
            categories=group,
            detector=variant.detector,
            encoder=variant.encoder,
            image_size=self.image_size,
            shots=shots,
            seed=seed,
            pooled=pooled,
            device=self.device,
            settings=variant.settings,
        )
        method = build_inspector(run)  # SettingsError now, not in the middle
        check_available(method.chosen_encoder)
        key = {
            "variant": variant.name,
            "detector": method.detector_name,
            "encoder": method.chosen_encoder,
            "image_size": method.image_size,
            "shots": "all" if shots is None else shots,
            "seed": seed,
            "pooled": pooled,
            "learned": "+".join(f"{category.dataset}/{category.name}" for category in group),
            **variant.facts,
            "data": data,
        }
        return Cell(key, partial(self.measured, run))

    def measured(self, run: Run, tools: Tools) -> Iterator[Row]:
        """The rows of one model: one for each category."""
        for detail in evaluate_run(run, None, tools.encoders, examples=0, timed_images=TIMED, progress=tools.progress):
            yield row_of(detail)

    def names(self, rows: Sequence[Row]) -> list[str]:
        """The variants that have rows, in their order."""
        return list(dict.fromkeys(str(row["variant"]) for row in rows))

    def against(self, rows: Sequence[Row], first: str, second: str, measure: str) -> Paired:
        """Two variants in pairs of rows."""
        return paired(rows, measure, lambda r: r["variant"] == first, lambda r: r["variant"] == second, PAIR)

    def best_against_rest(self, rows: Sequence[Row], measure: str = AUROC) -> list[str]:
        """The order of the variants, and whether the first is shown to be better than each other one."""
        values = {key[0]: found for key, found in gathered(rows, measure, "variant").items()}
        if not values:
            return [f"No row has {WORDS[measure]}."]
        order = sorted(values, key=lambda name: -sum(values[name]) / len(values[name]))
        sentences = [
            compared(order[0], other, self.against(rows, order[0], other, measure), WORDS[measure])
            for other in order[1:]
        ]
        return [f"By mean {WORDS[measure]}: {ranked(values)}.", *sentences]

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        return Verdict(tuple(self.best_against_rest(rows)), RULE)

    def tables(self, rows: Sequence[Row]) -> list[Matrix]:
        several = len({row["shots"] for row in rows}) > 1
        named = [{**row, "pictures": f"{row['category']}, {row['shots']} shots"} for row in rows]
        down = "pictures" if several else "category"
        found = [
            matrix(named, AUROC, down, "variant", "Picture AUROC"),
            matrix(named, AUPRO, down, "variant", "AUPRO at 30 %"),
            matrix(named, "ms_per_picture", down, "variant", "Time a picture, ms", higher_is_better=None),
        ]
        return [table for table in found if table.cells]

    def charts(self, rows: Sequence[Row]) -> list[Chart]:
        return [
            BarChart(WORDS[measure], {key[0]: values for key, values in gathered(rows, measure, "variant").items()})
            for measure in (AUROC, AUPRO)
            if gathered(rows, measure, "variant")
        ]

    def notes(self, rows: Sequence[Row]) -> list[str]:
        sentences = []
        if self.most_test is not None:
            sentences.append(f"At most {self.most_test} good and as many defective test pictures of each category.")
        if not gathered(rows, AUPRO, "variant"):
            sentences.append("These pictures come without masks, so that AUPRO is not known.")
        sets = {str(row["learned"]) for row in rows if row.get("pooled")}
        if len(sets) > 1:
            sentences.append(
                f"Means are over models of {len(sets)} different sets of categories (column learned), which no "
                "standard deviation over seeds tells apart: name another folder with -o for each set."
            )
        return sentences


def with_settings(detector: Detector, **changes: Any) -> Detector:
    """A copy of a fitted detector with other settings of scoring; what it learned is the same."""
    return type(detector)(**{**detector.settings, **changes}).load_state(detector.state())


def row_of(detail: RunDetail) -> dict[str, Any]:
    """The columns of an evaluation's row that the cell's key does not hold."""
    return {name: detail.row[name] for name in ("dataset", "category", *MEASURES)}


@dataclass(frozen=True, kw_only=True)
class CnnVsAttention(Comparison):
    """Memory banks with and without context gathered by attention; every one of `detectors` uses `encoder`."""

    QUESTION: ClassVar[str] = (
        "Does a memory bank find more defects when its patches carry context gathered by attention, or is what a "
        "convolutional network sees of each place enough?"
    )
    SOURCE: ClassVar[str] = f"Question (a) of {SURVEY}: {PATCHCORE} against {SA_PATCHCORE}."
    FULL: ClassVar[Mapping[str, Any]] = {"most_test": None, "shots": (4, None)}

    detectors: tuple[str, ...] = ("patchcore", "sa-patchcore")
    encoder: str = "auto"

    def variants(self, seed: int) -> list[Variant]:
        return [Variant(name, name, self.encoder) for name in self.detectors]

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        return Verdict((*self.best_against_rest(rows), *self.best_against_rest(rows, AUPRO)), RULE)


@dataclass(frozen=True, kw_only=True)
class Pretraining(Comparison):
    """The same frozen transformers with pretrained and with random weights, in the memory banks `detectors`.

    `encoders`: "all" takes every transformer that loads without a download.
    """

    KEY: ClassVar[tuple[str, ...]] = (*Comparison.KEY, "weights")
    QUESTION: ClassVar[str] = "How much of a memory bank's success is the pretraining of its frozen transformer?"
    SOURCE: ClassVar[str] = f"Question (b) of {SURVEY}: a frozen pretrained ViT against one of random weights."
    FULL: ClassVar[Mapping[str, Any]] = {
        "most_test": None,
        "shots": (4, None),
        "detectors": ("anomalydino", "patchcore"),
    }

    detectors: tuple[str, ...] = ("anomalydino",)
    encoders: tuple[str, ...] = ("all",)

    def variants(self, seed: int) -> list[Variant]:
        return [
            Variant(
                " ".join(words for words in (weights, name, detector if len(self.detectors) > 1 else "") if words),
                detector,
                name if weights == "pretrained" else f"random:{name}:{seed}",
                facts={"weights": weights},
            )
            for name in encoders_named(self.encoders, transformers=True, joined=False)
            for detector in self.detectors
            for weights in ("pretrained", "random")
        ]

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        sentences = []
        for name in self.names(rows):
            if name.startswith("pretrained "):
                other = name.replace("pretrained", "random", 1)
                sentences += [
                    compared(name, other, self.against(rows, name, other, measure), WORDS[measure])
                    for measure in (AUROC, AUPRO)
                    if gathered(rows, measure, "variant")
                ]
        return Verdict(tuple(sentences), RULE)

    def notes(self, rows: Sequence[Row]) -> list[str]:
        return [*super().notes(rows), "Every seed draws other random weights, and other good pictures for both."]


GENERATED = "co-occurrence"


@dataclass(frozen=True, kw_only=True)
class LocalVsGlobal(Comparison):
    """Local and global detectors, on given categories and on a generated set whose objects are right in texture alone.

    `local` is what the other `detectors` are compared with. `generated`: with the generated set.
    """

    QUESTION: ClassVar[str] = (
        "Which defects need the view of the whole picture, and which are found from each place by itself?"
    )
    SOURCE: ClassVar[str] = (
        f"Question (e) of {SURVEY}: which categories gain from global attention (count, place, co-occurrence of "
        "parts) and which do not (texture)."
    )
    AXES: ClassVar[frozenset[str]] = Comparison.AXES | {"generated"}
    FULL: ClassVar[Mapping[str, Any]] = {"most_test": None, "shots": (4, None)}

    detectors: tuple[str, ...] = ("patchcore", "sa-patchcore", "hybrid")
    local: str = "patchcore"
    encoder: str = "auto"
    generated: bool = True

    def check(self) -> None:
        super().check()
        if self.local not in self.detectors:
            raise SettingsError(
                f"a local detector among {', '.join(self.detectors)}", repr(self.local), "name it in both"
            )

    def own_categories(self, folder: Path, given: Sequence[CategoryData]) -> tuple[CategoryData, ...]:
        return (cooccurrence_data(folder / GENERATED),) if self.generated else ()

    def variants(self, seed: int) -> list[Variant]:
        return [Variant(name, name, self.encoder) for name in self.detectors]

    def measured(self, run: Run, tools: Tools) -> Iterator[Row]:
        """As for every comparison, and a row of image AUROC for each kind of defect against all normal images."""
        for detail in evaluate_run(run, None, tools.encoders, examples=0, timed_images=TIMED, progress=tools.progress):
            yield row_of(detail)
            kinds = sorted({image.defect for image in detail.images if image.label})
            for kind in kinds if len(kinds) > 1 else ():
                shown = [p for p in detail.images if not p.label or p.defect == kind]
                yield {
                    "dataset": detail.row["dataset"],
                    "category": detail.row["category"],
                    "defect": kind,
                    "n_good": sum(not p.label for p in shown),
                    "n_defective": sum(p.label for p in shown),
                    AUROC: auroc([p.score for p in shown], [p.label for p in shown]),
                    **dict.fromkeys((m for m in MEASURES if m not in ("n_good", "n_defective", AUROC)), float("nan")),
                }

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        whole = [row for row in rows if not row["defect"]]
        sentences = []
        for other in (name for name in self.names(rows) if name != self.local):
            for category in dict.fromkeys(str(row["category"]) for row in whole):
                here = [row for row in whole if row["category"] == category]
                found = self.against(here, other, self.local, AUROC)
                words = compared(other, self.local, found, WORDS[AUROC])
                gain = {1: "gains from the view of the whole", -1: "loses by it", 0: "shows no gain"}[found.shown]
                sentences.append(f"{category} {gain}: {words}")
        return Verdict(tuple(sentences), RULE)

    def tables(self, rows: Sequence[Row]) -> list[Matrix]:
        whole = [row for row in rows if not row["defect"]]
        kinds = [{**row, "kind": f"{row['category']}, {row['defect']}"} for row in rows if row["defect"]]
        found = super().tables(whole)
        return [*found, matrix(kinds, AUROC, "kind", "variant", "Picture AUROC by kind of defect")] if kinds else found

    def charts(self, rows: Sequence[Row]) -> list[Chart]:
        whole = [row for row in rows if not row["defect"]]
        return [
            BarChart(
                f"{category}, picture AUROC", {key[1]: values for key, values in found.items() if key[0] == category}
            )
            for found in [gathered(whole, AUROC, "category", "variant")]
            for category in dict.fromkeys(key[0] for key in found)
        ]


def cooccurrence_data(folder: Path, seed: int = 0) -> CategoryData:
    """The generated co-occurrence set in `folder`, made there unless it is there already."""
    from blemish.data import load_dataset
    from blemish.research.cooccurrence import generate_cooccurrence

    made_once(folder, lambda new: generate_cooccurrence(new, seed=seed))
    (category,) = load_dataset(folder).categories.values()
    return CategoryData("generated", GENERATED, tuple(category.train), tuple(category.test))
