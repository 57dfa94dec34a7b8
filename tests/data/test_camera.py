from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.data.camera import camera_for, directions, distorted, projected, read_camera, unprojected
from blemish.errors import ImageError, SettingsError
from blemish.types import Camera, ScanGeometry

FACTS = {"fx": 600.0, "fy": 610.0, "cx": 320.5, "cy": 240.25}
SIZED = Camera(**FACTS, width=640, height=480)
ROWS = [[600.0, 0.0, 320.5], [0.0, 610.0, 240.25], [0.0, 0.0, 1.0]]
BENT = (-0.21, 0.07, 0.001, -0.0005, 0.01)
OPENCV_YAML = """%YAML:1.0
---
image_width: 640
image_height: 480
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 600., 0., 320.5, 0., 610., 240.25, 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 1
   cols: 5
   dt: d
   data: [ -0.21, 0.07, 0.001, -0.0005, 0.01 ]
"""


def written(folder: Path, facts: Any) -> Path:
    file = folder / "camera.json"
    file.write_text(facts if isinstance(facts, str) else json.dumps(facts))
    return file


@pytest.mark.parametrize(
    "facts",
    [
        FACTS | {"width": 640, "height": 480},
        {"width": 640, "height": 480, "ppx": 320.5, "ppy": 240.25, "fx": 600, "fy": 610, "coeffs": [0, 0, 0, 0, 0]},
        {"width": 640, "height": 480, "intrinsic_matrix": [600, 0, 0, 0, 610, 0, 320.5, 240.25, 1]},
        {"image_width": 640, "image_height": 480, "camera_matrix": ROWS},
        {"width": 640, "height": 480, "K": [600, 0, 320.5, 0, 610, 240.25, 0, 0, 1], "D": [0.0] * 5},
        {"depth": FACTS | {"width": 640, "height": 480}, "serial_number": "7"},
    ],
    ids=["plain", "RealSense", "Open3D", "OpenCV", "ROS", "nested"],
)
def test_the_shapes_that_files_of_cameras_have(facts: dict[str, Any], tmp_path: Path) -> None:
    found = read_camera(written(tmp_path, facts))
    assert (found.fx, found.fy, found.cx, found.cy) == (600, 610, 320.5, 240.25)
    assert (found.width, found.height, any(found.distortion)) == (640, 480, False)


def test_four_numbers_as_text() -> None:
    assert read_camera("600, 610,320.5,240.25") == Camera(**FACTS)


def test_opencvs_yaml(tmp_path: Path) -> None:
    assert read_camera(written(tmp_path, OPENCV_YAML)) == Camera(**FACTS, width=640, height=480, distortion=BENT)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "got none; give.*fx,fy,cx,cy"),
        ([1, 2], "got none"),
        ({"fx": 600, "fy": 610}, "none called ppx, ppy"),
        (FACTS | {"fx": 0}, "fx and fy above 0"),
        (FACTS | {"fx": "wide"}, "a value that is none"),
        ({"camera_matrix": [1, 2, 3]}, "3 x 3"),
        ({"camera_matrix": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}, "0 0 1"),
        ({"camera_matrix": [[600, 50, 320], [0, 610, 240], [0, 0, 1]]}, "0 fy cy"),
        ({"depth": FACTS, "color": FACTS}, "2: depth, color"),
        (FACTS | {"coeffs": [0.1] * 5, "model": "distortion.inverse_brown_conrady"}, "inverse_brown_conrady"),
        (FACTS | {"coeffs": [0.1] * 14}, "14 coefficients"),
        ({"camera_type": "line_scan", "focus": 1}, "line_scan"),
        ("{", "JSON or YAML"),
    ],
)
def test_files_without_a_camera_are_refused(facts: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=rf"camera\.json.*{message}|{message}.*camera\.json"):
        read_camera(written(tmp_path, facts))


def test_text_that_is_no_camera() -> None:
    with pytest.raises(SettingsError, match="four numbers"):
        read_camera("1,2,3")
    with pytest.raises(SettingsError, match="check the path"):
        read_camera("/nowhere/camera.json")
    with pytest.raises(SettingsError, match=r"empty text.*variable of your script"):
        read_camera(" ")


def test_unprojecting_is_the_pinhole_formula() -> None:
    depth = np.random.default_rng(0).uniform(0.3, 0.6, (48, 64))
    camera = Camera(fx=60, fy=61, cx=31, cy=24.5)
    points = unprojected(depth, camera, "a")
    for row, column in ((0, 0), (47, 63), (10, 31)):
        z = depth[row, column]
        assert points[row, column] == pytest.approx([(column - 31) / 60 * z, (row - 24.5) / 61 * z, z])


@pytest.mark.parametrize("extra", [{}, {"distortion": BENT}, {"division": -0.2}, {"division": 0.15}])
def test_projecting_takes_every_point_back_to_its_pixel(extra: dict[str, Any]) -> None:
    camera = Camera(fx=60, fy=61, cx=31, cy=24.5, **extra)
    points = unprojected(np.full((48, 64), 0.4), camera, "a")
    numbers = projected(points.reshape(-1, 3), camera, 48, 64, "a")
    assert np.array_equal(numbers, np.arange(48 * 64).reshape(48, 64))


def test_taking_distortion_away_is_the_inverse_of_bending() -> None:
    camera = Camera(fx=300, fy=300, cx=160, cy=120, distortion=BENT)
    seen = (np.stack(np.meshgrid(np.arange(320), np.arange(240)), -1) - (160, 120)) / 300
    assert np.abs(distorted(directions(camera, 240, 320), BENT) - seen).max() < 1e-9
    with pytest.raises(SettingsError, match="distortion"):
        directions(Camera(fx=60, fy=60, cx=160, cy=120, distortion=(-0.9, 0, 0, 0)), 240, 320)


def test_the_division_model_is_halcons(tmp_path: Path) -> None:
    """Undistorted is distorted over 1 + κ r², on the image plane in metres."""
    facts = {"camera_type": "area_scan_division", "focus": 0.01, "kappa": -2000.0, "sx": 4e-6, "sy": 5e-6}
    camera = read_camera(written(tmp_path, facts | {"cx": 54.0, "cy": 196.0, "image_width": 400, "image_height": 400}))
    u, v = (300 - 54) * 4e-6, (10 - 196) * 5e-6
    expected = np.array([u, v]) / (1 - 2000 * (u * u + v * v)) / 0.01
    assert directions(camera, 400, 400)[10, 300] == pytest.approx(expected)


def test_no_pixel_lies_beyond_what_the_division_model_sees() -> None:
    """At κ r² = 1 pixels farther out would look farther in; points beyond the directions seen lie in no pixel."""
    camera = Camera(fx=100, fy=100, cx=60, cy=60, division=1.2)
    away = np.hypot(*np.moveaxis(directions(camera, 121, 121), -1, 0))  # (121, 121)
    assert (np.diff(away[60, 60:]) > 0).all()
    assert (projected(np.array([[3.0, 0.0, 1.0]]), camera, 121, 400, "a") < 0).all()
    with pytest.raises(SettingsError, match="bend some pixels past one another"):
        directions(camera, 121, 200)


def test_a_scaled_image_has_a_scaled_camera() -> None:
    half = camera_for(SIZED, 240, 320, "a")
    assert (half.fx, half.fy, half.cx, half.cy) == (300, 305, 160, 119.875)
    assert camera_for(SIZED, 480, 640, "a") is SIZED
    with pytest.raises(ImageError, match=r"640x480.*'a'.*480x480.*crop"):
        camera_for(SIZED, 480, 480, "a")


def test_geometry_keeps_what_is_stated_and_names_contradictions() -> None:
    own = ScanGeometry(camera=Camera(**FACTS, distortion=BENT), depth_scale=0.001, grid=(640, 480))
    steps = ScanGeometry(mm_per_pixel=(0.1, 0.2, 0.01))
    for one in (own, steps):
        assert ScanGeometry.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert own.contradictions(ScanGeometry(depth_scale=0.001)) == []
    assert own.contradictions(ScanGeometry(depth_scale=0.002, camera=SIZED)) == ["camera", "depth_scale"]
    assert ScanGeometry(depth_scale=0.002).or_else(own).camera == own.camera
    assert "0.1 x 0.2 x 0.01 mm per pixel" in steps.words()
    for wrong in ({"mm_per_pixel": (0.1, 0, 1)}, {"depth_scale": -1.0}, {"grid": (0, 4)}):
        with pytest.raises(SettingsError):
            ScanGeometry(**wrong)
    with pytest.raises(SettingsError, match="both"):
        ScanGeometry(camera=SIZED, mm_per_pixel=(1, 1, 1))


@pytest.mark.parametrize(
    "distortion",
    [
        (6.05, 3.63, 3e-5, -3e-5, 0.169, 6.37, 5.52, 0.96),  # a time-of-flight camera of 120 degrees
        (0.5,),  # a wide lens that bends outwards
    ],
)
def test_the_distortion_of_wide_lenses_is_taken_away(distortion: tuple[float, ...]) -> None:
    camera = Camera(fx=252.5, fy=252.4, cx=256.9, cy=256.6, distortion=distortion)
    seen = (np.stack(np.meshgrid(np.arange(512), np.arange(512)), -1) - (256.9, 256.6)) / (252.5, 252.4)
    assert np.abs(distorted(directions(camera, 512, 512), distortion) - seen).max() < 1e-9


def test_points_that_the_lens_cannot_see_are_not_bent_into_the_image() -> None:
    camera = Camera(fx=600, fy=600, cx=320, cy=240, distortion=(-0.3,))
    far = 3.0**0.5 + np.linspace(-0.2, 0.2, 20)  # x / z at about 60 degrees from the axis
    points = np.stack([far, np.zeros(20), np.ones(20)], axis=-1)
    numbers = projected(np.concatenate([points, [[0, 0, 2.0]]]), camera, 480, 640, "a.ply")
    assert numbers[numbers >= 0].tolist() == [20]


def test_directions_are_worked_out_once_and_cannot_be_changed() -> None:
    camera = Camera(fx=60, fy=61, cx=31, cy=24.5, distortion=BENT)
    found = directions(camera, 48, 64)
    assert directions(camera, 48, 64) is found
    with pytest.raises(ValueError, match="read-only"):
        found += 1
