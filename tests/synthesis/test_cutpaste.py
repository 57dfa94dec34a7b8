"""Made-up defects: exact masks, sizes as stated, a start on the foreground, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.synthesis.cutpaste import AREA, made_up_defect, rectangle, scar

WAYS = (rectangle, scar, made_up_defect)


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (112, 140, 3), dtype=np.uint8)


@pytest.mark.parametrize("way", WAYS)
def test_pixels_outside_the_mask_are_untouched(way, picture):
    before = picture.copy()
    for seed in range(30):
        altered, mask = way(picture, None, np.random.default_rng(seed))
        assert altered.shape == picture.shape
        assert altered.dtype == np.uint8
        assert mask.shape == picture.shape[:2]
        assert mask.dtype == bool
        assert mask.any()
        assert (altered[~mask] == picture[~mask]).all()
        assert (altered[mask] != picture[mask]).any()
    assert (picture == before).all()


@pytest.mark.parametrize("way", WAYS)
def test_same_seed_same_defect(way, picture):
    one, two = (way(picture, None, np.random.default_rng(7)) for _ in range(2))
    assert (one[0] == two[0]).all()
    assert (one[1] == two[1]).all()


def test_rectangles_have_the_stated_area_and_are_full(picture):
    shares = []
    for seed in range(200):
        mask = rectangle(picture, None, np.random.default_rng(seed))[1]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)
        shares.append(mask.mean())
    assert AREA[0] * 0.8 < min(shares) < 0.05
    assert 0.2 < max(shares) < AREA[1] * 1.05


def test_scars_are_small(picture):
    areas = [scar(picture, None, np.random.default_rng(seed))[1].sum() for seed in range(200)]
    assert min(areas) >= 8
    assert max(areas) <= 16 * 25 * 1.15


def test_rectangles_start_on_the_foreground(picture):
    foreground = np.zeros(picture.shape[:2], dtype=bool)
    foreground[20:40, 30:60] = True
    for seed in range(50):
        mask = rectangle(picture, foreground, np.random.default_rng(seed))[1]
        top, left = mask.any(1).argmax(), mask.any(0).argmax()
        fits = foreground[: picture.shape[0] - mask.any(1).sum() + 1, : picture.shape[1] - mask.any(0).sum() + 1]
        assert foreground[top, left] or not fits.any()


def test_half_are_scars(picture):
    small = sum(made_up_defect(picture, None, np.random.default_rng(seed))[1].sum() < 460 for seed in range(400))
    assert 160 < small < 260


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 50, 3), (14, 14, 3)])
def test_tiny_pictures(shape):
    picture = np.full(shape, 128, dtype=np.uint8)
    for seed in range(20):
        altered, mask = made_up_defect(picture, None, np.random.default_rng(seed))
        assert altered.shape == shape
        assert mask.any()


@pytest.mark.parametrize("share", [0.005, 0.05, 0.4])
def test_a_rectangle_can_have_a_share_of_the_picture(share: float) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    areas = [rectangle(picture, None, np.random.default_rng(seed), share)[1].mean() for seed in range(20)]
    assert np.median(areas) == pytest.approx(share, rel=0.15)
