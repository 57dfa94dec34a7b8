"""Light, sharpness and place: each change moves its own measure, and no other."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from blemish.errors import ImageError
from blemish.monitoring.image_statistics import ImageStatistics, statistics_of


def disc(x: float = 160, y: float = 120, radius: float = 60, seed: int = 0) -> np.ndarray:
    """A textured disc on a plain ground, (240, 320, 3) uint8."""
    rows, columns = np.mgrid[:240, :320]
    inside = np.hypot(columns - x, rows - y) < radius
    noise = np.random.default_rng(seed).normal(0, 12, (240, 320))
    grey = np.where(inside, 150 + noise, 60 + 0.1 * noise)
    return np.clip(grey[..., None] * np.array([1.0, 0.9, 0.8]), 0, 255).astype(np.uint8)


def ratios(image: np.ndarray) -> dict[str, float]:
    before, after = statistics_of(disc()).to_dict(), statistics_of(image).to_dict()
    return {name: after[name] / before[name] for name in before}


def test_darker_changes_brightness_alone() -> None:
    found = ratios((disc() * 0.8).astype(np.uint8))
    assert found.pop("brightness") == pytest.approx(0.8, abs=0.01)
    assert list(found.values()) == pytest.approx([1] * len(found), abs=0.03)


def test_blurred_changes_sharpness() -> None:
    found = ratios(np.asarray(Image.fromarray(disc()).filter(ImageFilter.GaussianBlur(1))))
    assert found.pop("sharpness") < 0.6
    assert list(found.values()) == pytest.approx([1] * len(found), abs=0.05)


def test_place_and_size_are_in_pixels() -> None:
    one, other = statistics_of(disc()), statistics_of(disc(x=152, y=125, radius=66))
    assert one.part_x is not None
    assert one.part_x == pytest.approx(160, abs=1)
    assert one.part_y == pytest.approx(120, abs=1)
    assert one.part_size == pytest.approx(60 * np.sqrt(np.pi), rel=0.03)
    assert other.part_x == pytest.approx(152, abs=1)
    assert other.part_y == pytest.approx(125, abs=1)
    assert other.part_size == pytest.approx(66 * np.sqrt(np.pi), rel=0.03)


def test_colour_cast() -> None:
    tinted = disc().astype(float)
    tinted[..., 0] *= 0.9
    found = ratios(tinted.astype(np.uint8))
    assert found["red"] == pytest.approx(0.9, abs=0.01)
    assert found["blue"] == pytest.approx(1, abs=0.01)


def test_colours_of_a_large_bright_picture_are_exact() -> None:
    found = statistics_of(np.full((800, 800, 3), (255, 201, 101), np.uint8))
    assert (found.red, found.blue) == pytest.approx((256 / 202, 102 / 202), rel=1e-9)


@pytest.mark.parametrize("value", [0, 255])
def test_a_plain_picture_has_no_part_and_finite_values(value: int) -> None:
    found = statistics_of(np.full((64, 64, 3), value, np.uint8))
    assert (found.part_x, found.part_y, found.part_size) == (None, None, None)
    assert all(np.isfinite(v) for v in found.to_dict().values() if v is not None)
    assert ImageStatistics.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("image", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3)), np.zeros((4, 64, 3), np.uint8)])
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ImageError, match="RGB"):
        statistics_of(image)
