from __future__ import annotations

from collections import deque
from itertools import product

import numpy as np
import pytest
from scan_parts import heights, points_of, rotation

from blemish.data.points import measured, resize_points
from blemish.preprocessing.ground_removal import (
    GAP,
    border_plane,
    keep_clusters,
    pad_square,
    remove_plane,
    square_margins,
)

BAND = 0.005


@pytest.mark.parametrize("side", [64, 128, 300])
@pytest.mark.parametrize("tilt", [(0.0, 0.0), (0.3, -0.1), (-0.8, 0.5)])
def test_the_plane_goes_and_what_stands_on_it_stays(side: int, tilt: tuple[float, float]) -> None:
    height = heights(side, top=0.03)
    points = points_of(height, tilt, noise=3e-4, holes=0.1, seed=side)
    before = points.copy()
    left = measured(remove_plane(points, BAND))
    there = measured(points)
    assert np.array_equal(points, before, equal_nan=True)
    assert not left[~there].any()
    assert left[there & (height > BAND + 0.002)].all()
    assert not left[there & (height < BAND - 0.002)].any()


def test_points_that_stay_are_unchanged_and_the_answer_is_seeded() -> None:
    points = points_of(heights(100, top=0.03), (0.2, 0.1), noise=3e-4)
    once, again = remove_plane(points), remove_plane(points)
    left = measured(once)
    assert np.array_equal(once[left], points[left])
    assert np.array_equal(once, again, equal_nan=True)


@pytest.mark.parametrize("seed", range(4))
def test_the_frame_of_coordinates_does_not_matter(seed: int) -> None:
    height = heights(120, top=0.03)
    points = points_of(height, noise=2e-4)
    turned = (points @ rotation(seed).T + np.array([0.1, -0.3, 0.7])).astype(np.float32)
    left = measured(remove_plane(turned))
    clear = abs(height - BAND) > 1e-3
    assert np.array_equal(left[clear], (height > BAND)[clear])


@pytest.mark.parametrize(("rows", "columns", "low"), [(20, 60, 0.002), (30, 160, 0.004), (60, 60, 0.004)])
@pytest.mark.parametrize("seed", range(3))
def test_the_plane_is_exact(rows: int, columns: int, low: float, seed: int) -> None:
    """Although something lies on the border that is within the band."""
    height = heights(160, top=0.03)
    height[:rows, :columns] = low
    tilt = (0.2, -0.3)
    found = border_plane(points_of(height, tilt, noise=3e-4, seed=seed), BAND, seed)
    assert found is not None
    centre, normal, noise = found
    truth = np.array([-tilt[0], -tilt[1], 1]) / np.sqrt(1 + tilt[0] ** 2 + tilt[1] ** 2)
    assert abs(normal @ truth) > np.cos(np.deg2rad(0.1))
    assert abs((centre - (0, 0, 0.4)) @ truth) < 1e-4
    assert noise == pytest.approx(3e-4, rel=0.4)


def test_a_low_part_narrows_the_band() -> None:
    """A plate of 4 mm would be gone whole with a band of 5 mm."""
    height = heights(150, top=0.004, box=True)
    left = measured(remove_plane(points_of(height, (0.1, 0.2), noise=1e-4), BAND))
    assert np.array_equal(left, height > 0)


def test_a_thin_plate_with_a_high_rib_keeps_its_plate() -> None:
    height = heights(150, top=0.003, box=True)
    height[60:70, 40:110] = 0.02
    left = measured(remove_plane(points_of(height, (0.1, 0.2), noise=1e-4), BAND))
    assert np.array_equal(left, height > 0)


def test_a_bent_ground_goes_as_well() -> None:
    down, across = np.mgrid[:120, :120] / 60 - 1
    bow = 0.001 * (down**2 + across**2)
    height = heights(120, top=0.03)
    left = measured(remove_plane(points_of(height + bow, (0.1, 0.2), noise=1e-4), BAND))
    assert left[height > 0.007].all()
    assert left[height == 0].mean() < 0.01


def test_a_part_that_crosses_the_border_does_not_tilt_the_plane() -> None:
    height = heights(120, top=0.03, box=True)
    height[:, :25] = height.max()
    points = points_of(height, (0.1, 0.3), noise=2e-4)
    left = measured(remove_plane(points))
    assert np.array_equal(left, height > 0)


def dome_without_ground() -> np.ndarray:
    points = points_of(heights(80, top=0.03))
    points[heights(80, top=0.03) == 0] = np.nan
    return points


def ball_that_fills_the_image() -> np.ndarray:
    down, across = np.mgrid[:80, :80] / 80 - 0.5
    return points_of(0.3 * np.cos(3 * down) * np.cos(3 * across))


def sheet_alone() -> np.ndarray:
    return points_of(np.zeros((80, 80)), (0.1, 0.0), noise=3e-4)


def two_levels() -> np.ndarray:
    """Half of the border lies on one plane, half on another."""
    height = np.zeros((80, 80))
    height[:, 40:] = 0.1
    return points_of(height)


@pytest.mark.parametrize("scene", [dome_without_ground, ball_that_fills_the_image, sheet_alone, two_levels])
def test_where_there_is_no_ground_nothing_goes(scene) -> None:
    points = scene()
    assert np.array_equal(remove_plane(points), points, equal_nan=True)


def test_hardly_any_points() -> None:
    points = np.full((9, 9, 3), np.nan, np.float32)
    for filled in (0, 1, 3):
        points[0, :filled] = (0.1, 0.2, 0.3)
        assert np.array_equal(remove_plane(points), points, equal_nan=True)
        assert np.array_equal(keep_clusters(points), points, equal_nan=True)


def clusters_by_search(points: np.ndarray, limit: float) -> np.ndarray:
    """The size of the cluster each point belongs to, `(H, W)`, found by walking from neighbour to neighbour."""
    there = measured(points)
    sizes = np.zeros(there.shape, int)
    for start in zip(*np.nonzero(there), strict=True):
        if sizes[start]:
            continue
        members, waiting = {start}, deque([start])
        while waiting:
            row, column = waiting.popleft()
            for down, across in product((-1, 0, 1), repeat=2):
                place = (row + down, column + across)
                inside = 0 <= place[0] < there.shape[0] and 0 <= place[1] < there.shape[1]
                near = inside and there[place] and np.linalg.norm(points[place] - points[row, column]) <= limit
                if near and place not in members:
                    members.add(place)
                    waiting.append(place)
        for member in members:
            sizes[member] = len(members)
    return sizes


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_those_of_a_search(seed: int) -> None:
    random = np.random.default_rng(seed)
    height = random.choice([0.0, 0.3], size=(24, 30), p=[0.8, 0.2])  # flying points, some of them side by side
    points = points_of(height, holes=0.3, seed=seed)
    there = measured(points)
    steps = np.concatenate([np.linalg.norm(np.diff(points, axis=axis), axis=-1).ravel() for axis in (0, 1)])
    sizes = clusters_by_search(points, GAP * np.nanmedian(steps))
    speck = 8 / there.size
    kept = measured(keep_clusters(points, speck))
    assert np.array_equal(kept, there & ((sizes > 8) | (sizes == sizes.max())))
    assert kept.sum() < there.sum()


def test_a_crumb_beside_the_part_stays_and_a_flying_point_goes() -> None:
    height = heights(200, top=0.03)
    height[10:22, 10:22] = 0.01
    height[10:12, 180:182] = 0.05
    left = measured(keep_clusters(remove_plane(points_of(height, noise=1e-4))))
    assert left[10:22, 10:22].all()
    assert not left[10:12, 180:182].any()
    assert left[100, 100]


@pytest.mark.parametrize("size", [(5, 8), (8, 5), (6, 6), (1, 4)])
def test_padding_keeps_the_middle(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    points = random.random((*size, 3), dtype=np.float32)
    mask = np.ones(size, bool)
    (above, below), (left, right) = square_margins(*size)
    side = max(size)
    inner = (slice(above, side - below), slice(left, side - right))
    assert pad_square(image).shape == (side, side, 3)
    assert np.array_equal(pad_square(image)[inner], image)
    assert np.array_equal(pad_square(image)[0, 0], image[0, 0])
    padded = pad_square(points, fill=np.nan)
    assert np.array_equal(padded[inner], points)
    assert measured(padded).sum() == size[0] * size[1]
    assert pad_square(mask, fill=0).sum() == mask.sum()
    assert pad_square(mask, fill=0).dtype == bool


def test_resizing_makes_no_point_up() -> None:
    points = points_of(heights(31, top=0.02), holes=0.2)
    for size in ((31, 31), (7, 9), (50, 64), (93, 62)):
        resized = resize_points(points, size)
        assert resized.shape == (*size, 3)
        known = {tuple(p) for p in points[measured(points)]}
        assert {tuple(p) for p in resized[measured(resized)]} <= known
    thrice = resize_points(points, (93, 93))
    assert np.array_equal(thrice[1::3, 1::3], points, equal_nan=True)
    assert np.array_equal(resize_points(thrice, (31, 31)), points, equal_nan=True)
