"""Results sent to other programs, at least once and in order: an outbox in the database, and threads that empty it.

By HTTP to webhooks, and by MQTT to the topics that are named when the service starts (mqtt.py).
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from blemish.errors import SettingsError
from blemish.serve.core import Core, new_id, record_change
from blemish.serve.errors import ConflictError, UnknownError
from blemish.serve.mqtt import MqttSender
from blemish.serve.records import PartRecord, Webhook
from blemish.types import VERDICTS

SCHEMA = 1  # of the body; grows when a field changes its meaning
TIMEOUT = 5.0  # seconds for one delivery, and after which a webhook's turn ends
SENDERS = 8  # webhooks that are sent to at once
MQTT = ("mqtt://", "mqtts://")
LONGEST_WAIT = 3600.0  # seconds between two tries
MOST_WAITING = 100_000  # deliveries of one webhook; beyond that the oldest are dropped
DROPS_AN_ENTRY = 1000  # the journal names the first result that is dropped, and each further one of so many


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
        self._senders = ThreadPoolExecutor(SENDERS, thread_name_prefix="blemish-webhook")
        self._busy: set[str] = set()  # webhooks whose turn has not ended
        self._busy_lock = threading.Lock()
        with core.store.transaction() as connection:  # a start tries at once: what was in the way may be mended
            connection.execute("UPDATE webhooks SET next_at = 0")
        self._thread = threading.Thread(target=self._run, name="blemish-webhooks", daemon=True)
        self._thread.start()

    def all(self) -> list[Webhook]:
        """All webhooks in the order they were added."""
        return [Webhook.of(row) for row in self._core.store.rows("SELECT * FROM webhooks ORDER BY created_at")]

    def add(self, url: str, verdicts: Sequence[str], product: str, who: str) -> Webhook:
        """Send every inspection of one of `verdicts` (none: of all) of a product's id ("": of any) to an address.

        Raises SettingsError for an address that no request can be sent to, or an unknown verdict, and UnknownError.
        """
        if not can_be_sent_to(url):
            raise SettingsError(
                "an address such as http://host:8080/path, without spaces, user and password, its path percent-encoded",
                repr(url[:80]),
                "mend it",
            )
        if wrong := set(verdicts) - {*VERDICTS, "error"}:
            raise SettingsError(f"verdicts: {', '.join(VERDICTS)}, error", ", ".join(sorted(wrong)), "mend them")
        webhook = Webhook(new_id(), url, tuple(verdicts), product and self._core.product(product).id, time.time())
        with self._core.store.transaction() as connection:
            insert(connection, webhook)
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
                insert(connection, Webhook(new_id(), url, (), "", time.time()))
                record_change(connection, "the command line", "publishes results", change={"url": url})
        self._wake.set()

    def remove(self, identity: str, who: str) -> None:
        """Remove a webhook and what was still to be sent. Raises UnknownError."""
        with self._core.store.transaction() as connection:
            if not connection.execute("DELETE FROM webhooks WHERE id = ?", (identity,)).rowcount:
                raise UnknownError("the id of a webhook", repr(identity[:80]), "take it from the list")
            record_change(connection, who, "removed a webhook", change={"id": identity})

    def waiting(self) -> list[dict[str, Any]]:
        """For each webhook how many deliveries wait, why the last one failed, and how many were dropped so far."""
        rows = self._core.store.rows(
            "SELECT w.id AS id, (SELECT COUNT(*) FROM outbox WHERE webhook = w.id) AS waiting, "
            "NULLIF(w.last_error, '') AS last_error, w.dropped AS dropped FROM webhooks w"
        )
        return [dict(row) for row in rows]

    def put(self, connection: sqlite3.Connection, part: PartRecord) -> None:
        """Have a new part sent, in the transaction that stores it."""
        verdict = part.verdict or "error"
        hooks = [Webhook.of(row) for row in connection.execute("SELECT * FROM webhooks")]
        for hook in hooks:
            if hook.product in ("", part.product) and (not hook.verdicts or verdict in hook.verdicts):
                body = json.dumps({"schema": SCHEMA, "event": "part", "part": part.to_dict()})
                connection.execute("INSERT INTO outbox (webhook, body) VALUES (?, ?)", (hook.id, body))
                self._drop_oldest(connection, hook)
        if hooks:
            self._wake.set()

    def _drop_oldest(self, connection: sqlite3.Connection, hook: Webhook) -> None:
        """Keep the latest `MOST_WAITING` deliveries of a webhook; count what is dropped, and say so in the journal."""
        dropped = connection.execute(
            "DELETE FROM outbox WHERE webhook = ? AND seq <= "
            "(SELECT seq FROM outbox WHERE webhook = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
            (hook.id, hook.id, MOST_WAITING),
        ).rowcount
        if not dropped:
            return
        connection.execute("UPDATE webhooks SET dropped = dropped + ? WHERE id = ?", (dropped, hook.id))
        (total,) = connection.execute("SELECT dropped FROM webhooks WHERE id = ?", (hook.id,)).fetchone()
        if total == dropped or total // DROPS_AN_ENTRY > (total - dropped) // DROPS_AN_ENTRY:
            facts = {"url": hook.url, "dropped": total}
            record_change(connection, "the service", "dropped results that waited too long", hook.product, facts)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(timeout=1.0)
            self._wake.clear()
            self._guarded(self.deliver)

    def _guarded(self, work: Callable[[], object]) -> None:
        """Do some of the work; what fails is done again when its turn comes."""
        try:
            work()
        except (sqlite3.Error, ConflictError):  # busy or closing: what waits is sent later
            self._stop.wait(1.0)
        except Exception:  # its thread ends with the service alone
            logging.getLogger(__name__).exception("Results that wait are sent again in a second.")
            self._stop.wait(1.0)

    def deliver(self) -> int:
        """Begin to send what waits for each webhook whose time has come. Gives how many these are.

        Each webhook has them in order, and what comes after a failure waits behind it; none waits for another's
        failures, nor, while fewer than `SENDERS` take their time, for these. A time that is further off than any wait
        was written before the clock was set back: it has come.
        """
        now = time.time()
        rows = self._core.store.rows(
            "SELECT id, url, attempts FROM webhooks WHERE (next_at <= ? OR next_at > ?) "
            "AND EXISTS (SELECT 1 FROM outbox WHERE webhook = webhooks.id) ORDER BY created_at",
            (now, now + LONGEST_WAIT),
        )
        # The start of the service may not have named the topic of a row yet.
        due = [row for row in rows if not row["url"].startswith(MQTT) or row["url"] in self._topics]
        with self._busy_lock:
            due = [row for row in due if row["id"] not in self._busy]
            self._busy |= {row["id"] for row in due}
        for row in due:
            self._senders.submit(self._take_turn, row["id"], row["url"], row["attempts"])
        return len(due)

    def _take_turn(self, webhook: str, url: str, attempts: int) -> None:
        """Send what waits for one webhook, until one delivery fails or others may want this thread."""
        try:
            self._guarded(lambda: self._deliver_to(webhook, url, attempts))
        finally:
            with self._busy_lock:
                self._busy.remove(webhook)
            self._wake.set()  # what came after the last look is sent now

    def _deliver_to(self, webhook: str, url: str, attempts: int) -> None:
        """Send what waits for one webhook, the oldest first, for `TIMEOUT` seconds or until one fails."""
        until = time.monotonic() + TIMEOUT
        while not self._stop.is_set() and time.monotonic() < until:
            oldest = "SELECT seq, body FROM outbox WHERE webhook = ? ORDER BY seq LIMIT 1"
            row = self._core.store.row(oldest, (webhook,))
            if row is None:
                break
            if error := self._send(url, row["body"], row["seq"]):
                self._postpone(webhook, attempts, error)
                break
            self._tick_off(webhook, row["seq"])
            attempts = 0

    def _tick_off(self, webhook: str, seq: int) -> None:
        """Forget a delivery that arrived, and the failures before it."""
        with self._core.store.transaction() as connection:
            connection.execute("DELETE FROM outbox WHERE seq = ?", (seq,))
            connection.execute(
                "UPDATE webhooks SET attempts = 0, last_error = '' WHERE id = ? AND attempts > 0", (webhook,)
            )

    def _postpone(self, webhook: str, attempts: int, error: str) -> None:
        """Try again later, after a time that doubles with each failure; what comes meanwhile waits as well."""
        later = time.time() + min(LONGEST_WAIT, 2.0 ** min(attempts, 30))
        with self._core.store.transaction() as connection:
            connection.execute(
                "UPDATE webhooks SET attempts = attempts + 1, next_at = ?, last_error = ? WHERE id = ?",
                (later, error[:200], webhook),
            )

    def _send(self, url: str, body: str, number: int) -> str:
        """Deliver one body; why that failed, "" where it did not."""
        headers = {"Content-Type": "application/json", "X-Blemish-Delivery": str(number)}
        try:
            if url.startswith(MQTT):
                return self._topics[url].send(body)
            request = urllib.request.Request(url, body.encode(), headers)
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return "" if 200 <= answer.status < 300 else f"status {answer.status}"
        except Exception as error:  # whatever a library raises, such as HTTPException, is this webhook's failure alone
            return str(error) or type(error).__name__

    def close(self) -> None:
        """End the thread; what waits is sent after the next start."""
        self._stop.set()
        self._wake.set()
        self._thread.join(TIMEOUT + 1)
        self._senders.shutdown(cancel_futures=True)
        for topic in self._topics.values():
            topic.close()


def insert(connection: sqlite3.Connection, webhook: Webhook) -> None:
    """Store a new webhook, of which nothing failed yet."""
    connection.execute(
        "INSERT INTO webhooks (id, url, verdicts, product, created_at) VALUES (?, ?, ?, ?, ?)",
        (webhook.id, webhook.url, json.dumps(list(webhook.verdicts)), webhook.product, webhook.created_at),
    )


def can_be_sent_to(url: str) -> bool:
    """Whether a request can be made of an address: a host, a port if any, a path of the letters that may be sent."""
    try:
        parts = urllib.parse.urlsplit(url)
        is_port = parts.port is None or parts.port > 0
    except ValueError:  # brackets of no IPv6 address, a port that is no number
        return False
    is_plain = url.isprintable() and " " not in url and (parts.path + parts.query).isascii() and "@" not in parts.netloc
    return parts.scheme in ("http", "https") and bool(parts.hostname) and is_port and is_plain
