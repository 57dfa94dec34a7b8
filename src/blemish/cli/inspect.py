"""`blemish inspect`: score images with a saved model, write results, overlays and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blemish.cli.options import Category, Device, DeviceName, ModelFolder, Out

DEFECT_FOUND, SOME_UNREADABLE = 1, 3


def inspect(
    model: ModelFolder,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Pictures, folders of pictures, or a dataset.")],
    out: Out,
    category: Category = None,
    maps: Annotated[
        bool, typer.Option("--maps", help="Write every score map to maps/ as a float32 .npy of the picture's size.")
    ] = False,
    no_overlays: Annotated[bool, typer.Option("--no-overlays", help="Draw no overlays.")] = False,
    fail_on_defect: Annotated[
        bool, typer.Option("--fail-on-defect", help="End with exit code 1 when a defect was found.")
    ] = False,
    device: DeviceName = Device.auto,
) -> None:
    """Inspect pictures with a model; writes results.jsonl, results.csv, overlays/ and report.html into OUT.

    Exit code 0: all inspected; 1: --fail-on-defect and a defect was found; 2: wrong usage; 3: some pictures could not
    be read (they are named, all others are done; this goes before 1).
    """
    from blemish.cli.inspecting import inspect_into
    from blemish.data import inspection_samples
    from blemish.model.inspector import Inspector

    samples = inspection_samples(paths)
    inspector = Inspector.load(model, device=device.value)
    done = inspect_into(out, inspector, samples, model.name, category=category, overlays=not no_overlays, maps=maps)
    done.tell(out)
    if done.failures:
        raise typer.Exit(SOME_UNREADABLE)
    if fail_on_defect and done.defective:
        raise typer.Exit(DEFECT_FOUND)
