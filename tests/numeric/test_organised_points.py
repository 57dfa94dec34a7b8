"""Normals against known surfaces and numpy's eigenvectors, box means against loops, choices on the grid."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.numeric.organised_points import (
    BoxMeans,
    any_valid,
    at_offsets,
    disc,
    enlarged,
    extent,
    farthest,
    measured,
    normals_at,
    patch_means,
    principal,
    representatives,
    resampled,
    spacing,
)


def ball(side: int = 40, radius: float = 0.05) -> np.ndarray:
    """The side of a ball that is seen from the origin, `(side, side, 3)`; beyond its edge nothing was measured."""
    y, x = (np.mgrid[0:side, 0:side] - (side - 1) / 2) * (2 * radius / side)
    with np.errstate(invalid="ignore"):
        return np.stack([x, y, 0.5 - np.sqrt(radius**2 - x**2 - y**2)], axis=-1)


def test_spacing_is_the_median_step() -> None:
    y, x = np.mgrid[0:5, 0:6] * 0.25
    points = np.stack([x, y, np.zeros_like(x)], axis=-1)
    points[2, 2] = np.nan
    assert spacing(points) == 0.25
    assert spacing(np.full((4, 4, 3), np.nan)) == 0
    assert spacing(np.zeros((1, 1, 3))) == 0


def test_a_repeated_point_is_no_neighbour_of_itself() -> None:
    y, x = np.mgrid[0:5, 0:6] * 0.25
    points = np.stack([x, y, np.zeros_like(x)], axis=-1)
    assert spacing(points.repeat(3, axis=0).repeat(3, axis=1)) == 0.25
    assert spacing(np.zeros((4, 4, 3))) == 0


@pytest.mark.parametrize("size", [(80, 80), (101, 97), (300, 320), (40, 40)])
def test_points_on_a_finer_grid_are_those_of_the_surface(size: tuple[int, int]) -> None:
    points = ball()
    points[10:14, 20:23] = np.nan
    points[:, :15] += (0, 0, 0.2)  # a step in depth
    found = enlarged(points, size)
    places = [(np.arange(fine) + 0.5) * 40 / fine - 0.5 for fine in size]
    down, across = np.meshgrid(*places, indexing="ij")
    assert found.dtype == np.float32
    assert found == pytest.approx(resampled(points, across, down), abs=1e-6, nan_ok=True)
    nearest = points[np.rint(down).astype(int), np.rint(across).astype(int)]
    assert np.array_equal(measured(found), measured(nearest))  # holes stay
    z = found[..., 2][measured(found)]
    assert not ((z > points[:, 15:, 2][measured(points[:, 15:])].max()) & (z < points[:, :15, 2].min())).any()


def test_a_disc_holds_one_of_each_two_opposite_offsets() -> None:
    half = {tuple(offset) for offset in disc(3.5)}
    everything = {(r, c) for r in range(-3, 4) for c in range(-3, 4) if 0 < r * r + c * c <= 3.5**2}
    assert half | {(-r, -c) for r, c in half} == everything
    assert not half & {(-r, -c) for r, c in half}


def test_a_thinned_disc_reaches_everywhere() -> None:
    half = disc(12, most=48)
    assert 20 <= len(half) <= 48
    both = np.concatenate([half, -half])
    assert np.array_equal(np.unique(both, axis=0), both[np.lexsort(both.T[::-1])])  # each once
    assert (np.hypot(*both.T) <= 12.8).all()
    assert (
        np.abs((np.hypot(*both.T) < 12 / np.sqrt(2)).mean() - 0.5) < 0.1
    )  # as many inside as outside of half the area
    quadrants = np.unique((both[:, 0] > 0) * 2 + (both[:, 1] > 0), return_counts=True)[1]
    assert quadrants.min() > 0.6 * quadrants.max()


def test_what_lies_at_offsets_is_empty_off_the_grid() -> None:
    grid = np.arange(12).reshape(3, 4)
    found = at_offsets(grid, np.array([0, 1]), np.array([0, 3]), np.array([[1, 1], [-1, 0], [0, 2]]), -1)
    assert found.tolist() == [[5, -1, 2], [-1, 3, -1]]


def test_representatives_are_valid_and_nearest_to_the_middle() -> None:
    valid = np.random.default_rng(0).random((9, 12)) < 0.2
    valid[:3, :3] = [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    valid[3:6, :3] = [[1, 0, 1], [1, 1, 1], [1, 0, 1]]
    rows, columns = representatives(valid, 3)
    assert valid[rows, columns].all()
    assert len(set(zip(rows // 3, columns // 3, strict=True))) == len(rows) == any_valid(valid, 3).sum()
    assert (rows[columns < 3][:2].tolist(), columns[columns < 3][:2].tolist()) == ([0, 4], [0, 1])


@pytest.mark.parametrize("spread", [(1, 1, 1), (1, 1, 1e-3), (1, 1e-2, 1e-3), (1e-6, 1, 0.3)])
def test_principal_is_what_numpy_finds(spread: tuple[float, float, float]) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(200, 9, 3)) * spread @ np.linalg.qr(random.normal(size=(3, 3)))[0]
    matrices = np.swapaxes(vectors, 1, 2) @ vectors
    values, axis = principal(matrices[:, (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)].T)
    expected, vectors = np.linalg.eigh(matrices)
    np.testing.assert_allclose(values.T, expected, atol=1e-7 * expected.max())
    agreement = np.abs((axis.T * vectors[:, :, 0]).sum(axis=1))
    assert (agreement > 1 - 1e-6).all()


def test_principal_knows_what_is_not_determined() -> None:
    point, line = np.zeros(6), np.array([1.0, 1, 0, 1, 0, 0])
    values, axis = principal(np.stack([point, line], axis=1))
    assert not axis.any()
    np.testing.assert_allclose(values.T, [[0, 0, 0], [0, 0, 2]], atol=1e-7)


@pytest.mark.parametrize("mirrored", [False, True])
def test_normals_of_a_ball_point_away_from_its_middle(mirrored: bool) -> None:
    points = ball()
    if mirrored:  # rows upwards and depth towards the viewer, as right-handed as before
        points = points * (1, -1, -1)
    rows, columns = np.nonzero(measured(points))
    normals = normals_at(points, rows, columns, 2, 1)
    true = points[rows, columns] - (0, 0, -0.5 if mirrored else 0.5)
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    inner = np.abs(true[:, 2]) > 0.7
    assert ((normals * true).sum(axis=1)[inner] > 0.999).all()
    assert ((normals * true).sum(axis=1) > 0).all()


def test_points_out_of_reach_do_not_bend_normals() -> None:
    y, x = np.mgrid[0:12, 0:12] * 1e-3
    points = np.stack([x, y, np.where(x < 0.006, 0.5, 0.4)], axis=-1)
    rows, columns = (places.ravel() for places in np.mgrid[0:12, 0:12])
    normals = normals_at(points, rows, columns, 3, 0.01)
    np.testing.assert_allclose(normals, np.broadcast_to([0, 0, -1], normals.shape), atol=1e-9)
    assert np.abs(normals_at(points, rows, columns, 3, 1)[:, 2]).min() < 0.9


def test_too_few_points_have_no_normal() -> None:
    points = np.full((6, 6, 3), np.nan)
    points[0, 0], points[5, 4], points[5, 5] = (0, 0, 1), (1, 1, 1), (1, 2, 1)
    assert not normals_at(points, np.array([0, 5, 5]), np.array([0, 4, 5]), 2, 10).any()


def test_box_means_are_those_of_loops() -> None:
    random = np.random.default_rng(0)
    valid = random.random((7, 9)) < 0.5
    values = random.normal(size=(2, 7, 9)) * valid
    boxes = BoxMeans(values, valid, 3)
    for half in (1, 3):
        means, count = boxes(half)
        for row in range(7):
            for column in range(9):
                part = np.s_[max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1]
                inside = values[:, *part][:, valid[part]]
                assert count[row, column] == inside.shape[1]
                expected = inside.mean(axis=1) if inside.size else np.zeros(2)
                np.testing.assert_allclose(means[:, row, column], expected, atol=1e-12)


def test_patch_means_and_extremes() -> None:
    valid = np.zeros((8, 8), bool)
    valid[2, 5] = valid[3, 4] = True
    assert extent(valid, 4) == (slice(0, 4), slice(4, 8))
    assert extent(valid, 2) == (slice(2, 4), slice(4, 6))
    assert any_valid(valid, 4).tolist() == [[False, True], [False, False]]
    assert (patch_means(np.array([2, 0, 2]), 4) @ np.array([[1.0], [5], [3]])).tolist() == [[5], [0], [2], [0]]
    values = np.zeros((1, 4, 4))
    values[0, 0, :] = (1, -2, 3, -1)
    assert farthest(values, 2).tolist() == [[[-2], [3]], [[0], [0]]]


def test_resampled_at_whole_places_is_the_grid_itself() -> None:
    points = np.random.default_rng(0).normal(size=(6, 8, 3))
    points[2, 3] = np.nan
    across, down = np.meshgrid(np.arange(-1, 9), np.arange(-1, 7))
    found = resampled(points, across.astype(float), down.astype(float))
    assert np.isnan(found[[0, -1]]).all()
    assert np.isnan(found[:, [0, -1]]).all()
    np.testing.assert_array_equal(found[1:-1, 1:-1], points)


def test_resampled_lies_on_a_plane_and_never_between_two_surfaces() -> None:
    down, across = np.mgrid[:20, :20].astype(float)
    points = np.stack([across, down, 0.3 * across], axis=-1)
    places = np.random.default_rng(0).uniform(0, 19, (2, 300))
    found = resampled(points, *places)
    np.testing.assert_allclose(found, np.stack([*places, 0.3 * places[0]], axis=-1))
    points[:, 10:, 2] += 100.0  # a step: every point lies on one of both sides
    heights = resampled(points, *places)[:, 2]
    assert ((heights < 10) | (heights > 100)).all()
    points[5, 5] = np.nan
    found = resampled(points, np.array([5.4, 4.4]), np.array([5.0, 5.0]))
    assert np.isnan(found[0]).all()  # the nearest was not measured
    np.testing.assert_array_equal(found[1], points[5, 4])
