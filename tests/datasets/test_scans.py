from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scan_parts import heights, points_of

from blemish.datasets import load_scan
from blemish.errors import PictureError
from blemish.types import Sample


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def points() -> np.ndarray:
    return points_of(heights(30, top=0.02)[:20], holes=0.1)


def test_picture_and_points_side_by_side(picture: np.ndarray, points: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", points)
    for sample in (Sample(picture, points=points), Sample(tmp_path / "a.png", points=tmp_path / "a.npy")):
        scan = load_scan(sample)
        assert scan.dtype == np.float32
        assert np.array_equal(scan[..., :3], picture)
        assert np.array_equal(scan[..., 3:], points, equal_nan=True)
        again = load_scan(Sample(scan))
        assert np.array_equal(again, scan, equal_nan=True)
        assert again is not scan


def test_16_bit_pictures_come_as_8_bits(points: np.ndarray) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    scan = load_scan(Sample(deep, points=points))
    assert np.array_equal(scan[..., 1], deep >> 8)


def test_a_picture_without_points_has_none(picture: np.ndarray) -> None:
    scan = load_scan(Sample(picture))
    assert np.array_equal(scan[..., :3], picture)
    assert np.isnan(scan[..., 3:]).all()


def test_points_of_another_resolution_are_laid_on_the_picture(picture: np.ndarray, points: np.ndarray) -> None:
    twice = np.repeat(np.repeat(points, 2, axis=0), 2, axis=1)
    assert np.array_equal(load_scan(Sample(picture, points=twice))[..., 3:], points, equal_nan=True)
    scan = load_scan(Sample(picture.repeat(3, axis=0).repeat(3, axis=1), points=points))
    assert np.array_equal(scan[1::3, 1::3, 3:], points, equal_nan=True)


def test_points_of_another_shape_are_refused(picture: np.ndarray, points: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", points[:, :-2])
    Image.fromarray(picture).save(tmp_path / "a.png")
    with pytest.raises(PictureError, match=r"a\.png.*30x20.*b\.npy.*got 28x20"):
        load_scan(Sample(tmp_path / "a.png", points=tmp_path / "b.npy"))
    with pytest.raises(PictureError, match="got 20x30"):
        load_scan(Sample(picture, points=points.swapaxes(0, 1)))


def test_a_missing_file_of_either_kind_is_named(picture: np.ndarray, points: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"points at.*away\.tiff.*nothing there"):
        load_scan(Sample(picture, points=tmp_path / "away.tiff"))
    with pytest.raises(PictureError, match=r"a picture at.*away\.png.*nothing there"):
        load_scan(Sample(tmp_path / "away.png", points=points))


def test_scans_from_memory_are_checked(picture: np.ndarray, points: np.ndarray) -> None:
    scan = load_scan(Sample(picture, points=points))
    blind, flat, empty, speckled, bright, far = (scan.copy() for _ in range(6))
    blind[..., :3] = np.nan
    flat[..., 3:] = np.nan
    assert np.array_equal(load_scan(Sample(blind)), blind, equal_nan=True)
    assert np.array_equal(load_scan(Sample(flat)), flat, equal_nan=True)
    empty[:] = np.nan
    speckled[3, 4, 1] = np.nan
    bright[..., :3] *= 257
    far[..., 3:] *= 1000
    for wrong, message in (
        (empty, "nothing but NaN"),
        (speckled, "1 pixels"),
        (bright, "0..255"),
        (far, "millimetres"),
    ):
        with pytest.raises(PictureError, match=message):
            load_scan(Sample(wrong))
