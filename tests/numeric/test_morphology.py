"""numeric/morphology.py beside scipy.ndimage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from blemish.numeric.morphology import box_around, closed, dilated, eroded, filled, window_range


def masks() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    found = [random.random((h, w)) < share for h, w, share in ((17, 23, 0.4), (40, 9, 0.6), (2, 2, 0.5), (30, 30, 0.9))]
    return [*found, np.zeros((5, 6), dtype=bool), np.ones((5, 6), dtype=bool), np.eye(8, dtype=bool)]


@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("times", [1, 2, 3])
def test_masks_grow_and_shrink_as_scipys_do(mask: np.ndarray, times: int) -> None:
    before = mask.copy()
    np.testing.assert_array_equal(dilated(mask, times), ndimage.binary_dilation(mask, iterations=times))
    np.testing.assert_array_equal(eroded(mask, times), ndimage.binary_erosion(mask, iterations=times))
    np.testing.assert_array_equal(closed(mask, times), ndimage.binary_closing(mask, iterations=times))
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize("mask", masks())
def test_holes_are_filled_as_by_scipy(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(filled(mask), ndimage.binary_fill_holes(mask))


@pytest.mark.parametrize("shape", [(12, 15), (12, 15, 3), (2, 3, 3)])
@pytest.mark.parametrize("side", [1, 3, 5])
def test_ranges_are_those_of_scipy(shape: tuple[int, ...], side: int) -> None:
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    window = (side, side, 1)[: len(shape)]
    low, high = window_range(values, side)
    np.testing.assert_array_equal(low, ndimage.minimum_filter(values, window))
    np.testing.assert_array_equal(high, ndimage.maximum_filter(values, window))


def test_a_box_holds_the_mask_and_a_margin_inside_the_image() -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:7, 28] = True
    inside = np.zeros_like(mask)
    inside[box_around(mask, 3)] = True
    expected = np.zeros_like(mask)
    expected[2:10, 25:] = True
    np.testing.assert_array_equal(inside, expected)
    assert mask[box_around(np.zeros_like(mask), 3)].shape == mask.shape
