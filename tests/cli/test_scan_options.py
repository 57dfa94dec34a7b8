from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from blemish.cli.scan_options import check_stated, parse_grid, parse_pixel, parse_steps, scan_geometry
from blemish.errors import SettingsError
from blemish.types import Camera, ScanGeometry

CAMERA = "600,601,31.5,24"


def inspector(units: str | None, geometry: ScanGeometry | None) -> Any:
    return SimpleNamespace(model_=SimpleNamespace(settings=SimpleNamespace(units=units, geometry=geometry)))


def test_options_become_a_geometry() -> None:
    assert scan_geometry() is None
    camera = Camera(fx=600, fy=601, cx=31.5, cy=24)
    assert scan_geometry(CAMERA, 0.001, None, "64x48") == ScanGeometry(camera=camera, depth_scale=0.001, grid=(64, 48))
    assert scan_geometry(mm_per_pixel="0.1,0.2,0.01") == ScanGeometry(mm_per_pixel=(0.1, 0.2, 0.01))
    with pytest.raises(SettingsError, match="both"):
        scan_geometry(CAMERA, mm_per_pixel="1,1,1")


def test_a_pixel_has_one_size_or_three_steps() -> None:
    assert parse_pixel(None) == (None, None)
    assert parse_pixel("0.1") == (0.1, None)
    assert parse_pixel("0.1,0.1,0.01") == (0.1, "0.1,0.1,0.01")
    assert parse_pixel("0.1,0.2,0.01") == (None, "0.1,0.2,0.01")
    for wrong in ("fine", "1,2", "1,2,x"):
        with pytest.raises(SettingsError, match="--mm-per-pixel"):
            parse_pixel(wrong)
    with pytest.raises(SettingsError, match="three numbers"):
        parse_steps("1,2")
    with pytest.raises(SettingsError, match="640x480"):
        parse_grid("640")


def test_what_the_model_learned_may_be_repeated_but_not_contradicted() -> None:
    stated = scan_geometry(CAMERA, 0.001)
    model = inspector("mm", stated)
    for units, geometry in (
        (None, None),
        ("mm", stated),
        (None, scan_geometry(CAMERA)),
        (None, scan_geometry(grid="4x4")),
    ):
        check_stated(model, units, geometry)
    check_stated(inspector(None, None), "cm", stated)
    with pytest.raises(SettingsError, match=r"in mm, as the model learned; got --units m; leave it out"):
        check_stated(model, "m", None)
    for other in (scan_geometry(CAMERA, 0.002), scan_geometry("1,2,3,4"), scan_geometry(mm_per_pixel="1,1,1")):
        with pytest.raises(SettingsError, match=r"fx 600, fy 601.*; got .*; leave it out, or fit a new model"):
            check_stated(model, None, other)


def test_what_one_side_states_must_agree_with_what_the_other_means() -> None:
    """A model of depth in mm has learned that a level is one; its camera alone says that it learned depth images."""
    camera, steps = scan_geometry(CAMERA), scan_geometry(mm_per_pixel="1,1,1")
    for units, learned, now, given in (
        ("mm", camera, None, scan_geometry(depth_scale=0.1)),
        (None, scan_geometry(CAMERA, 0.001), "mm", camera),
        (None, steps, None, scan_geometry(depth_scale=0.1)),
    ):
        with pytest.raises(SettingsError, match="leave it out, or fit a new model"):
            check_stated(inspector(units, learned), now, given)
    check_stated(inspector("mm", camera), None, scan_geometry(depth_scale=1))
    check_stated(inspector(None, camera), None, scan_geometry(depth_scale=0.001))  # floats in metres, now levels
