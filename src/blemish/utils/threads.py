"""Peace between two libraries that both want every core.

The threads of OpenBLAS, which numpy and scipy multiply with, go on spinning for a while after each product. On few
cores they starve those of torch, whose networks then take twice as long; and what numpy multiplies here is small.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController


@contextmanager
def quiet_numpy() -> Iterator[None]:
    """Within this context (or function decorated with it) numpy and scipy multiply in one thread; torch as ever.

    The number of threads belongs to the process: the first to enter lowers it, the last to leave restores it, whichever
    thread they run in.
    """
    _Quiet.enter()
    try:
        yield
    finally:
        _Quiet.leave()


class _Quiet:
    lock = Lock()
    inside = 0
    limits: Any = None

    @classmethod
    def enter(cls) -> None:
        with cls.lock:
            if not cls.inside:
                cls.limits = _openblas().limit(limits=1)
            cls.inside += 1

    @classmethod
    def leave(cls) -> None:
        with cls.lock:
            cls.inside -= 1
            if not cls.inside:
                cls.limits.restore_original_limits()


@cache
def _openblas() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  # it brings an OpenBLAS of its own, which must be loaded to be found

    return ThreadpoolController().select(internal_api="openblas")
