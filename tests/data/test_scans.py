from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scan_parts import heights, points_of

from blemish.data import load_scan
from blemish.errors import ImageError
from blemish.types import Sample


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def points() -> np.ndarray:
    return points_of(heights(30, top=0.02)[:20], holes=0.1)


def test_image_and_points_side_by_side(image: np.ndarray, points: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(image).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", points)
    for sample in (Sample(image, points=points), Sample(tmp_path / "a.png", points=tmp_path / "a.npy")):
        scan = load_scan(sample)
        assert scan.dtype == np.float32
        assert np.array_equal(scan[..., :3], image)
        assert np.array_equal(scan[..., 3:], points, equal_nan=True)
        again = load_scan(Sample(scan))
        assert np.array_equal(again, scan, equal_nan=True)
        assert again is not scan


def test_16_bit_images_come_as_8_bits(points: np.ndarray) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    scan = load_scan(Sample(deep, points=points))
    assert np.array_equal(scan[..., 1], deep >> 8)


def test_an_image_without_points_has_none(image: np.ndarray) -> None:
    scan = load_scan(Sample(image))
    assert np.array_equal(scan[..., :3], image)
    assert np.isnan(scan[..., 3:]).all()


def test_points_of_another_resolution_are_laid_on_the_image(image: np.ndarray, points: np.ndarray) -> None:
    twice = np.repeat(np.repeat(points, 2, axis=0), 2, axis=1)
    assert np.array_equal(load_scan(Sample(image, points=twice))[..., 3:], points, equal_nan=True)
    scan = load_scan(Sample(image.repeat(3, axis=0).repeat(3, axis=1), points=points))
    assert np.array_equal(scan[1::3, 1::3, 3:], points, equal_nan=True)


def test_points_of_another_shape_are_refused(image: np.ndarray, points: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", points[:, :-2])
    Image.fromarray(image).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png.*30x20.*b\.npy.*got 28x20"):
        load_scan(Sample(tmp_path / "a.png", points=tmp_path / "b.npy"))
    with pytest.raises(ImageError, match="got 20x30"):
        load_scan(Sample(image, points=points.swapaxes(0, 1)))


def test_a_missing_file_of_either_kind_is_named(image: np.ndarray, points: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"points at.*away\.tiff.*nothing there"):
        load_scan(Sample(image, points=tmp_path / "away.tiff"))
    with pytest.raises(ImageError, match=r"a picture at.*away\.png.*nothing there"):
        load_scan(Sample(tmp_path / "away.png", points=points))


def test_scans_from_memory_are_checked(image: np.ndarray, points: np.ndarray) -> None:
    scan = load_scan(Sample(image, points=points))
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
        with pytest.raises(ImageError, match=message):
            load_scan(Sample(wrong))
