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


def table_width() -> int:
    """The columns that a table may fill: the terminal's width, or `WIDE`."""
    from rich.console import Console

    console = Console()
    return console.width if console.is_terminal else WIDE


def show(table: Table) -> None:
    """A table, to the terminal's width or to `WIDE`; brackets in its cells, as paths have some, stay as they are."""
    from rich.console import Console

    Console(highlight=False, markup=False, width=table_width()).print(table)


def width_of(table: Table) -> int:
    """The columns that a table needs to show every cell in one line."""
    from rich.console import Console

    return Console(markup=False, width=10_000).measure(table).maximum


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
