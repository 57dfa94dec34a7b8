"""Rows on disk that outlive whatever ends a run: added cell by cell, whole or not at all, never measured twice.

An SQLite database with one record a cell, and `results.csv` written from it, which is what is read and published.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from blemish.errors import OutputError, SettingsError
from blemish.evaluation import csv_cell
from blemish.research.experiments.base import Row
from blemish.utils import atomic
from blemish.utils.paths import shown

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS cells (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, rows TEXT NOT NULL)",
)
BOOKKEEPING = ("settings", "cell", "of")  # columns: hash of the settings, of the cell's key, how many rows the cell has


def digest(facts: Any) -> str:
    """A short hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


class RowStore:
    """The rows of one experiment in a folder: `results.sqlite`, and `results.csv` written from it.

    `key` and `measures` are the columns: a missing value is "" in a column of the key, nan in one of the measures. A
    cell's rows are one record, so that a killed run leaves all of them or none.
    """

    def __init__(
        self, folder: Path, name: str, key: Sequence[str], measures: Sequence[str], settings: Mapping[str, Any]
    ) -> None:
        self.folder, self.name = folder, name
        self.key, self.measures = tuple(key), tuple(measures)
        self.settings = json.loads(json.dumps(dict(settings)))
        self.path, self.table = folder / "results.sqlite", folder / "results.csv"

    def open(self) -> Self:
        """Check what is there. Raises SettingsError for rows of another experiment or of other settings."""
        if self._is_there():
            self._refuse_others(self._facts())
            self._export()
        elif self.table.exists():
            self._refuse("something else")
        return self

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows, cell by cell in the order in which they were finished."""
        return [self._whole(row) for _, rows in self._cells() for row in rows]

    def keys(self) -> set[str]:
        """The keys of all finished cells, as `key_text` writes them."""
        if not self._is_there():
            return set()
        with self._connected() as store:
            return {key for (key,) in store.execute("SELECT key FROM cells")}

    def add(self, key: Mapping[str, Any], rows: Iterable[Row]) -> None:
        """Write a finished cell; on disk when this returns."""
        found = [dict(row) for row in rows]
        facts = [("experiment", _text(self.name)), ("settings", _text(self.settings))]
        with self._connected() as store, store:
            store.execute("BEGIN")  # by itself, each table would be there at once: a killed run would leave no facts
            for table in SCHEMA:
                store.execute(table)
            store.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?)", facts)
            store.execute("INSERT OR REPLACE INTO cells (key, rows) VALUES (?, ?)", (key_text(key), _text(found)))
        self._export()

    def forget(self, keys: Iterable[Mapping[str, Any]], except_for: str) -> int:
        """Drop the cells whose key is none of these and differs from one in `except_for` alone; how many those were."""
        wanted = list(keys)
        stale = self.alike(wanted, {except_for}) - set(map(key_text, wanted))
        if stale:
            with self._connected() as store, store:
                store.executemany("DELETE FROM cells WHERE key = ?", [(key,) for key in stale])
            self._export()
        return len(stale)

    def alike(self, keys: Iterable[Mapping[str, Any]], except_for: Collection[str]) -> set[str]:
        """The keys of finished cells, as text, that differ from one of these in nothing but `except_for`."""

        def rest(key: Mapping[str, Any]) -> str:
            return key_text({name: value for name, value in key.items() if name not in except_for})

        wanted = set(map(rest, keys))
        return {key for key in self.keys() if rest(json.loads(key)) in wanted}

    def _whole(self, row: Row) -> dict[str, Any]:
        """A row with every column."""
        found: dict[str, Any] = {name: "" if row.get(name) is None else row[name] for name in self.key}
        return found | {name: float(row.get(name, math.nan)) for name in self.measures}

    def _cells(self) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """The key of every finished cell with its rows, which repeat what the key says."""
        if not self._is_there():
            return []
        with self._connected() as store:
            found = store.execute("SELECT key, rows FROM cells ORDER BY number").fetchall()
        cells = [(json.loads(key), json.loads(rows)) for key, rows in found]
        return [(key, [{**key, **row} for row in rows]) for key, rows in cells]

    def _is_there(self) -> bool:
        """Whether anything was ever added: a run that was killed while it began leaves a file without tables."""
        if not self.path.exists() or not self.path.stat().st_size:
            return False
        with self._connected() as store:
            return store.execute("SELECT 1 FROM sqlite_master").fetchone() is not None

    def _facts(self) -> dict[str, Any]:
        with self._connected() as store:
            return {name: json.loads(value) for name, value in store.execute("SELECT name, value FROM facts")}

    def _refuse_others(self, facts: Mapping[str, Any]) -> None:
        if facts.get("experiment") != self.name:
            self._refuse(str(facts.get("experiment", "something else")))
        settings = facts["settings"]
        if settings != self.settings:
            names = sorted(k for k in settings.keys() | self.settings.keys() if settings.get(k) != self.settings.get(k))
            changed = "; ".join(f"{k} {settings.get(k)!r} there, {self.settings.get(k)!r} now" for k in names)
            raise SettingsError(
                f"the settings of the rows in {shown(self.table)}, which would share a table with the new ones",
                changed,
                "go on with the old settings, or name another folder with -o",
            )

    def _refuse(self, holds: str) -> None:
        raise SettingsError(
            f"a folder of its own for {self.name}",
            f"{shown(self.folder)}, which holds results of {holds}",
            "name another folder with -o",
        )

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """The database. Raises OutputError where it cannot be read or written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path)) as store:
                yield store
        except (OSError, sqlite3.Error) as error:
            raise OutputError(
                f"a folder that can be written at {shown(self.folder)}, and a whole {self.path.name} in it",
                str(error),
                "free some room, mend the permissions, or name another folder with -o",
            ) from error

    def _export(self) -> None:
        """Write `results.csv` from the database, unless it says the same already."""
        columns = (*BOOKKEEPING, *self.key, *self.measures)
        mark = digest([self.name, self.settings])
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        for key, rows in self._cells():
            facts = {"settings": mark, "cell": digest(key), "of": len(rows)}
            writer.writerows(
                {name: csv_cell(value) for name, value in {**facts, **self._whole(row)}.items()} for row in rows
            )
        content = text.getvalue().encode("utf-8", "backslashreplace")
        if not self.table.exists() or self.table.read_bytes() != content:
            atomic.write_bytes(self.table, content)


def key_text(key: Mapping[str, Any]) -> str:
    """A cell's key as it is stored: equal for equal keys."""
    return _text(dict(key))


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
