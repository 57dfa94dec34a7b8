"""`blemish generate`: render a benchmark of images with points, and a page that shows it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blemish.cli.options import given_path

if TYPE_CHECKING:
    from blemish.research.synthetic_scans import ScanSetSpec
    from blemish.types import Sample

GOOD_SHOWN = 3


def generate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.", parser=given_path)],
    classes: Annotated[int, typer.Option("--classes", metavar="N", help="Kinds of part, 1 to 10.")] = 10,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="The same seed, the same set.")] = 0,
    size: Annotated[int, typer.Option("--size", metavar="PX", help="Pixels a side, 64 to 800.")] = 224,
    train: Annotated[int, typer.Option("--train", metavar="N", help="Good scans to learn from, a class.")] = 40,
    validation: Annotated[int, typer.Option("--validation", metavar="N", help="Further good scans, a class.")] = 8,
    good: Annotated[int, typer.Option("--good", metavar="N", help="Good scans to test on, a class.")] = 16,
    defective: Annotated[
        int, typer.Option("--defective", metavar="N", help="Defective scans of each of 9 kinds, a class.")
    ] = 4,
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="Processes that render.")] = 2,
) -> None:
    """Render parts with and without defects, as pictures with points, in the layout of MVTec 3D-AD.

    Defects are in shape alone (dent, bump, hole, bend, missing), in colour alone (stain, colour), or in both
    (contamination, crack). OUT/index.html shows some of each. OUT appears when it is whole.
    """
    from blemish.cli.console import say, say_where
    from blemish.cli.progress import progress_bar
    from blemish.report import write_scan_sheet
    from blemish.research.synthetic_scans import ScanSetSpec, write_scans
    from blemish.scoring.describe import count_in_words
    from blemish.utils.atomic import atomic_update
    from blemish.utils.paths import check_empty

    plan = ScanSetSpec(classes, seed, size, train, validation, good, defective)
    count = len(plan.scans())
    check_empty(out)
    with atomic_update(out, durable=False) as stage:
        with progress_bar("rendering", count) as progress:
            write_scans(stage, plan, workers, progress=progress)
        write_scan_sheet(
            stage / "index.html",
            f"{count:,} generated scans",
            shown_scans(stage, plan),
            about="Parts that never were, with defects whose outlines are known exactly.",
            counts=counts(plan),
            command=shlex.join(["blemish", *sys.argv[1:]]),
        )
    say(f"{count_in_words(count, 'scan')} of {count_in_words(classes, 'class', 'classes')}")
    say_where("Look at", out / "index.html")


def shown_scans(folder: Path, plan: ScanSetSpec) -> dict[str, list[Sample]]:
    """A few good scans and the first of each kind of defect, by class, as they lie on disk."""
    from blemish.research.synthetic_scans import read_scan

    some: dict[str, list[Sample]] = {name: [] for name in plan.names}
    for scan in plan.scans():
        most = 1 if scan.kind != "good" else GOOD_SHOWN if scan.split == "train" else 0
        if scan.number < most:
            some[scan.category].append(read_scan(folder, scan))
    return some


def counts(plan: ScanSetSpec) -> dict[str, object]:
    """How large the set is, for the head of the page."""
    from blemish.research.synthetic_scans import KINDS

    return {
        "classes": len(plan.names),
        "seed": plan.seed,
        "pixels a side": plan.size,
        "to learn from, a class": plan.train,
        "validation, a class": plan.validation,
        "good to test on, a class": plan.good,
        "defective, a class": f"{plan.defective} of each of {len(KINDS)} kinds",
    }
