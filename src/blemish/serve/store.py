"""SQLite behind the service: what is committed here survives a kill at any moment, and a loss of power.

Write-ahead log, synchronous=FULL, foreign keys. One connection writes, under a lock, one transaction at a time;
readers have connections of their own and never wait for it. Nothing here knows what a part or a limit is.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from blemish.errors import OutputError
from blemish.serve.errors import ConflictError

FILE = "line.sqlite"


def index_parts(connection: sqlite3.Connection) -> None:
    """Version 2: the latest parts of a product, and counts of them, without reading all of its records."""
    connection.execute("CREATE INDEX parts_by_time ON parts (product, seq)")
    connection.execute(
        "CREATE INDEX parts_by_state ON parts (product, verdict, decision, is_deleting, audit_draw, audit_share)"
    )


def failures_of_webhooks(connection: sqlite3.Connection) -> None:
    """Version 3: failures belong to a webhook and not to single deliveries, and what was dropped is counted.

    Numbers of deliveries go on where they were: receivers tell repeats by them.
    """
    for column in ("attempts INTEGER", "next_at REAL", "last_error TEXT", "dropped INTEGER"):
        default = "''" if column.endswith("TEXT") else "0"
        connection.execute(f"ALTER TABLE webhooks ADD COLUMN {column} NOT NULL DEFAULT {default}")
    connection.execute("ALTER TABLE outbox RENAME TO old_outbox")
    connection.execute(
        "CREATE TABLE outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, "
        "webhook TEXT NOT NULL REFERENCES webhooks(id) ON DELETE CASCADE, body TEXT NOT NULL)"
    )
    connection.execute("INSERT INTO outbox SELECT seq, webhook, body FROM old_outbox")
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'outbox'")
    connection.execute("UPDATE sqlite_sequence SET name = 'outbox' WHERE name = 'old_outbox'")
    connection.execute("DROP TABLE old_outbox")
    connection.execute("CREATE INDEX outbox_by_webhook ON outbox (webhook, seq)")


# What brings a database of version i to i + 1; `schema.sql` is the newest.
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (index_parts, failures_of_webhooks)
VERSION = 1 + len(MIGRATIONS)
IDLE_READERS = 8  # connections that are kept open between readings

Row = sqlite3.Row


class Store:
    """The database of a data folder. Raises OutputError where it cannot be used or is of a newer blemish."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = threading.RLock()
        self._idle: list[sqlite3.Connection] = []
        self._idle_lock = threading.Lock()
        self._is_open = True
        try:
            self._writer = self._connect()
        except sqlite3.Error as error:
            raise OutputError(f"a database at '{self.path}'", str(error), "name another folder with --data") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._writer.close()
            raise OutputError(f"a database at '{self.path}'", str(error), "name another folder with --data") from error
        except BaseException:
            self._writer.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {setting}")
        return connection

    def _prepare(self) -> None:
        """Make the tables, or bring older ones up to date."""
        with self.transaction() as connection:
            found = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if found > VERSION:
                raise OutputError(
                    f"a database of version {VERSION} or older at '{self.path}'",
                    f"version {found}",
                    "install the blemish that wrote it, or a newer one",
                )
            if found == 0:
                schema = files("blemish.serve").joinpath("schema.sql").read_text(encoding="utf-8")
                for statement in schema.split(";"):
                    if statement.strip():
                        connection.execute(statement)
            else:
                for migrate in MIGRATIONS[found - 1 :]:
                    migrate(connection)
            connection.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The writing connection; all that the block writes is on the disk when it ends, or nothing of it.

        A transaction inside another joins it. Raises ConflictError once the store is closed.
        """
        with self._lock:
            if not self._is_open:
                raise ConflictError("a service that runs", "one that is stopping", "start it again")
            if self._writer.in_transaction:
                yield self._writer
                return
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """The rows that a query gives, as committed by now."""
        with self._reader() as connection:
            return connection.execute(query, values).fetchall()

    def row(self, query: str, values: Sequence[Any] = ()) -> Row | None:
        """The first row that a query gives, None where there is none."""
        with self._reader() as connection:
            found: Row | None = connection.execute(query, values).fetchone()
            return found

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        with self._idle_lock:
            if not self._is_open:
                raise ConflictError("a service that runs", "one that is stopping", "start it again")
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._connect()
        try:
            yield connection
        finally:
            with self._idle_lock:
                is_kept = self._is_open and len(self._idle) < IDLE_READERS
                if is_kept:
                    self._idle.append(connection)
            if not is_kept:
                connection.close()

    def close(self) -> None:
        """Close all connections; the store is of no use afterwards."""
        with self._lock, self._idle_lock:
            self._is_open = False
            for connection in [self._writer, *self._idle]:
                connection.close()
            self._idle.clear()
