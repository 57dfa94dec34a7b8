"""Pictures that go when there are too many or they are too old; the results of their parts stay, by part id.

What is deleted first is said in retention.py. Pictures of the random sample that limits rest on, those that were
learned from, and those that wait for a review stay, even where they exceed a limit: `Service.retention` says so.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from blemish.errors import BlemishError
from blemish.serve.core import record_change
from blemish.serve.parts import STATES
from blemish.serve.retention import DAY, Limits, Retention, StoredPart, carry_out, plan_deletions
from blemish.serve.service import Service

EVERY = 600.0  # seconds between two looks
HELD = "the clock is far ahead of the last part, or has jumped: nothing goes for its age before a day has passed"


class Housekeeping:
    """Deletes what exceeds `limits`, now and then, in a thread of its own."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._core, self._limits = service.core, limits
        self._service = service
        self._last_look: tuple[float, float] | None = None  # the time, and the seconds run
        self._held_until = float("-inf")  # seconds run
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="blemish-housekeeping", daemon=True)

    def start(self) -> None:
        """Begin at once, and again every `EVERY` seconds."""
        self._service.retention = Retention(self._limits)
        self._thread.start()

    def finish(self) -> None:
        """Delete what an interrupted deletion has marked, whatever the limits are now: until then no page shows it.

        What cannot be deleted, or not be forgotten on a full disk, stays marked.
        """
        with suppress(sqlite3.Error):
            carry_out(self._left(), self._mark, self._delete, self._forget)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.tidy()
            except (BlemishError, OSError, sqlite3.Error) as error:  # tried again later
                self._service.retention = replace(self._service.retention or Retention(self._limits), error=str(error))
            self._stop.wait(EVERY)

    def tidy(self) -> int:
        """Delete what exceeds the limits now, and what an interrupted deletion left; how many pictures are gone.

        `Service.retention` says afterwards whether the limits hold.
        """
        left = self._left()
        stored = self._stored()
        now = time.time()
        is_held = self._is_held(stored, now)
        plan = plan_deletions(stored, replace(self._limits, days=None) if is_held else self._limits, now)
        to_go = [*left, *plan.part_ids]
        gone = carry_out(to_go, self._mark, self._delete, self._forget)
        self._service.retention = Retention(
            self._limits,
            sum(one.bytes for one in stored) - plan.bytes,
            plan,
            f"{len(to_go) - gone} pictures could not be deleted" if gone < len(to_go) else HELD if is_held else "",
        )
        if gone:
            with self._core.store.transaction() as connection:
                record_change(connection, "blemish", "deleted old pictures", change={"parts": gone})
        return gone

    def _is_held(self, stored: Sequence[StoredPart], now: float) -> bool:
        """Whether nothing may go for its age: for a day after the time has run ahead, so that a person can set it.

        Of what ran while nobody looked the latest part tells; where all are too old, the line may have stood still.
        """
        if self._limits.days is None:
            return False
        ran = time.monotonic()
        if self._last_look is None:
            likely = max((one.time for one in stored), default=now) + max(self._limits.days, 1) * DAY
        else:
            likely = self._last_look[0] + ran - self._last_look[1] + DAY
        self._last_look = now, ran
        if now > likely:
            self._held_until = ran + DAY
        return ran < self._held_until

    def _left(self) -> list[str]:
        return [row["id"] for row in self._core.store.rows("SELECT id FROM parts WHERE is_deleting = 1")]

    def _stored(self) -> list[StoredPart]:
        needed = self._needed()
        rows = self._core.store.rows(
            f"SELECT p.id, p.sha256, p.received_at, p.verdict, p.decision, ({STATES['open']}) AS is_open "
            "FROM parts p WHERE p.has_picture = 1 AND p.is_deleting = 0"
        )
        return [
            StoredPart(
                row["id"],
                row["received_at"],
                row["verdict"],
                self._core.pictures.size(row["sha256"], row["id"]),
                is_reviewed=row["decision"] is not None,
                is_referenced=bool(row["is_open"]) or row["sha256"] in needed,
            )
            for row in rows
        ]

    def _needed(self) -> set[str]:
        """Pictures that a product learns from (good ones, false alarms of any version) or that its limits rest on."""
        needed = {row["sha256"] for row in self._core.store.rows("SELECT sha256 FROM good_pictures")}
        for product in self._service.catalog.products():
            for version in self._service.models.versions(product.id):
                needed.update(version.details.get("false_alarms", ()))
            reviewed = self._service.feedback.reviewed(product)
            needed.update(reviewed.files((*reviewed.sample.counted, *reviewed.sample.later)))
        return needed

    def _mark(self, parts: Sequence[str]) -> None:
        with self._core.store.transaction() as connection:
            connection.executemany("UPDATE parts SET is_deleting = 1 WHERE id = ?", [(one,) for one in parts])

    def _delete(self, part: str) -> None:
        """Remove a part's files; its picture stays where another part or product has the same one."""
        row = self._core.store.row("SELECT sha256 FROM parts WHERE id = ?", (part,))
        if row is None:
            return
        self._core.pictures.delete_map(part)
        self._core.delete_unused(row["sha256"])

    def _forget(self, parts: Sequence[str]) -> None:
        with self._core.store.transaction() as connection:
            connection.executemany(
                "UPDATE parts SET is_deleting = 0, has_picture = 0 WHERE id = ?", [(one,) for one in parts]
            )

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)
