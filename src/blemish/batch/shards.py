"""The protocol of a shard on disk: rows go to journals while they come, and become one Parquet file when all are there.

A shard is a range of entries, the same whatever run works on it. Its file `part-NNNNNN.parquet` is written whole or not
at all (utils/atomic.py): it is there exactly when the shard is finished. Until then each process that works on it
appends lines to a journal of its own in `_work/`, so that a killed run loses the image it was at, and two processes
that work on one shard, one of them orphaned, disturb neither each other nor the result. A line that was cut off is
passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from blemish.batch.rows import Row, table_of
from blemish.utils.atomic import atomic_file, output_errors, remove
from blemish.utils.optional import need

WORK = "_work"  # an underscore: readers of the table pass over it
_PART = re.compile(r"part-(\d{6,})\.parquet")


@dataclass(frozen=True)
class Shard:
    """The entries from `start` up to but not including `stop`; `number` counts shards from 0."""

    number: int
    start: int
    stop: int

    @property
    def part(self) -> str:
        """The name of its file of rows."""
        return f"part-{self.number:06}.parquet"


@dataclass(frozen=True)
class ShardPlan:
    """`rows` entries in shards of `size`, the last one smaller."""

    rows: int
    size: int

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    def shard(self, number: int) -> Shard:
        start = number * self.size
        return Shard(number, start, min(start + self.size, self.rows))


def finished_shards(out: Path) -> set[int]:
    """The numbers of all shards whose file is there."""
    return {int(match[1]) for path in out.iterdir() if (match := _PART.fullmatch(path.name))}


class Journal:
    """Appends rows of a shard to a file in `_work/` that nobody else writes: `run` is the name of this attempt.

    A line is with the system when `add` returns: it outlives the process, though not a failure of the machine.
    """

    def __init__(self, out: Path, shard: Shard, run: str) -> None:
        self.path = out / WORK / f"{shard.number:06}.{run}.jsonl"

    def __enter__(self) -> Self:
        with output_errors(self.path):
            self.path.parent.mkdir(exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
        self._begun = False
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, number: int, row: Row) -> None:
        """Append the row of the entry `number`. Raises OutputError."""
        self._write(json.dumps({"number": number, "row": row}))

    def trying(self, number: int) -> None:
        """Take note that the entry `number` is tried now. Raises OutputError."""
        self._write(json.dumps({"trying": number}))

    def _write(self, line: str) -> None:
        with output_errors(self.path):
            # The first one ends a line that an earlier attempt of the same name may have left unfinished.
            self._file.write((line if self._begun else f"\n{line}") + "\n")
            self._file.flush()
        self._begun = True


def journal_rows(out: Path, shard: Shard) -> dict[int, Row]:
    """The rows of an unfinished shard that any run has left, by the number of the entry."""
    found: dict[int, Row] = {}
    for path in sorted((out / WORK).glob(f"{shard.number:06}.*.jsonl")):
        for line in _lines(path):
            if isinstance(line.get("row"), dict) and shard.start <= line["number"] < shard.stop:
                found[line["number"]] = line["row"]
    return found


def tried(out: Path, shard: Shard, run: str) -> set[int]:
    """The entries that an attempt took note of trying and has no row of: what it died of."""
    lines = list(_lines(out / WORK / f"{shard.number:06}.{run}.jsonl"))
    begun = {line["trying"] for line in lines if "trying" in line}
    return begun - journal_rows(out, shard).keys()


def publish(out: Path, shard: Shard, rows: Mapping[int, Row]) -> None:
    """Write the file of a shard whose rows are all there, and remove its journals. Raises OutputError."""
    pq: Any = need("pyarrow.parquet", "batch", "result files")
    table = table_of([rows[number] for number in range(shard.start, shard.stop)])
    with atomic_file(out / shard.part) as partial:
        pq.write_table(table, partial, compression="zstd")
    for path in (out / WORK).glob(f"{shard.number:06}.*.jsonl"):
        with suppress(OSError):
            remove(path)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a journal, as objects; none where there is no file (any more)."""
    with suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            with suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict):
                    yield line
