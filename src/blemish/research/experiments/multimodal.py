"""What the experiments on images with points share: scans of their own, ways to look with one model, kinds of defect.

Their questions are those of the tables and figures of the text-guided, unified framework for RGB-3D anomaly detection
(see detectors/crossmodal_text.py), which measured on MVTec 3D-AD and Eyecandies; both can be given as datasets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from blemish.detectors.base import Detector, Needs, Progress
from blemish.errors import DatasetError, WeightsError
from blemish.evaluation.evaluation import Answers, Clock, Part, Run, fitted, inspect_part
from blemish.research.experiments.base import BarChart, Cell, Chart, Matrix, Row, Tools, Verdict, at_least, gathered
from blemish.research.experiments.comparisons import AUPRO, AUPRO_1, AUROC, MEASURES, WORDS, Comparison
from blemish.research.experiments.material import made_once
from blemish.research.experiments.rows import digest
from blemish.research.experiments.shots import bounded
from blemish.research.experiments.verdicts import RULE
from blemish.research.synthetic_scans import BOTH, COLOUR, GEOMETRY, Plan, write_scans
from blemish.types import POINTS, RGB, Batch, Features, PatchScores, Sample

GENERATED = "generated scans"
SHOWN = (AUROC, AUPRO, AUPRO_1)  # the columns of the published tables
TEXTUAL = "text-guided"
# What every crossmodal detector of a table has in common, so that its rows differ in what they are named after alone.
ALIKE: Mapping[str, Any] = {"standardise": True, "whiten": False, "scaled": True}
GROUPS = {
    **dict.fromkeys(GEOMETRY, "geometry alone"),
    **dict.fromkeys(COLOUR, "colour alone"),
    **dict.fromkeys(BOTH, "both"),
}
FUSED = "fused"


@dataclass(frozen=True)
class Way:
    """A way to look at test scans with a learned model: columns of its rows, and what is done differently.

    `detector` answers in the learned one's place; `left` is the only modality that scans keep, "" for both.
    """

    facts: Mapping[str, Any]
    detector: Detector
    left: str = ""
    details: bool = False  # with rows for the kinds of defect
    limits: bool = True  # whether the model's thresholds are those of this way

    def seen(self, part: Part) -> Part:
        """The part with its test scans as they are shown."""
        gone: dict[str, Any] = {RGB: {"points": None}, POINTS: {"image": None}, "": {}}[self.left]
        return replace(part, test=tuple(replace(sample, **gone) for sample in part.test))


class OneSide:
    """A learned detector's own word of one modality ("rgb", "points", "text") as its score, on whole scans."""

    def __init__(self, detector: Any, side: str) -> None:
        self.detector, self.side = detector, side

    @property
    def needs(self) -> Needs:
        found: Needs = self.detector.needs
        return found

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = self.detector.settings
        return found

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> OneSide:
        raise NotImplementedError("one side of what has learned already")

    def score(self, features: Features) -> PatchScores:
        """The side's map `(B, h, w)`."""
        return PatchScores(self.detector.explain(features)[self.side])

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> OneSide:
        return self


@dataclass(frozen=True, kw_only=True)
class Multimodal(Comparison):
    """Detectors of images with points; `steps` bounds the learning of those that learn by steps.

    Where no dataset is given, `classes` of the generated set are rendered: `train` good scans to learn from, and to be
    tested on `good` good ones and `defective` ones of each of nine kinds; `scene_seed` is the set's. `one_model`: for
    all categories.
    """

    KEY: ClassVar[tuple[str, ...]] = (*Comparison.KEY, "view")
    AXES: ClassVar[frozenset[str]] = Comparison.AXES
    FULL: ClassVar[Mapping[str, Any]] = {
        "most_test": None,
        "shots": (None,),
        "steps": None,
        "seeds": (0, 1, 2),
        **{name: getattr(Plan(), name) for name in ("classes", "train", "good", "defective")},
    }
    BRINGS_DATA: ClassVar[bool] = True
    PUBLISHED: ClassVar[str] = (
        "the text-guided, unified framework for RGB-3D anomaly detection, on MVTec 3D-AD, one model for all categories"
    )

    seeds: tuple[int, ...] = (0,)
    shots: tuple[int | None, ...] = (12,)
    image_size: int | None = 224
    encoder: str = "auto"
    text_encoder: str = "auto"
    steps: int | None = 300
    one_model: bool = True
    classes: int = 4
    train: int = 14
    good: int = 10
    defective: int = 2
    scene_seed: int = 0

    def check(self) -> None:
        super().check()
        at_least("steps", (self.steps,), 1)
        _ = self.plan

    @property
    def plan(self) -> Plan:
        """How large the generated set is. Raises SettingsError."""
        size = self.image_size or Plan().size
        return Plan(self.classes, self.scene_seed, size, self.train, 0, self.good, self.defective)

    @property
    def pooled(self) -> bool:
        return self.one_model

    def own_parts(self, folder: Path, given: Sequence[Part]) -> tuple[Part, ...]:
        return () if given else rendered_parts(folder, self.plan)

    def cells(self, parts: Sequence[Part]) -> list[Cell]:
        check_scans(parts)
        planned = super().cells(parts)
        if any(self.reads_text(variant.settings) for variant in self.variants(0) if variant.detector == TEXTUAL):
            check_text_encoder(self.text_encoder)
        return planned

    def reads_text(self, settings: Mapping[str, Any]) -> bool:
        return bool(settings.get("text", True))

    def textual(self, **settings: Any) -> dict[str, Any]:
        """Settings of the detector that reads sentences, alike but for `settings`."""
        chosen = {**ALIKE, **bounded(TEXTUAL, self.steps), **settings}
        return {**chosen, "text_encoder": self.text_encoder} if self.reads_text(chosen) else chosen

    def ways(self, run: Run, detector: Detector) -> list[Way]:
        """How the learned detector looks at the test scans."""
        return [Way({"view": FUSED}, detector)]

    def measured(self, run: Run, tools: Tools) -> Iterator[Row]:
        """Learn once; for every category and way a row, and one for each group of defects where they are asked for."""
        encoder = tools.encoders.of(run)
        clock = Clock(encoder)
        inspector, learned = fitted(run, tools.told, encoder)
        seconds = clock.seconds()
        ways = self.ways(run, inspector.detector_)
        for part in run.parts:
            for way in ways:
                inspector.detector_ = way.detector
                tested = inspect_part(inspector, way.seen(part), tools.told, Clock(encoder))
                facts = {"dataset": part.dataset, "category": part.category, **way.facts}
                costs = {"n_train": learned[part.category], "fit_seconds": seconds}
                costs["ms_per_picture"] = tested.milliseconds
                yield {**facts, **measures_of(tested, way.limits), **costs}
                for group, some in by_group(tested) if way.details else ():
                    yield {**facts, "defect": group, **measures_of(some, way.limits), **costs}

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        whole = whole_rows(rows)
        told = [sentence for measure in SHOWN for sentence in self.best_against_rest(whole, measure)]
        return Verdict(tuple(told), RULE)

    def tables(self, rows: Sequence[Row]) -> list[Matrix]:
        whole = whole_rows(rows)
        return [published_table(whole, "variant", "Means over categories"), *super().tables(whole)]

    def charts(self, rows: Sequence[Row]) -> list[Chart]:
        found: list[Chart] = []
        for measure in SHOWN:
            bars = {key[0]: values for key, values in gathered(whole_rows(rows), measure, "variant").items()}
            found += [BarChart(WORDS[measure], bars)] if bars else []
        return found

    def notes(self, rows: Sequence[Row]) -> list[str]:
        told = super().notes(rows)
        if any(row["dataset"] == GENERATED for row in rows):
            told.append(
                f"Rendered scans of {self.classes} classes, seed {self.scene_seed}: the same for every seed, which "
                "draws the good ones to learn from and whatever the methods draw."
            )
        if self.steps is not None:
            told.append(f"Methods that learn by steps learned {self.steps}, which may be fewer than their own.")
        eyes = {str(row["variant"]): str(row["encoder"]) for row in rows}
        if len(set(eyes.values())) > 1:
            used = "; ".join(f"{name}: {eye}" for name, eye in eyes.items())
            told.append(f"Encoders, each method's own; --encoder names one for all: {used}.")
        models = "One model for all categories" if self.one_model else "One model a category"
        return [*told, f"{models}, scans of {self.image_size} px."]


def rendered_parts(folder: Path, plan: Plan, workers: int = 1) -> tuple[Part, ...]:
    """The generated set as parts, rendered inside `folder` by `workers` processes unless it lies there already."""
    from blemish.data import load_dataset

    place = folder / f"scans-{digest(asdict(plan))}"
    made_once(place, lambda new: write_scans(new, plan, workers))
    found = load_dataset(place).categories
    return tuple(Part(GENERATED, name, tuple(one.train), tuple(one.test)) for name, one in found.items())


def check_scans(parts: Sequence[Part]) -> None:
    """Raise DatasetError for parts without points."""
    for part in parts:
        lacking: list[Sample] = [s for s in (*part.good, *part.test) if s.points is None or s.image is None]
        if lacking:
            raise DatasetError(
                f"pictures with points of {part.category}",
                f"{len(lacking)} without, such as {lacking[0].name}",
                "give a dataset in the layout of MVTec 3D-AD or Eyecandies, or none to have scans rendered",
            )


def check_text_encoder(name: str) -> None:
    """Raise WeightsError now for a text encoder that would be missing later."""
    from blemish.encoders.text.factory import availability, best_available
    from blemish.registry import TEXT_ENCODERS

    if name == "auto":
        best_available()
    elif name in TEXT_ENCODERS and not (found := availability(name)).loads:
        raise WeightsError(f"the weights of the text encoder {name!r}", found.why, f"run: {TEXT_ENCODERS[name].get}")


def measures_of(tested: Answers, limits: bool = True) -> dict[str, Any]:
    """Every measure of the answers; those of the thresholds only where these belong to what was asked."""
    found = {**dict.fromkeys(MEASURES, float("nan")), **tested.measures(None)}
    return found if limits else found | dict.fromkeys(("false_alarm_rate", "miss_rate"), float("nan"))


def by_group(tested: Answers, groups: Mapping[str, str] = GROUPS) -> Iterator[tuple[str, Answers]]:
    """All good scans with the defective ones of each group in turn; what is in none of them is one of its own."""
    of = [groups.get(sample.defect, sample.defect) if sample.label else "" for sample in tested.samples]
    for group in (name for name in dict.fromkeys((*groups.values(), *sorted(of))) if name and name in of):
        chosen = [i for i, name in enumerate(of) if name in ("", group)]
        yield (
            group,
            Answers(tested.part, [tested.samples[i] for i in chosen], [tested.predictions[i] for i in chosen]),
        )


def whole_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows about all defects, of whole scans and the whole score."""
    return [row for row in rows if not row["defect"] and row["view"] == FUSED]


def published_table(rows: Sequence[Row], down: str, title: str) -> Matrix:
    """The columns of the published tables, a line for each value of the column `down`."""
    cells = {
        (key[0], WORDS[measure]): values for measure in SHOWN for key, values in gathered(rows, measure, down).items()
    }
    lines = list(dict.fromkeys(str(row[down]) for row in rows))
    order = {key: values for line in lines for key, values in cells.items() if key[0] == line}
    return Matrix(title, down.replace("_", " "), order, higher_is_better=None)
