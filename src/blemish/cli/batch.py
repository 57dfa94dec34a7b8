"""`blemish batch`: very many pictures, by the processes of one machine or by Ray Data, into Parquet files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blemish.cli.options import SOME_UNREADABLE, Device, DeviceName, ModelEncoder, ModelFolder, Out

if TYPE_CHECKING:
    from blemish.batch import BatchSummary


class EngineName(StrEnum):
    """What the work runs on."""

    local = "local"
    ray = "ray"


def batch(
    model: ModelFolder,
    source: Annotated[
        str,
        typer.Argument(
            metavar="MANIFEST|FOLDER|PATTERN",
            help="A list of pictures (.parquet, .csv, .jsonl with a column uri, and id, category), a folder, a pattern "
            "such as 'line/**/*.png'; as a path, or as s3://…, gs://….",
        ),
    ],
    out: Out,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="Processes; by the machine's cores and memory if unset."),
    ] = None,
    engine: Annotated[
        EngineName, typer.Option("--engine", help="local: processes of this machine; ray: Ray Data, on many.")
    ] = EngineName.local,
    address: Annotated[
        str | None, typer.Option("--address", metavar="ADDRESS", help="With --engine ray: the cluster to join.")
    ] = None,
    no_overlays: Annotated[bool, typer.Option("--no-overlays", help="Draw no overlays of alarms.")] = False,
    encoder: ModelEncoder = None,
    device: DeviceName = Device.auto,
) -> None:
    """Inspect very many pictures; writes Parquet files into OUT that together are one table, a row for each picture.

    Whatever ends it early, the same command goes on where it stopped: no picture is lost, none has two rows. A picture
    that cannot be read has a row that says why.

    Exit code 0: all inspected; 2: wrong usage; 3: some pictures could not be inspected (the column error says why).
    """
    from blemish.batch import BatchSettings, run_batch
    from blemish.cli.console import say
    from blemish.cli.progress import progress_bar
    from blemish.errors import SettingsError
    from blemish.utils.paths import shown

    if address is not None and engine is not EngineName.ray:
        raise SettingsError("--address together with --engine ray", "--engine local", "add --engine ray")
    settings = BatchSettings(
        model=model,
        source=source,
        out=out,
        engine=engine.value,
        workers=workers,
        address=address,
        device=device.value,
        encoder=encoder,
        overlays=not no_overlays,
    )
    try:
        with progress_bar("inspecting") as progress:
            done = run_batch(settings, progress)
    except KeyboardInterrupt:
        say(f"what is done is kept in {shown(out)}; the same command goes on there", err=True)
        raise
    say_summary(done, out)
    if done.errors:
        raise typer.Exit(SOME_UNREADABLE)


def say_summary(done: BatchSummary, out: Path) -> None:
    """A few lines on what was found."""
    from blemish.cli.console import say, say_where
    from blemish.cli.summaries import verdicts_in_words

    for note in done.notes:
        say(note)
    if skipped := done.rows - done.new:
        say(f"{skipped:,} of them inspected by an earlier run and skipped")
    rate = f" ({done.new / done.seconds:.1f} pictures a second)" if done.new and done.seconds else ""
    say(verdicts_in_words(done.verdicts, done.errors) + rate)
    say_where("Table", out)
