from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from blemish.errors import ImageError, SettingsError
from blemish.types import POINTS, RGB, Features, Sample, Scan


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


@pytest.fixture
def xyz() -> np.ndarray:
    points = np.random.default_rng(1).normal(0.5, 0.1, (4, 6, 3)).astype(np.float32)
    points[1, 2] = np.nan
    return points


def test_a_scan_has_its_modalities_and_one_shape(rgb: np.ndarray, xyz: np.ndarray) -> None:
    scan = Scan(rgb, xyz)
    assert (scan.shape, scan.available, scan.nbytes) == ((4, 6), (RGB, POINTS), rgb.nbytes + xyz.nbytes)
    assert (scan.only(RGB).available, scan.only(POINTS).available) == ((RGB,), (POINTS,))
    assert scan.only(RGB).xyz is scan.only(POINTS).rgb is None
    assert Scan(rgb, np.full_like(xyz, np.nan)).available == (RGB,)
    assert Scan(xyz=np.full_like(xyz, np.nan)).available == ()
    with pytest.raises(ImageError, match="neither"):
        scan.only(RGB).only(POINTS)


def test_a_scan_compares_and_hashes_by_identity(rgb: np.ndarray) -> None:
    one, other = Scan(rgb), Scan(rgb)
    assert one != other
    assert len({one, other}) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"rgb": np.zeros((4, 6), np.uint8)},
        {"rgb": np.zeros((4, 6, 3), np.float64)},
        {"rgb": np.zeros((4, 6, 6), np.float32)},
        {"xyz": np.zeros((4, 6, 3), np.float64)},
        {"xyz": np.zeros((0, 6, 3), np.float32)},
        {"rgb": np.zeros((4, 6, 3), np.uint8), "xyz": np.zeros((4, 5, 3), np.float32)},
        {},
    ],
)
def test_what_is_no_scan_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ImageError):
        Scan(**wrong)


def test_a_crop_is_the_same_part_of_both(rgb: np.ndarray, xyz: np.ndarray) -> None:
    part = Scan(rgb, xyz).crop(slice(1, 3), slice(2, 6))
    assert part.shape == (2, 4)
    assert np.array_equal(part.rgb, rgb[1:3, 2:6])
    assert np.array_equal(part.xyz, xyz[1:3, 2:6], equal_nan=True)
    assert part.rgb.flags.c_contiguous
    assert Scan(rgb).crop(slice(1, 3), slice(2, 6)).xyz is None


def test_float_levels_become_an_image_of_the_nearest_whole_ones(rgb: np.ndarray) -> None:
    assert Scan(rgb).image is rgb
    assert np.array_equal(Scan(rgb.astype(np.float32)).image, rgb)
    assert Scan(np.full((1, 1, 3), (0.4, 254.6, 255.0), np.float32)).image.tolist() == [[[0, 255, 255]]]


def test_bytes_tell_scans_apart(rgb: np.ndarray, xyz: np.ndarray) -> None:
    scans = [Scan(rgb, xyz), Scan(rgb), Scan(xyz=xyz), Scan(255 - rgb, xyz), Scan(rgb, xyz + np.float32(1e-3))]
    assert len({scan.tobytes() for scan in scans}) == len(scans)
    assert Scan(rgb.copy(), xyz.copy()).tobytes() == scans[0].tobytes()


def test_a_sample_of_a_scan_in_memory(rgb: np.ndarray, xyz: np.ndarray) -> None:
    sample = Sample.of(Scan(rgb, xyz), label=1, category="bolt")
    assert sample.image is rgb
    assert sample.points is xyz
    assert (sample.label, sample.category, sample.units, sample.name) == (1, "bolt", "m", "array")
    with pytest.raises(SettingsError, match="furlongs"):
        Sample(rgb, xyz, units="furlongs")


def test_patches_that_ignored_pixels_touch_and_their_neighbours_are_not_judged() -> None:
    pixels = np.zeros((32, 32), dtype=bool)
    pixels[9, 9] = True
    layers = {RGB: (torch.zeros(1, 8, 8, 2),)}
    features = Features(layers).with_ignored(pixels)
    ignored = features.ignored_on((8, 8))
    assert ignored is not None
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[1:4, 1:4] = True
    assert torch.equal(ignored[0], expected)
    assert not features.is_ignored
    coarse = features.ignored_on((4, 4))
    assert coarse is not None
    assert int(coarse.sum()) == 9
    assert Features(layers).ignored_on((8, 8)) is None
    assert not Features(layers).is_ignored


def test_without_neighbours_where_nothing_would_be_left() -> None:
    pixels = np.ones((32, 32), dtype=bool)
    pixels[:, :4] = False
    features = Features({RGB: (torch.zeros(1, 8, 8, 2),)}).with_ignored(pixels)
    ignored = features.ignored_on((8, 8))
    assert ignored is not None
    assert int((~ignored).sum()) == 8
    assert not features.is_ignored
    assert features.with_ignored(np.ones_like(pixels)).is_ignored


def test_ignored_pixels_go_with_their_images() -> None:
    pixels = np.eye(4, dtype=bool)
    plain = Features({RGB: (torch.zeros(1, 2, 2, 1),)})
    both = Features.cat([plain, plain.with_ignored(pixels)])
    assert both.ignored is not None
    assert not both.ignored[0].any()
    second = both.take(slice(1, 2)).ignored
    assert second is not None
    assert np.array_equal(second[0].numpy(), pixels)
    assert Features.cat([plain, plain]).ignored is None
