"""The folder layout of BTAD, beanTech Anomaly Detection (Mishra et al., ISIE 2021).

    <category>/train/ok    <category>/test/ok    <category>/test/ko    <category>/ground_truth/ko/<stem>.<any suffix>

Pictures are .bmp or .png by category, and a mask's suffix need not be its picture's.
"""

from __future__ import annotations

from pathlib import Path

from blemish.datasets import mvtec
from blemish.datasets.category import Category

GOOD = "ok"
is_mask = mvtec.is_mask


def is_category(folder: Path) -> bool:
    """True for a folder with pictures called ok, to learn from or to test on."""
    return mvtec.is_category(folder, GOOD)


def load_category(folder: Path) -> Category:
    """The samples of one category folder, sorted by path."""
    return mvtec.load_category(folder, GOOD)
