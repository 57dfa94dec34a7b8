"""Versions of models: one folder each, loaded when first needed, the latest used ones kept in memory."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from blemish.errors import BlemishError
from blemish.model.inspector import Inspector
from blemish.scoring.calibration import Calibration
from blemish.serve.core import Core, new_id, record_change
from blemish.serve.errors import ConflictError
from blemish.serve.records import Product, Version
from blemish.utils.atomic import remove, remove_leftovers

SAVING = "saving "  # in the table `kept`, before the id of a version whose folder is being written


def calibration_of(inspector: Inspector) -> Calibration:
    """The calibration of a model of one product."""
    return next(iter(inspector.calibrations.values()))


class Models:
    """The models of all products: publish a new version, load one, make another one the active one."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._folder = core.folder / "models"
        self._lock = threading.Lock()  # held for moments: what is in memory waits for nothing
        self._loading = threading.Lock()
        self._loaded: OrderedDict[str, Inspector] = OrderedDict()
        self._remove_unpublished()

    def _remove_unpublished(self) -> None:
        """Remove what a killed run left: folders that it had noted and no version names. Others are somebody's own."""
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self._folder)
        for row in self._core.store.rows("SELECT name FROM kept WHERE name LIKE ?", (f"{SAVING}%",)):
            self._remove(row["name"].removeprefix(SAVING))

    def _remove(self, identity: str) -> None:
        """Remove the folder of a version that is not published, and once it is gone the note of it."""
        remove(self._folder / identity)
        if not (self._folder / identity).exists():
            with self._core.store.transaction() as connection:
                connection.execute("DELETE FROM kept WHERE name = ?", (f"{SAVING}{identity}",))

    def folder(self, version: str) -> Path:
        """Where a version lies; it is an ordinary model folder. Raises UnknownError."""
        return self._folder / self._core.version(version).id

    def versions(self, product: str) -> list[Version]:
        """All versions of a product, latest first."""
        rows = self._core.store.rows("SELECT * FROM versions WHERE product = ? ORDER BY number DESC", (product,))
        return [Version.of(row) for row in rows]

    def active(self, product: Product) -> Version:
        """The version that judges a product's parts now. Raises ConflictError before it has learned."""
        if not product.active_version:
            raise ConflictError(
                f"a product that has learned, {product.name!r}",
                "one without a model",
                "give it good pictures and have it learn",
            )
        return self._core.version(product.active_version)

    def inspector(self, version: Version) -> Inspector:
        """The model of a version, loaded if need be. Raises ModelError or WeightsError where it cannot be."""
        if found := self._in_memory(version.id):
            return found
        with self._loading:  # one after the other: two requests load none twice, and transformers loads in one thread
            found = self._in_memory(version.id)
            if found is None:
                found = Inspector.load(self._folder / version.id)
                self._keep(version.id, found)
            return found

    def _in_memory(self, version: str) -> Inspector | None:
        with self._lock:
            if version in self._loaded:
                self._loaded.move_to_end(version)
            return self._loaded.get(version)

    def _keep(self, version: str, inspector: Inspector) -> None:
        with self._lock:
            self._loaded[version] = inspector
            while len(self._loaded) > self._core.settings.models_in_memory:
                self._loaded.popitem(last=False)

    def publish(
        self,
        product: Product,
        inspector: Inspector,
        change: str,
        who: str,
        parent: Version | None = None,
        details: Mapping[str, Any] | None = None,
        is_refitted: bool = False,
    ) -> Version:
        """Make a model the product's new version, and the active one.

        `is_refitted`: its detector is another than the parent's, so that scores do not compare; its parent is then the
        version that is active when it is done, whatever `parent` says. Raises ConflictError where another version of
        the same detector became active since `parent` was taken.
        """
        identity = new_id()
        calibration = calibration_of(inspector)
        limits = calibration.threshold, calibration.unsure_threshold
        with self._core.store.transaction() as connection:
            connection.execute("INSERT INTO kept VALUES (?, '')", (f"{SAVING}{identity}",))
        try:
            inspector.save(self._folder / identity)
            with self._core.store.transaction() as connection:
                active = connection.execute(
                    "SELECT v.* FROM products p JOIN versions v ON v.id = p.active_version WHERE p.id = ?",
                    (product.id,),
                ).fetchone()
                if is_refitted:
                    parent = None if active is None else Version.of(active)
                expected = "" if parent is None else parent.id
                if ("" if active is None else active["id"]) != expected:
                    raise ConflictError("the version that this change began from", "a newer one", "look at it again")
                scored_by = identity if is_refitted or parent is None else parent.scored_by
                number = connection.execute(
                    "SELECT 1 + COALESCE(MAX(number), 0) FROM versions WHERE product = ?", (product.id,)
                ).fetchone()[0]
                values = (identity, product.id, number, expected, change, json.dumps(dict(details or {})), scored_by)
                connection.execute(
                    "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*values, *limits, who, time.time()),
                )
                journal = {"version": number, "from": _limits_of(parent), "to": list(limits), **(details or {})}
                record_change(connection, who, change, product.id, journal)
                self._set_active(connection, product.id, identity)
                connection.execute("DELETE FROM kept WHERE name = ?", (f"{SAVING}{identity}",))
        except BaseException:
            with suppress(sqlite3.Error, BlemishError):  # a full disk: the note stays for the next start
                self._remove(identity)
            raise
        self._keep(identity, inspector)
        version = self._core.version(identity)
        self._core.events.publish("version", version.to_dict())
        return version

    def activate(self, product: Product, version: Version, who: str) -> Version:
        """Have an older, or newer, version of the product judge its parts. Raises ConflictError for another's."""
        if version.product != product.id:
            raise ConflictError(f"a version of {product.name!r}", "one of another product", "name one of its own")
        before = product.active_version
        with self._core.store.transaction() as connection:
            numbers = {"from": before and self._core.version(before).number, "to": version.number}
            record_change(connection, who, "went to another version", product.id, numbers)
            self._set_active(connection, product.id, version.id)
        self._core.events.publish("version", version.to_dict())
        return version

    @staticmethod
    def _set_active(connection: sqlite3.Connection, product: str, version: str) -> None:
        connection.execute("UPDATE products SET active_version = ? WHERE id = ?", (version, product))


def _limits_of(version: Version | None) -> list[float] | None:
    return None if version is None else [version.threshold, version.unsure_threshold]
