"""How many processor cores there are to use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The processor cores that this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
