"""Learning in the background: one run at a time, with progress, that can be cancelled, or killed, without a trace."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from blemish.errors import BlemishError, DatasetError
from blemish.model.inspector import Inspector
from blemish.serve.catalog import Catalog, inspector_of
from blemish.serve.core import Core, new_id
from blemish.serve.errors import ConflictError, UnknownError
from blemish.serve.models import Models
from blemish.serve.records import Job, Product, Version
from blemish.types import Sample
from blemish.utils.progress import Progress

PROGRESS_EVERY = 0.25  # seconds between two events of a job
Work = Callable[[Progress], Version]


class CancelledError(Exception):
    """Raised inside a job that somebody cancelled, or whose service stops."""


class Learning:
    """Jobs that make new versions of models."""

    def __init__(self, core: Core, catalog: Catalog, models: Models) -> None:
        self._core, self._catalog, self._models = core, catalog, models
        self._pool = ThreadPoolExecutor(1, "blemish-learn")
        self._lock = threading.Lock()
        self._live: dict[str, Job] = {}  # those at work, and those whose end the disk has no room for
        self._cancelled: set[str] = set()
        self._is_closing = False
        with core.store.transaction() as connection:
            connection.execute(
                "UPDATE jobs SET state = 'interrupted', ended_at = ? WHERE state IN ('waiting', 'running')",
                (time.time(),),
            )

    def jobs(self, product: Product | None = None, limit: int = 20) -> list[Job]:
        """The latest jobs, latest first."""
        rows = self._core.store.rows(
            "SELECT * FROM jobs WHERE (? IS NULL OR product = ?) ORDER BY rowid DESC LIMIT ?",  # clocks may be set back
            (product and product.id, product and product.id, limit),
        )
        with self._lock:
            return [self._live.get(row["id"], Job.of(row)) for row in rows]

    def job(self, identity: str) -> Job:
        """One job. Raises UnknownError."""
        with self._lock:
            if identity in self._live:
                return self._live[identity]
        row = self._core.store.row("SELECT * FROM jobs WHERE id = ?", (identity,))
        if row is None:
            raise UnknownError("the id of a job", repr(identity[:80]), "take it from the answer to its start")
        return Job.of(row)

    def start(self, product: Product, who: str) -> Job:
        """Learn from all good pictures of a product, in the background; the new version becomes the active one.

        Raises DatasetError where there are none, ConflictError where the product learns already.
        """
        if not self._catalog.good(product):
            raise DatasetError(f"good pictures of {product.name!r}", "none", "add some first")
        return self.run(product, "learn", who, lambda progress: self._learn(product, who, progress))

    def run(self, product: Product, kind: str, who: str, work: Work) -> Job:
        """Start a job that makes a version of a product. Raises ConflictError where one is at work for it."""
        job = Job(new_id(), product.id, kind, "waiting", 0, 0, {}, "", "", who, time.time(), None)
        with self._lock:
            if self._is_closing:
                raise ConflictError("a service that runs", "one that is stopping", "start it again")
            if any(one.product == product.id and not one.is_over for one in self._live.values()):
                raise ConflictError(f"{product.name!r} at rest", "a run of learning", "wait for its end, or cancel it")
            self._live[job.id] = job
            over = [one for one in self._live.values() if one.is_over]
        try:
            for one in over:
                self._write_end(one)
            with self._core.store.transaction() as connection:
                connection.execute(
                    "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*(job.id, product.id, kind, job.state, 0, 0, "{}", "", "", who, job.started_at), None),
                )
            self._pool.submit(self._work, job.id, work)
        except BaseException:
            with self._lock:
                del self._live[job.id]
            raise
        return job

    def cancel(self, identity: str) -> Job:
        """Have a job end at its next step; nothing of it remains."""
        with self._lock:
            if identity in self._live:
                self._cancelled.add(identity)
        return self.job(identity)

    def wait(self, identity: str, seconds: float = 600.0) -> Job:
        """Wait until a job is over."""
        until = time.monotonic() + seconds
        while not (job := self.job(identity)).is_over and time.monotonic() < until:
            time.sleep(0.02)
        return job

    def _work(self, identity: str, work: Work) -> None:
        last = 0.0

        def progress(done: float, total: int, facts: Mapping[str, Any]) -> None:
            nonlocal last
            if self._is_closing or identity in self._cancelled:
                raise CancelledError
            is_due = time.monotonic() - last > PROGRESS_EVERY
            self._update(identity, is_due, done=done, total=total, facts=dict(facts))
            last = time.monotonic() if is_due else last

        try:
            self._update(identity, state="running")
            progress(0, 0, {})
            end = {"state": "done", "version": work(progress).id}
        except CancelledError:
            end = {"state": "interrupted" if self._is_closing else "cancelled"}
        except BlemishError as error:
            end = {"state": "failed", "error": str(error)}
        except Exception as error:  # the thread must live on, and people must hear of it
            end = {"state": "failed", "error": f"blemish failed: {type(error).__name__}: {error}"}
        self._end(identity, **end)

    def _update(self, identity: str, announce: bool = True, **changes: Any) -> Job:
        with self._lock:
            job = self._live[identity] = replace(self._live[identity], **changes)
        if announce:
            self._core.events.publish("job", job.to_dict())
        return job

    def _end(self, identity: str, **changes: Any) -> None:
        job = self._update(identity, announce=False, ended_at=time.time(), **changes)
        with self._lock:
            self._cancelled.discard(identity)
        with suppress(sqlite3.Error, BlemishError):  # a full disk: the job is shown from memory, and blocks no other
            self._write_end(job)
        self._core.events.publish("job", job.to_dict())

    def _write_end(self, job: Job) -> None:
        with self._core.store.transaction() as connection:
            connection.execute(
                "UPDATE jobs SET state = ?, done = ?, total = ?, facts = ?, error = ?, version = ?, ended_at = ? "
                "WHERE id = ?",
                (
                    *(job.state, job.done, job.total, json.dumps(dict(job.facts)), job.error, job.version),
                    *(job.ended_at, job.id),
                ),
            )
        with self._lock:
            self._live.pop(job.id, None)

    def _learn(self, product: Product, who: str, progress: Progress) -> Version:
        product = self._core.product(product.id)
        with self.held(product) as good:
            inspector = inspector_of(product.settings).fit(good, progress=progress)
        details = {"pictures": len(good), **learned_by(inspector)}
        return self._models.publish(product, inspector, "learned", who, details=details, is_refitted=True)

    @contextmanager
    def held(self, product: Product, others: Collection[str] = ()) -> Iterator[list[Sample]]:
        """The good pictures of a product, to learn from; they and `others`, by hash, stay while it reads them."""
        good = [one.sha256 for one in self._catalog.good(product)]
        with self._core.holding([*good, *others]):
            yield [Sample(self._core.pictures.path(sha256)) for sha256 in good]

    def close(self) -> None:
        """End the job at work, and wait for it."""
        self._is_closing = True
        self._pool.shutdown(wait=True, cancel_futures=True)


def learned_by(inspector: Inspector) -> dict[str, Any]:
    """What a version says of how it was learned."""
    return {
        "detector": inspector.detector_name,
        "encoder": inspector.encoder_name,
        "image_size": inspector.model_.settings.image_size,
    }
