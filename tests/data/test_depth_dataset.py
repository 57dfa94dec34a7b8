"""Depth and intrinsics of a public set of real scans, against its own points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import least_squares

from blemish.data import load_dataset, load_points
from blemish.data.camera import directions, read_camera
from blemish.types import Camera, ScanGeometry

SIDE, STEP = 200, 2  # pixels of a packed depth image, and how many of the camera's one stands for


@pytest.fixture
def gland(data: Path) -> Path:
    folder = data / "mvtec_3d_ad_depth" / "cable_gland"
    if not folder.is_dir():
        pytest.skip(f"no depth and intrinsics in {data}")
    return folder


def stated_rays(facts: dict[str, Any]) -> np.ndarray:
    """x / z and y / z of each pixel `(200, 200, 2)` as the set's makers fitted them to its official points."""
    row, column = np.mgrid[0:SIDE, 0:SIDE] * float(STEP)
    u, v = (column - 200) / 200, (row - 200) / 200
    return np.stack(
        [sum(c * u**i * v**j for c, (i, j) in zip(facts[k], facts["exponents"], strict=True)) for k in ("cx", "cy")],
        axis=-1,
    )


@pytest.mark.slow
def test_depth_and_intrinsics_give_the_points_of_the_set(gland: Path, tmp_path: Path) -> None:
    """Its own camera file to within 0.5 mm; a camera of OpenCV's kind, fitted to its rays, to within 0.05 mm."""
    facts = json.loads((gland / "xyz_from_depth.json").read_text())
    rays, scale = stated_rays(facts), facts["unit_m_per_count"]
    own = read_camera(gland / "camera_parameters.json")

    def camera_of(values: np.ndarray) -> Camera:
        return Camera(fx=values[0], fy=values[1], cx=values[2], cy=values[3], distortion=tuple(values[4:]))

    def error_of(values: np.ndarray) -> np.ndarray:
        return (directions(camera_of(values), SIDE, SIDE) - rays)[::7, ::7].ravel()

    start = np.array([own.fx / STEP, own.fy / STEP, own.cx / STEP, own.cy / STEP, 0, 0, 0, 0, 0])
    fitted = camera_of(least_squares(error_of, start, x_scale=[1e3, 1e3, 1e2, 1e2, 1, 1, 1, 1, 1]).x)
    matrix = [[fitted.fx, 0, fitted.cx], [0, fitted.fy, fitted.cy], [0, 0, 1]]
    (tmp_path / "opencv.json").write_text(
        json.dumps({"camera_matrix": matrix, "dist_coeffs": [list(fitted.distortion)]})
    )
    for sample in load_dataset(gland).categories["cable_gland"].train[:3]:
        assert isinstance(sample.points, Path)
        depth = np.asarray(Image.open(sample.points)).astype(np.float64) * scale
        expected = np.concatenate([rays * depth[..., None], depth[..., None]], axis=-1)
        for camera, millimetres in ((own, 0.5), (read_camera(tmp_path / "opencv.json"), 0.05)):
            found = load_points(sample.points, geometry=ScanGeometry(camera=camera, depth_scale=scale))
            known = np.isfinite(found).all(axis=-1)
            assert np.array_equal(known, depth > 0)
            assert np.abs(found - expected)[known].max() < millimetres / 1000
            assert np.array_equal(found[known][:, 2], expected[known][:, 2].astype(np.float32))
