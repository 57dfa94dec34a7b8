"""`blemish calibrate`: renew a model's threshold from good parts it has not seen, without learning again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blemish.cli.options import Category, ModelFolder


def calibrate(
    model: ModelFolder,
    paths: Annotated[list[Path], typer.Argument(metavar="GOOD", help="Good pictures the model has not seen.")],
    category: Category = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option("--false-alarm-rate", metavar="F", help="A new wished rate; the model's own if unset."),
    ] = None,
) -> None:
    """Renew the threshold from good pictures that the model has not seen, without learning again."""
    from blemish.cli.console import say, say_where
    from blemish.cli.progress import progress_bar
    from blemish.cli.summaries import model_in_words
    from blemish.data import normal_samples
    from blemish.model.inspector import Inspector

    samples = normal_samples(paths)
    inspector = Inspector.load(model)
    with progress_bar("inspecting good pictures", len(samples)) as move:
        inspector.calibrate(samples, category=category, false_alarm_rate=false_alarm_rate, progress=move)
    inspector.save(model)
    for line in model_in_words(inspector):
        say(line)
    say_where("Saved", model)
