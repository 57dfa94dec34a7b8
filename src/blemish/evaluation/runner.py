"""Fit the model of a run, inspect its test images, give a row for each category.

Measures: AUROC, AP and F1-max of images and pixels, AUPRO (Bergmann et al., "The MVTec Anomaly Detection Dataset",
IJCV 2021), exact; shots are drawn so that other programs can draw the same. Memory holds one model, and the maps and
masks of one category at a time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blemish.errors import DatasetError
from blemish.evaluation.probes import TIMED_IMAGES, FitTimer, PeakMemory, milliseconds_per_image
from blemish.evaluation.results import RunDetail, TestResults
from blemish.evaluation.runs import CategoryData, Run, build_inspector, check_runs, plan_runs, training_samples
from blemish.evaluation.shared_encoders import SharedEncoders
from blemish.evaluation.table import COLUMNS
from blemish.types import Sample
from blemish.utils.progress import Progress, progress_of_step

if TYPE_CHECKING:
    from blemish.encoders.base import Encoder
    from blemish.model.inspector import Inspector


def evaluate(
    categories: Sequence[CategoryData],
    detectors: Sequence[str] = ("auto",),
    shots: Sequence[int | None] = (None,),
    seeds: Sequence[int] = (0, 1, 2),
    pooled: bool = False,
    aupro_thresholds: int | None = None,
    cache: Path | None = None,
    **common: Any,
) -> Iterator[RunDetail]:
    """All of `plan_runs`, one after the other; the details come as they are ready. `cache`: see `SharedEncoders`.

    Raises before the first run what would end a later one (see `check_runs`).
    """
    runs = plan_runs(categories, detectors, shots, seeds, pooled, **common)
    check_runs(runs)
    with SharedEncoders(cache=cache) as encoders:
        for run in runs:
            yield from evaluate_run(run, aupro_thresholds, encoders)


def evaluate_run(
    run: Run,
    aupro_thresholds: int | None = None,
    encoders: SharedEncoders | None = None,
    scratch: Path | None = None,
    examples: int = 2,
    timed_images: int = TIMED_IMAGES,
    progress: Progress | None = None,
) -> Iterator[RunDetail]:
    """Fit once, then test on each category of the run; yields one detail a category.

    `examples` of each kind are kept; with a `scratch` folder their maps lie there as files instead of in memory.
    `encoders` are shared with other runs, which is quicker; `fit_seconds` is then nan where features of an earlier
    run were used. `timed_images` are inspected once more without them for `ms_per_picture` (0: nan).
    `peak_memory_mb` is that of learning and inspecting, the maps of the category's test images included.
    """
    encoder = encoders.of(run) if encoders else None
    memory, timer = PeakMemory(), FitTimer(encoder)
    inspector, counts = fit_run(run, progress, encoder)
    seconds, learning_peak = timer.seconds(), memory.megabytes()
    for category in run.categories:
        memory = PeakMemory()
        results = inspect_test_images(inspector, category, progress, run.given_category)
        peak = max(learning_peak, memory.megabytes())  # before the measures, which hold copies of all maps and masks
        name = category.name if run.given_category else None
        row = {
            "dataset": category.dataset,
            "category": category.name,
            "detector": inspector.detector_name,
            "encoder": inspector.encoder_name,
            "image_size": inspector.image_size,
            "shots": "all" if run.shots is None else run.shots,
            "seed": run.seed,
            "pooled": run.pooled,
            "n_train": counts[category.name],
            **results.measures(aupro_thresholds),
            "target_false_alarm_rate": inspector.false_alarm_rate,
            "fit_seconds": seconds,
            "ms_per_picture": milliseconds_per_image(inspector, unlabelled(category), name, timed_images),
            "peak_memory_mb": peak,
        }
        yield RunDetail(
            row={name: row[name] for name in COLUMNS},
            images=results.images(),
            examples=results.examples(examples, scratch),
            threshold_source=threshold_source(inspector, category.name),
            aupro_thresholds=aupro_thresholds,
            failures=tuple(results.failures),
            given_category=run.given_category,
            notes=results.notes(),
            full_scale=inspector.model_.full_scale,
        )
        del results
        gc.collect()


def fit_run(
    run: Run, progress: Progress | None = None, encoder: Encoder | None = None
) -> tuple[Inspector, dict[str, int]]:
    """The run's fitted model, and the number of training images by category."""
    samples = training_samples(run)
    inspector = build_inspector(run, encoder)
    if run.shots == 0:
        inspector.fit_zero_shot(run.categories[0].name)
    else:
        inspector.fit(samples, progress=progress_of_step(progress, "learning"))
    return inspector, {
        category.name: sum(sample.category == category.name for sample in samples) for category in run.categories
    }


def inspect_test_images(
    inspector: Inspector, category: CategoryData, progress: Progress | None = None, given_category: bool = False
) -> TestResults:
    """Inspect a category's test images, each prediction beside its own sample; with the category given or recognised.

    Raises DatasetError when none can be read.
    """
    from blemish.types import Failure

    results = TestResults(category)
    inspector = inspector.with_reasons(compare=False)  # no measure reads them
    outcomes = inspector.inspect_many(unlabelled(category), category.name if given_category else None)
    for done, (sample, outcome) in enumerate(zip(category.test, outcomes, strict=True), start=1):
        if isinstance(outcome, Failure):
            results.failures.append((str(outcome.file), str(outcome.error)))
        else:
            results.samples.append(sample)
            results.predictions.append(outcome)
        if progress:
            progress(done, len(category.test), {"step": f"testing {category.name}"})
    if not results.predictions:
        raise DatasetError(
            f"test pictures of {category.name}", "none that can be read", "check the dataset's test folder"
        )
    return results


def unlabelled(category: CategoryData) -> list[Sample]:
    """The test images without label and category: a pooled model has to recognise what it is shown."""
    return [replace(one, label=None, mask=None, category=None, defect="", split="") for one in category.test]


def threshold_source(inspector: Inspector, category: str) -> str:
    """One sentence on what the category's threshold rests on."""
    calibrations = inspector.calibrations
    calibration = calibrations.get(category) or next(iter(calibrations.values()))
    return str(calibration.words)
