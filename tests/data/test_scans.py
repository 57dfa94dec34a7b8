from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scan_parts import heights, points_of, same

from blemish.data import load_scan
from blemish.encoders.points.fpfh import load_fpfh
from blemish.encoders.points.surface_statistics import load_surface_statistics
from blemish.errors import ImageError
from blemish.numeric.organised_points import spacing
from blemish.preprocessing.scan import ScanFraming
from blemish.types import POINTS, RGB, Sample, Scan


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def points() -> np.ndarray:
    return (points_of(heights(30, top=0.02)[:20], holes=0.1) / 4).astype(np.float32)


def test_image_and_points_side_by_side(image: np.ndarray, points: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(image).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", points)
    for sample in (Sample(image, points=points), Sample(tmp_path / "a.png", points=tmp_path / "a.npy")):
        scan = load_scan(sample)
        assert scan.shape == (20, 30)
        assert scan.available == (RGB, POINTS)
        assert same(scan, Scan(image, points))
        assert same(load_scan(Sample.of(scan)), scan)


def test_16_bit_images_come_as_8_bits(points: np.ndarray) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    scan = load_scan(Sample(deep, points=points))
    assert scan.rgb is not None
    assert np.array_equal(scan.rgb[..., 1], deep >> 8)


def test_an_image_without_points_has_none(image: np.ndarray) -> None:
    scan = load_scan(Sample(image))
    assert same(scan, Scan(image))
    assert scan.available == (RGB,)


def test_points_without_an_image_have_their_own_size(points: np.ndarray) -> None:
    assert same(load_scan(Sample(None, points)), Scan(xyz=points))


def test_units_go_along_with_the_sample(image: np.ndarray, points: np.ndarray) -> None:
    scan = load_scan(Sample(image, points=1000 * points, units="mm"))
    assert np.allclose(scan.xyz, points, rtol=1e-6, equal_nan=True)
    with pytest.raises(ImageError, match="looks like millimetres"):
        load_scan(Sample(image, points=1000 * points))


def test_points_of_another_resolution_are_laid_on_the_image(image: np.ndarray, points: np.ndarray) -> None:
    twice = np.repeat(np.repeat(points, 2, axis=0), 2, axis=1)
    assert np.array_equal(load_scan(Sample(image, points=twice)).xyz, points, equal_nan=True)
    scan = load_scan(Sample(image.repeat(3, axis=0).repeat(3, axis=1), points=points))
    assert scan.xyz is not None
    assert np.array_equal(scan.xyz[1::3, 1::3], points, equal_nan=True)


@pytest.mark.parametrize(
    ("side", "pixels", "frame"), [(64, 448, 224), (64, 448, 448), (100, 448, 224), (150, 448, 224)]
)
def test_points_under_a_finer_picture_keep_their_distances(side: int, pixels: int, frame: int) -> None:
    points = points_of(heights(side, 0.03), (0.2, 0.1), noise=1e-4, holes=0.02)
    image = np.zeros((pixels, pixels, 3), np.uint8)
    whole = ScanFraming(image_size=frame, plane=False, crop=False, turn=False)
    framed = whole.frame(load_scan(Sample(image, points=points))).encoder_input
    assert framed.shape == (frame, frame)
    assert spacing(framed.xyz) == pytest.approx(spacing(points) * side / frame, rel=0.03)
    for encoder in (load_fpfh(), load_surface_statistics()):
        features = encoder.encode_points(framed.xyz[None])
        described = features.layers[POINTS][0][features.valid[POINTS]]  # (n, D)
        assert (described != 0).any(dim=1).float().mean() > 0.99


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
    for modality in (RGB, POINTS):
        assert same(load_scan(Sample.of(scan.only(modality))), scan.only(modality))
    nothing_measured = np.full_like(points, np.nan)
    assert same(load_scan(Sample.of(Scan(image, nothing_measured))), Scan(image))
    with pytest.raises(ImageError, match="neither"):
        Sample.of(Scan(xyz=nothing_measured))
    with pytest.raises(ImageError, match="looks like millimetres"):
        load_scan(Sample.of(Scan(image, 1e5 * points)))
    six_channels = np.concatenate([image, points], axis=-1, dtype=np.float32)
    with pytest.raises(ImageError, match=r"shape \(20, 30, 6\)"):
        load_scan(Sample(six_channels))
