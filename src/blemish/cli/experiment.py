"""`blemish experiment`: ask a question of the methods; a page with the answer, and rows that a later run extends."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blemish.cli.options import (
    CellEngine,
    CellEngineName,
    CellWorkers,
    Device,
    DeviceName,
    ExperimentSettings,
    ImageSize,
    Out,
    TextEncoderName,
    given_path,
)
from blemish.registry import EXPERIMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blemish.evaluation import CategoryData
    from blemish.research.experiments.base import Experiment
    from blemish.research.experiments.runner import ExperimentRunner
    from blemish.utils.executors import Executor


class Size(StrEnum):
    """How much is measured."""

    small = "small"
    full = "full"


# Options of the command and the experiment's options that they may stand for, the first that it has.
NAMES: dict[str, tuple[str, ...]] = {
    "--seeds": ("seeds",),
    "--shots": ("shots",),
    "--detector": ("detectors", "detector"),
    "--encoder": ("encoders", "encoder"),
    "--image-size": ("image_size",),
    "--text-encoder": ("text_encoder",),
}


def experiment(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of: {', '.join(EXPERIMENTS)}.")],
    out: Out,
    datasets: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DATASET...]",
            help="Labelled datasets; by default solar cells, or scans rendered for it.",
            parser=given_path,
        ),
    ] = None,
    categories: Annotated[
        list[str] | None, typer.Option("--category", metavar="C,C", help="These categories alone.")
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="0,1,2", help="One repetition for each.")] = None,
    shots: Annotated[
        list[str] | None, typer.Option("--shots", metavar="K,all", help="Learn from K good pictures, or from all.")
    ] = None,
    detectors: Annotated[
        list[str] | None, typer.Option("--detector", metavar="D,D", help="These detectors instead.")
    ] = None,
    encoders: Annotated[
        list[str] | None,
        typer.Option("--encoder", metavar="NAME|FOLDER|all,…", help="These encoders; all: those that load now."),
    ] = None,
    image_size: ImageSize = None,
    size: Annotated[
        Size, typer.Option("--size", help="small: minutes on two cores; full: as published, where that is known.")
    ] = Size.small,
    device: DeviceName = Device.auto,
    text_encoder: TextEncoderName = "auto",
    settings: ExperimentSettings = None,
    engine: CellEngineName = CellEngine.serial,
    workers: CellWorkers = None,
) -> None:
    """Answer a question by measuring; writes report.html and results.csv into OUT.

    Rows that are in OUT already are not measured again, so that the same command goes on where it was ended, and more
    seeds, categories or detectors add to them. Further options of an experiment are set with --set.
    """
    from blemish.cli.console import say, say_where
    from blemish.cli.evaluate import comma_separated, parse_seed, parse_shots
    from blemish.cli.settings import parse_settings
    from blemish.research.experiments.runner import ExperimentRunner, configured
    from blemish.utils.executors import executor_of
    from blemish.utils.locking import exclusive

    given: dict[str, Any] = {
        "--seeds": None if seeds is None else [parse_seed(text) for text in comma_separated([seeds], "--seeds")],
        "--shots": shots and [parse_shots(text) for text in comma_separated(shots, "--shots")],
        "--detector": detectors and comma_separated(detectors, "--detector"),
        "--encoder": encoders and comma_separated(encoders, "--encoder"),
        "--image-size": image_size,
        "--text-encoder": None if text_encoder == "auto" else text_encoder,
    }
    asked = options_of(
        name, {option: value for option, value in given.items() if value}, parse_settings(settings or [])
    )
    made = configured(name, {**asked, "device": device.value}, full=size is Size.full)
    found = categories_for(made, datasets or [], categories)
    with exclusive(out):
        runner = ExperimentRunner(name, made, found, out)
        if runner.stale:
            say(f"{runner.stale} cells of pictures that have changed since are measured again", err=True)
        if runner.finished:
            say(f"{runner.finished} of {len(runner.cells)} cells are there already", err=True)
        measure(runner, out, made, executor_of(engine.value, workers))
    for sentence in made.verdict(runner.rows).sentences:
        say(sentence)
    say_where("Report", out / "report.html")


def options_of(name: str, given: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The experiment's options that the command's options mean. SettingsError for one that it does not have."""
    from dataclasses import fields

    from blemish.errors import SettingsError
    from blemish.registry import lookup, resolve

    kind = resolve(lookup(name, EXPERIMENTS, "experiment").target)
    known = {field.name: str(field.type) for field in fields(kind)}
    asked = dict(settings)
    for option, value in given.items():
        meant = next((one for one in NAMES[option] if one in known), None)
        if meant is None:
            takes = [option for option, names in NAMES.items() if set(names) & set(known)]
            raise SettingsError(f"options that {name} has: {', '.join(takes)}", option, "leave it out")
        several = known[meant].startswith("tuple")
        if not several and isinstance(value, list) and len(value) > 1:
            raise SettingsError(
                f"one {option} for {name}", f"{len(value)}", "name one, and another folder for the others"
            )
        asked[meant] = value[0] if isinstance(value, list) and not several else value
    return asked


def categories_for(made: Experiment, datasets: Sequence[Path], names: Sequence[str] | None) -> list[CategoryData]:
    """What the experiment measures on; nothing where it makes its own data, for want of a dataset."""
    from blemish.cli.console import say
    from blemish.errors import SettingsError

    if datasets or not made.BRINGS_DATA:
        return categories_given(datasets, names)
    if names:
        raise SettingsError("a dataset beside --category", "none", "give one, or choose with --set classes=N")
    say("No dataset given: scans of made-up parts, rendered into OUT first unless they are there.", err=True)
    return []


def categories_given(datasets: Sequence[Path], names: Sequence[str] | None) -> list[CategoryData]:
    """The categories of the datasets, or of the solar cells where none is given."""
    from blemish.cli.console import say
    from blemish.cli.evaluate import categories_of, comma_separated
    from blemish.errors import DatasetError
    from blemish.research.experiments.data import solar_cells_data

    if datasets:
        return categories_of(datasets, names)
    found = solar_cells_data()
    say("No dataset given: solar cells of the package elpv-dataset (good and defective, without masks).", err=True)
    wanted = comma_separated(names or [category.name for category in found], "--category")
    if missing := set(wanted) - {category.name for category in found}:
        raise DatasetError(
            "categories of the solar cells: mono, poly", ", ".join(sorted(missing)), "correct --category"
        )
    return [category for category in found if category.name in wanted]


def measure(runner: ExperimentRunner, out: Path, made: Experiment, executor: Executor | None = None) -> None:
    """Do what is left; the page is written from all rows, also when something ends the work early."""
    from blemish.cli.console import say
    from blemish.cli.progress import progress_bar
    from blemish.research.experiment_report import write_experiment_report

    command = shlex.join(["blemish", *sys.argv[1:]])
    try:
        with progress_bar(runner.name, len(runner.cells)) as progress:
            runner.run(progress, executor)
    except BaseException:
        if runner.rows:
            say(f"{runner.finished} of {len(runner.cells)} cells are finished; the same command goes on", err=True)
        raise
    finally:
        if rows := runner.rows:
            page = out / "report.html"
            write_experiment_report(page, runner.name, made, rows, missing=len(runner.waiting), command=command)
