"""Results sent to other programs, at least once: an outbox in the database, and a thread that empties it.

By HTTP to webhooks, and by MQTT to the topics that are named when the service starts (mqtt.py).
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

from blemish.errors import SettingsError
from blemish.serve.core import Core, new_id, record_change
from blemish.serve.errors import ConflictError, UnknownError
from blemish.serve.mqtt import MqttSender
from blemish.serve.records import PartRecord, Webhook
from blemish.types import VERDICTS

SCHEMA = 1  # of the body; grows when a field changes its meaning
TIMEOUT = 5.0  # seconds for one delivery
MQTT = ("mqtt://", "mqtts://")
LONGEST_WAIT = 3600.0  # seconds between two tries
MOST_WAITING = 100_000  # deliveries of one webhook; beyond that the oldest are dropped


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect counts as a failure: the address given is the one that an engineer chose."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Webhooks:
    """Who is sent results, and what is still to be sent."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._opener = urllib.request.build_opener(NoRedirects)
        self._topics: dict[str, MqttSender] = {}  # by the address that their rows hold
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="blemish-webhooks", daemon=True)
        self._thread.start()

    def all(self) -> list[Webhook]:
        """All webhooks in the order they were added."""
        return [Webhook.of(row) for row in self._core.store.rows("SELECT * FROM webhooks ORDER BY created_at")]

    def add(self, url: str, verdicts: Sequence[str], product: str, who: str) -> Webhook:
        """Send every inspection of one of `verdicts` (none: of all) of a product's id ("": of any) to an address."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError("an address that begins with http:// or https://", repr(url[:80]), "mend it")
        if wrong := set(verdicts) - {*VERDICTS, "error"}:
            raise SettingsError(f"verdicts: {', '.join(VERDICTS)}, error", ", ".join(sorted(wrong)), "mend them")
        webhook = Webhook(new_id(), url, tuple(verdicts), product and self._core.product(product).id, time.time())
        with self._core.store.transaction() as connection:
            connection.execute(
                "INSERT INTO webhooks VALUES (?, ?, ?, ?, ?)",
                (webhook.id, url, json.dumps(list(verdicts)), webhook.product, webhook.created_at),
            )
            record_change(connection, who, "added a webhook", webhook.product, {"url": url})
        return webhook

    def publish_to(self, senders: Sequence[MqttSender]) -> None:
        """Send every inspection to these topics of brokers, and no more to those of an earlier start."""
        self._topics = {sender.address.url: sender for sender in senders}
        stored = {hook.url: hook.id for hook in self.all() if hook.url.startswith(MQTT)}
        with self._core.store.transaction() as connection:
            for url in stored.keys() - self._topics.keys():
                connection.execute("DELETE FROM webhooks WHERE id = ?", (stored[url],))
                record_change(connection, "the command line", "publishes no more", change={"url": url})
            for url in self._topics.keys() - stored.keys():
                values = (new_id(), url, "[]", "", time.time())
                connection.execute("INSERT INTO webhooks VALUES (?, ?, ?, ?, ?)", values)
                record_change(connection, "the command line", "publishes results", change={"url": url})

    def remove(self, identity: str, who: str) -> None:
        """Remove a webhook and what was still to be sent. Raises UnknownError."""
        with self._core.store.transaction() as connection:
            if not connection.execute("DELETE FROM webhooks WHERE id = ?", (identity,)).rowcount:
                raise UnknownError("the id of a webhook", repr(identity[:80]), "take it from the list")
            record_change(connection, who, "removed a webhook", change={"id": identity})

    def waiting(self) -> list[dict[str, Any]]:
        """For each webhook how many deliveries wait, and why the last one failed."""
        rows = self._core.store.rows(
            "SELECT w.id AS id, COUNT(o.seq) AS waiting, MAX(o.last_error) AS last_error "
            "FROM webhooks w LEFT JOIN outbox o ON o.webhook = w.id GROUP BY w.id"
        )
        return [dict(row) for row in rows]

    def put(self, connection: sqlite3.Connection, part: PartRecord) -> None:
        """Have a new part sent, in the transaction that stores it."""
        verdict = part.verdict or "error"
        hooks = [Webhook.of(row) for row in connection.execute("SELECT * FROM webhooks")]
        for hook in hooks:
            if hook.product in ("", part.product) and (not hook.verdicts or verdict in hook.verdicts):
                body = json.dumps({"schema": SCHEMA, "event": "part", "part": part.to_dict()})
                connection.execute(
                    "INSERT INTO outbox (webhook, body, next_at) VALUES (?, ?, ?)", (hook.id, body, time.time())
                )
                connection.execute(
                    "DELETE FROM outbox WHERE webhook = ? AND seq <= (SELECT MAX(seq) FROM outbox) - ?",
                    (hook.id, MOST_WAITING),
                )
        if hooks:
            self._wake.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(timeout=1.0)
            self._wake.clear()
            try:
                self.deliver()
            except (sqlite3.Error, ConflictError):  # busy or closing: what waits is sent later
                self._stop.wait(1.0)

    def deliver(self) -> int:
        """Send what is due, oldest first; one webhook's failure holds up none of another. Gives how many were sent."""
        rows = self._core.store.rows(
            "SELECT o.seq, o.body, o.attempts, w.url, w.id FROM outbox o JOIN webhooks w ON w.id = o.webhook "
            "WHERE o.next_at <= ? ORDER BY o.seq LIMIT 100",
            (time.time(),),
        )
        failed: set[str] = set()
        sent = 0
        for row in rows:
            if self._stop.is_set() or row["id"] in failed:
                continue
            error = self._send(row["url"], row["body"], row["seq"])
            if error:
                failed.add(row["id"])
                self._postpone(row["id"], row["seq"], row["attempts"], error)
            else:
                with self._core.store.transaction() as connection:
                    connection.execute("DELETE FROM outbox WHERE seq = ?", (row["seq"],))
                sent += 1
        return sent

    def _postpone(self, webhook: str, seq: int, attempts: int, error: str) -> None:
        """Try again later, all of this webhook: they go out in order."""
        later = time.time() + min(LONGEST_WAIT, 2.0**attempts)
        with self._core.store.transaction() as connection:
            connection.execute(
                "UPDATE outbox SET attempts = attempts + 1, last_error = ? WHERE seq = ?", (error[:200], seq)
            )
            connection.execute("UPDATE outbox SET next_at = MAX(next_at, ?) WHERE webhook = ?", (later, webhook))

    def _send(self, url: str, body: str, number: int) -> str:
        """Deliver one body; why that failed, "" where it did not."""
        if url.startswith(MQTT):
            topic = self._topics.get(url)
            return "waits for the start of the service to end" if topic is None else topic.send(body)
        headers = {"Content-Type": "application/json", "X-Blemish-Delivery": str(number)}
        try:
            request = urllib.request.Request(url, body.encode(), headers)
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return "" if 200 <= answer.status < 300 else f"status {answer.status}"
        except (OSError, ValueError, urllib.error.URLError) as error:
            return str(error) or type(error).__name__

    def close(self) -> None:
        """End the thread; what waits is sent after the next start."""
        self._stop.set()
        self._wake.set()
        self._thread.join(TIMEOUT + 1)
        for topic in self._topics.values():
            topic.close()
