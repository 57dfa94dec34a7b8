"""`blemish demo`: learn from good solar cells, find the broken ones among others, show how well that went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blemish.cli.options import DetectorName, Device, DeviceName, EncoderName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from blemish.cli.inspecting import Inspection
    from blemish.types import Sample

LEARN, INSPECT = 40, 60


def demo(
    out: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Where the results go.")] = Path("demo"),
    detector: DetectorName = "auto",
    encoder: EncoderName = "auto",
    device: DeviceName = Device.auto,
) -> None:
    """Learn from 40 good solar cells, inspect 60 others whose state is known, and show what was found."""
    from blemish.cli.console import say, say_where, show
    from blemish.cli.inspecting import inspect_into
    from blemish.cli.progress import progress_bar
    from blemish.cli.summaries import model_in_words
    from blemish.data import draw_cells
    from blemish.model.inspector import Inspector
    from blemish.types import Sample

    good, others = draw_cells(LEARN, INSPECT)
    say(f"Learning from {len(good)} good solar cells …")
    inspector = Inspector(encoder=encoder, detector=detector, device=device.value)
    with progress_bar("learning", len(good)) as move:
        inspector.fit([Sample(sample.image) for sample in good], progress=move)
    for line in model_in_words(inspector):
        say(line)
    say(f"Inspecting {len(others)} others …")
    done = inspect_into(out, inspector, others, "Solar cells")
    inspector.save(out / "model")
    show(summary(done, others))
    say_where("Look at", out / "report.html")


def summary(done: Inspection, samples: Sequence[Sample]) -> Table:
    """Found, missed, false alarms, AUROC and speed."""
    from rich import box
    from rich.table import Table

    from blemish.metrics import auroc

    labels = {sample.name: int(sample.label or 0) for sample in samples}
    truth = [labels[p.source] for p in done.predictions]
    told = [p.is_defective for p in done.predictions]
    found = sum(bool(t and d) for t, d in zip(truth, told, strict=True))
    alarms = sum(bool(d and not t) for t, d in zip(truth, told, strict=True))
    table = Table(title="Solar cells", box=box.SIMPLE_HEAD, show_header=False)
    table.add_row("defective cells found", f"{found} of {sum(truth)}")
    table.add_row("defective cells missed", f"{sum(truth) - found} of {sum(truth)}")
    table.add_row("false alarms", f"{alarms} of {len(truth) - sum(truth)}")
    table.add_row("AUROC", f"{auroc([p.score for p in done.predictions], truth):.3f}")
    table.add_row("pictures a second", f"{len(truth) / done.seconds:.1f}")
    return table
