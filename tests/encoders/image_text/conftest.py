"""Tiny models of each family, written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_text_parts import SIZE, write_model, write_open_clip


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny model: "clip", "siglip", "tipsv2" or "open_clip"."""
    root = tmp_path_factory.mktemp("image-text")

    def find(family: str) -> Path:
        folder = root / family
        if not folder.exists():
            write_open_clip(folder) if family == "open_clip" else write_model(folder, family)
        return folder

    return find


@pytest.fixture
def square() -> np.ndarray:
    """Two images of the size the tiny models were made for, `(2, 40, 40, 3)` uint8."""
    return np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
