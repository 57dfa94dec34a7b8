"""Progress on stderr: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
EVERY = 30.0  # seconds between two lines where no bar is shown


@contextmanager
def progress_bar(words: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A bar that is gone when the block ends; yields `move(done, total, facts)`, what `Inspector.fit` calls.

    Where stderr is no terminal, `move` writes a line once in `EVERY` seconds instead.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _now_and_then(words)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(words, total=total)

        def move(done: float, total: int | None, facts: Mapping[str, Any] | None = None, words: str = words) -> None:
            progress.update(task, completed=done, total=total, description=words + said_facts(facts))

        yield move


def _now_and_then(words: str) -> Callable[..., None]:
    """`move` for those who read a log."""
    from blemish.cli.console import say

    last = time.monotonic()

    def move(done: float, total: int | None, facts: Mapping[str, Any] | None = None, words: str = words) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            share = f"{done / total:4.0%}  " if total else ""
            say(share + words + said_facts(facts), err=True)

    return move


def said_facts(facts: Mapping[str, Any] | None) -> str:
    """`{"loss": 0.1234}` → ", loss 0.123"."""
    return "".join(f", {name} {said_fact(value)}" for name, value in (facts or {}).items())


def said_fact(value: Any) -> str:
    """A number in three digits, anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def tracked(words: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    """The items, one by one, under a bar."""
    with progress_bar(words, total) as move:
        for done, item in enumerate(items, start=1):
            yield item
            move(done, total)
