"""Rows on disk that outlive whatever ends a run: appended cell by cell, whole or not at all, never measured twice."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from blemish.data.files import shown
from blemish.errors import OutputError, SettingsError
from blemish.evaluation.evaluation import csv_cell
from blemish.research.experiments.base import Row

BOOKKEEPING = ("settings", "cell", "of")  # hash of the settings, of the cell's key, and how many rows the cell has
NUMBERS = frozenset({"seed", "shots", "bottleneck", "masking", "block", "top", "area", "alpha", "of"})


def digest(facts: Any) -> str:
    """A short hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


class RowBook:
    """`results.csv` and `settings.json` of one experiment in a folder.

    `rows` are those of finished cells. A cell's rows are written in one go and count only when all are there, so that
    a killed run leaves nothing to mend: what is incomplete is dropped when the book is opened again.
    """

    def __init__(
        self, folder: Path, name: str, key: Sequence[str], measures: Sequence[str], settings: Mapping[str, Any]
    ) -> None:
        self.folder, self.name = folder, name
        self.columns, self.measures = (*BOOKKEEPING, *key, *measures), frozenset(measures)
        self.settings = dict(settings)
        self.rows: list[dict[str, Any]] = []

    @property
    def path(self) -> Path:
        return self.folder / "results.csv"

    @property
    def mark(self) -> str:
        """The hash of the settings, which every row carries."""
        return digest([self.name, self.settings])

    def open(self) -> Self:
        """Read what is there. Raises SettingsError for rows of another experiment or of other settings."""
        if self.path.exists():
            self._refuse_others()
            self._keep(self._finished(self._read()))
        return self

    def has(self, key: Mapping[str, Any]) -> bool:
        """Whether a cell is finished."""
        mark = digest(key)
        return any(row["cell"] == mark for row in self.rows)

    def forget(self, key: Mapping[str, Any], except_for: str) -> int:
        """Drop rows of the same cell that differ in the column `except_for` alone; gives back how many."""
        same = {name: _text(value) for name, value in key.items() if name != except_for}
        stale = [
            row
            for row in self.rows
            if all(_text(row[name]) == value for name, value in same.items())
            and _text(row[except_for]) != _text(key[except_for])
        ]
        if stale:
            self._keep([row for row in self.rows if row not in stale])
        return len(stale)

    def add(self, key: Mapping[str, Any], rows: Iterable[Row]) -> None:
        """Write a finished cell; on disk when this returns."""
        found = [{**key, **row} for row in rows]
        marked = [{**row, "settings": self.mark, "cell": digest(key), "of": len(found)} for row in found]
        try:
            if not self.path.exists():
                self._begin()
            with self.path.open("ab") as file:  # one write: a kill leaves all of it, or a beginning that is noticed
                file.write(self._lines(marked))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        self.rows += [self._parsed({name: _text(row.get(name, "")) for name in self.columns}) for row in marked]

    def _refuse_others(self) -> None:
        there = self._settings_there()
        name, settings = there.get("experiment"), there.get("settings")
        if name != self.name or not isinstance(settings, dict):
            raise SettingsError(
                f"a folder of its own for {self.name}",
                f"{shown(self.folder)}, which holds results of {name or 'something else'}",
                "name another folder with -o",
            )
        if settings != self.settings:
            names = sorted(k for k in settings.keys() | self.settings.keys() if settings.get(k) != self.settings.get(k))
            told = "; ".join(f"{k} {settings.get(k)!r} there, {self.settings.get(k)!r} now" for k in names)
            raise SettingsError(
                f"the settings of the rows in {shown(self.path)}, which would share a table with the new ones",
                told,
                "go on with the old settings, or name another folder with -o",
            )

    def _settings_there(self) -> dict[str, Any]:
        try:
            found = json.loads((self.folder / "settings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _read(self) -> list[dict[str, str]]:
        text = self.path.read_text(encoding="utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]
        reader = csv.DictReader(io.StringIO(whole, newline=""))
        if whole and tuple(reader.fieldnames or ()) != self.columns:
            raise SettingsError(
                f"the columns of {self.name} in {shown(self.path)}", "others", "name another folder with -o"
            )
        return [row for row in reader if None not in row and None not in row.values()]

    def _finished(self, lines: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        """The rows of cells that are all there, each row once."""
        known = {tuple(line[name] for name in self.columns): line for line in lines if line["settings"] == self.mark}
        counts = Counter(line["cell"] for line in known.values())
        return [self._parsed(line) for line in known.values() if str(counts[line["cell"]]) == line["of"]]

    def _keep(self, rows: Sequence[dict[str, Any]]) -> None:
        """Make `rows` the content of the file, if it is another one."""
        self.rows = list(rows)
        content = self._head() + self._lines(rows)
        if content != self.path.read_bytes():
            self._replace(self.path, content)

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        facts = {"experiment": self.name, "settings": self.settings}
        self._replace(self.folder / "settings.json", json.dumps(facts, indent=2).encode() + b"\n")
        self._replace(self.path, self._head())

    def _replace(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(
            f"a folder that can be written at {shown(self.folder)}",
            error.strerror or str(error),
            "free some room, mend the permissions, or name another folder with -o",
        )

    def _head(self) -> bytes:
        return (",".join(self.columns) + "\n").encode()

    def _lines(self, rows: Iterable[Row]) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, lineterminator="\n", restval="")
        writer.writerows({name: _text(row.get(name, "")) for name in self.columns} for row in rows)
        return text.getvalue().encode("utf-8", "backslashreplace")

    def _parsed(self, line: Mapping[str, str]) -> dict[str, Any]:
        return {
            name: (float(text) if text else math.nan) if name in self.measures else _value(name, text)
            for name, text in line.items()
        }


def _text(value: Any) -> str:
    """A value as its cell; line breaks would let a cut-off line pass for a whole one."""
    return "" if value is None else str(csv_cell(value)).replace("\r", " ").replace("\n", " ")


def _value(name: str, text: str) -> Any:
    """What a cell of the key holds: a number only in columns that are numbers by nature (a category may be "001")."""
    for kind in (int, float) if name in NUMBERS else ():
        try:
            return kind(text)
        except ValueError:
            pass
    return text
