"""What all parts of the service share: settings, store, pictures, events and the journal of changes."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blemish.errors import BlemishError, OutputError
from blemish.serve.decoders import Decoders
from blemish.serve.errors import UnknownError
from blemish.serve.events import Events
from blemish.serve.pictures import Pictures
from blemish.serve.records import AuditEntry, Product, Version
from blemish.serve.store import FILE, Store
from blemish.utils.paths import shown


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Bounds of the service: chosen for one machine beside a line, none of them is a measured optimum.

    `max_upload` bytes a picture and `max_request` bytes a request are taken; `waiting` inspections wait at most while
    `workers` threads inspect; one that has not ended after `time_limit` seconds is given up; `models_in_memory`
    versions stay loaded. Decoding a picture may take `decode_limit` seconds and `decode_memory` bytes.
    """

    max_upload: int = 64 * 2**20
    max_request: int = 512 * 2**20
    waiting: int = 64
    workers: int = 2
    time_limit: float = 60.0
    models_in_memory: int = 4
    decode_limit: float = 20.0
    decode_memory: int = 4 * 2**30

    def decoders(self, processes: int) -> Decoders:
        """So many processes that decode within these bounds."""
        return Decoders(processes, self.decode_limit, self.decode_memory)


@dataclass(frozen=True)
class Core:
    """The data folder as the parts of the service see it.

    `decoders` decode what people look at or hand in as good: parts on the line never wait for these.
    """

    folder: Path
    settings: ServiceSettings
    store: Store
    pictures: Pictures
    events: Events
    decoders: Decoders
    _held: list[frozenset[str]] = field(default_factory=list)  # pictures that are being read
    _unused: set[str] = field(default_factory=set)  # those of them that are to be deleted
    _held_lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, folder: Path, settings: ServiceSettings) -> Core:
        """Open a data folder, empty or not. Raises OutputError for one with models that no database names."""
        models = folder / "models"
        if not (folder / FILE).exists() and models.is_dir() and any(models.iterdir()):
            raise OutputError(
                f"an empty folder or one of blemish serve at '{shown(folder)}'",
                f"one with models/ and without {FILE}",
                f"name another folder with --data, or bring {FILE} back from a copy",
            )
        return cls(folder, settings, Store(folder), Pictures(folder), Events(), settings.decoders(1))

    def product(self, name: str) -> Product:
        """A product by id or name. Raises UnknownError."""
        row = self.store.row("SELECT * FROM products WHERE id = ? OR name = ? ORDER BY id = ? DESC", (name, name, name))
        if row is None:
            names = [one["name"] for one in self.store.rows("SELECT name FROM products ORDER BY name LIMIT 20")]
            raise UnknownError(f"a product: {', '.join(names) or 'there is none yet'}", repr(name), "create it first")
        return Product.of(row)

    def version(self, identity: str) -> Version:
        """A version by its id. Raises UnknownError."""
        row = self.store.row("SELECT * FROM versions WHERE id = ?", (identity,))
        if row is None:
            raise UnknownError("the id of a version", repr(identity), "take it from the product's versions")
        return Version.of(row)

    def delete_unused(self, sha256: str) -> None:
        """Delete a picture unless a product learns from it or a part shows it; one that is held, once it is let go.

        Nothing is stored meanwhile; what is stored afterwards finds the file gone and writes it again.
        """
        with self.store.transaction() as connection, self._held_lock:
            if self._is_held(sha256):
                self._unused.add(sha256)
                return
            used = connection.execute(
                "SELECT 1 FROM good_pictures WHERE sha256 = ? UNION ALL "
                "SELECT 1 FROM parts WHERE sha256 = ? AND has_picture = 1 AND is_deleting = 0",
                (sha256, sha256),
            ).fetchone()
            if used is None:
                self.pictures.delete(sha256)

    @contextmanager
    def holding(self, pictures: Collection[str]) -> Iterator[None]:
        """Keep pictures, by hash, from being deleted while the block reads them."""
        held = frozenset(pictures)
        with self._held_lock:  # no deletion is under way
            self._held.append(held)
        try:
            yield
        finally:
            with self._held_lock:
                self._held.remove(held)
                free = {one for one in self._unused if not self._is_held(one)}
                self._unused.difference_update(free)
            for one in free:
                with suppress(OSError, sqlite3.Error, BlemishError):
                    self.delete_unused(one)

    def _is_held(self, sha256: str) -> bool:
        return any(sha256 in pictures for pictures in self._held)

    def journal(self, product: str = "", before: int | None = None, limit: int = 100) -> list[AuditEntry]:
        """Who did what, latest first; of one product alone where its id is given, before the entry of a number."""
        rows = self.store.rows(
            "SELECT * FROM audit WHERE (? = '' OR product = ?) AND (? IS NULL OR seq < ?) ORDER BY seq DESC LIMIT ?",
            (product, product, before, before, limit),
        )
        return [AuditEntry.of(row) for row in rows]


def new_id() -> str:
    """An identity that nobody can guess, made of letters that any file system and URL takes."""
    return secrets.token_hex(8)


def record_change(
    connection: sqlite3.Connection, who: str, what: str, product: str = "", change: Mapping[str, Any] | None = None
) -> None:
    """Write to the journal, in the transaction of the change itself."""
    connection.execute(
        "INSERT INTO audit (at, who, what, product, change) VALUES (?, ?, ?, ?, ?)",
        (time.time(), who, what, product, json.dumps(dict(change or {}))),
    )
