"""Methods side by side on the same images, each learned from the same good ones: the evaluator's rows, and pairs.

(a) of the survey compares a memory bank of convolutional patches with one whose patches carry attention's context
(Ishida et al., IEEE Access 2023), (b) a frozen pretrained transformer with the same network untrained, (e) asks which
defects need the view of the whole: those of place, count and company, or those of texture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from blemish.errors import DatasetError, SettingsError
from blemish.evaluation.evaluation import COLUMNS, Part, Run, RunDetail, run_details, unlearned
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
from blemish.research.experiments.material import check_at_hand, encoders_named, fingerprint_of, limited, made_once
from blemish.research.experiments.verdicts import RULE, Paired, compared, paired, ranked

MEASURES = COLUMNS[COLUMNS.index("n_train") :]
PAIR = ("dataset", "category", "shots", "seed")  # what two rows share that are compared
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
    """Variants × categories × shots × seeds. `shots`: good images to learn from, None for all."""

    KEY: ClassVar[tuple[str, ...]] = (
        *("dataset", "category", "variant", "detector", "encoder", "image_size"),
        *("shots", "seed", "pooled", "learned", "defect", "data"),
    )
    MEASURES: ClassVar[tuple[str, ...]] = MEASURES
    AXES: ClassVar[frozenset[str]] = Experiment.AXES | {"shots", "detectors", "encoders", "encoder"}

    shots: tuple[int | None, ...] = (4,)
    image_size: int | None = None

    def check(self) -> None:
        super().check()
        at_least("shots", self.shots, 1)
        at_least("image_size", (self.image_size,), 1)

    @property
    def pooled(self) -> bool:
        """Whether one model learns all categories."""
        return False

    def variants(self, seed: int) -> list[Variant]:
        """The methods to compare."""
        raise NotImplementedError

    def cells(self, parts: Sequence[Part]) -> list[Cell]:
        tested = [limited(part, self.most_test) for part in parts]
        planned = [cell for group, pooled in self.groups(tested) for cell in self._cells_of(group, pooled)]
        if not planned:
            raise DatasetError(
                f"at least {min(k for k in self.shots if k)} good pictures of each category",
                ", ".join(f"{len(part.good)} of {part.category}" for part in parts),
                "ask for fewer with --shots, or give more pictures",
            )
        return planned

    def groups(self, parts: Sequence[Part]) -> list[tuple[tuple[Part, ...], bool]]:
        """Which parts are learned together, and whether by one model for all categories."""
        return [(tuple(parts), True)] if self.pooled else [((part,), False) for part in parts]

    def _cells_of(self, group: tuple[Part, ...], pooled: bool) -> Iterator[Cell]:
        data = fingerprint_of(group)
        available = min(len(part.good) for part in group)
        for shots in self.shots:
            if shots is not None and shots > available:
                continue
            for seed in self.seeds:
                for variant in self.variants(seed):
                    yield self._cell(group, pooled, variant, shots, seed, data)

    def _cell(
        self, group: tuple[Part, ...], pooled: bool, variant: Variant, shots: int | None, seed: int, data: str
    ) -> Cell:
        run = Run(
            parts=group,
            detector=variant.detector,
            encoder=variant.encoder,
            image_size=self.image_size,
            shots=shots,
            seed=seed,
            pooled=pooled,
            device=self.device,
            settings=variant.settings,
        )
        method = unlearned(run)  # SettingsError now, not in the middle
        check_at_hand(method.chosen_encoder)
        key = {
            "variant": variant.name,
            "detector": method.detector_name,
            "encoder": method.chosen_encoder,
            "image_size": method.image_size,
            "shots": "all" if shots is None else shots,
            "seed": seed,
            "pooled": pooled,
            "learned": "+".join(f"{part.dataset}/{part.category}" for part in group),
            **variant.facts,
            "data": data,
        }
        return Cell(key, partial(self.measured, run))

    def measured(self, run: Run, tools: Tools) -> Iterator[Row]:
        """The rows of one model: one for each category."""
        for detail in run_details(run, None, tools.encoders, examples=0, told=tools.told):
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
        told = [
            compared(order[0], other, self.against(rows, order[0], other, measure), WORDS[measure])
            for other in order[1:]
        ]
        return [f"By mean {WORDS[measure]}: {ranked(values)}.", *told]

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
        told = []
        if self.most_test is not None:
            told.append(f"At most {self.most_test} good and as many defective test pictures of each category.")
        if not gathered(rows, AUPRO, "variant"):
            told.append("These pictures come without masks, so that AUPRO is not known.")
        return told


def row_of(detail: RunDetail) -> dict[str, Any]:
    """A row of the evaluator as far as a cell does not know it already."""
    return {name: detail.row[name] for name in ("dataset", "category", *MEASURES)}


@dataclass(frozen=True, kw_only=True)
class CnnVsAttention(Comparison):
    """Memory banks with and without context by attention; `detectors` are compared on their own `encoder`."""

    QUESTION: ClassVar[str] = (
        "Does a memory bank find more defects when its patches carry context gathered by attention, or is what a "
        "convolutional network sees of each place enough?"
    )
    SOURCE: ClassVar[str] = (
        "Experiment (a) of the survey: PatchCore (Roth et al., CVPR 2022) against SA-PatchCore (Ishida et al., "
        "IEEE Access 2023)."
    )
    FULL: ClassVar[Mapping[str, Any]] = {"most_test": None, "shots": (4, None)}

    detectors: tuple[str, ...] = ("patchcore", "sa-patchcore")
    encoder: str = "auto"

    def variants(self, seed: int) -> list[Variant]:
        return [Variant(name, name, self.encoder) for name in self.detectors]

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        return Verdict((*self.best_against_rest(rows), *self.best_against_rest(rows, AUPRO)), RULE)


@dataclass(frozen=True, kw_only=True)
class Pretraining(Comparison):
    """The same frozen transformers with the weights they learned and with random ones, in the memory banks `detectors`.

    `encoders`: "all" takes every transformer that loads without a download.
    """

    KEY: ClassVar[tuple[str, ...]] = (*Comparison.KEY, "weights")
    QUESTION: ClassVar[str] = "How much of a memory bank's success is what its frozen transformer learned beforehand?"
    SOURCE: ClassVar[str] = "Experiment (b) of the survey: a frozen pretrained ViT against one of random weights."
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
        told = []
        for name in self.names(rows):
            if name.startswith("pretrained "):
                other = name.replace("pretrained", "random", 1)
                told += [
                    compared(name, other, self.against(rows, name, other, measure), WORDS[measure])
                    for measure in (AUROC, AUPRO)
                    if gathered(rows, measure, "variant")
                ]
        return Verdict(tuple(told), RULE)

    def notes(self, rows: Sequence[Row]) -> list[str]:
        return [*super().notes(rows), "Every seed draws other random weights, and other good pictures for both."]


GENERATED = "co-occurrence"


@dataclass(frozen=True, kw_only=True)
class LocalVsGlobal(Comparison):
    """Local and global detectors, on given parts and on a generated set whose parts are right in texture alone.

    `local` is what the other `detectors` are compared with. `generated`: with the generated set.
    """

    QUESTION: ClassVar[str] = (
        "Which defects need the view of the whole picture, and which does a look at each place find?"
    )
    SOURCE: ClassVar[str] = (
        "Experiment (e) of the survey: which categories gain from global attention (count, place, company of parts) "
        "and which do not (texture)."
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

    def own_parts(self, folder: Path, given: Sequence[Part]) -> tuple[Part, ...]:
        return (generated_part(folder / GENERATED),) if self.generated else ()

    def variants(self, seed: int) -> list[Variant]:
        return [Variant(name, name, self.encoder) for name in self.detectors]

    def measured(self, run: Run, tools: Tools) -> Iterator[Row]:
        """As ever, and a row of image AUROC for each kind of defect against all good images."""
        for detail in run_details(run, None, tools.encoders, examples=0, told=tools.told):
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
        told = []
        for other in (name for name in self.names(rows) if name != self.local):
            for category in dict.fromkeys(str(row["category"]) for row in whole):
                here = [row for row in whole if row["category"] == category]
                found = self.against(here, other, self.local, AUROC)
                words = compared(other, self.local, found, WORDS[AUROC])
                gain = {1: "gains from the view of the whole", -1: "loses by it", 0: "shows no gain"}[found.shown]
                told.append(f"{category} {gain}: {words}")
        return Verdict(tuple(told), RULE)

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


def generated_part(folder: Path, seed: int = 0) -> Part:
    """The generated co-occurrence set in `folder`, made there unless it is there already."""
    from blemish.data import load_dataset
    from blemish.research.cooccurrence import generate_cooccurrence

    made_once(folder, lambda new: generate_cooccurrence(new, seed=seed))
    (category,) = load_dataset(folder).categories.values()
    return Part("generated", GENERATED, tuple(category.train), tuple(category.test))
