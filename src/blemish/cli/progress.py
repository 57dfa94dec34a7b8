"""Progress on stderr: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from blemish.utils.progress import Progress

Item = TypeVar("Item")
EVERY = 30.0  # seconds between two lines where no bar is shown


@contextmanager
def progress_bar(words: str, total: int | None = None) -> Iterator[Progress]:
    """A bar that is gone when the block ends; yields the function that moves it. A fact "step" replaces its `words`.

    Where stderr is no terminal, that function writes a line once in `EVERY` seconds instead.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _now_and_then(words)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task(words, total=total)

        def progress(done: float, total: int, facts: Mapping[str, Any]) -> None:
            bars.update(task, completed=done, total=total, description=step_in_words(words, facts))

        yield progress


def _now_and_then(words: str) -> Progress:
    """The progress of those who read a log: a line now and then."""
    from blemish.cli.console import say

    last = time.monotonic()

    def progress(done: float, total: int, facts: Mapping[str, Any]) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            share = f"{done / total:4.0%}  " if total else ""
            say(share + step_in_words(words, facts), err=True)

    return progress


def step_in_words(words: str, facts: Mapping[str, Any]) -> str:
    """`{"loss": 0.1234}` → "learning, loss 0.123"; a "step" takes the place of `words`."""
    rest = (f", {name} {said_fact(value)}" for name, value in facts.items() if name != "step")
    return str(facts.get("step", words)) + "".join(rest)


def said_fact(value: Any) -> str:
    """A number in three digits, anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def tracked(words: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    """The items, one by one, under a bar."""
    with progress_bar(words, total) as progress:
        for done, item in enumerate(items, start=1):
            yield item
            progress(done, total, {})
