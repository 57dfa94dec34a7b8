"""`blemish calibrate`: renew a model's threshold with good parts it has not seen, without learning again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blemish.cli.options import (
    SOME_UNREADABLE,
    AssumeGood,
    Category,
    Device,
    DeviceName,
    ModelEncoder,
    ModelFolder,
    NormalPaths,
    Pages,
)

if TYPE_CHECKING:
    from blemish.model.recalibration import Flip, Recalibration

NAMED = 10  # files that are listed


def calibrate(
    model: ModelFolder,
    paths: NormalPaths,
    category: Category = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option("--false-alarm-rate", metavar="F", help="False alarms accepted; the model's own if unset."),
    ] = None,
    unsure_rate: Annotated[
        float | None,
        typer.Option("--unsure-rate", metavar="U", help="Good parts left to a person; the model's own if unset."),
    ] = None,
    unlabelled: Annotated[
        bool,
        typer.Option("--unlabelled", help="The pictures are of unknown state; most of them show good parts."),
    ] = False,
    expected_defects: Annotated[
        float | None,
        typer.Option(
            "--expected-defects", metavar="D", help="With --unlabelled: the share of defective pictures; 0.1 if unset."
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Let the new pictures take the place of all that the limit rests on so far."),
    ] = False,
    encoder: ModelEncoder = None,
    device: DeviceName = Device.auto,
    assume_good: AssumeGood = False,
    pages: Pages = False,
) -> None:
    """Renew the limit with good pictures that the model has not seen, without learning again.

    Their scores are added to those that the limit rests on already. Pictures that the model learned from, that repeat
    one another or that show unknown parts do not count. What changes is shown. With --unlabelled the pictures may hold
    some defects: how good parts score is then estimated from all of them, and files that cannot be read are named and
    left out.

    Exit code 0: done; 2: wrong usage, or pictures that contradict what is assumed, and nothing has changed;
    3: done, but some pictures could not be read.
    """
    from blemish.cli.console import say, say_where
    from blemish.cli.progress import progress_bar
    from blemish.cli.summaries import model_in_words
    from blemish.data.data_warnings import collected_warnings, summary
    from blemish.data.folder import find_inspection, find_normal
    from blemish.data.path_lists import expand_lists
    from blemish.errors import SettingsError
    from blemish.model.inspector import Inspector
    from blemish.model.model_folder import read_settings
    from blemish.scoring.unlabelled import check_expected
    from blemish.utils.atomic import check_writable

    if unlabelled and replace:
        raise SettingsError("--unlabelled or --replace", "both", "give --replace with good pictures alone")
    if expected_defects is not None:
        if not unlabelled:
            raise SettingsError(
                "--expected-defects together with --unlabelled",
                "--expected-defects",
                "leave it out, or add --unlabelled where some of the pictures may be defective",
            )
        check_expected(expected_defects)  # before any picture is scored
    loaded = read_settings(model)["settings_sha256"]
    check_writable(model)  # before any picture is scored
    with collected_warnings() as warnings:
        listed = expand_lists(paths)
        if unlabelled:
            found = find_inspection(listed, pages=pages)
        else:
            found = find_normal(listed, assume_good=assume_good, pages=pages, category=category)
        inspector = Inspector.load(model, device=device.value, encoder=encoder)
        before = inspector.false_alarm_rate
        share = {} if expected_defects is None else {"expected_defects": expected_defects}
        rates: dict[str, Any] = {"false_alarm_rate": false_alarm_rate, "unsure_rate": unsure_rate}
        with progress_bar("inspecting pictures", len(found.samples)) as progress:
            if unlabelled:
                change = inspector.calibrate_unlabelled(found.samples, category, progress=progress, **share, **rates)
            else:
                change = inspector.calibrate(found.samples, category, progress=progress, replace=replace, **rates)
    refuse_changed(model, loaded)
    inspector.save(model)
    for line in [*found.contents.words(), *summary(warnings), *unreadable_in_words(change)]:
        say(line, err=True)
    kind = "picture{} of unknown state" if unlabelled else "good picture{}"
    for line in [*counted_in_words(change, kind), *changes_in_words(change, before, inspector.false_alarm_rate)]:
        say(line)
    for line in model_in_words(inspector):
        say(line)
    say_where("Saved", model)
    if change.unreadable:
        raise typer.Exit(SOME_UNREADABLE)


def refuse_changed(model: Path, loaded: str) -> None:
    """Raise OutputError for a model that is no longer the one `loaded`: what another run added would be lost."""
    from blemish.errors import OutputError
    from blemish.model.model_folder import read_settings
    from blemish.utils.paths import shown

    if read_settings(model)["settings_sha256"] != loaded:
        raise OutputError(
            f"the model in '{shown(model)}' as it was when this run began",
            "another one, which another run has saved meanwhile",
            "run the same command again",
        )


def counted_in_words(change: Recalibration, kind: str = "good picture{}") -> Iterator[str]:
    """Which pictures counted, and why others did not; `kind` names them, {} stands for the plural's s."""
    from blemish.scoring.describe import count_in_words

    yield f"{count_in_words(sum(change.added.values()), kind.format(''), kind.format('s'))} added."
    if change.fitted_on:
        yield f"Not counted, learned from: {change.fitted_on}."
    if change.repeated:
        yield f"Not counted, the same as others: {change.repeated}."
    if change.unknown:
        more = [f"and {len(change.unknown) - NAMED} more"] if len(change.unknown) > NAMED else []
        yield f"Not counted, unlike any part that the model learned: {', '.join([*change.unknown[:NAMED], *more])}."


def unreadable_in_words(change: Recalibration) -> Iterator[str]:
    """Which files could not be read, and why."""
    for failure in change.unreadable[:NAMED]:
        yield f"not read: {failure.error}"
    if len(change.unreadable) > NAMED:
        yield f"not read: {len(change.unreadable) - NAMED} more"


def changes_in_words(change: Recalibration, rate_before: float, rate_after: float) -> Iterator[str]:
    """Each category's limit before and after, and the good parts known before that are judged otherwise now."""
    if rate_before != rate_after:
        yield f"False alarms accepted: {100 * rate_before:g} % before, {100 * rate_after:g} % now."
    for category, old in change.before.items():
        name = f"{category}: " if category else ""
        yield f"{name}limit {old.threshold:.4g} before, {change.after[category].threshold:.4g} now."
    flips = change.flips
    if not flips:
        yield "All good parts known before are judged as they were."
        return
    yield f"Of the good parts known before, {len(flips)} {'is' if len(flips) == 1 else 'are'} judged otherwise now:"
    for flip in flips[:NAMED]:
        yield f"  {flip_in_words(flip)}"
    if len(flips) > NAMED:
        yield f"  and {len(flips) - NAMED} more"


def flip_in_words(flip: Flip) -> str:
    """One part's score and verdicts."""
    name = f"{flip.category}: " if flip.category else ""
    return f"{name}{flip.file or 'one learned from'}, score {flip.score:.4g}: {flip.before} before, {flip.after} now"
