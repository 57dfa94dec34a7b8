from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.data import load_points
from blemish.data.camera import read_camera
from blemish.errors import ImageError, SettingsError
from blemish.types import ScanGeometry

tifffile = pytest.importorskip("tifffile", reason="TIFFs of points come with blemish[3d]")

CAMERA = ScanGeometry(camera=read_camera("600,600,15.5,11.5"))
LEVELS = (400 + np.add.outer(np.arange(24), np.arange(32))).astype(np.uint16)  # mm
LEVELS[2, 3], LEVELS[4, 5] = 0, 65535


def geometry(**facts: object) -> ScanGeometry:
    return ScanGeometry(camera=CAMERA.camera, **facts)


def test_every_file_of_one_depth_image_gives_the_same_points(tmp_path: Path) -> None:
    metres = np.where((LEVELS == 0) | (LEVELS == 65535), np.nan, LEVELS / 1000).astype(np.float32)
    Image.fromarray(LEVELS).save(tmp_path / "a.png")
    Image.fromarray(LEVELS).save(tmp_path / "a.pgm")
    tifffile.imwrite(tmp_path / "a.tif", LEVELS)
    tifffile.imwrite(tmp_path / "b.tiff", metres, compression="zlib")
    np.save(tmp_path / "a.npy", metres[..., None])
    np.save(tmp_path / "b.npy", LEVELS)
    np.savez(tmp_path / "a.npz", depth=LEVELS)
    Image.fromarray(LEVELS).save(tmp_path / "part_depth.png")
    expected = load_points(metres, geometry=CAMERA)
    assert np.isnan(expected[2, 3]).all()
    assert np.isnan(expected[4, 5]).all()
    assert np.nanmedian(expected[..., 2]) == pytest.approx(0.427, abs=0.002)
    for name in ("a.png", "a.pgm", "a.tif", "b.npy", "a.npz", "part_depth.png"):
        for units, scale in (("mm", None), (None, 0.001), ("cm", 0.1)):
            found = load_points(tmp_path / name, units=units, geometry=geometry(depth_scale=scale))
            assert np.allclose(found, expected, rtol=1e-6, equal_nan=True)
    for name in ("b.tiff", "a.npy"):
        assert np.allclose(load_points(tmp_path / name, geometry=CAMERA), expected, equal_nan=True)


def test_whole_numbers_of_no_unit_are_asked_about(tmp_path: Path) -> None:
    Image.fromarray(LEVELS).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"one level of depth is in '.*a\.png'.*up to 454 and no unit.*--units mm"):
        load_points(tmp_path / "a.png", geometry=CAMERA)
    with pytest.raises(ImageError, match=r"a\.png.*--intrinsics.*--mm-per-pixel"):
        load_points(tmp_path / "a.png", units="mm")
    with pytest.raises(ImageError, match="looks like millimetres"):
        load_points(LEVELS.astype(np.float32), geometry=CAMERA)


def test_levels_a_metre_are_no_metres_a_level() -> None:
    with pytest.raises(SettingsError, match=r"below 1 metre a level; got 1000 m; if it is 1000 levels.*write 0\.001"):
        load_points(LEVELS, geometry=geometry(depth_scale=1000.0))
    assert load_points(LEVELS, units="um", geometry=geometry(depth_scale=1000.0)).shape == (24, 32, 3)


def test_pictures_of_depth_are_no_depth(tmp_path: Path) -> None:
    Image.fromarray((LEVELS >> 2).astype(np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"16-bit grey in '.*a\.png'.*mode L"):
        load_points(tmp_path / "a.png", units="mm", geometry=CAMERA)
    with pytest.raises(ImageError, match="all 16 are 0"):
        load_points(np.zeros((4, 4), np.uint16), units="mm", geometry=CAMERA)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_height_maps_have_steps(dtype: type) -> None:
    """x to the right, y down, z away from the viewer, who looks from above."""
    heights = np.arange(1, 25).reshape(4, 6).astype(dtype)
    heights[1, 2] = np.nan if dtype == np.float32 else np.iinfo(dtype).max
    heights[3, 1] = 0 if dtype != np.int16 else np.iinfo(dtype).min
    points = load_points(heights, geometry=ScanGeometry(mm_per_pixel=(0.1, 0.2, 0.01)))
    assert points[2, 3] == pytest.approx([0.0003, 0.0004, -0.00001 * 16], rel=1e-5)
    assert np.argwhere(np.isnan(points).any(axis=-1)).tolist() == [[1, 2], [3, 1]]
    normal = np.cross(points[0, 1] - points[0, 0], points[1, 0] - points[0, 0])
    assert normal[2] > 0  # as of a camera's points: along columns times along rows is away from the viewer


def test_eyecandies_stay_what_they_are(tmp_path: Path) -> None:
    """With its info file beside it a depth image has its own camera, whatever is stated of others."""
    Image.fromarray(LEVELS).save(tmp_path / "7_depth.png")
    (tmp_path / "7_info_depth.yaml").write_text("normalization: {min: 0.4, max: 0.6}")
    own = load_points(tmp_path / "7_depth.png")
    assert np.array_equal(
        load_points(tmp_path / "7_depth.png", geometry=geometry(depth_scale=0.001)), own, equal_nan=True
    )
