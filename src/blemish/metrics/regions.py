"""How much of each defective region is found at few false alarms: AUPRO at any limit, coarse or exact, and sPRO.

The curve: at a threshold t, the false positive rate is the share of all defect-free pixels of all images that score
>= t, the overlap is the share of a region's pixels that score >= t, averaged over regions. AUPRO@L is the area under
overlap over false positive rate from 0 to L, divided by L; points between thresholds lie on straight lines.

Exact without walking the thresholds: the area is a sum over defective pixels. A pixel that scores v adds its weight
(1 / pixels of its region / number of regions) times the length of the part of [0, L] over which it counts as found,
which is all beyond the false positive rate at v; where good pixels tie with v, the straight line halves their share.

Sources: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021 (per-region overlap); Bergmann et al.,
"Beyond Dents and Scratches", IJCV 2022 (sPRO, MVTec LOCO AD).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from blemish.errors import DatasetError, SettingsError
from blemish.metrics.pixel_split import DefectivePixels, split_pixels
from blemish.metrics.sorted_scores import SortedScores

RUN = 1 << 15  # defective scores looked up at a time: bounds the memory of the counts, keeps them in the cache


def aupro(
    maps: Sequence[Any],
    masks: Sequence[Any],
    limits: Sequence[float] = (0.3, 0.05, 0.01),
    thresholds: int | None = None,
    threads: int | None = None,
) -> dict[float, float]:
    """AUPRO in [0, 1] at each limit on the false positive rate (0 < limit <= 1).

    Parameters
    ----------
    maps
        `(H, W)` finite scores of each image, larger is more anomalous; any range, sizes may differ.
    masks
        `(H, W)` bool (or zero and non-zero) of each image's defects, None for a good image; 8-connected regions.
    thresholds
        None is exact. A number takes that many thresholds only, see `coarse_aupro`.
    threads
        CPUs to use; the result does not depend on it.

    Returns nan at every limit when there is no defective or no defect-free pixel.
    Raises `DatasetError` for shapes that do not fit and for NaN or infinite scores, `SettingsError` for limits or
    thresholds out of range.
    """
    check_limits(limits)
    check_thresholds(thresholds)
    good, defective = split_pixels(maps, masks, threads)
    if thresholds is not None:
        return coarse_aupro(good, defective, limits, thresholds)
    return _exact_areas(good, defective.values, pixel_weights(defective), limits)


def spro(
    maps: Sequence[Any],
    regions: Sequence[Sequence[Any]],
    saturations: Sequence[Sequence[float]],
    limits: Sequence[float] = (0.05,),
    threads: int | None = None,
) -> dict[float, float]:
    """Area under the saturated per-region overlap, in [0, 1], at each limit: AUPRO where a part of a region suffices.

    A region is wholly found once `saturation` of its pixels are found: its overlap is min(found / saturation, 1).

    Parameters
    ----------
    maps
        `(H, W)` finite scores of each image.
    regions
        For each image the `(H, W)` bool masks of its defects, one a defect; they may overlap and need not be
        connected. An empty list for a good image.
    saturations
        For each mask its saturation in pixels, > 0; one larger than the region is cut to the region's area, so that
        infinity gives the plain overlap. For a relative saturation pass share × area.

    Empty masks are left out. Returns and raises as `aupro` does.
    """
    check_limits(limits)
    if [len(r) for r in regions] != [len(s) for s in saturations] or not all(x > 0 for s in saturations for x in s):
        raise SettingsError(
            "one saturation > 0, in pixels, for each mask of each picture",
            f"{[len(r) for r in regions][:8]} masks a picture with saturations {[list(s) for s in saturations][:8]}",
            "give every mask the saturation of its kind of defect",
        )
    good, _ = split_pixels(maps, [_union(masks) for masks in regions], threads)
    dtype = np.result_type(np.float32, *{np.asarray(m).dtype for m in maps})
    values, weights = [np.empty(0, dtype)], [np.empty(0)]
    for scores, masks, sizes in zip(maps, regions, saturations, strict=True):
        for mask, size in zip(masks, sizes, strict=True):
            found = np.sort(np.asarray(scores)[np.asarray(mask) != 0].astype(dtype))[::-1]  # descending
            if not len(found):
                continue
            overlap = np.minimum(np.arange(len(found) + 1) / min(size, len(found)), 1)
            values.append(found)
            weights.append(np.diff(overlap))  # what the n-th strongest pixel adds
    count = len(values) - 1
    joined = np.concatenate(values)
    order = np.argsort(joined)
    return _exact_areas(good, joined[order], np.concatenate(weights)[order] / max(count, 1), limits)


def coarse_aupro(
    good: SortedScores, defective: DefectivePixels, limits: Sequence[float], thresholds: int
) -> dict[float, float]:
    """AUPRO from a few thresholds only, as published evaluation codes take it; for comparison with their tables.

    The thresholds are the defect-free pixels' scores at evenly spaced ranks (the official evaluation code of MVTec
    3D-AD and those derived from it), a score above the threshold counts as found, and straight lines join the points.
    At a limit near 1 / thresholds there are one or two points left and the area under the rising curve is cut off.
    """
    good_scores = good.merged()
    if not len(good_scores) or not len(defective.values):
        return dict.fromkeys(limits, math.nan)
    ranks = np.linspace(0, len(good_scores) - 1, thresholds).astype(np.int64)
    chosen = good_scores[ranks[::-1]]  # descending: the false positive rate rises
    fpr = 1 - good_scores.searchsorted(chosen, "right") / len(good_scores)
    missed = np.concatenate([[0.0], np.cumsum(pixel_weights(defective))])
    overlap = 1 - missed[defective.values.searchsorted(chosen, "right")]
    fpr, overlap = np.append(fpr, 1.0), np.append(overlap, 1.0)
    return {limit: _area_up_to(fpr, overlap, limit) / limit for limit in limits}


def pixel_weights(defective: DefectivePixels) -> np.ndarray:
    """What each defective pixel counts in an average over regions: `(n,)` float64, sum 1."""
    return region_weights(defective)[defective.region]


def region_weights(defective: DefectivePixels) -> np.ndarray:
    """What one pixel of each region counts in an average over regions: `(R,)` float64."""
    return 1 / (defective.areas * len(defective.areas))


def found_length(less: np.ndarray, up_to: np.ndarray, good_count: int, limit: float) -> np.ndarray:
    """The share of [0, limit] over which scores count as found: `(n,)` float64 in [0, 1].

    `less` and `up_to` are how many of the `good_count` defect-free scores lie below, and at or below, each score.
    """
    end = limit * good_count  # the limit, in false alarms
    room = np.maximum(end - (good_count - up_to), 0)
    ties = up_to - less
    rising = np.minimum(room, ties)  # along a tie's straight line the pixel is found in part
    return (room - rising + rising * rising / (2 * np.maximum(ties, 1))) / end


def check_limits(limits: Sequence[float]) -> None:
    """Raise `SettingsError` unless all limits lie in (0, 1]."""
    if not all(0 < limit <= 1 for limit in limits):
        raise SettingsError("limits on the false positive rate in (0, 1]", f"{limits}", "write 30 % as 0.3")


def check_thresholds(thresholds: int | None) -> None:
    """Raise `SettingsError` unless None or at least 2."""
    if thresholds is not None and thresholds < 2:
        raise SettingsError(
            "None (exact) or at least 2 thresholds for AUPRO", f"{thresholds}", "leave the setting out to be exact"
        )


def _exact_areas(
    good: SortedScores, values: np.ndarray, weights: np.ndarray, limits: Sequence[float]
) -> dict[float, float]:
    """The area at each limit for ascending `values` `(n,)` with `weights` `(n,)` that sum to 1."""
    if not len(good) or not len(values):
        return dict.fromkeys(limits, math.nan)
    areas: dict[float, list[float]] = {limit: [] for limit in limits}
    for start in range(0, len(values), RUN):
        less, up_to = good.counts(values[start : start + RUN])
        for limit in areas:
            found = found_length(less, up_to, len(good), limit)
            areas[limit].append(float((weights[start : start + RUN] * found).sum()))
    return {limit: math.fsum(sums) for limit, sums in areas.items()}


def _area_up_to(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Area under straight lines through (x, y), x ascending from 0 to 1, from 0 to `limit`."""
    inside = int(np.searchsorted(x, limit, "left"))  # x[inside] >= limit
    left, right = x[inside - 1], x[inside]
    end = y[inside - 1] + (y[inside] - y[inside - 1]) * (limit - left) / (right - left)
    x, y = np.append(x[:inside], limit), np.append(y[:inside], end)
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2)


def _union(masks: Sequence[Any]) -> np.ndarray | None:
    if not masks:
        return None
    arrays = [np.asarray(mask) != 0 for mask in masks]
    if len({a.shape for a in arrays}) > 1:
        raise DatasetError(
            "masks of one size for each picture", f"{[a.shape for a in arrays]}", "bring them to the map's own size"
        )
    return np.logical_or.reduce(arrays)
