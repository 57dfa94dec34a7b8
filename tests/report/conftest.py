"""Grainy images, and an HTML reader that insists on balanced tags."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from html_reader import Reader


@pytest.fixture
def read() -> Callable[[str], Reader]:
    return Reader


@pytest.fixture
def grain() -> Callable[..., np.ndarray]:
    """Makes a grainy image `(H, W, 3)` uint8: what compresses worst."""

    def make(size: tuple[int, int] = (96, 128), seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)

    return make
