"""What happens on the line, handed to whoever listens: pages, server-sent events, webhooks."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

REMEMBERED = 1000  # events that a listener who lost its connection can still ask for


@dataclass(frozen=True)
class Event:
    """`kind` is "part", "review", "job", "version", "good", "product" or "alarm"; `data` is ready for JSON."""

    number: int
    kind: str
    at: float
    data: Mapping[str, Any]


class Events:
    """Publish and subscribe inside this process; nothing is stored."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._recent: deque[Event] = deque(maxlen=REMEMBERED)
        self._listeners: dict[int, Callable[[Event], None]] = {}
        self._keys = itertools.count()

    def publish(self, kind: str, data: Mapping[str, Any]) -> None:
        """Hand an event to every listener, in this thread; one that fails loses the event, the others do not."""
        with self._lock:
            event = Event(next(self._numbers), kind, time.time(), data)
            self._recent.append(event)
            for listener in self._listeners.values():
                with suppress(Exception):
                    listener(event)

    def subscribe(self, listener: Callable[[Event], None], after: int | None = None) -> Callable[[], None]:
        """Have `listener` called with every event from now on; gives what ends that.

        With `after`, events later than the one of that number come first, as far as they are remembered. A listener
        must return at once and publish nothing.
        """
        with self._lock:
            key = next(self._keys)
            self._listeners[key] = listener
            if after is not None:
                for event in self._recent:
                    if event.number > after:
                        listener(event)

        def end() -> None:
            with self._lock:
                self._listeners.pop(key, None)

        return end
