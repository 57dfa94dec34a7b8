"""Tiny models of each family, written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_text_parts import SIZE, write_dino_txt, write_model, write_open_clip


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny model: "clip", "siglip", "siglip2", "tipsv2", "open_clip" or "dino_txt"."""
    root = tmp_path_factory.mktemp("image-text")

    def find(family: str) -> Path:
        folder = root / family
        if not folder.exists():
            writers = {"open_clip": write_open_clip, "dino_txt": write_dino_txt}
            writers[family](folder) if family in writers else write_model(folder, family)
        return folder

    return find


@pytest.fixture
def square() -> np.ndarray:
    """Two images of the size the tiny models were made for, `(2, 40, 40, 3)` uint8."""
    return np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
