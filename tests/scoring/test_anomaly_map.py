from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from scipy.ndimage import gaussian_filter

from blemish.scoring.anomaly_map import axis_operator, centroid, full_map, map_peak, regions


def bilinear(patches: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """torch's bilinear upsampling with half-pixel centres: the oracle."""
    import torch

    tensor = torch.from_numpy(patches)[None, None].double()
    return torch.nn.functional.interpolate(tensor, size, mode="bilinear", align_corners=False)[0, 0].numpy()


GRIDS = [((4, 6), (40, 60)), ((7, 5), (31, 83)), ((1, 3), (9, 10)), ((8, 8), (8, 8))]


@pytest.mark.parametrize(("grid", "size"), GRIDS)
def test_without_blur_it_is_bilinear_upsampling(grid: tuple[int, int], size: tuple[int, int]) -> None:
    patches = np.random.default_rng(0).random(grid).astype(np.float32)
    made = full_map(patches, size, size, blur=0)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, bilinear(patches, size), atol=1e-6)


def test_blur_is_a_gaussian_of_the_upsampled_map() -> None:
    patches = np.random.default_rng(1).random((6, 8)).astype(np.float32)
    wanted = gaussian_filter(bilinear(patches, (84, 112)), 4.0, mode="nearest", truncate=4.0)
    np.testing.assert_allclose(full_map(patches, (84, 112), (84, 112), blur=4.0), wanted, atol=1e-5)


def test_blur_grows_with_the_image() -> None:
    """The same part photographed at twice the size gives the same map, only larger."""
    patches = np.random.default_rng(2).random((6, 6)).astype(np.float32)
    small, large = full_map(patches, (84, 84), (84, 84)), full_map(patches, (84, 84), (168, 168))
    np.testing.assert_allclose(large.reshape(84, 2, 84, 2).mean(axis=(1, 3)), small, atol=5e-3)


@pytest.mark.parametrize("size", [(13, 400), (224, 224), (2, 2)])
def test_a_constant_stays_constant_and_nothing_leaves_the_range(size: tuple[int, int]) -> None:
    np.testing.assert_allclose(full_map(np.full((5, 7), 0.3), (70, 98), size), 0.3, rtol=1e-5)
    patches = np.random.default_rng(3).random((5, 7)).astype(np.float32)
    made = full_map(patches, (70, 98), size)
    assert made.shape == size
    assert made.min() >= patches.min() - 1e-6
    assert made.max() <= patches.max() + 1e-6


def test_huge_images_use_a_stepped_kernel_that_is_as_good() -> None:
    exact = ndimage.gaussian_filter1d(axis_operator(32, 20_000, 0).astype(np.float64), 178.0, axis=0, mode="nearest")
    np.testing.assert_allclose(axis_operator(32, 20_000, 178.0), exact, atol=2e-3)


def test_a_512_map_takes_milliseconds() -> None:
    patches = np.random.default_rng(4).random((32, 32)).astype(np.float32)
    full_map(patches, (448, 448), (512, 512))
    quickest = min(_seconds(patches) for _ in range(5))
    assert quickest < 0.05


def _seconds(patches: np.ndarray) -> float:
    start = time.process_time()
    full_map(patches, (448, 448), (512, 512))
    return time.process_time() - start


def test_a_shifted_frame_lands_where_it_belongs() -> None:
    patches = np.zeros((8, 8), dtype=np.float32)
    patches[4, 2] = 1
    size = (64, 64)
    plain = full_map(patches, size, size)
    shift = np.array([[1.0, 0, 10], [0, 1, 5]])  # the frame's pixel (x, y) is the image's (x + 10, y + 5)
    moved = full_map(patches, size, (100, 120), to_image=shift)
    assert moved.shape == (100, 120)
    np.testing.assert_allclose(moved[5:69, 10:74], plain, atol=1e-6)
    outside = moved.copy()
    outside[5:69, 10:74] = 0
    assert not outside.any()


def test_a_turned_frame_is_turned_back() -> None:
    patches = np.random.default_rng(5).random((8, 8)).astype(np.float32)
    quarter = np.array([[0.0, -1, 64], [1, 0, 0]])  # a quarter turn of a 64 × 64 frame
    turned = full_map(patches, (64, 64), (64, 64), to_image=quarter)
    np.testing.assert_allclose(turned, np.rot90(full_map(patches, (64, 64), (64, 64)), -1), atol=1e-5)


def test_map_peak_is_the_maximum_of_the_map() -> None:
    patches = np.random.default_rng(6).random((6, 9)).astype(np.float32)
    assert map_peak(patches, (84, 126)) == full_map(patches, (84, 126), (84, 126)).max()


def test_regions_are_the_connected_areas() -> None:
    scores = np.zeros((50, 80), dtype=np.float32)
    scores[10:15, 20:30] = 0.6
    scores[12, 25] = 0.9
    scores[40:44, 70:74] = 2.0
    scores[0, 0] = 3.0
    strongest, other = regions(scores, 0.5, smallest=2 / scores.size)
    assert strongest.box == (70, 40, 74, 44)
    assert (strongest.area, strongest.peak, strongest.centroid) == (16, 2.0, (71.5, 41.5))
    assert other.box == (20, 10, 30, 15)
    assert other.area == 50
    assert other.mean == pytest.approx((49 * 0.6 + 0.9) / 50)
    assert regions(scores, 0.5, peak_threshold=1.0, smallest=2 / scores.size) == (strongest,)
    assert regions(scores, 9.0) == ()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (97, 211), (1500, 2100)])
def test_a_centroid_is_bit_for_bit_the_mean_of_all_places(size: tuple[int, int], share: float) -> None:
    random = np.random.default_rng(4)
    inside = random.random(size) < share
    inside[random.integers(size[0]), random.integers(size[1])] = True
    ys, xs = np.nonzero(inside)
    assert centroid(inside) == (float(xs.mean()), float(ys.mean()))
    assert centroid(inside[::-1, ::-1]) == (float((size[1] - 1 - xs).mean()), float((size[0] - 1 - ys).mean()))


def test_a_large_region_takes_no_more_memory_than_its_pixels() -> None:
    inside = np.ones((2000, 2000), dtype=bool)
    tracemalloc.start()
    try:
        centroid(inside)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < inside.size  # bytes; places of all pixels take 16 each


def test_regions_agree_with_labelling_the_whole_map() -> None:
    scores = gaussian_filter(np.random.default_rng(8).random((60, 70)), 2).astype(np.float32)
    limit = float(np.quantile(scores, 0.8))
    found = regions(scores, limit, smallest=0)
    labels, count = ndimage.label(scores >= limit, structure=np.ones((3, 3)))
    assert len(found) == count
    assert sum(r.area for r in found) == (scores >= limit).sum()
    assert sorted(r.peak for r in found) == sorted(ndimage.maximum(scores, labels, range(1, count + 1)))


def test_corners_that_touch_are_one_region() -> None:
    scores = np.kron(np.eye(2), np.ones((3, 3))).astype(np.float32)
    assert len(regions(scores, 0.5)) == 1
