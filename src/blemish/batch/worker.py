"""A worker process of the local engine: it loads the model once, and inspects shard after shard.

It ends when its parent does, however that ended. Messages to the parent are tuples that begin with one of the names
below; the parent sends a `Task` at a time, and None at the end.
"""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path

from blemish.batch.inspecting import MakerSpec, RowMaker
from blemish.batch.rows import Row
from blemish.batch.shards import Journal, Shard, journal_rows, publish
from blemish.batch.source import Entry, InputReader
from blemish.errors import BlemishError, DataWarning, OutputError

READY, ROW, DONE, FAILED = "ready", "row", "done", "failed"
ORPHANED = 3  # exit code


@dataclass(frozen=True)
class Task:
    """One shard to finish; `run` names this attempt at it. `is_careful`: image by image, each named before it is tried.

    Rows for entries that are not to be tried any more lie in a journal already.
    """

    shard: Shard
    run: str
    is_careful: bool = False


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs to know: how to make rows, where entries and results lie, how many threads it may use."""

    maker: MakerSpec
    out: str
    input: str
    threads: int


def work(connection: Connection, settings: WorkerSettings) -> None:
    """The main function of a worker process."""
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # before any library that reads it is loaded
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal: the parent acts on it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore", DataWarning)  # of a million images nobody reads them: see docs/batch.md
    threading.Thread(target=_end_with_parent, name="watch-parent", daemon=True).start()
    try:
        maker = settings.maker.build(settings.threads)
        reader = InputReader(Path(settings.input))
        connection.send((READY,))
        while (task := connection.recv()) is not None:
            for message in finish_shard(maker, reader, Path(settings.out), task):
                connection.send(message)
            connection.send((DONE, task.shard.number))
    except (EOFError, BrokenPipeError):  # the parent is gone
        return
    except BlemishError as error:
        connection.send((FAILED, error))
    except MemoryError:
        full = OutputError("enough memory to inspect", "none left", "give fewer --workers, or a machine with more")
        connection.send((FAILED, full))
    except Exception as error:
        connection.send((FAILED, RuntimeError(f"{type(error).__name__}: {error}")))


def finish_shard(maker: RowMaker, reader: InputReader, out: Path, task: Task) -> Iterator[tuple[str, str | None, bool]]:
    """Make the rows of a shard that no journal holds, and publish it; yields (ROW, verdict, is_new) of each row."""
    shard = task.shard
    rows = journal_rows(out, shard)
    for row in rows.values():
        yield ROW, row.get("verdict"), False
    left = [entry for entry in reader.entries(shard.start, shard.stop) if entry.number not in rows]
    with Journal(out, shard, task.run) as journal:
        made = _one_by_one(maker, left, journal) if task.is_careful else maker.rows(left)
        for entry, row in zip(left, made, strict=True):
            journal.add(entry.number, row)
            rows[entry.number] = row
            yield ROW, row.get("verdict"), True
    publish(out, shard, rows)


def _one_by_one(maker: RowMaker, entries: Sequence[Entry], journal: Journal) -> Iterator[Row]:
    for entry in entries:
        journal.trying(entry.number)
        yield from maker.rows([entry])


def _end_with_parent() -> None:
    """Wait for the parent process to end, and end at once with it: its next run does this shard."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(ORPHANED)
