"""Ctrl-C and processes that are started: it is for the parent, which ends its workers itself."""

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
