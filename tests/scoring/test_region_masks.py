"""Masks of regions: each its own pixels, also where one lies inside the box of another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from blemish.scoring.anomaly_map import regions
from blemish.scoring.region_masks import region_masks


@pytest.mark.parametrize("seed", range(3))
def test_masks_are_the_components_above_the_threshold(seed: int, predict: Any) -> None:
    scores = np.random.default_rng(seed).random((24, 30)).astype(np.float32)
    found = regions(scores, 0.8, 0.9, smallest=2 / scores.size)
    masks = region_masks(replace(predict(), map=scores, regions=found, region_threshold=0.8))
    assert len(found) > 3
    assert masks.sum(axis=0).max() == 1
    assert (scores[masks.any(axis=0)] >= 0.8).all()
    for mask, region in zip(masks, found, strict=True):
        ys, xs = np.nonzero(mask)
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == region.box
        assert (mask.sum(), scores[mask].max()) == (region.area, region.peak)


def test_a_region_inside_the_box_of_another_is_not_part_of_it(predict: Any) -> None:
    scores = np.zeros((20, 20), np.float32)
    scores[2:18, 2:18], scores[4:16, 4:16] = 1, 0  # a frame
    scores[8:12, 8:12] = 1  # and a square inside, as high
    found = regions(scores, 0.5)
    masks = region_masks(replace(predict(), map=scores, regions=found, region_threshold=0.5))
    assert sorted(mask.sum() for mask in masks) == [16, 112]


def test_without_regions_there_are_no_masks(predict: Any) -> None:
    assert region_masks(predict(size=(9, 7))).shape == (0, 9, 7)
