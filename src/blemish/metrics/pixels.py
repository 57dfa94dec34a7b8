"""All pixel measures from one sort: AUROC, average precision, largest F1 and AUPRO at any limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blemish.metrics.pixel_split import DefectivePixels, split_pixels
from blemish.metrics.ranking import RankSums, rank_sums, ranking_from
from blemish.metrics.regions import (
    RUN,
    check_limits,
    check_thresholds,
    coarse_aupro,
    found_length,
    region_weights,
)
from blemish.metrics.sorted_scores import SortedScores, available_cpus, in_threads


@dataclass(frozen=True)
class PixelMeasures:
    """All in [0, 1] but the threshold, which is a score; nan where defective or defect-free pixels are missing.

    `aupro` maps each limit to its AUPRO; `aupro_thresholds` is None where it is exact.
    """

    auroc: float
    ap: float
    f1max: float
    f1max_threshold: float
    aupro: dict[float, float]
    aupro_thresholds: int | None = None


def pixel_measures(
    maps: Sequence[Any],
    masks: Sequence[Any],
    limits: Sequence[float] = (0.3, 0.05, 0.01),
    aupro_thresholds: int | None = None,
    threads: int | None = None,
) -> PixelMeasures:
    """Measure maps `(H, W)` against masks `(H, W)` (None for a good image) over all pixels of all images.

    Exact: every distinct score is a threshold, ties are counted, scores may have any range, maps any sizes.
    Parameters, nan and errors are those of `regions.aupro`; `aupro_thresholds` makes AUPRO alone coarse, for comparison
    with published tables.
    """
    check_limits(limits)
    check_thresholds(aupro_thresholds)
    threads = threads or available_cpus()
    good, defective = split_pixels(maps, masks, threads)
    if not len(good) or not len(defective.values):
        nothing = ranking_from([], len(good), len(defective.values))
        return PixelMeasures(*nothing, dict.fromkeys(limits, math.nan), aupro_thresholds)

    exact_limits = limits if aupro_thresholds is None else ()
    sums, areas = _look_up(good, defective, exact_limits, threads)
    if aupro_thresholds is None:
        areas_of = {limit: math.fsum(column) for limit, column in zip(limits, zip(*areas, strict=True), strict=True)}
    else:
        areas_of = coarse_aupro(good, defective, limits, aupro_thresholds)
    return PixelMeasures(*ranking_from(sums, len(good), len(defective.values)), areas_of, aupro_thresholds)


def _look_up(
    good: SortedScores, defective: DefectivePixels, limits: Sequence[float], threads: int
) -> tuple[list[RankSums], list[list[float]]]:
    """Count the good pixels below each defective one, run by run, and keep sums only."""
    weight_of, total = region_weights(defective), len(good)

    def run(start: int) -> tuple[RankSums, list[float]]:
        values = defective.values[start : start + RUN]
        less, up_to = good.counts(values)
        weights = weight_of[defective.region[start : start + RUN]]
        ranks = rank_sums(defective.values, start, start + len(values), less, up_to, total)
        return ranks, [float((weights * found_length(less, up_to, total, limit)).sum()) for limit in limits]

    starts = range(0, len(defective.values), RUN)
    runs = in_threads(run, starts, min(threads, len(starts)))
    return [ranks for ranks, _ in runs], [areas for _, areas in runs]
