"""Connected components, binary morphology, ranges and Gaussian blur of 2-D arrays with numpy alone.

Results are those of the functions of the same names in `scipy.ndimage` (but for an empty box, where that gives None),
so that inspection needs no scipy. What is labelled are runs of pixels along rows, not pixels: runs of neighbouring rows
that touch are merged by hooking and pointer jumping (Shiloach and Vishkin, An O(log n) parallel connectivity algorithm,
Journal of Algorithms 1982), so that no loop runs over pixels. This module imports nothing of blemish: folders on any
side may use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Box = tuple[slice, slice]  # rows and columns

TRUNCATE = 4.0  # standard deviations at which Gaussian kernels end, as in scipy.ndimage


class _Runs(NamedTuple):
    """The runs of True along the rows of a mask, in raster order, and the component that each belongs to."""

    rows: np.ndarray  # (R,)
    starts: np.ndarray  # (R,) first columns
    stops: np.ndarray  # (R,) columns behind the last
    labels: np.ndarray  # (R,) int32 from 1 on, in the order of each component's first pixel
    components: int  # how many


def label(mask: np.ndarray, diagonal: bool = False) -> tuple[np.ndarray, int]:
    """The connected components of `(H, W)` bool as labels `(H, W)` int32, and how many there are; 0 is what is False.

    Pixels are neighbours along rows and columns, and along diagonals as well with `diagonal`. Labels start at 1, in the
    order of each component's first pixel from the top left, row by row.
    """
    mask = np.asarray(mask, dtype=bool)
    runs = _runs(mask, diagonal)
    labels = np.zeros(mask.shape, dtype=np.int32)
    labels[mask] = np.repeat(runs.labels, runs.stops - runs.starts)
    return labels, runs.components


def find_objects(labels: np.ndarray) -> list[Box]:
    """The bounding boxes of labels `(H, W)` 1, 2, … up to the largest, as slices; empty for one that has no pixel."""
    height, width = labels.shape
    boxes: list[Box] = [(slice(0, 0), slice(0, 0))] * int(labels.max(initial=0))
    if not boxes:
        return boxes
    padded = np.zeros((height, width + 1), dtype=labels.dtype)  # a column that parts the rows
    padded[:, :width] = labels
    flat = padded.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = edges if flat[0] == 0 else np.concatenate([[0], edges])
    owners = flat[starts]
    is_run = owners > 0
    stops = np.append(starts[1:], flat.size)[is_run]  # where the next value starts
    starts, owners = starts[is_run], owners[is_run]
    order = np.argsort(owners, kind="stable")
    owners, starts, stops = owners[order], starts[order], stops[order]
    first = np.flatnonzero(np.diff(owners, prepend=0))  # of each label's runs, which lie from top to bottom
    last = np.append(first[1:], len(owners)) - 1
    left = np.minimum.reduceat(starts % (width + 1), first)
    right = np.maximum.reduceat((stops - 1) % (width + 1), first) + 1
    top, bottom = starts[first] // (width + 1), starts[last] // (width + 1) + 1
    corners = (values.tolist() for values in (owners[first], top, bottom, left, right))
    for name, y0, y1, x0, x1 in zip(*corners, strict=True):
        boxes[name - 1] = slice(y0, y1), slice(x0, x1)
    return boxes


def binary_dilation(mask: np.ndarray, iterations: int = 1) -> np.ndarray:
    """`(H, W)` bool grown by one pixel along rows and columns, `iterations` times."""
    return _grown(np.asarray(mask, dtype=bool), iterations, outside=False)


def binary_erosion(mask: np.ndarray, iterations: int = 1) -> np.ndarray:
    """`(H, W)` bool shrunk by one pixel along rows and columns, `iterations` times; beyond the border all is False."""
    return ~_grown(~np.asarray(mask, dtype=bool), iterations, outside=True)


def binary_closing(mask: np.ndarray, iterations: int = 1) -> np.ndarray:
    """Dilation, then erosion of `(H, W)` bool: gaps go, and so does what lies within `iterations` of the border."""
    return binary_erosion(binary_dilation(mask, iterations), iterations)


def binary_opening(mask: np.ndarray, iterations: int = 1) -> np.ndarray:
    """Erosion, then dilation of `(H, W)` bool: what is narrower than 2 · `iterations` + 1 pixels goes."""
    return binary_dilation(binary_erosion(mask, iterations), iterations)


def binary_fill_holes(mask: np.ndarray) -> np.ndarray:
    """`(H, W)` bool with what is False but has no way of False along rows and columns to the border."""
    mask = np.asarray(mask, dtype=bool)
    height, width = mask.shape
    empty = _runs(~mask, diagonal=False)
    on_border = (empty.rows == 0) | (empty.rows == height - 1) | (empty.starts == 0) | (empty.stops == width)
    is_outside = np.zeros(empty.components + 1, dtype=bool)
    is_outside[empty.labels[on_border]] = True
    filled = mask.copy()
    filled[~mask] = np.repeat(~is_outside[empty.labels], empty.stops - empty.starts)
    return filled


def gaussian_filter(values: np.ndarray, sigma: float | Sequence[float]) -> np.ndarray:
    """An array of floats blurred by Gaussians of standard deviation `sigma`, one for all axes or one an axis.

    Borders are mirrored with the edge value repeated. Sums are float64, rounded to the array's dtype after each axis.
    """
    for axis, std in enumerate(np.broadcast_to(sigma, values.ndim).tolist()):
        if std > 1e-15 and values.size:
            values = np.moveaxis(_blurred_rows(np.moveaxis(values, axis, 0), std), 0, axis)
    return np.array(values)


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


def ignored_patches(pixels: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """The patches `(h, w)` bool of a `grid` (h, w) that are not judged, from ignored `pixels` `(H, W)` bool.

    They are those that ignored pixels touch and their neighbours; without the neighbours where nothing would be left.
    """
    rows = np.stack([pixels[top:bottom].any(axis=0) for top, bottom in _spans(pixels.shape[0], grid[0])])  # (h, W)
    touched = np.stack([rows[:, left:right].any(axis=1) for left, right in _spans(pixels.shape[1], grid[1])], axis=1)
    framed = np.pad(touched, 1)  # (h + 2, w + 2)
    height, width = touched.shape
    grown = np.logical_or.reduce([framed[y : y + height, x : x + width] for y in range(3) for x in range(3)])  # (h, w)
    return touched if grown.all() else grown


def _spans(length: int, count: int) -> list[tuple[int, int]]:
    """The pixels of each of `count` patches along a side of `length`; spans overlap where it does not divide."""
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def _blurred_rows(values: np.ndarray, sigma: float) -> np.ndarray:
    """An array `(N, …)` blurred along its first axis; scipy's order of sums: the centre, then from outside in."""
    radius = int(TRUNCATE * sigma + 0.5)
    weights = np.exp(-0.5 / (sigma * sigma) * np.arange(-radius, radius + 1) ** 2)
    weights = weights / weights.sum()
    length = len(values)
    places = np.arange(-radius, length + radius) % (2 * length)
    padded = values.astype(np.float64)[np.where(places < length, places, 2 * length - 1 - places)]  # (N + 2r, …)
    total = padded[radius : radius + length] * weights[radius]
    for away in range(radius, 0, -1):
        before, after = radius - away, radius + away
        total += (padded[before : before + length] + padded[after : after + length]) * weights[before]
    return total.astype(values.dtype)


def _grown(mask: np.ndarray, iterations: int, outside: bool) -> np.ndarray:
    """`mask` `(H, W)` dilated by the cross of 3 × 3, where all beyond the border is `outside`."""
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}, at least 1 is needed")
    height, width = mask.shape
    padded = np.full((height + 2, width + 2), outside)
    inner = padded[1:-1, 1:-1]
    inner[:] = mask
    for _ in range(iterations):
        grown = padded[1:-1, :-2] | padded[1:-1, 2:]
        grown |= padded[:-2, 1:-1]
        grown |= padded[2:, 1:-1]
        inner |= grown
    return inner.copy()


def _runs(mask: np.ndarray, diagonal: bool) -> _Runs:
    height, width = mask.shape
    stride = width + 1
    flat = np.zeros(height * stride + 1, dtype=bool)  # rows parted by a column of False, and one False before all
    flat[1:].reshape(height, stride)[:, :width] = mask
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    starts, stops = edges[::2], edges[1::2]  # (R,) each, into rows of `stride`
    # The runs of the row above that touch run i are first[i], first[i] + 1, …, last[i] - 1.
    reach = int(diagonal)
    first = np.searchsorted(stops, starts - stride - reach, side="right")
    last = np.searchsorted(starts, stops - stride + reach, side="left")
    roots = _roots(first, last)
    is_root = roots == np.arange(len(roots))
    labels = np.cumsum(is_root, dtype=np.int32)[roots]
    rows = starts // stride
    return _Runs(rows, starts - rows * stride, stops - rows * stride, labels, int(is_root.sum()))


def _roots(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The smallest run connected with each of R runs, `(R,)`, where run i touches runs `first[i]` to `last[i]` - 1 < i.

    Each run hangs on the first that it touches. A run that touches more connects trees: the root with the larger
    number is hooked on the smallest root that it is connected with, until no edge lies between two trees.
    """
    count = len(first)
    parents = np.where(last > first, first, np.arange(count))
    parents = _flattened(parents)
    more = np.maximum(last - first - 1, 0)  # edges beside the one to the parent
    ends = np.cumsum(more)
    low = np.repeat(first + 1 - (ends - more), more) + np.arange(int(ends[-1]) if count else 0)
    high = np.repeat(np.arange(count), more)
    while len(low):
        a, b = parents[low], parents[high]
        apart = a != b
        low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
        np.minimum.at(parents, high, low)
        parents = _flattened(parents)
    return parents


def _flattened(parents: np.ndarray) -> np.ndarray:
    """A forest `(R,)` in which each node's parent is its root; a root is its own parent."""
    while True:
        grandparents = parents[parents]
        if np.array_equal(grandparents, parents):
            return parents
        parents = grandparents
