"""Slow and plain versions of the measures: one threshold after the other, one region after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def regions_of(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """8-connected regions by flood fill."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    regions = []
    while left:
        open_, region = [left.pop()], []
        while open_:
            y, x = open_.pop()
            region.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            open_ += near
        regions.append(region)
    return regions


def curve(
    maps: Sequence[np.ndarray], masks: Sequence[np.ndarray], saturation: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """(false positive rate, overlap) at every distinct score, from (0, 0) to (1, 1)."""
    regions = [np.array([m[p] for p in r]) for m, k in zip(maps, masks, strict=True) for r in regions_of(k)]
    good = np.concatenate([m[~k] for m, k in zip(maps, masks, strict=True)])
    points = [(0.0, 0.0)]
    for t in np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]:
        overlaps = [min((r >= t).sum() / min(saturation, len(r)), 1) for r in regions]
        points.append((float((good >= t).mean()), float(np.mean(overlaps))))
    x, y = np.array(points).T
    return x, y


def area(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Area under straight lines from 0 to `limit`, divided by it, one piece at a time."""
    total = 0.0
    for x0, x1, y0, y1 in zip(x[:-1], x[1:], y[:-1], y[1:], strict=True):
        if x1 <= limit:
            total += (x1 - x0) * (y0 + y1) / 2
        elif x0 < limit:
            cut = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            total += (limit - x0) * (y0 + cut) / 2
    return total / limit


def coarse_area(maps: Sequence[np.ndarray], masks: Sequence[np.ndarray], limit: float, thresholds: int) -> float:
    """The same with thresholds at evenly spaced ranks of the defect-free pixels, a score above counting as found."""
    regions = [np.array([m[p] for p in r]) for m, k in zip(maps, masks, strict=True) for r in regions_of(k)]
    good = np.sort(np.concatenate([m[~k] for m, k in zip(maps, masks, strict=True)]))
    points = [(1.0, 1.0)]
    for rank in np.linspace(0, len(good) - 1, thresholds, dtype=int):
        t = good[rank]
        points.append((float((good > t).mean()), float(np.mean([(r > t).mean() for r in regions]))))
    x, y = np.array(points[::-1]).T
    return area(x, y, limit)


def best_f1(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Largest F1 over every distinct score as threshold, and the largest threshold that reaches it."""
    best = (-1.0, -np.inf)
    for t in np.unique(scores):
        called = scores >= t
        f1 = 2 * (called & labels).sum() / (called.sum() + labels.sum())
        best = max(best, (float(f1), float(t)))
    return best
