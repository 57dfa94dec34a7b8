"""What is evaluated: datasets × methods × shots × seeds → runs, each one model to fit and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from blemish.detectors.base import ZeroShot
from blemish.errors import DatasetError, SettingsError
from blemish.types import Sample

if TYPE_CHECKING:
    from blemish.encoders.base import Encoder
    from blemish.model.inspector import Inspector


@dataclass(frozen=True)
class CategoryData:
    """One category of a dataset: the normal images to fit on, and the labelled images to test on."""

    dataset: str
    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]


@dataclass(frozen=True)
class Run:
    """One model to fit and test: which categories, with which method, from how many images (None: all), which seed.

    From 0 images: by the category's name alone.
    """

    categories: tuple[CategoryData, ...]
    detector: str
    encoder: str = "auto"
    image_size: int | None = None
    shots: int | None = None
    seed: int = 0
    pooled: bool = False
    device: str = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    given_category: bool = False  # the model is given the category of each test image instead of recognising it


def plan_runs(
    categories: Sequence[CategoryData],
    detectors: Sequence[str] = ("auto",),
    shots: Sequence[int | None] = (None,),
    seeds: Sequence[int] = (0, 1, 2),
    pooled: bool = False,
    **common: Any,
) -> list[Run]:
    """Every combination; one run over all categories where `pooled`, else one a category.

    `common` are further fields of `Run`. Runs on the same categories are neighbours, so that they share features.
    """
    groups = [tuple(categories)] if pooled else [(category,) for category in categories]
    return [
        Run(categories=group, detector=detector, shots=k, seed=seed, pooled=pooled, **common)
        for group, detector, k, seed in product(groups, detectors, shots, seeds)
    ]


def check_runs(runs: Sequence[Run]) -> None:
    """Raise now (SettingsError, DatasetError) what would otherwise end a long evaluation in its middle."""
    check_names(runs)
    for run in runs:
        detector = build_inspector(run).detector
        if run.shots == 0 and (not isinstance(detector, ZeroShot) or len(run.categories) > 1):
            got = "several" if len(run.categories) > 1 else run.detector
            raise SettingsError(
                "one product a model, and a detector fitted by a name such as winclip, for 0 shots",
                got,
                "ask for 1 shot or more",
            )
        training_samples(run)


def check_names(runs: Sequence[Run]) -> None:
    """Raise for two categories that would share the rows of a table, or the name in a pooled model."""
    known: dict[tuple[str, str], CategoryData] = {}
    for category in (category for run in runs for category in run.categories):
        other = known.setdefault((category.dataset, category.name), category)
        if other is not category:
            raise DatasetError(
                "every category once, under a dataset name of its own",
                f"two of the name {category.dataset}/{category.name}, whose rows could not be told apart",
                "rename the folder of one dataset, or leave one out",
            )
    for run in runs:
        names = [category.name for category in run.categories]
        if len(names) > len(set(names)):
            raise SettingsError(
                "one category of each name in a pooled model", ", ".join(names), "leave one out, or do not pool"
            )


def build_inspector(run: Run, encoder: Encoder | None = None) -> Inspector:
    """The run's method, not fitted. Raises SettingsError."""
    from blemish.model.inspector import Inspector

    return Inspector(
        encoder=encoder or run.encoder,
        detector=run.detector,
        image_size=run.image_size,
        device=run.device,
        seed=run.seed,
        **run.settings,
    )


def training_samples(run: Run) -> list[Sample]:
    """The normal images the run is fitted on, each with its category; none for 0 shots. Raises DatasetError for too
    few."""
    from blemish.data import draw_shots

    return [
        replace(sample, category=category.name)
        for category in run.categories
        for sample in (draw_shots(category.train, run.shots, run.seed) if run.shots != 0 else ())
    ]
