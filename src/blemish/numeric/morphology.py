"""Morphology and ranges of small images by shifted views: what scipy.ndimage gives, several times faster on crops.

Neighbours are the four that share an edge; beyond the image nothing is set, and values are mirrored.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def dilated(mask: np.ndarray, times: int = 1) -> np.ndarray:
    """A mask `(h, w)` bool grown by its neighbours so many times."""
    for _ in range(times):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        mask = grown
    return mask


def eroded(mask: np.ndarray, times: int = 1) -> np.ndarray:
    """A mask `(h, w)` bool without the pixels next to what is not set, so many times."""
    outside = np.pad(~mask, 1, constant_values=True)
    return ~dilated(outside, times)[1:-1, 1:-1]


def closed(mask: np.ndarray, times: int = 1) -> np.ndarray:
    """A mask `(h, w)` bool grown, and then shrunk as often."""
    return eroded(dilated(mask, times), times)


def filled(mask: np.ndarray) -> np.ndarray:
    """A mask `(h, w)` bool together with its holes: what cannot be reached from the image's border without it."""
    labels, count = ndimage.label(~mask)
    is_hole = np.ones(count + 1, dtype=bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        is_hole[edge] = False
    is_hole[0] = True  # the mask itself
    found: np.ndarray = is_hole[labels]
    return found


def window_range(values: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest of `values` `(h, w, …)` in the square of `side` (odd) pixels around each pixel."""
    reach = side // 2
    padded = np.pad(values, [(reach, reach)] * 2 + [(0, 0)] * (values.ndim - 2), mode="symmetric")
    low, high = padded, padded
    for axis in (0, 1):
        length = values.shape[axis]
        views = [slice(start, start + length) for start in range(side)]
        index = [(slice(None),) * axis + (view,) for view in views]
        low = np.minimum.reduce([low[i] for i in index])
        high = np.maximum.reduce([high[i] for i in index])
    return low, high


def box_around(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The smallest upright box that holds a mask `(h, w)` bool, some pixels wider, inside the image; all if empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(None), slice(None)
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin),
    )
