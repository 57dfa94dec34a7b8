"""Indices of sequences: by group, and evenly spaced. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def group_indices(keys: Sequence[Any]) -> dict[Any, list[int]]:
    """The indices at which each key stands, keys in the order of their first appearance."""
    found: dict[Any, list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(key, []).append(index)
    return found


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` indices, evenly spaced over `range(count)`."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})
