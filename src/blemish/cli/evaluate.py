"""`blemish evaluate`: measure methods on labelled datasets, write a table and a report."""

from __future__ import annotations

import csv
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blemish.cli.options import (
    SOME_UNREADABLE,
    Cache,
    CellEngine,
    CellEngineName,
    CellWorkers,
    DepthScale,
    DetectorNames,
    Device,
    DeviceName,
    EncoderName,
    Grid,
    ImageSize,
    Intrinsics,
    MmPerStep,
    Out,
    Settings,
    TextEncoderName,
    Units,
    given_path,
)
from blemish.errors import DatasetError, SettingsError

if TYPE_CHECKING:
    from rich.table import Table

    from blemish.evaluation import CategoryData, Run, RunDetail
    from blemish.types import ScanGeometry
    from blemish.utils.executors import Executor
    from blemish.utils.progress import Progress


def evaluate(
    datasets: Annotated[
        list[Path],
        typer.Argument(metavar="DATASET", help="Folders of categories, or single category folders.", parser=given_path),
    ],
    out: Out,
    categories: Annotated[
        list[str] | None, typer.Option("--category", metavar="C,C", help="These categories alone.")
    ] = None,
    detectors: DetectorNames = ["auto"],  # noqa: B006 - read by the command line alone
    encoder: EncoderName = "auto",
    image_size: ImageSize = None,
    shots: Annotated[
        list[str],
        typer.Option("--shots", metavar="K,all", help="Learn from K good pictures, or all; 0: from the name alone."),
    ] = ["all"],  # noqa: B006
    seeds: Annotated[str, typer.Option("--seeds", metavar="0,1,2", help="One run for each.")] = "0,1,2",
    pooled: Annotated[bool, typer.Option("--pooled", help="One model for all categories.")] = False,
    aupro_thresholds: Annotated[
        int | None,
        typer.Option(
            "--aupro-thresholds", metavar="N", min=2, help="The coarse AUPRO of published tables; exact if unset."
        ),
    ] = None,
    device: DeviceName = Device.auto,
    settings: Settings = None,
    text_encoder: TextEncoderName = "auto",
    given_category: Annotated[
        bool,
        typer.Option("--given-category", help="Give a pooled model the category, instead of having it recognised."),
    ] = False,
    cache: Cache = None,
    units: Units = None,
    intrinsics: Intrinsics = None,
    depth_scale: DepthScale = None,
    mm_per_pixel: MmPerStep = None,
    grid: Grid = None,
    engine: CellEngineName = CellEngine.serial,
    workers: CellWorkers = None,
) -> None:
    """Measure methods on datasets with labels; writes results.csv and report.html into OUT.

    A good picture that is not called good is a false alarm; a defective one is missed only if it is called good.
    K shots are numpy.random.RandomState(seed).permutation(n)[:K] over the sorted file names of train/good.
    """
    from blemish.cli.console import say, say_where, show
    from blemish.cli.scan_options import scan_geometry
    from blemish.cli.settings import parse_settings
    from blemish.evaluation import plan_runs
    from blemish.utils.executors import executor_of

    runs = plan_runs(
        categories_of(datasets, categories, units, scan_geometry(intrinsics, depth_scale, mm_per_pixel, grid)),
        detectors=comma_separated(detectors),
        shots=[parse_shots(text) for text in comma_separated(shots)],
        seeds=[parse_seed(text) for text in comma_separated([seeds])],
        pooled=pooled,
        encoder=encoder,
        image_size=image_size,
        device=device.value,
        settings=parse_settings(settings or []) | ({} if text_encoder == "auto" else {"text_encoder": text_encoder}),
        given_category=given_category,
    )
    details = evaluate_into(out, runs, aupro_thresholds, cache, executor_of(engine.value, workers))
    show(means_table([detail.row for detail in details]))
    if (found := [detail.recognised_right for detail in details if detail.recognised_right]) and not given_category:
        right, tested = sum(one[0] for one in found), sum(one[1] for one in found)
        say(f"Category recognised right: {right} of {tested} test pictures ({100 * right / max(tested, 1):.1f} %)")
    for sentence in kept_in_words(details):
        say(sentence)
    for note in dict.fromkeys(f"{detail.row['category']}: {note}" for detail in details for note in detail.notes):
        say(note, err=True)
    say_where("Report", out / "report.html")
    failures = sorted({failure for detail in details for failure in detail.failures})
    for _, error in failures:
        say(f"not read: {error}", err=True)
    if failures:
        raise typer.Exit(SOME_UNREADABLE)


def comma_separated(texts: Sequence[str]) -> list[str]:
    """`["1,4", "all"]` → `["1", "4", "all"]`, each once."""
    return list(dict.fromkeys(part.strip() for text in texts for part in text.split(",") if part.strip()))


def parse_shots(text: str) -> int | None:
    """A count, or None for "all"."""
    if text == "all":
        return None
    if text.isdigit():
        return int(text)
    raise SettingsError("--shots K with K of 0 or more, or all", repr(text), "write for example: --shots 1,4,all")


def parse_seed(text: str) -> int:
    """A seed that numpy takes."""
    if text.isdigit() and int(text) < 2**32:
        return int(text)
    raise SettingsError("--seeds as whole numbers from 0", repr(text), "write for example: --seeds 0,1,2")


def categories_of(
    datasets: Sequence[Path],
    names: Sequence[str] | None,
    units: str | None = None,
    geometry: ScanGeometry | None = None,
) -> list[CategoryData]:
    """Every category to measure, or those of these names. Raises DatasetError for a name that no dataset has, and for
    a category without good and defective pictures to test on."""
    from blemish.data import load_dataset
    from blemish.data.layouts import category_folders
    from blemish.evaluation import CategoryData

    wanted = comma_separated(names or [])
    found: list[CategoryData] = []
    for path in datasets:
        here = [name for name in wanted if path.is_dir() and name in category_folders(path)]
        if wanted and not here and len(datasets) > 1 and path.is_dir():
            continue
        dataset = load_dataset(path, (here or wanted) if wanted else None)
        found += [
            CategoryData(
                dataset.name,
                name,
                *(tuple(s.measured_by(units, geometry) for s in part) for part in (one.train, one.test)),
            )
            for name, one in dataset.categories.items()
        ]
    if missing := [name for name in wanted if name not in {category.name for category in found}]:
        raise DatasetError("categories of the datasets given", ", ".join(missing), "correct --category")
    for category in found:
        if {sample.label for sample in category.test} != {0, 1}:
            raise DatasetError(
                f"good and defective test pictures of {category.name}",
                f"{len(category.test)} of one kind",
                "leave this category out with --category, or add the pictures that are missing",
            )
    return found


def evaluate_into(
    out: Path,
    runs: Sequence[Run],
    aupro_thresholds: int | None,
    cache: Path | None = None,
    executor: Executor | None = None,
) -> list[RunDetail]:
    """Do the runs, write `results.csv` and `report.html` into `out`; `cache` keeps features for later evaluations.

    An `executor` does several at a time; rows are in the order of the runs all the same.

    When something ends the work early, or the report cannot be written, the rows of finished runs are left in
    `out/results.partial.csv`.
    """
    import tempfile

    from blemish.cli.progress import progress_bar
    from blemish.evaluation import check_runs
    from blemish.report import write_evaluation_report
    from blemish.utils.atomic import atomic_update

    check_runs(runs)
    details: list[RunDetail] = []
    with (
        atomic_update(out) as stage,
        tempfile.TemporaryDirectory(dir=stage) as scratch,
        progress_bar("evaluating") as progress,
    ):
        work = partial(run_details, aupro_thresholds=aupro_thresholds, cache=cache)
        with written_rows(stage / "results.csv", out / "results.partial.csv") as write:
            if executor is None:
                found = one_by_one(runs, aupro_thresholds, cache, Path(scratch), progress)
            else:
                found = several_at_a_time(runs, work, executor, progress)
            for detail in found:
                write(detail.row)
                details.append(detail)
            command = shlex.join(["blemish", *sys.argv[1:]])
            write_evaluation_report(stage / "report.html", [d.row for d in details], details, command=command)
    (out / "results.partial.csv").unlink(missing_ok=True)
    return details


def one_by_one(
    runs: Sequence[Run], aupro_thresholds: int | None, cache: Path | None, scratch: Path, progress: Progress
) -> Iterator[RunDetail]:
    """The details of all runs, which share encoders; maps of examples lie in `scratch`."""
    from blemish.evaluation import SharedEncoders, evaluate_run
    from blemish.utils.progress import progress_within

    with SharedEncoders(scratch, cache) as encoders:
        for done, run in enumerate(runs):
            part = progress_within(progress, done, len(runs), name_of(run))
            yield from evaluate_run(run, aupro_thresholds, encoders, scratch, progress=part)


def several_at_a_time(
    runs: Sequence[Run], work: Callable[[Run], list[RunDetail]], executor: Executor, progress: Progress
) -> Iterator[RunDetail]:
    """The same by an executor, in the order of the runs."""
    from blemish.utils.executors import in_order

    for done, details in enumerate(in_order(executor.map_ready(work, runs)), start=1):
        progress(done, len(runs), {})
        yield from details


def run_details(run: Run, aupro_thresholds: int | None, cache: Path | None) -> list[RunDetail]:
    """The details of one run, done by a process that shares nothing but a `cache` of features with others."""
    from blemish.evaluation import SharedEncoders, evaluate_run

    with SharedEncoders(cache=cache) as encoders:
        return list(evaluate_run(run, aupro_thresholds, encoders))


def name_of(run: Run) -> str:
    """What a run is about, in a few words."""
    return f"{run.detector}, {'all' if run.shots is None else run.shots} shots, seed {run.seed}"


@contextmanager
def written_rows(path: Path, rescued: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields `write(row)`, after which the row is on disk; an error after some rows makes `path` become `rescued`."""
    from blemish.cli.console import say
    from blemish.evaluation import COLUMNS, csv_cell
    from blemish.utils.paths import shown

    count = 0
    try:
        with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
            rows = csv.DictWriter(file, COLUMNS)
            rows.writeheader()

            def write(row: dict[str, Any]) -> None:
                nonlocal count
                rows.writerow({name: csv_cell(value) for name, value in row.items()})
                file.flush()
                count += 1

            yield write
    except BaseException:
        if count:
            path.replace(rescued)
            say(f"rows of the runs that were finished: {shown(rescued)}", err=True)
        raise


def means_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Means over the seeds, a line for each category and method, then the mean over the categories."""
    from blemish.cli.console import table_of
    from blemish.evaluation import mean_rows

    method = ("detector", "encoder", "image_size", "shots", "pooled")
    rates = ("false_alarm_rate", "miss_rate", "oracle_miss_rate", "unsure_rate", "unknown_rate")
    shown = ("image_auroc", "pixel_auroc", "aupro_30", "aupro_05", *rates, "ms_per_picture")
    table = table_of("Means over the seeds", "category", *method[:4], *shown, numeric=shown)
    means = mean_rows(rows, ("dataset", "category", *method))
    many = len({(row["dataset"], row["category"]) for row in means}) > 1
    overall = mean_rows(means, method) if many else []
    for row in [*means, *overall]:
        values = ["" if row[name] != row[name] else f"{row[name]:.3f}" for name in shown[:-1]]
        facts = [str(row[name]) for name in method[:4]]
        table.add_row(row.get("category", "mean"), *facts, *values, f"{row['ms_per_picture']:.0f}")
    return table


def kept_in_words(details: Sequence[RunDetail]) -> list[str]:
    """One sentence a method: the false alarms it promised, and those that good test pictures show, with an interval.

    Test pictures count once, however many models (shots, seeds) inspected them.
    """
    from blemish.evaluation.calibration_quality import calibration_quality

    return [
        f"{method}: false alarms promised {100 * found.target:g} %, kept {100 * found.kept.share:.1f} % "
        f"(95 % interval {100 * found.kept.low:.1f} to {100 * found.kept.high:.1f} %, {found.images} good pictures): "
        f"{found.in_words}"
        for method, found in calibration_quality(details).items()
    ]
