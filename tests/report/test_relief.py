"""Points as a shaded relief: light from the upper left, dark holes, no unit, no tilt of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.errors import ImageError
from blemish.report import shaded_relief


def cloud(height: np.ndarray) -> np.ndarray:
    """Points seen from half a metre above, 1 mm apart."""
    y, x = np.mgrid[: height.shape[0], : height.shape[1]] / 1000.0
    return np.stack([x, y, 0.5 - height], axis=-1).astype(np.float32)


def test_a_plane_is_one_even_tone() -> None:
    relief = shaded_relief(cloud(np.zeros((20, 30))))
    assert relief.shape == (20, 30, 3)
    assert relief.dtype == np.uint8
    assert len(np.unique(relief.reshape(-1, 3), axis=0)) == 1
    assert 100 < relief.mean() < 230


def test_slopes_towards_the_upper_left_are_lit() -> None:
    y, x = np.mgrid[:41, :41] - 20
    dome = np.sqrt(np.maximum(18.0**2 - x * x - y * y, 0)) / 1000
    relief = shaded_relief(cloud(dome)).astype(float).mean(-1)
    assert relief[12, 12] > relief[20, 20] > relief[28, 28]


@pytest.mark.parametrize("hole", [0.0, np.nan, np.inf])
def test_holes_are_dark_and_leave_their_neighbours_alone(hole: float) -> None:
    points = cloud(np.zeros((20, 30)))
    points[5:8, 5:9] = hole
    relief, whole = shaded_relief(points), shaded_relief(cloud(np.zeros((20, 30))))
    inside = np.zeros((20, 30), bool)
    inside[5:8, 5:9] = True
    assert relief[inside].max() < 40
    assert np.array_equal(relief[~inside], whole[~inside])


def test_millimetres_look_like_metres() -> None:
    height = np.random.default_rng(0).uniform(0, 2e-3, (16, 16))
    one, other = (shaded_relief(scale * cloud(height).astype(np.float64)).astype(int) for scale in (1, 1000))
    assert np.abs(one - other).max() <= 1


def test_a_point_alone_nothing_at_all_and_the_callers_array() -> None:
    points = np.full((4, 5, 3), np.nan)
    assert shaded_relief(points).max() < 40
    points[2, 2] = 0.1, 0.1, 0.5
    before = points.copy()
    assert shaded_relief(points)[2, 2].max() > 40
    assert np.array_equal(points, before, equal_nan=True)
    assert shaded_relief(np.full((1, 1, 3), 0.5)).shape == (1, 1, 3)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 2), (0, 5, 3), (3, 4, 5, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="H, W, 3"):
        shaded_relief(np.zeros(shape))
