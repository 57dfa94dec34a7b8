"""Draws scans.jpg beside this file: pictures, measured surfaces and masks of generated defects: python scans.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from blemish.datasets.generated3d import scan_set
from blemish.report import shaded_relief
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


def column(sample: Sample) -> np.ndarray:
    """Picture, relief and mask of a scan, one below the other."""
    assert isinstance(sample.picture, np.ndarray)
    assert isinstance(sample.points, np.ndarray)
    mask = np.repeat(255 * np.asarray(sample.mask, np.uint8)[..., None], 3, axis=2)
    views = (sample.picture, shaded_relief(sample.points), mask)
    return stacked(
        [np.asarray(Image.fromarray(view).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for view in views], 0
    )


def stacked(views: list[np.ndarray], axis: int) -> np.ndarray:
    """Views of equal size side by side (`axis` 1) or one below the other (0), with a white gap."""
    shape = list(views[0].shape)
    shape[axis] = GAP
    gap = np.full(shape, 255, np.uint8)
    return np.concatenate([part for view in views for part in (gap, view)][1:], axis=axis)


if __name__ == "__main__":
    sets = scan_set(list(SHOWN), seed=1, size=352, train=1, good=1, defective=1)
    found = [next(one for one in sets[name].test if one.defect == kind) for name, kind in SHOWN.items()]
    Image.fromarray(stacked([column(one) for one in found], 1)).save(Path(__file__).with_name("scans.jpg"), quality=86)
