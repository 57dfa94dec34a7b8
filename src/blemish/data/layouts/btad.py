"""The folder layout of BTAD, beanTech Anomaly Detection.

Mishra, Verk, Fornasier, Piciarelli, Foresti: VT-ADL, a vision transformer network for image anomaly detection and
localization, ISIE 2021.

    <category>/train/ok    <category>/test/ok    <category>/test/ko    <category>/ground_truth/ko/<stem>.<any suffix>

Images are .bmp or .png by category, and a mask's suffix need not be its image's.
"""

from __future__ import annotations

from pathlib import Path

from blemish.data.category import Category
from blemish.data.layouts import mvtec

GOOD = "ok"
is_mask = mvtec.is_mask


def is_category(folder: Path) -> bool:
    """True for a folder with images called ok, to fit or to test on."""
    return mvtec.is_category(folder, GOOD)


def load_category(folder: Path) -> Category:
    """The samples of one category folder, sorted by path."""
    return mvtec.load_category(folder, GOOD)
