"""Progress bars on stderr, silent when nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")


@contextmanager
def progress_bar(words: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A bar that is gone when the block ends; yields `move(done, total, facts)`, what `Inspector.fit` calls."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(words, total=total)

        def move(done: float, total: int | None, facts: Mapping[str, Any] | None = None, words: str = words) -> None:
            said = "".join(f", {name} {said_fact(value)}" for name, value in (facts or {}).items())
            progress.update(task, completed=done, total=total, description=words + said)

        yield move


def said_fact(value: Any) -> str:
    """A number in three digits, anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def tracked(words: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    """The items, one by one, under a bar."""
    with progress_bar(words, total) as move:
        for done, item in enumerate(items, start=1):
            yield item
            move(done, total)
