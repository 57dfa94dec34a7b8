"""Components, morphology and blur without scipy, held against scipy.ndimage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn.functional import adaptive_max_pool2d, max_pool2d

from blemish.numeric import raster
from blemish.types import RGB, Features

EVERY_NEIGHBOUR = np.ones((3, 3), dtype=bool)
SHAPES = ((1, 1), (1, 9), (9, 1), (2, 2), (3, 7), (8, 8), (31, 17), (64, 90))


def spiral(side: int) -> np.ndarray:
    """One line that winds from the corner to the centre, a pixel apart from itself: one component of many runs."""
    mask = np.zeros((side, side), dtype=bool)
    top, left, bottom, right = 0, 0, side - 1, side - 1
    while top <= bottom and left <= right:
        mask[top, max(0, left - 1) : right + 1] = True
        mask[top : bottom + 1, right] = True
        mask[bottom, left : right + 1] = True
        mask[top + 2 : bottom + 1, left] = True
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2
    return mask


def masks() -> Iterator[np.ndarray]:
    """Masks of every size and density, smooth and noisy, and those that are special."""
    random = np.random.default_rng(0)
    for shape in SHAPES:
        yield np.zeros(shape, dtype=bool)
        yield np.ones(shape, dtype=bool)
        yield np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 2 == 0  # a chessboard
        yield np.arange(shape[0])[:, None] % 2 + np.zeros(shape) > 0  # lines
        yield np.arange(shape[1]) % 2 + np.zeros(shape) > 0
        for density in (0.05, 0.3, 0.45, 0.55, 0.6, 0.7, 0.95):
            yield random.random(shape) < density
            smooth = ndimage.gaussian_filter(random.normal(size=shape), 1.5)
            yield smooth < np.quantile(smooth, density)
    yield spiral(41)
    yield ~spiral(41)
    comb = np.zeros((20, 40), dtype=bool)  # teeth that only the last row joins: as many trees until then
    comb[:, ::2] = comb[-1] = True
    yield comb
    yield comb[::-1]
    yield np.zeros((0, 5), dtype=bool)
    yield np.zeros((5, 0), dtype=bool)


@pytest.mark.parametrize("diagonal", [False, True])
def test_labels_are_those_of_scipy_in_its_order(diagonal: bool) -> None:
    for mask in masks():
        expected, count = ndimage.label(mask, EVERY_NEIGHBOUR if diagonal else None)
        labels, found = raster.label(mask, diagonal)
        assert found == count
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, expected)


def test_labels_follow_the_first_pixels() -> None:
    mask = np.array([[0, 0, 1, 0, 1], [1, 0, 1, 0, 0], [1, 1, 1, 0, 1]], dtype=bool)
    labels, count = raster.label(mask)
    assert count == 3
    np.testing.assert_array_equal(labels, [[0, 0, 1, 0, 2], [1, 0, 1, 0, 0], [1, 1, 1, 0, 3]])


def test_a_view_of_a_larger_mask_is_labelled_like_its_copy() -> None:
    mask = np.random.default_rng(1).random((40, 50)) < 0.5
    for view in (mask[3:31, 5:44], mask[::-1, ::2], mask.T):
        np.testing.assert_array_equal(raster.label(view)[0], raster.label(view.copy())[0])


def test_boxes_are_those_of_scipy() -> None:
    for mask in masks():
        if not mask.size:  # scipy refuses these
            continue
        labels = ndimage.label(mask)[0]
        assert raster.find_objects(labels) == ndimage.find_objects(labels)


def test_boxes_of_labels_that_touch_or_are_missing() -> None:
    labels = np.random.default_rng(2).integers(0, 9, (12, 15))
    labels[(labels == 3) | (labels == 1)] = 0
    empty = (slice(0, 0), slice(0, 0))
    assert raster.find_objects(labels) == [box or empty for box in ndimage.find_objects(labels)]


@pytest.mark.parametrize("name", ["binary_dilation", "binary_erosion", "binary_closing", "binary_opening"])
@pytest.mark.parametrize("iterations", [1, 2, 3, 7])
def test_morphology_is_that_of_scipy_at_the_border_too(name: str, iterations: int) -> None:
    for mask in masks():
        expected = getattr(ndimage, name)(mask, iterations=iterations)
        before = mask.copy()
        np.testing.assert_array_equal(getattr(raster, name)(mask, iterations), expected)
        np.testing.assert_array_equal(mask, before)


def test_morphology_without_iterations_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        raster.binary_opening(np.ones((3, 3), dtype=bool), 0)


def test_filled_holes_are_those_of_scipy() -> None:
    for mask in masks():
        np.testing.assert_array_equal(raster.binary_fill_holes(mask), ndimage.binary_fill_holes(mask))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0, (2.5, 0.7, 0), (0, 3, 1e-16)])
def test_blur_is_that_of_scipy(sigma: float | tuple[float, ...], dtype: type) -> None:
    """Kernels longer than the array, too. Within one unit in the last place: compilers may fuse products and sums."""
    random = np.random.default_rng(3)
    for shape in ((1, 1, 1), (2, 3, 1), (5, 64, 3), (48, 64, 2)):
        values = random.normal(100, 50, shape).astype(dtype)
        before = values.copy()
        blurred = raster.gaussian_filter(values, sigma)
        assert blurred.dtype == dtype
        expected = ndimage.gaussian_filter(values, sigma)
        if dtype is np.float32:
            np.testing.assert_array_max_ulp(blurred, expected, 1)
        else:
            np.testing.assert_allclose(blurred, expected, rtol=1e-13)
        np.testing.assert_array_equal(values, before)


def test_a_blur_of_nothing_is_a_copy() -> None:
    values = np.ones((4, 4), dtype=np.float32)
    blurred = raster.gaussian_filter(values, 0)
    blurred[0] = 0
    assert values.all()


def blobs(height: int, width: int, size: float) -> np.ndarray:
    noise = np.random.default_rng(4).normal(size=(height // 8, width // 8))
    smooth = ndimage.zoom(ndimage.gaussian_filter(noise, size), 8, order=1)
    return smooth > np.quantile(smooth, 0.85)


def fastest(task: Callable[[], object], repeats: int = 5) -> float:
    """The shortest of some times of this thread, in seconds of its own work."""
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        task()
        times.append(time.thread_time() - start)
    return min(times)


@pytest.mark.slow
def test_a_large_mask_is_labelled_about_as_fast_as_by_scipy() -> None:
    mask = blobs(2000, 3000, 2)
    labels, count = raster.label(mask, diagonal=True)
    assert count > 100
    for ours, theirs in (
        (lambda: raster.label(mask, diagonal=True), lambda: ndimage.label(mask, EVERY_NEIGHBOUR)),
        (lambda: raster.find_objects(labels), lambda: ndimage.find_objects(labels)),
        (lambda: raster.binary_fill_holes(mask), lambda: ndimage.binary_fill_holes(mask)),
        (lambda: raster.binary_opening(mask, 3), lambda: ndimage.binary_opening(mask, iterations=3)),
    ):
        assert fastest(ours) < 6 * fastest(theirs)


@pytest.mark.parametrize("shape", [(12, 15), (12, 15, 3), (2, 3, 3)])
@pytest.mark.parametrize("side", [1, 3, 5])
def test_ranges_are_those_of_scipy(shape: tuple[int, ...], side: int) -> None:
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    window = (side, side, 1)[: len(shape)]
    low, high = raster.window_range(values, side)
    np.testing.assert_array_equal(low, ndimage.minimum_filter(values, window))
    np.testing.assert_array_equal(high, ndimage.maximum_filter(values, window))


def test_a_box_holds_the_mask_and_a_margin_inside_the_image() -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:7, 28] = True
    inside = np.zeros_like(mask)
    inside[raster.box_around(mask, 3)] = True
    expected = np.zeros_like(mask)
    expected[2:10, 25:] = True
    np.testing.assert_array_equal(inside, expected)
    assert mask[raster.box_around(np.zeros_like(mask), 3)].shape == mask.shape


@pytest.mark.parametrize("grid", [(8, 8), (7, 5), (1, 1), (16, 3)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.4, 1.0])
def test_ignored_patches_are_those_of_torchs_pooling(grid: tuple[int, int], share: float) -> None:
    pixels = np.random.default_rng(0).random((40, 33)) < share
    touched = adaptive_max_pool2d(torch.from_numpy(pixels)[None, None].float(), grid)  # (1, 1, h, w)
    grown = max_pool2d(touched, 3, stride=1, padding=1)  # (1, 1, h, w)
    expected = (touched if grown.min() > 0 else grown)[0, 0] > 0  # (h, w)
    assert np.array_equal(raster.ignored_patches(pixels, grid), expected.numpy())
    features = Features({RGB: (torch.zeros(1, *grid, 2),)}).with_ignored(pixels)
    found = features.ignored_on(grid)
    assert found is not None
    assert torch.equal(found[0], expected)
