"""Where words and tables go: plain lines that pipes can read, tables as wide as they need when nobody watches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from blemish.utils.paths import shown

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 160  # columns of a table that is not shown on a terminal


def say(line: str, err: bool = False) -> None:
    """One line on stdout, or on stderr."""
    typer.echo(line.encode("utf-8", "replace").decode("utf-8"), err=err)


def say_where(what: str, path: Path) -> None:
    """Name a file or folder that was written."""
    say(f"{what}: {shown(path)}")


def show(table: Table) -> None:
    """A table, to the terminal's width or to `WIDE`."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    console.print(table)


def table_of(title: str, *columns: str, numeric: tuple[str, ...] = ()) -> Table:
    """An empty table whose cells wrap instead of being cut; `numeric` columns are aligned right."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        right = column in numeric
        table.add_column(
            column, overflow="fold", justify="right" if right else "left", no_wrap=column == "name" or right
        )
    return table
