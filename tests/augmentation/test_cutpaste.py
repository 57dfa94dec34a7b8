"""synthetic anomalies: exact masks, sizes as stated, a start on the foreground, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.augmentation.cutpaste import AREA, rectangle, scar, synthetic_anomaly

WAYS = (rectangle, scar, synthetic_anomaly)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (112, 140, 3), dtype=np.uint8)


@pytest.mark.parametrize("way", WAYS)
def test_pixels_outside_the_mask_are_untouched(way, image):
    before = image.copy()
    for seed in range(30):
        altered, mask = way(image, None, np.random.default_rng(seed))
        assert altered.shape == image.shape
        assert altered.dtype == np.uint8
        assert mask.shape == image.shape[:2]
        assert mask.dtype == bool
        assert mask.any()
        assert (altered[~mask] == image[~mask]).all()
        assert (altered[mask] != image[mask]).any()
    assert (image == before).all()


@pytest.mark.parametrize("way", WAYS)
def test_same_seed_same_defect(way, image):
    one, two = (way(image, None, np.random.default_rng(7)) for _ in range(2))
    assert (one[0] == two[0]).all()
    assert (one[1] == two[1]).all()


def test_rectangles_have_the_stated_area_and_are_full(image):
    shares = []
    for seed in range(200):
        mask = rectangle(image, None, np.random.default_rng(seed))[1]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)
        shares.append(mask.mean())
    assert AREA[0] * 0.8 < min(shares) < 0.05
    assert 0.2 < max(shares) < AREA[1] * 1.05


def test_scars_are_small(image):
    areas = [scar(image, None, np.random.default_rng(seed))[1].sum() for seed in range(200)]
    assert min(areas) >= 8
    assert max(areas) <= 16 * 25 * 1.15


def test_a_turned_scar_has_no_colour_but_those_of_its_piece(monkeypatch):
    """Nothing of the corners around the turned strip is pasted, nor mixed in, whatever rounding says of its rim."""
    monkeypatch.setattr("blemish.augmentation.cutpaste.colour_jitter", lambda piece, *amounts: piece)
    image = np.full((112, 140, 3), 200, dtype=np.uint8)
    for seed in (106, 1550, 1691, 1706, 1996, *range(100)):  # the first are close calls
        altered, mask = scar(image, None, np.random.default_rng(seed))
        assert mask.any()
        assert (altered == 200).all()


def test_rectangles_start_on_the_foreground(image):
    foreground = np.zeros(image.shape[:2], dtype=bool)
    foreground[20:40, 30:60] = True
    for seed in range(50):
        mask = rectangle(image, foreground, np.random.default_rng(seed))[1]
        top, left = mask.any(1).argmax(), mask.any(0).argmax()
        fits = foreground[: image.shape[0] - mask.any(1).sum() + 1, : image.shape[1] - mask.any(0).sum() + 1]
        assert foreground[top, left] or not fits.any()


def test_half_are_scars(image):
    small = sum(synthetic_anomaly(image, None, np.random.default_rng(seed))[1].sum() < 460 for seed in range(400))
    assert 160 < small < 260


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 50, 3), (14, 14, 3)])
def test_tiny_images(shape):
    image = np.full(shape, 128, dtype=np.uint8)
    for seed in range(20):
        altered, mask = synthetic_anomaly(image, None, np.random.default_rng(seed))
        assert altered.shape == shape
        assert mask.any()


@pytest.mark.parametrize("share", [0.005, 0.05, 0.4])
def test_a_rectangle_can_have_a_share_of_the_image(share: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    areas = [rectangle(image, None, np.random.default_rng(seed), share)[1].mean() for seed in range(20)]
    assert np.median(areas) == pytest.approx(share, rel=0.15)
