"""Paths as text for people, and as patterns."""

from __future__ import annotations

import os
from pathlib import Path


def shown(path: Path | str) -> str:
    """A path as text that can always be printed, whatever bytes its name holds."""
    return os.fsencode(path).decode("utf-8", "replace")
