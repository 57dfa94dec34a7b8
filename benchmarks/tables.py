"""Result tables that outlive a run: what is measured anew takes its older self's place, or what is there stays."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path


def keep_row(path: Path, head: Sequence[str], key: int, row: Mapping[str, str]) -> None:
    """Put `row` into the table at `path` in place of that with the same first `key` columns of `head`."""
    table: dict[tuple[str, ...], Mapping[str, str]] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            table = {tuple(old[name] for name in head[:key]): old for old in csv.DictReader(file)}
    table[tuple(row[name] for name in head[:key])] = row
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, head, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table[name] for name in sorted(table))


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of the table at `path`; none where there is no table."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add_missing(
    path: Path,
    head: Sequence[str],
    keys: Iterable[tuple[object, ...]],
    measured: Callable[..., Iterable[tuple[object, ...]]],
) -> None:
    """Append to the table at `path` what `measured(*key)` gives for each of the `keys` that it does not hold yet.

    A key fills the first columns of `head` in each of its rows. The rows of one key are written together, or none.
    """
    old = read_rows(path)
    with path.open("a", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        if not old:
            table.writerow(head)
        for key in keys:
            if any(all(row[name] == str(part) for name, part in zip(head, key, strict=False)) for row in old):
                continue
            found = list(measured(*key))
            table.writerows((*key, *row) for row in found)
            file.flush()
            print(*key, flush=True)
