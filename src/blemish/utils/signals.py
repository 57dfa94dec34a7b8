"""Signals and processes that are started: Ctrl-C is for the parent, which ends its workers itself; how one ended."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ctrl_c_blocked() -> Iterator[None]:
    """Ctrl-C is heard after the block; processes that start in it never hear it, not even while they still import.

    A worker that ignored it only once it runs would end with a traceback while it loads. Without effect where threads
    have no signal masks.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_in_words(code: int | None) -> str:
    """How a process ended, by its exit code, which is negative where a signal ended it."""
    return f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
