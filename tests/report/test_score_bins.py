"""Binned scores against the scores themselves."""

from __future__ import annotations

import math

import numpy as np

from blemish.report.score_bins import ScoreBins


def binned(scores: np.ndarray) -> tuple[ScoreBins, np.ndarray, np.ndarray]:
    bins = ScoreBins()
    for score in scores.tolist():
        bins.add(score)
    return bins, *bins.middles()


def test_middles_lie_within_a_thousandth_of_the_scores() -> None:
    scores = np.exp(np.random.default_rng(0).uniform(-9, 9, 5000))
    bins, middles, counts = binned(scores)
    assert len(bins) == counts.sum() == 5000
    again = np.sort(np.repeat(middles, counts))
    assert np.abs(again / np.sort(scores) - 1).max() < 1.01e-3


def test_the_threshold_parts_bins_exactly() -> None:
    scores = np.array([0.0, 1.0, math.nextafter(1, 0), math.nextafter(1, 2), 1.0, -0.5])
    _, middles, counts = binned(scores)
    assert counts[middles > 1].sum() == 1
    assert counts[middles == 0].sum() == 2


def test_memory_is_bounded_by_the_range_of_the_scores() -> None:
    _, middles, _ = binned(np.exp(np.random.default_rng(0).uniform(math.log(0.01), math.log(10), 40_000)))
    assert len(middles) < 7000  # ln(1000) / 0.001
