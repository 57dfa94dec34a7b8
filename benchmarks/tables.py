"""Result tables that outlive a run: a row takes the place of its older self, all others stay."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
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
