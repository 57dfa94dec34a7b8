"""Shape statistics of surfaces whose shape is known, and of a dent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from blemish.encoders.points.surface_statistics import SurfaceStatistics, load_surface_statistics, point_statistics
from blemish.errors import SettingsError
from blemish.numeric.organised_points import spacing
from blemish.types import POINTS

STEP = 5e-4


def surface(depth: Callable[[np.ndarray, np.ndarray], np.ndarray], side: int = 64) -> np.ndarray:
    """The surface at that depth over the middle of a grid, `(side, side, 3)` float32, half a metre away."""
    y, x = (np.mgrid[0:side, 0:side] - (side - 1) / 2) * STEP
    return np.stack([x, y, 0.5 + depth(x, y)], axis=-1).astype(np.float32)


def at_middle(points: np.ndarray, scale: int = 4) -> dict[str, float]:
    """Statistics of one scale, averaged over the middle of the grid."""
    rows, columns = (side // 2 for side in points.shape[:2])
    found = point_statistics(points, (scale,), spacing(points))
    return {
        name.removesuffix(f" {scale}"): float(
            values.reshape(points.shape[:2])[rows - 3 : rows + 3, columns - 3 : columns + 3].mean()
        )
        for name, values in found.items()
    }


def cells(points: np.ndarray) -> dict[str, np.ndarray]:
    """Each number of the encoder by name, `(h, w)`."""
    scales = (2, 4, 8)
    features = load_surface_statistics(scales=scales).encode_points(points[None])[POINTS][0].numpy()
    return dict(zip(SurfaceStatistics(8, scales).names, np.moveaxis(features, -1, 0), strict=True))


@pytest.mark.parametrize("tilt", [(0, 0), (0.3, -0.2)])
def test_a_plane_has_no_shape(tilt: tuple[float, float]) -> None:
    found = at_middle(surface(lambda x, y: tilt[0] * x + tilt[1] * y))
    for name in ("variation", "height", "mean curvature", "curvedness", "deviation", "missing"):
        assert abs(found[name]) < 2e-3, name
    assert found["slant"] == pytest.approx(1 - 1 / np.sqrt(1 + tilt[0] ** 2 + tilt[1] ** 2), abs=1e-4)


@pytest.mark.parametrize("radius", [0.02, 0.05])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_ball_is_curved_by_its_radius(radius: float, sign: int) -> None:
    """Seen from outside it is convex and positive, from inside negative."""
    points = surface(lambda x, y: -sign * np.sqrt(radius**2 - np.minimum(x**2 + y**2, 0.9 * radius**2)))
    found, unit = at_middle(points), 4 * spacing(points)
    assert found["mean curvature"] / unit == pytest.approx(sign / radius, rel=0.05)
    assert found["curvedness"] / unit == pytest.approx(1 / radius, rel=0.05)
    assert sign * found["height"] > 0


def test_a_cylinder_is_curved_half_as_much_and_a_saddle_not_on_average() -> None:
    radius = 0.03
    points = surface(lambda x, y: -np.sqrt(radius**2 - x**2))
    found, unit = at_middle(points), 4 * spacing(points)
    assert found["mean curvature"] / unit == pytest.approx(0.5 / radius, rel=0.05)
    assert found["curvedness"] / unit == pytest.approx(np.sqrt(0.5) / radius, rel=0.05)
    saddle = at_middle(surface(lambda x, y: (x**2 - y**2) / 2 / radius))
    assert abs(saddle["mean curvature"]) < 0.02 * saddle["curvedness"]
    assert saddle["curvedness"] / unit == pytest.approx(1 / radius, rel=0.05)


def test_height_above_the_plane_of_a_paraboloid() -> None:
    """The tip of z = c r² lies c · mean r² nearer than its plane; over a square of 9 mean r² is 2 · 20/3 steps²."""
    bend = 5.0
    points = surface(lambda x, y: bend * (x**2 + y**2), side=41)
    found = point_statistics(points, (4,), spacing(points))["height 4"].reshape(41, 41)[20, 20]
    assert found * 4 * spacing(points) == pytest.approx(bend * 2 * 20 / 3 * STEP**2, rel=0.03)


def test_a_quarter_turn_about_the_viewing_axis_turns_the_grid_alone() -> None:
    points = surface(lambda x, y: 0.002 * np.sin(x / 0.004 + 1) + 0.001 * np.cos(y / 0.003))
    turned = np.rot90(points)
    turned = np.ascontiguousarray(np.stack([turned[..., 1], -turned[..., 0], turned[..., 2]], axis=-1))
    before, after = cells(points), cells(turned)
    for name, values in before.items():
        np.testing.assert_allclose(after[name], np.rot90(values), atol=2e-4, err_msg=name)


def test_any_turn_about_the_viewing_axis_leaves_each_point_what_it_is() -> None:
    """Coordinates turned, grid kept: the same surface in a frame turned about the axis."""
    points = surface(lambda x, y: 0.002 * np.sin(x / 0.004) + 0.001 * np.cos(y / 0.003))
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    before, after = cells(points), cells((points @ turn.T).astype(np.float32))
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("depth", [0.0006, -0.0006])
def test_a_dent_or_bump_raises_the_score_where_it_is(depth: float) -> None:
    def plate(defect: float) -> np.ndarray:
        noise = np.random.default_rng(0).normal(0, 2e-5, (96, 96))
        middle = 11.5 * STEP
        return surface(
            lambda x, y: (
                0.001 * np.sin(x / 0.02) + noise + defect * np.exp(-((x - middle) ** 2 + y**2) / 2 / 0.0015**2)
            ),
            96,
        )

    good, bad = cells(plate(0)), cells(plate(depth))
    strongest = bad["strongest height 4"]
    assert np.sign(strongest[5, 7]) == -np.sign(depth)  # away from the viewer is down
    for name in ("strongest height 4", "strongest mean curvature 8", "variation 4", "curvedness 4"):
        change = np.abs(bad[name] - good[name])
        row, column = np.unravel_index(change.argmax(), change.shape)
        assert (row in (5, 6), column in (6, 7, 8)) == (True, True), name
        assert change[:, :3].max() < 1e-6, name


def test_steps_and_holes() -> None:
    points = surface(lambda x, y: np.where(x > 0, 0.01, 0.0))
    points[8:16, 8:16] = np.nan
    points[40:56, 10] = np.nan
    found = cells(points)
    assert found["step"][4, 1] < 0.01 < 0.5 < found["step"][4, 4] * 4
    assert found["missing"][1, 1] == 0  # nothing is measured there at all
    assert found["missing"][1, 2] > found["missing"][5, 2] > found["missing"][4, 4]


def test_a_point_with_one_infinite_coordinate_is_none() -> None:
    points = surface(lambda x, y: 0.002 * np.sin(x / 0.004))
    holed, infinite = points.copy(), points.copy()
    holed[10, 12], infinite[10, 12, 2] = np.nan, np.inf
    expected = cells(holed)
    for name, values in cells(infinite).items():
        assert np.array_equal(values, expected[name]), name


def test_padding_changes_nothing() -> None:
    points = surface(lambda x, y: 0.002 * np.sin(x / 0.004), 48)
    wide = np.full((80, 96, 3), np.nan, np.float32)
    wide[8:56, 16:64] = points
    before, after = cells(points), cells(wide)
    for name, values in before.items():
        np.testing.assert_allclose(after[name][1:7, 2:8], values, atol=1e-5, err_msg=name)


def test_settings_are_part_of_the_weights() -> None:
    assert (
        load_surface_statistics().weights_sha256
        == load_surface_statistics().weights_sha256
        != load_surface_statistics(scales=(2, 4)).weights_sha256
    )
    assert load_surface_statistics(scales=(3,)).dims == (10,)


@pytest.mark.parametrize(
    "settings",
    [{"stride": 0}, {"scales": ()}, {"scales": (0, 2)}, {"scales": (4, 2)}, {"scales": (1.5,)}, {"layers": (2,)}],
)
def test_settings_that_cannot_be(settings: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        load_surface_statistics(**settings)  # type: ignore[arg-type]
