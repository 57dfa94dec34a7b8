"""Pixels of many maps parted in two: good ones sorted, defective ones sorted with the region that each belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from blemish.errors import DatasetError
from blemish.metrics.sorted_scores import SortedScores, available_cpus, in_threads

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)
FEW_PIXELS = 1 << 20  # below this, starting threads costs more than it saves


@dataclass(frozen=True)
class DefectivePixels:
    """Scores of defective pixels, ascending, with the region of each.

    `values` `(n,)`, `region` `(n,)` int32 into `areas` `(R,)` int64, the pixels of each region.
    """

    values: np.ndarray
    region: np.ndarray
    areas: np.ndarray


class _Part(NamedTuple):
    good: np.ndarray  # ascending
    values: list[np.ndarray]  # of the defective pixels, one array an image
    region: list[np.ndarray]  # as values; counted from 0 in this part
    areas: list[np.ndarray]


def checked_maps(maps: Sequence[Any], masks: Sequence[Any]) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Maps as `(H, W)` number arrays and masks as `(H, W)` bool arrays or None; `DatasetError` on anything else."""
    if len(maps) != len(masks) or not len(maps):
        raise DatasetError(
            "at least one map, and one mask (or None for a good picture) for each",
            f"{len(maps)} maps and {len(masks)} masks",
            "pass the two in the same order and length",
        )
    arrays = [np.asarray(m) for m in maps]
    truths = [None if m is None else np.asarray(m) for m in masks]
    for i, (array, truth) in enumerate(zip(arrays, truths, strict=True)):
        if array.ndim != 2 or array.dtype.kind not in "fiub" or (truth is not None and truth.shape != array.shape):
            raise DatasetError(
                "each map (H, W) of real numbers, with a mask of the same height and width",
                f"map {i} of shape {array.shape} {array.dtype} with mask {None if truth is None else truth.shape}",
                "bring the map to the mask's own size first",
            )
    return arrays, [t if t is None or t.dtype == bool else t != 0 for t in truths]


def split_pixels(
    maps: Sequence[Any], masks: Sequence[Any], threads: int | None = None
) -> tuple[SortedScores, DefectivePixels]:
    """Part the pixels of maps `(H, W)`, of sizes that may differ, by their masks `(H, W)` bool (None: all good).

    Regions are 8-connected and never reach over two images. `threads` defaults to the CPUs at hand; the result does
    not depend on it. Raises `DatasetError` for shapes that do not fit and for NaN or infinite scores.
    """
    arrays, truths = checked_maps(maps, masks)
    dtype = np.result_type(np.float32, *{a.dtype for a in arrays})
    ends = np.cumsum([a.size for a in arrays])
    workers = 1 if ends[-1] < FEW_PIXELS else max(threads or available_cpus(), 1)
    of_part = (ends - 1) * workers // max(int(ends[-1]), 1)  # images go to parts of about equal pixels, in order

    def part(number: int) -> _Part:
        chosen = np.flatnonzero(of_part == number)
        return _split_part([arrays[i] for i in chosen], [truths[i] for i in chosen], dtype, chosen)

    parts = in_threads(part, range(workers), workers)
    return SortedScores([p.good for p in parts]), _join(parts, dtype)


def _split_part(maps: list[np.ndarray], masks: list[np.ndarray | None], dtype: np.dtype, numbers: np.ndarray) -> _Part:
    """Copy the maps into one array, take the defective pixels out, sort the rest; `numbers` name the maps in errors."""
    from scipy import ndimage  # here, because it alone takes longer to import than the rest of the package

    pixels = np.empty(sum(m.size for m in maps), dtype)
    part = _Part(pixels, [], [], [])
    start = regions = hidden = 0
    for scores, mask in zip(maps, masks, strict=True):
        room = pixels[start : start + scores.size].reshape(scores.shape)
        start += scores.size
        room[...] = scores
        window = None if mask is None else _window(mask)
        if mask is None or window is None:
            continue
        labels, count = ndimage.label(mask[window], EIGHT_NEIGHBOURS)
        inside = mask[window]
        part.values.append(room[window][inside])
        part.areas.append(np.bincount(labels.ravel(), minlength=count + 1)[1:])
        part.region.append(labels[inside].astype(np.int32, copy=False))
        part.region[-1] += regions - 1
        room[window][inside] = -np.inf  # sorts to the front, where it is cut off: cheaper than copying the good ones
        regions += count
        hidden += len(part.values[-1])
    pixels.sort()
    good = pixels[hidden:]
    ends = [*good[:1], *good[-1:], *(edge for v in part.values for edge in (v.min(), v.max()))]  # NaN sorts last
    if not np.isfinite(ends).all():
        raise DatasetError(
            "finite scores in every map",
            _first_broken(maps, numbers),
            "leave out the pictures that could not be scored, or check the model's weights",
        )
    return part._replace(good=good)


def _window(mask: np.ndarray) -> tuple[slice, slice] | None:
    """The smallest box that holds all of a mask, or None for an empty one."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    tall = slice(int(rows[0]), int(rows[-1]) + 1)
    columns = np.flatnonzero(mask[tall].any(axis=0))
    return tall, slice(int(columns[0]), int(columns[-1]) + 1)


def _first_broken(maps: list[np.ndarray], numbers: np.ndarray) -> str:
    for number, scores in zip(numbers, maps, strict=True):
        broken = np.argwhere(~np.isfinite(scores))
        if len(broken):
            y, x = broken[0]
            return f"{scores[y, x]} at row {y}, column {x} of map {number}"
    return "NaN or infinite scores"


def _join(parts: list[_Part], dtype: np.dtype) -> DefectivePixels:
    """All defective pixels in ascending order, regions numbered through."""
    regions = 0
    for part in parts:
        for region in part.region:
            region += regions  # in place: these arrays are ours
        regions += sum(len(a) for a in part.areas)
    values = np.concatenate([v for p in parts for v in p.values] or [np.empty(0, dtype)])
    region = np.concatenate([r for p in parts for r in p.region] or [np.empty(0, np.int32)])
    areas = np.concatenate([a for p in parts for a in p.areas] or [np.empty(0, np.int64)])
    for part in parts:  # let go of before the sort, which sets the peak of memory
        part.values.clear()
        part.region.clear()
    order = np.argsort(values)
    values = values[order]
    return DefectivePixels(values, region[order], areas)
