"""AUPRO and sPRO against a walk over every threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metric_oracles import area, coarse_area, curve

from blemish.errors import DatasetError, SettingsError
from blemish.metrics import aupro, spro

LIMITS = (1.0, 0.3, 0.05, 0.01, 0.001)


def parts(seed: int, levels: int | None, share: float = 0.15) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Three small images of different sizes with speckled defects; scores quantised to `levels` where given."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for size in ((9, 7), (6, 12), (5, 5)):
        mask = rng.random(size) < share
        scores = rng.normal(size=size) + 1.5 * mask
        maps.append(scores if levels is None else np.round(scores * levels) / levels)
        masks.append(mask)
    return maps, masks


@pytest.mark.parametrize("levels", [None, 4, 1])
@pytest.mark.parametrize("share", [0.02, 0.15, 0.8])
@pytest.mark.parametrize("seed", range(4))
def test_exact_equals_every_threshold(seed: int, levels: int | None, share: float) -> None:
    maps, masks = parts(seed, levels, share)
    if not any(mask.any() for mask in masks):
        pytest.skip("this draw has no defect")
    x, y = curve(maps, masks)
    got = aupro(maps, masks, LIMITS)
    assert got == pytest.approx({limit: area(x, y, limit) for limit in LIMITS}, abs=1e-12)


@pytest.mark.parametrize("scale", [lambda s: s - 1e4, lambda s: s * 1e250, lambda s: np.exp(s), lambda s: s * 1e-250])
def test_range_of_scores_does_not_matter(scale) -> None:
    maps, masks = parts(0, 3)
    assert aupro([scale(m) for m in maps], masks) == pytest.approx(aupro(maps, masks), abs=1e-12)


def test_a_limit_that_is_named_twice_counts_once() -> None:
    maps, masks = parts(0, 3)
    assert aupro(maps, masks, (0.3, 0.3)) == aupro(maps, masks, (0.3,))


def test_perfect_constant_and_inverted_maps() -> None:
    mask = np.zeros((20, 20), bool)
    mask[3:6, 3:9] = True
    assert aupro([mask.astype(float)], [mask], LIMITS) == dict.fromkeys(LIMITS, 1.0)
    constant = aupro([np.ones((20, 20))], [mask], LIMITS)
    assert constant == pytest.approx({limit: limit / 2 for limit in LIMITS})  # the straight line from (0, 0) to (1, 1)
    assert aupro([-mask.astype(float)], [mask], (0.5, 1.0)) == dict.fromkeys((0.5, 1.0), 0.0)


def test_diagonal_neighbours_are_one_region() -> None:
    mask = np.zeros((6, 6), bool)
    mask[0, 0] = mask[1, 1] = mask[2, 2] = True  # one region by corners, touching the edge
    mask[5, 5] = True  # another, in the corner
    scores = np.zeros((6, 6))
    scores[5, 5] = 1
    assert aupro([scores], [mask], (0.1,))[0.1] == pytest.approx(0.5 + 0.5 * 0.05)
    scores[5, 5], scores[0, 0] = 0, 1
    assert aupro([scores], [mask], (0.1,))[0.1] == pytest.approx(1 / 6 + 5 / 6 * 0.05)


def test_regions_do_not_join_over_images_nor_over_the_edge() -> None:
    left, right = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    left[:, 0] = left[:, 3] = right[:, 0] = True
    scores = [np.zeros((4, 4)), right.astype(float)]
    one_of_three = aupro(scores, [left, right], (1e-9,))[1e-9]
    assert one_of_three == pytest.approx(1 / 3)


def test_small_region_counts_as_much_as_a_large_one() -> None:
    mask = np.zeros((30, 30), bool)
    mask[:20, :20] = mask[25, 25] = True
    scores = np.zeros((30, 30))
    scores[25, 25] = 2
    assert aupro([scores], [mask], (1e-9,))[1e-9] == pytest.approx(0.5)


def test_no_region_or_no_good_pixel_is_nan() -> None:
    scores = np.random.default_rng(0).random((4, 4))
    for masks in ([None], [np.zeros((4, 4), bool)], [np.ones((4, 4), bool)]):
        for thresholds in (None, 10):
            assert all(math.isnan(v) for v in aupro([scores], masks, thresholds=thresholds).values())


@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("thresholds", [2, 7, 99])
def test_coarse_equals_its_definition(levels: int | None, thresholds: int) -> None:
    maps, masks = parts(5, levels)
    got = aupro(maps, masks, LIMITS, thresholds=thresholds)
    expected = {limit: coarse_area(maps, masks, limit, thresholds) for limit in LIMITS}
    assert got == pytest.approx(expected, abs=1e-12)


def test_few_thresholds_understate_the_low_limits() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((200, 200), bool)
    mask[50:80, 50:80] = True
    scores = rng.normal(size=mask.shape) + 3 * mask
    exact, coarse = aupro([scores], [mask]), aupro([scores], [mask], thresholds=100)
    fine = aupro([scores], [mask], thresholds=20_000)
    assert coarse[0.01] < exact[0.01] - 0.1
    assert coarse[0.3] == pytest.approx(exact[0.3], abs=0.01)
    assert fine == pytest.approx(exact, abs=1e-3)


def test_spro_without_saturation_is_aupro() -> None:
    maps, masks = parts(3, 4, share=0.05)
    single = [np.zeros_like(masks[0]) for _ in range(2)]
    single[0][2:4, 2:4], single[1][7, 5] = True, True
    whole = single[0] | single[1]
    regions = [single, [], []]
    expected = aupro(maps, [whole, None, None], LIMITS)
    for saturations in ([math.inf, math.inf], [4, 1]):
        assert spro(maps, regions, [saturations, [], []], LIMITS) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("saturation", [1, 2.5, 6, 1000])
@pytest.mark.parametrize("levels", [None, 2])
def test_spro_equals_every_threshold(saturation: float, levels: int | None) -> None:
    maps, _ = parts(4, levels)
    mask = np.zeros_like(maps[0], bool)
    mask[1:4, 2:6] = mask[7, 1] = True
    boxes = [np.zeros_like(mask), np.zeros_like(mask)]
    boxes[0][1:4, 2:6], boxes[1][7, 1] = True, True
    x, y = curve(maps, [mask, np.zeros_like(maps[1], bool), np.zeros_like(maps[2], bool)], saturation)
    got = spro(maps, [boxes, [], []], [[saturation] * 2, [], []], LIMITS)
    assert got == pytest.approx({limit: area(x, y, limit) for limit in LIMITS}, abs=1e-12)


def test_spro_region_may_be_in_pieces() -> None:
    mask = np.zeros((5, 5), bool)
    mask[0, 0] = mask[4, 4] = True
    scores = np.zeros((5, 5))
    scores[0, 0] = 1
    assert spro([scores], [[mask]], [[1]], (1e-9,))[1e-9] == pytest.approx(1)
    assert spro([scores], [[mask]], [[2]], (1e-9,))[1e-9] == pytest.approx(0.5)


def test_impossible_settings_are_named() -> None:
    scores, mask = np.zeros((3, 3)), np.eye(3, dtype=bool)
    for limits in ((0.0,), (30,), (-0.1,), (math.nan,)):
        with pytest.raises(SettingsError, match="write 30 % as 0"):
            aupro([scores], [mask], limits)
    with pytest.raises(SettingsError, match="at least 2"):
        aupro([scores], [mask], thresholds=1)
    with pytest.raises(SettingsError, match="saturation"):
        spro([scores], [[mask]], [[0]])
    with pytest.raises(SettingsError, match="saturation"):
        spro([scores], [[mask]], [[1, 2]])
    with pytest.raises(DatasetError, match="one size"):
        spro([scores], [[mask, np.eye(4, dtype=bool)]], [[1, 2]])
