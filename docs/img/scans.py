"""Draws scans.jpg beside this file: images, measured surfaces and masks of generated defects: python scans.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from blemish.report import shaded_relief
from blemish.report.views import side_by_side
from blemish.research.synthetic_scans import scan_set
from blemish.types import Sample

SIDE, GAP = 176, 4
SHOWN = {
    "washer": "dent",
    "bolt": "bend",
    "biscuit": "missing",
    "gear": "colour",
    "bracket": "crack",
    "cap": "contamination",
}


def views(sample: Sample) -> list[np.ndarray]:
    """Image, relief and mask of a scan, `(SIDE, SIDE, 3)` uint8 each."""
    assert isinstance(sample.image, np.ndarray)
    assert isinstance(sample.points, np.ndarray)
    mask = np.repeat(255 * np.asarray(sample.mask, np.uint8)[..., None], 3, axis=2)
    found = [Image.fromarray(view) for view in (sample.image, shaded_relief(sample.points), mask)]
    return [np.asarray(view.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for view in found]


if __name__ == "__main__":
    sets = scan_set(list(SHOWN), seed=1, size=352, train=1, good=1, defective=1)
    found = [next(one for one in sets[name].test if one.defect == kind) for name, kind in SHOWN.items()]
    rows = [side_by_side(row, GAP) for row in zip(*map(views, found), strict=True)]
    turned = side_by_side([row.swapaxes(0, 1) for row in rows], GAP)  # one below the other
    Image.fromarray(turned.swapaxes(0, 1)).save(Path(__file__).with_name("scans.jpg"), quality=86)
