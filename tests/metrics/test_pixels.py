"""All pixel measures together: equal to the separate ones, to scikit-learn, at any size and share of defects."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import astuple

import numpy as np
import pytest
from metric_oracles import area, best_f1, curve
from sklearn.metrics import average_precision_score, roc_auc_score

from blemish.errors import DatasetError, SettingsError
from blemish.metrics import aupro, pixel_measures, pixel_split, pixels
from blemish.metrics.sorted_scores import SortedScores, first_of_ties


def images(sizes: list[tuple[int, int]], share: float, levels: int, dtype: type) -> tuple[list, list]:
    rng = np.random.default_rng(len(sizes))
    maps, masks = [], []
    for i, (height, width) in enumerate(sizes):
        mask = np.zeros((height, width), bool)
        if i % 2:
            mask[: max(int(height * share), 1)] = True
        scores = rng.normal(size=mask.shape) * 5 + 4 * mask
        maps.append((np.round(scores * levels) / levels).astype(dtype))
        masks.append(mask if i % 2 else None)
    return maps, masks


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("levels", [1, 1000])
def test_equals_the_oracles(dtype: type, share: float, levels: int) -> None:
    maps, masks = images([(12, 9), (8, 15), (1, 30), (20, 1)], share, levels, dtype)
    masks[0] = np.zeros(maps[0].shape, np.uint8)  # an empty mask is a good image
    full = [np.zeros(s.shape, bool) if m is None else m.astype(bool) for s, m in zip(maps, masks, strict=True)]
    scores = np.concatenate([m.ravel() for m in maps]).astype(np.float64)
    labels = np.concatenate([m.ravel() for m in full])
    got = pixel_measures(maps, masks)
    assert got.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert got.ap == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert (got.f1max, got.f1max_threshold) == best_f1(scores, labels)
    x, y = curve(maps, full)
    assert got.aupro == pytest.approx({limit: area(x, y, limit) for limit in (0.3, 0.05, 0.01)}, abs=1e-12)
    assert got.aupro_thresholds is None


@pytest.mark.parametrize("levels", [2, 10**6])
@pytest.mark.parametrize("share", [0.02, 0.9])
def test_number_of_threads_and_length_of_runs_change_nothing(
    levels: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, masks = images([(70, 50)] * 3 + [(1, 1), (30, 90)], share, levels, np.float32)
    whole = pixel_measures(maps, masks)
    monkeypatch.setattr(pixel_split, "FEW_PIXELS", 0)
    monkeypatch.setattr(pixels, "RUN", 37)
    in_runs = pixel_measures(maps, masks, threads=1)
    assert astuple(in_runs)[:4] == pytest.approx(astuple(whole)[:4], abs=1e-12)
    assert in_runs.aupro == pytest.approx(whole.aupro, abs=1e-12)
    for threads in (2, 3, 8):
        assert pixel_measures(maps, masks, threads=threads) == in_runs


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.9])
def test_over_a_million_pixels(share: float) -> None:
    maps, masks = images([(700, 500)] * 3 + [(300, 900)], share, 10**6, np.float32)
    labels = [np.zeros(s.shape, bool) if m is None else m for s, m in zip(maps, masks, strict=True)]
    flat_labels, scores = np.concatenate([m.ravel() for m in labels]), np.concatenate([m.ravel() for m in maps])
    got = pixel_measures(maps, masks)
    assert got.auroc == pytest.approx(roc_auc_score(flat_labels, scores), abs=1e-12)
    assert got.aupro == pytest.approx(aupro(maps, masks), abs=1e-12)


def test_increasing_change_of_scale_changes_nothing() -> None:
    maps, masks = images([(40, 40)] * 4, 0.2, 100, np.float64)
    before = pixel_measures(maps, masks)
    for change in (lambda s: np.exp(s / 4), lambda s: s * 1e200 - 1, lambda s: np.arctan(s / 10), lambda s: s - 1e6):
        after = pixel_measures([change(m) for m in maps], masks)
        assert astuple(after)[:3] == pytest.approx(astuple(before)[:3], abs=1e-12)
        assert after.aupro == pytest.approx(before.aupro, abs=1e-12)
        assert after.f1max_threshold == change(before.f1max_threshold)


def test_coarse_thresholds_touch_aupro_only() -> None:
    maps, masks = images([(50, 50)] * 4, 0.1, 1000, np.float32)
    exact, coarse = pixel_measures(maps, masks), pixel_measures(maps, masks, aupro_thresholds=50)
    assert (coarse.auroc, coarse.ap, coarse.f1max) == (exact.auroc, exact.ap, exact.f1max)
    assert coarse.aupro == aupro(maps, masks, thresholds=50) != exact.aupro
    assert coarse.aupro_thresholds == 50


def test_input_is_left_alone() -> None:
    maps, masks = images([(20, 20)] * 2, 0.5, 10, np.float32)
    copies = [m.copy() for m in maps], masks[1].copy()
    for array in (*maps, masks[1]):
        array.flags.writeable = False
    pixel_measures(maps, masks)
    assert all((a == b).all() for a, b in zip(maps, copies[0], strict=True))
    assert (masks[1] == copies[1]).all()


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_memory_stays_within_its_promise(share: float) -> None:
    maps, masks = images([(512, 512)] * 8, share, 10**6, np.float32)
    pixels = 8 * 512 * 512
    pixel_measures(maps[:2], masks[:2])  # imports are not counted
    tracemalloc.start()
    pixel_measures(maps, masks, threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    own = sum(m.nbytes for m in maps) + sum(m.nbytes for m in masks if m is not None)
    assert (peak + own) / pixels < 24


def test_missing_class_is_nan() -> None:
    maps = [np.arange(12.0).reshape(3, 4)]
    for masks in ([None], [np.ones((3, 4), bool)]):
        got = pixel_measures(maps, masks)
        assert all(math.isnan(v) for v in (got.auroc, got.ap, got.f1max, got.f1max_threshold, *got.aupro.values()))


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(0, 0), (5, 5)])  # in the defect, and outside
def test_non_finite_scores_are_found(broken: float, place: tuple[int, int]) -> None:
    scores, mask = np.zeros((8, 8), np.float32), np.zeros((8, 8), bool)
    mask[:2, :2] = True
    scores[place] = broken
    with pytest.raises(DatasetError, match=f"at row {place[0]}, column {place[1]} of map 1"):
        pixel_measures([np.zeros((4, 4)), scores], [None, mask])


def test_shapes_that_do_not_fit_are_named() -> None:
    scores = np.zeros((4, 4))
    with pytest.raises(DatasetError, match="1 maps and 2 masks"):
        pixel_measures([scores], [None, None])
    with pytest.raises(DatasetError, match="at least one map"):
        pixel_measures([], [])
    with pytest.raises(DatasetError, match=r"map 1 of shape \(4, 4\) float64 with mask \(2, 2\)"):
        pixel_measures([scores, scores], [None, np.ones((2, 2), bool)])
    with pytest.raises(DatasetError, match="map 0"):
        pixel_measures([np.zeros((1, 4, 4))], [None])
    with pytest.raises(DatasetError, match="real numbers"):
        pixel_measures([scores.astype(complex)], [None])
    with pytest.raises(SettingsError, match="limits"):
        pixel_measures([scores], [None], limits=(5,))


@pytest.mark.parametrize("levels", [3, 1000])
def test_counts_over_parts(levels: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, levels, 500).astype(np.float32)
    values = np.sort(rng.integers(-2, levels + 2, 40).astype(np.float32))
    pieces = [np.sort(p) for p in np.split(scores, [0, 3, 200])]
    less, up_to = SortedScores(pieces).counts(values)
    assert (less == (scores[None] < values[:, None]).sum(1)).all()
    assert (up_to == (scores[None] <= values[:, None]).sum(1)).all()
    assert (SortedScores(pieces).merged() == np.sort(scores)).all()
    for start, stop in ((0, 40), (7, 9), (13, 40)):
        assert (first_of_ties(values, start, stop) == values.searchsorted(values[start:stop])).all()
