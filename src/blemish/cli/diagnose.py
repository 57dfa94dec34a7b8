"""`blemish diagnose`: measure the five signs of a model that fails silently."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blemish.cli.options import (
    SOME_UNREADABLE,
    Category,
    Device,
    DeviceName,
    ModelEncoder,
    ModelFolder,
    Out,
    given_path,
)


def diagnose(
    model: ModelFolder,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="GOOD",
            help="Good pictures: those learned from, new ones, or best some of both.",
            parser=given_path,
        ),
    ] = None,
    out: Out = Path("diagnosis"),
    category: Category = None,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Decides the made-up defects.")] = 0,
    device: DeviceName = Device.auto,
    encoder: ModelEncoder = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Replace the results of an earlier diagnosis that are in OUT.")
    ] = False,
) -> None:
    """Look for ways in which the model fails without telling; no defective picture is needed.

    Writes diagnosis.json and report.html into OUT. Without GOOD only what the model itself shows is measured.
    Exit code 0: done, whatever was found; 2: wrong usage; 3: some pictures could not be read.
    """
    import json

    from blemish.cli.console import say, say_where, show, table_of
    from blemish.cli.progress import progress_bar
    from blemish.cli.result_folder import refuse_pictures_and_models
    from blemish.cli.summaries import model_facts
    from blemish.data import normal_samples
    from blemish.diagnosis import diagnose as measure_signs
    from blemish.model.inspector import Inspector
    from blemish.report import write_diagnosis_report
    from blemish.report.diagnosis import wanted_in_words
    from blemish.scoring.describe import number
    from blemish.utils.atomic import atomic_update, check_writable

    refuse_pictures_and_models(out)
    if not restart:
        refuse_earlier_results(out)
    check_writable(out / "report.html")  # before anything is measured
    samples = normal_samples(paths) if paths else []
    inspector = Inspector.load(model, device=device.value, encoder=encoder)
    with progress_bar("diagnosing") as progress:
        found = measure_signs(inspector, samples, category=category, seed=seed, progress=progress)
    with atomic_update(out) as stage:
        text = json.dumps({"model": model.name, "category": category, "seed": seed} | found.to_dict(), indent=2)
        (stage / "diagnosis.json").write_text(text + "\n", encoding="utf-8")
        facts = model_facts(inspector)
        write_diagnosis_report(stage / "report.html", title=model.name, model_facts=facts, diagnosis=found)
    table = table_of("Signs of failure", "sign", "measure", "value", "wanted", "verdict", numeric=("value",))
    for sign in found.signs:
        for measure in sign.measures:
            value = "–" if measure.value is None else number(measure.value)
            said = f"not measured: {measure.why}" if measure.why and measure.value is None else measure.finding
            table.add_row(sign.name, measure.name, value, wanted_in_words(measure), said)
    show(table)
    for line in found.rests_on:
        say(line)
    for sign in found.warnings:
        for advice in sign.advice:
            say(f"{sign.name}: {advice}")
    for _, error in found.failures:
        say(f"not read: {error}", err=True)
    say_where("Report", out / "report.html")
    if found.failures:
        raise typer.Exit(SOME_UNREADABLE)


def refuse_earlier_results(out: Path) -> None:
    """Raise OutputError where `out` holds a diagnosis, or another page, that a new one would replace."""
    from blemish.cli.result_folder import earlier_results_error

    for name in ("diagnosis.json", "report.html"):
        if (out / name).exists():
            raise earlier_results_error(out, f"one that holds {name}")
