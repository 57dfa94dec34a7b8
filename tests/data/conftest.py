"""Small datasets written with PIL, in the layouts that blemish reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Write = Callable[..., Path]


@pytest.fixture
def write() -> Write:
    """Write an image (or a mask) of one grey level, making its folders."""

    def write_image(path: Path, level: int = 90, size: tuple[int, int] = (6, 5)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), level, np.uint8)).save(path)
        return path

    return write_image


@pytest.fixture
def mvtec_root(tmp_path: Path, write: Write) -> Path:
    """Two categories, "nut" (one mask missing) and "bolt", 3 good images each to learn from."""
    root = tmp_path / "parts"
    for category in ("nut", "bolt"):
        for i in (10, 2, 1):
            write(root / category / "train" / "good" / f"{i:03}.png")
        write(root / category / "test" / "good" / "000.png")
        for i in range(2):
            write(root / category / "test" / "scratch" / f"{i:03}.png")
        write(root / category / "test" / "bent" / "000.png")
        write(root / category / "ground_truth" / "bent" / "000_mask.png", 255)
        write(root / category / "ground_truth" / "scratch" / "000_mask.png", 255)
    write(root / "bolt" / "ground_truth" / "scratch" / "001_mask.png", 255)
    return root


@pytest.fixture
def visa_root(tmp_path: Path, write: Write) -> Path:
    """One VisA category "candle": 20 good images, 2 defective, no split_csv."""
    root = tmp_path / "VisA"
    for i in range(20):
        write(root / "candle/Data/Images/Normal" / f"{i:04}.JPG")
    for i in range(2):
        write(root / "candle/Data/Images/Anomaly" / f"{i:03}.JPG")
    write(root / "candle/Data/Masks/Anomaly/000.png", 1)
    return root


@pytest.fixture
def real_data() -> Path:
    """The folder of real images: BLEMISH_DATA, or shared/data beside the repository."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("BLEMISH_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real pictures at {folder}; set BLEMISH_DATA to their folder")
    return folder
