"""What the experiments on images with points share: scans of their own, views of the test scans, groups of defects.

Their questions are those of the tables and figures of Li, Ye, Yu, Xie & Shen, "Text-Guided Multimodal Unified
Industrial Anomaly Detection", arXiv 2604.22899, 2026, which measured on MVTec 3D-AD and Eyecandies; both can be given
as datasets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from blemish.detectors.base import Detector
from blemish.errors import DatasetError, WeightsError
from blemish.evaluation import CategoryData, Run, TestResults, fit_run, inspect_test_images, milliseconds_per_image
from blemish.evaluation.probes import FitTimer
from blemish.model.inspector import Inspector
from blemish.research.experiments.base import BarChart, Cell, Chart, Matrix, Row, Tools, Verdict, at_least, gathered
from blemish.research.experiments.comparisons import (
    AUPRO,
    AUPRO_1,
    AUROC,
    MEASURES,
    TIMED,
    WORDS,
    Comparison,
)
from blemish.research.experiments.data import made_once
from blemish.research.experiments.row_store import digest
from blemish.research.experiments.shots import bounded
from blemish.research.experiments.sources import TEXT_GUIDED
from blemish.research.experiments.verdicts import RULE
from blemish.research.synthetic_scans import BOTH, COLOUR, GEOMETRY, ScanSetSpec, write_scans
from blemish.types import POINTS, RGB, Features, PatchScores, Sample

OF_VERDICTS = MEASURES[MEASURES.index("false_alarm_rate") : MEASURES.index("aurc") + 1]
GENERATED = "generated scans"
SHOWN = (AUROC, AUPRO, AUPRO_1)  # the columns of the published tables
TEXTUAL = "text-guided"
# What every crossmodal detector of a table has in common, so that its rows differ in what they are named after alone.
ALIKE: Mapping[str, Any] = {"standardise": True, "whiten": False, "normalise": True}
GROUPS = {
    **dict.fromkeys(GEOMETRY, "geometry alone"),
    **dict.fromkeys(COLOUR, "colour alone"),
    **dict.fromkeys(BOTH, "both"),
}
FUSED = "fused"


@dataclass(frozen=True)
class View:
    """How a fitted model is shown the test scans: `facts` are further columns of its rows.

    `detector` takes the place of the fitted one (None: that one); `modality` is the only one that scans keep, "" for
    all. `by_group`: with rows for the groups of defects. `thresholds`: whether the model's apply to this view.
    """

    facts: Mapping[str, Any]
    detector: Detector | None = None
    modality: str = ""
    by_group: bool = False
    thresholds: bool = True

    def of(self, inspector: Inspector) -> Inspector:
        """The fitted model with this view's detector."""
        return inspector if self.detector is None else inspector.with_detector(self.detector)

    def shown(self, category: CategoryData) -> CategoryData:
        """The category with its test scans as this view shows them."""
        without: dict[str, Any] = {RGB: {"points": None}, POINTS: {"image": None}, "": {}}[self.modality]
        return replace(category, test=tuple(replace(sample, **without) for sample in category.test))


class ModalityScore:
    """A fitted detector that scores whole scans by one of the maps that its `explain` gives ("rgb", "points", "text").

    Everything but the score is the detector's own.
    """

    def __init__(self, detector: Any, modality: str) -> None:
        self._detector, self._modality = detector, modality

    def __getattr__(self, name: str) -> Any:
        return getattr(self._detector, name)

    def score(self, features: Features) -> PatchScores:
        """The map of the modality, `(B, h, w)`."""
        return PatchScores(self._detector.explain(features)[self._modality])


@dataclass(frozen=True, kw_only=True)
class Multimodal(Comparison):
    """Detectors of images with points; `steps` bounds the training of those that are trained in steps.

    Where no dataset is given, `classes` of the generated set are rendered: `train` normal scans to fit on, and to test
    on `good` normal ones and `defective` ones of each of nine kinds; `scene_seed` is the set's. `one_model`: for all
    categories.
    """

    KEY: ClassVar[tuple[str, ...]] = (*Comparison.KEY, "view")
    AXES: ClassVar[frozenset[str]] = Comparison.AXES
    FULL: ClassVar[Mapping[str, Any]] = {
        "most_test": None,
        "shots": (None,),
        "steps": None,
        "seeds": (0, 1, 2),
        **{name: getattr(ScanSetSpec(), name) for name in ("classes", "train", "good", "defective")},
    }
    BRINGS_DATA: ClassVar[bool] = True
    PUBLISHED: ClassVar[str] = f"{TEXT_GUIDED}, on MVTec 3D-AD, one model for all categories"

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
    def plan(self) -> ScanSetSpec:
        """How large the generated set is. Raises SettingsError."""
        size = self.image_size or ScanSetSpec().size
        return ScanSetSpec(self.classes, self.scene_seed, size, self.train, 0, self.good, self.defective)

    @property
    def pooled(self) -> bool:
        return self.one_model

    def own_categories(self, folder: Path, given: Sequence[CategoryData]) -> tuple[CategoryData, ...]:
        return () if given else rendered_scans(folder, self.plan)

    def cells(self, categories: Sequence[CategoryData]) -> list[Cell]:
        check_scans(categories)
        planned = super().cells(categories)
        if any(self.reads_text(variant.settings) for variant in self.variants(0) if variant.detector == TEXTUAL):
            check_text_encoder(self.text_encoder)
        return planned

    def reads_text(self, settings: Mapping[str, Any]) -> bool:
        return bool(settings.get("text", True))

    def textual(self, **settings: Any) -> dict[str, Any]:
        """Settings of the detector that reads sentences, alike but for `settings`."""
        chosen = {**ALIKE, **bounded(TEXTUAL, self.steps), **settings}
        return {**chosen, "text_encoder": self.text_encoder} if self.reads_text(chosen) else chosen

    def views(self, run: Run, detector: Detector) -> list[View]:
        """How the test scans are shown to the fitted model."""
        return [View({"view": FUSED})]

    def measured(self, run: Run, tools: Tools) -> Iterator[Row]:
        """Fit once; for every category and view a row, and one for each group of defects where they are asked for."""
        encoder = tools.encoders.of(run)
        timer = FitTimer(encoder)
        inspector, counts = fit_run(run, tools.progress, encoder)
        seconds = timer.seconds()
        views = self.views(run, inspector.detector_)
        for category in run.categories:
            for view in views:
                changed, shown = view.of(inspector), view.shown(category)
                tested = inspect_test_images(changed, shown, tools.progress)
                facts = {"dataset": category.dataset, "category": category.name, **view.facts}
                costs = {"n_train": counts[category.name], "fit_seconds": seconds}
                costs["ms_per_picture"] = milliseconds_per_image(changed, shown.test, most=TIMED)
                yield {**facts, **measures_of(tested, view.thresholds), **costs}
                for group, some in by_group(tested) if view.by_group else ():
                    yield {**facts, "defect": group, **measures_of(some, view.thresholds), **costs}

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        whole = whole_rows(rows)
        sentences = [sentence for measure in SHOWN for sentence in self.best_against_rest(whole, measure)]
        return Verdict(tuple(sentences), RULE)

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
        sentences = super().notes(rows)
        if any(row["dataset"] == GENERATED for row in rows):
            sentences.append(
                f"Rendered scans of {self.classes} classes, seed {self.scene_seed}: the same for every seed, which "
                "draws the good ones to learn from and whatever the methods draw."
            )
        if self.steps is not None:
            sentences.append(f"Methods that learn by steps learned {self.steps}, which may be fewer than their own.")
        encoders = {str(row["variant"]): str(row["encoder"]) for row in rows}
        if len(set(encoders.values())) > 1:
            used = "; ".join(f"{name}: {encoder}" for name, encoder in encoders.items())
            sentences.append(f"Encoders, each method's own; --encoder names one for all: {used}.")
        models = "One model for all categories" if self.one_model else "One model a category"
        return [*sentences, f"{models}, scans of {self.image_size} px."]


def rendered_scans(folder: Path, plan: ScanSetSpec, workers: int = 1) -> tuple[CategoryData, ...]:
    """The generated set as categories, rendered inside `folder` by `workers` processes unless it lies there already."""
    from blemish.data import load_dataset

    place = folder / f"scans-{digest(asdict(plan))}"
    made_once(place, lambda new: write_scans(new, plan, workers))
    found = load_dataset(place).categories
    return tuple(CategoryData(GENERATED, name, tuple(one.train), tuple(one.test)) for name, one in found.items())


def check_scans(categories: Sequence[CategoryData]) -> None:
    """Raise DatasetError for categories without points."""
    for category in categories:
        lacking: list[Sample] = [s for s in (*category.train, *category.test) if s.points is None or s.image is None]
        if lacking:
            raise DatasetError(
                f"pictures with points of {category.name}",
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


def measures_of(tested: TestResults, thresholds: bool = True) -> dict[str, Any]:
    """Every measure of the results; those of verdicts and p-values only where the model's thresholds apply."""
    found = {**dict.fromkeys(MEASURES, float("nan")), **tested.measures()}
    return found if thresholds else found | dict.fromkeys(OF_VERDICTS, float("nan"))


def by_group(tested: TestResults, groups: Mapping[str, str] = GROUPS) -> Iterator[tuple[str, TestResults]]:
    """All good scans with the defective ones of each group in turn; what is in none of them is one of its own."""
    of = [groups.get(sample.defect, sample.defect) if sample.label else "" for sample in tested.samples]
    for group in (name for name in dict.fromkeys((*groups.values(), *sorted(of))) if name and name in of):
        chosen = [i for i, name in enumerate(of) if name in ("", group)]
        yield (
            group,
            TestResults(tested.category, [tested.samples[i] for i in chosen], [tested.predictions[i] for i in chosen]),
        )


def whole_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows about all defects, of whole scans and the fused score."""
    return [row for row in rows if not row["defect"] and row["view"] == FUSED]


def published_table(rows: Sequence[Row], down: str, title: str) -> Matrix:
    """The columns of the published tables, a line for each value of the column `down`."""
    cells = {
        (key[0], WORDS[measure]): values for measure in SHOWN for key, values in gathered(rows, measure, down).items()
    }
    lines = list(dict.fromkeys(str(row[down]) for row in rows))
    order = {key: values for line in lines for key, values in cells.items() if key[0] == line}
    return Matrix(title, down.replace("_", " "), order, higher_is_better=None)
