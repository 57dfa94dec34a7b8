"""Fast Point Feature Histograms: against Open3D, against loops, and what they must not and must see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from blemish.encoders.points.fpfh import load_fpfh, point_histograms
from blemish.errors import SettingsError
from blemish.numeric.organised_points import spacing
from blemish.types import POINTS

GOLDEN = Path(__file__).parents[2] / "golden" / "fpfh_open3d.npz"


def cloud(count: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    normals = random.normal(size=(count, 3)) * (0.5, 0.5, 0.2) - (0, 0, 1)
    return random.uniform(0, 1, (count, 3)), normals / np.linalg.norm(normals, axis=1, keepdims=True)


def angles_of_pair(p: np.ndarray, n: np.ndarray, q: np.ndarray, m: np.ndarray) -> tuple[float, float, float]:
    """Rusu's θ, α, φ of two points with normals, straight from the paper."""
    line = (q - p) / np.linalg.norm(q - p)
    if np.arccos(abs(n @ line)) > np.arccos(abs(m @ line)):
        n, m, line = m, n, -line
    u = n
    v = np.cross(line, u) / np.linalg.norm(np.cross(line, u))
    w = np.cross(u, v)
    return np.arctan2(w @ m, u @ m), v @ m, u @ line


def histograms_by_loops(points: np.ndarray, normals: np.ndarray, radius: float) -> np.ndarray:
    edges = np.linspace(-np.pi, np.pi, 12), np.linspace(-1, 1, 12), np.linspace(-1, 1, 12)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near = [[k for k in range(len(points)) if k != i and distance[i, k] <= radius] for i in range(len(points))]
    simple = np.zeros((len(points), 33))
    for i, others in enumerate(near):
        angles = [angles_of_pair(points[i], normals[i], points[k], normals[k]) for k in others]
        for third in range(3 if others else 0):
            counts, _ = np.histogram([a[third] for a in angles], edges[third])
            simple[i, 11 * third : 11 * third + 11] = 100 * counts / len(others)
    full = simple.copy()
    for i, others in enumerate(near):
        weights = np.array([1 / distance[i, k] ** 2 for k in others])
        if others:
            full[i] += (weights[:, None] * simple[others]).sum(axis=0) / weights.sum()
    return full


def ours(points: np.ndarray, normals: np.ndarray, radius: float) -> np.ndarray:
    return point_histograms(points, normals, *cKDTree(points).query_pairs(radius, output_type="ndarray").T)


@pytest.mark.parametrize("radius", [0.1, 0.3])
def test_histograms_are_those_of_plain_loops(radius: float) -> None:
    points, normals = cloud()
    normals[::3] = normals[0]  # no end of such a pair is the closer one
    np.testing.assert_allclose(ours(points, normals, radius), histograms_by_loops(points, normals, radius), atol=1e-9)


@pytest.mark.parametrize("radius", [0.015, 0.03])
def test_histograms_are_those_of_open3d(radius: float) -> None:
    golden = np.load(GOLDEN)
    found = ours(golden["points"], golden["normals"], radius)
    assert not found[-1].any()
    assert np.count_nonzero(found.sum(axis=1) > 599.9) > 200
    np.testing.assert_allclose(found, golden[f"radius_{radius}"], atol=1e-3)


def test_points_at_one_place_neither_fail_nor_count_as_near() -> None:
    points, normals = cloud(20)
    points[5] = points[4]
    found = ours(points, normals, 0.5)
    assert np.isfinite(found).all()
    thirds = found.reshape(20, 3, 11).sum(axis=-1)
    np.testing.assert_allclose(thirds[thirds > 0], 200)


def test_turning_and_moving_a_cloud_changes_nothing() -> None:
    points, normals = cloud()
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    np.testing.assert_allclose(ours(points @ turn.T + 3, normals @ turn.T, 0.3), ours(points, normals, 0.3), atol=1e-6)


def relief(side: int, dent: float = 0.0, noise: float = 0.0, quarter: bool = False) -> np.ndarray:
    """A wavy plate `(1, side, side, 3)` of 0.5 mm spacing, with a dent of that depth (metres) right of the middle."""
    y, x = (np.mgrid[0:side, 0:side] - (side - 1) / 2) * 5e-4
    z = 0.5 + 0.003 * np.sin(x / 0.006) + 0.002 * np.cos(y / 0.004 + x / 0.01)
    z = z + dent * np.exp(-((x - 0.012) ** 2 + y**2) / 2 / 0.002**2)
    z = z + np.random.default_rng(0).normal(0, 1, z.shape) * noise
    points = np.stack([x, y, z], axis=-1)
    if quarter:  # the same part, turned by a quarter about the viewing axis and seen from the same place
        points = np.rot90(points)
        points = np.stack([points[..., 1], -points[..., 0], points[..., 2]], axis=-1)
    return points[None].astype(np.float32)


def cells(points: np.ndarray, **settings: object) -> np.ndarray:
    return load_fpfh(**settings).encode_points(points)[POINTS][0].numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize("neighbours", [None, 48])
def test_a_quarter_turn_about_the_viewing_axis_turns_the_grid_alone(neighbours: int | None) -> None:
    settings = {"neighbours": neighbours, "radii": (5.0,)}
    straight = np.rot90(cells(relief(64), **settings))
    turned = cells(relief(64, quarter=True), **settings)
    mean_change = np.abs(straight - turned).mean() / np.abs(straight - straight.mean(axis=(0, 1))).mean()
    assert mean_change < (1e-3 if neighbours is None else 0.15)


def test_few_neighbours_stand_for_all() -> None:
    exact, quick = (cells(relief(40, noise=5e-5), neighbours=count, radii=(6.0, 12.0)) for count in (None, 48))
    change = np.abs(exact - quick).mean() / np.abs(exact - exact.mean(axis=(0, 1))).mean()
    assert change < 0.35
    assert np.corrcoef(exact.ravel(), quick.ravel())[0, 1] > 0.98


def test_a_dent_stands_out_where_it_is() -> None:
    change = np.linalg.norm(cells(relief(96, dent=0.001, noise=2e-5)) - cells(relief(96, noise=2e-5)), axis=-1)
    row, column = np.unravel_index(change.argmax(), change.shape)
    assert row in (5, 6)
    assert column in (7, 8, 9)  # the dent's middle is at point 71.5 of its row: cell 8.9
    assert change[:, :3].max() < 0.05 * change.max()


def test_metres_and_spacings_mean_the_same() -> None:
    points = relief(32)
    near = cells(points, radii=(4.0,))
    assert not np.array_equal(near, cells(points, radii=(8.0,)))
    far = cells(points, radii=(4.0 * spacing(points[0]),), unit="metres")
    np.testing.assert_array_equal(near, far)


def test_settings_are_part_of_the_weights() -> None:
    assert (
        load_fpfh().weights_sha256
        == load_fpfh().weights_sha256
        != load_fpfh(radii=(5.0,)).weights_sha256
        != load_fpfh(stride=4).weights_sha256
    )
    assert load_fpfh(radii=(1.0, 2.0, 3.0)).dims == (99,)


@pytest.mark.parametrize(
    "settings",
    [
        {"stride": 0},
        {"stride": 2.5},
        {"radii": ()},
        {"radii": (3.0, -1.0)},
        {"radii": (float("nan"),)},
        {"unit": "inches"},
        {"normal_radius": 0.5},
        {"neighbours": 0},
        {"neighbours": True},
        {"neighbours": 2.5},
        {"layers": (1,)},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        load_fpfh(**settings)  # type: ignore[arg-type]
