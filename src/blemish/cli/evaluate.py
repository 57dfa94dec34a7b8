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
from blemish.registry import ENCODERS
from blemish.utils.validation import LARGEST_SEED

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
    encoders: Annotated[
        list[str],
        typer.Option("--encoder", metavar="E,E", help=f"auto, folders, or some of: {', '.join(ENCODERS)}."),
    ] = ["auto"],  # noqa: B006
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
    restart: Annotated[
        bool, typer.Option("--restart", help="Replace the results of an earlier evaluation that are in OUT.")
    ] = False,
) -> None:
    """Measure methods on datasets with labels; writes results.csv and report.html into OUT.

    A good picture that is not called good is a false alarm; a defective one is missed only if it is called good.
    K shots are numpy.random.RandomState(seed).permutation(n)[:K] over the sorted file names of train/good.
    """
    from blemish.cli.console import say, say_where, show, table_width
    from blemish.cli.result_folder import refuse_pictures_and_models
    from blemish.cli.scan_options import refuse_for_pictures, scan_geometry, stated_of_points
    from blemish.cli.settings import parse_settings
    from blemish.evaluation import plan_runs
    from blemish.evaluation.runs import build_inspector
    from blemish.utils.executors import executor_of
    from blemish.utils.locking import exclusive

    refuse_pictures_and_models(out)
    with exclusive(out):
        if not restart:
            refuse_earlier_results(out)
        measured = categories_of(
            datasets, categories, units, scan_geometry(intrinsics, depth_scale, mm_per_pixel, grid)
        )
        reading = {} if text_encoder == "auto" else {"text_encoder": text_encoder}
        runs = [
            run
            for encoder in comma_separated(encoders, "--encoder")
            for run in plan_runs(
                measured,
                detectors=comma_separated(detectors, "--detector"),
                shots=[parse_shots(text) for text in comma_separated(shots, "--shots")],
                seeds=[parse_seed(text) for text in comma_separated([seeds], "--seeds")],
                pooled=pooled,
                encoder=encoder,
                image_size=image_size,
                device=device.value,
                settings=parse_settings(settings or []) | reading,
                given_category=given_category,
            )
        ]
        of_points = stated_of_points(units, intrinsics, depth_scale, mm_per_pixel, grid)
        if any(value is not None for value in of_points.values()):
            looked_at = [one for run in runs for one in build_inspector(run).detector.needs.modalities]
            refuse_for_pictures(of_points, looked_at, [sample for category in measured for sample in category.train])
        details = evaluate_into(out, runs, aupro_thresholds, cache, executor_of(engine.value, workers))
    show(means_table([detail.row for detail in details], table_width()))
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


def refuse_earlier_results(out: Path) -> None:
    """Raise OutputError where an earlier evaluation has left its rows in `out`: a new one would replace them."""
    from blemish.cli.result_folder import earlier_results_error
    from blemish.scoring.describe import count_in_words
    from blemish.utils.atomic import output_errors
    from blemish.utils.paths import shown

    table = out / "results.csv"
    if not table.is_file():
        return
    with output_errors(table), table.open(encoding="utf-8", errors="replace", newline="") as file:
        count = sum(1 for _ in csv.reader(file)) - 1
    raise earlier_results_error(out, f"{count_in_words(max(count, 0), 'row')} in {shown(table)}")


def comma_separated(texts: Sequence[str], option: str) -> list[str]:
    """`["1,4", "all"]` → `["1", "4", "all"]`, each once. SettingsError for an `option` that was given without any."""
    found = list(dict.fromkeys(part.strip() for text in texts for part in text.split(",") if part.strip()))
    if texts and not found:
        raise SettingsError(f"a value of {option}", repr(",".join(texts)), "name one, or leave the option out")
    return found


def parse_shots(text: str) -> int | None:
    """A count, or None for "all"."""
    if text == "all":
        return None
    if text.isdecimal():
        return int(text)
    raise SettingsError("--shots K with K of 0 or more, or all", repr(text), "write for example: --shots 1,4,all")


def parse_seed(text: str) -> int:
    """A seed that numpy takes."""
    if text.isdecimal() and int(text) <= LARGEST_SEED:
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

    wanted = comma_separated(names or [], "--category")
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
                found = several_at_a_time(runs, work, executor, progress, Path(scratch))
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
    runs: Sequence[Run],
    work: Callable[[Run], list[RunDetail]],
    executor: Executor,
    progress: Progress,
    scratch: Path,
) -> Iterator[RunDetail]:
    """The same by an executor, in the order of the runs."""
    from blemish.evaluation.results import with_maps_aside
    from blemish.utils.executors import in_order

    for done, details in enumerate(in_order(executor.map_ready(work, runs)), start=1):
        progress(done, len(runs), {})
        yield from (with_maps_aside(detail, scratch) for detail in details)


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


LABELS = ("dataset", "category", "detector", "encoder", "image_size", "shots")
# The measures that the terminal shows and their heads, those that a narrow one leaves out first at the end.
SHOWN = {
    "image_auroc": "AUROC",
    "pixel_auroc": "pixel\nAUROC",
    "aupro_30": "AUPRO\n@30 %",
    "false_alarm_rate": "false\nalarms",
    "miss_rate": "missed",
    "unsure_rate": "unsure",
    "ms_per_picture": "ms",
    "oracle_miss_rate": "missed by\nhindsight",
    "unknown_rate": "unknown",
    "aupro_05": "AUPRO\n@5 %",
}
_FEWEST = 3  # measures that every table shows


def means_table(rows: Sequence[dict[str, Any]], width: int) -> Table:
    """Means over the seeds, a line for each category and method, then the mean over the categories.

    What all lines have in common stands in the title. Measures are left out, the rarest first, until the rest fits into
    `width` columns; so are those that no line has.
    """
    from blemish.cli.console import width_of
    from blemish.evaluation import mean_rows

    means = mean_rows(rows, (*LABELS, "pooled"))
    several = len({(row["dataset"], row["category"]) for row in means}) > 1
    lines = [*means, *(mean_rows(means, (*LABELS[2:], "pooled")) if several else [])]
    measures = [name for name in SHOWN if any(line[name] == line[name] for line in lines)]
    for count in range(len(measures), 0, -1):
        table = table_of_means(means, lines, measures[:count])
        if count <= _FEWEST or width_of(table) <= width:
            break
    if left_out := [SHOWN[name].replace("\n", " ") for name in measures[count:]]:
        table.caption = f"Also in results.csv: {', '.join(left_out)}"
    return table


def table_of_means(means: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]], measures: Sequence[str]) -> Table:
    """The table of these `measures`; `lines` are the `means` and those over the categories, which have no category."""
    from rich import box
    from rich.table import Table

    several = len(lines) > len(means)
    varying = [n for n in LABELS if len({row[n] for row in means}) > 1 or (n == "category" and several)]
    common = [f"{means[0][name]}{UNITS.get(name, '')}" for name in LABELS if name not in varying]
    pooled = ["one model for all"] if means[0]["pooled"] else []
    table = Table(
        title=": ".join(["Means over the seeds", *filter(None, [", ".join([*common, *pooled])])]),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        pad_edge=False,
    )
    for name in varying:
        table.add_column(name.replace("_", "\n"), overflow="fold", min_width=6)
    for name in measures:
        table.add_column(SHOWN[name], justify="right", no_wrap=True)
    for line in lines:
        labels = [str(line.get(name, "mean" if name == "category" else "")) for name in varying]
        table.add_row(*labels, *(measure_in_words(name, line[name]) for name in measures))
    return table


UNITS = {"image_size": " px", "shots": " shots"}


def measure_in_words(name: str, value: float) -> str:
    """Three digits behind the point, milliseconds none; empty where there is no value."""
    if value != value:
        return ""
    return f"{value:.0f}" if name == "ms_per_picture" else f"{value:.3f}"


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
