"""`blemish demo`: learn from good solar cells, find the broken ones among others, show how well that went."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blemish.cli.options import DetectorName, Device, DeviceName, EncoderName, given_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.table import Table

    from blemish.cli.results import Row
    from blemish.types import Sample

LEARN, INSPECT = 40, 60


def demo(
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", help="Where the results go.", parser=given_path)
    ] = Path("demo"),
    detector: DetectorName = "auto",
    encoder: EncoderName = "auto",
    device: DeviceName = Device.auto,
) -> None:
    """Learn from 40 good solar cells, inspect 60 others whose state is known, and show what was found."""
    from blemish.cli.console import say, say_where, show
    from blemish.cli.inspection import Job, inspect_into
    from blemish.cli.progress import progress_bar
    from blemish.cli.result_folder import REPORT, Wanted
    from blemish.cli.results import read_rows
    from blemish.cli.summaries import model_in_words, standing_out_in_words
    from blemish.data import draw_cells
    from blemish.model.inspector import Inspector
    from blemish.types import Sample

    good, others = draw_cells(LEARN, INSPECT)
    say(f"Learning from {len(good)} good solar cells …")
    inspector = Inspector(encoder=encoder, detector=detector, device=device.value)
    with progress_bar("learning", len(good)) as progress:
        inspector.fit([Sample(sample.image) for sample in good], progress=progress)
    for line in [*model_in_words(inspector), *standing_out_in_words(inspector)]:
        say(line)
    say(f"Inspecting {len(others)} others …")
    done = inspect_into(out, inspector, Job(samples=others, title="Solar cells", wanted=Wanted(restart=True)))
    inspector.save(out / "model")
    show(summary(read_rows(out), others, len(others) / done.seconds))
    say_where("Look at", out / REPORT)


def summary(rows: Iterable[Row], samples: Sequence[Sample], rate: float) -> Table:
    """Found, missed, false alarms, AUROC and speed of labelled `samples`, of which `rows` say what was found."""
    from rich import box
    from rich.table import Table

    from blemish.metrics import auroc

    labels = {sample.name: int(sample.label or 0) for sample in samples}
    judged = [(labels[row["file"]], row["verdict"], row["score"]) for row in rows if row["error"] is None]
    truth = [label for label, _, _ in judged]
    counts = Counter((label, verdict) for label, verdict, _ in judged)
    found, missed, alarms = counts[1, "defective"], counts[1, "good"], counts[0, "defective"]
    rest = len(judged) - found - missed - alarms - counts[0, "good"]
    table = Table(title="Solar cells", box=box.SIMPLE_HEAD, show_header=False)
    table.add_row("defective cells found", f"{found} of {sum(truth)}")
    table.add_row("defective cells missed", f"{missed} of {sum(truth)}")
    table.add_row("false alarms", f"{alarms} of {len(truth) - sum(truth)}")
    table.add_row("left to a person", f"{rest}, {sum(truth) - found - missed} of them defective")
    table.add_row("AUROC", f"{auroc([score for _, _, score in judged], truth):.3f}")
    table.add_row("pictures a second", f"{rate:.1f}")
    return table
