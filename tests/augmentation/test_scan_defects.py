"""synthetic anomalies on scans: exact masks, one modality or both, nothing invented where nothing was measured."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from blemish.augmentation.scan_defects import GROUP, KINDS, kinds_for, synthetic_scan_anomaly
from blemish.errors import SettingsError


def scan_of(height: int = 64, width: int = 80, seed: int = 0) -> np.ndarray:
    """A domed disc of 0.5 mm points half a metre away, without its support, with noise and lost points."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    radius = np.hypot(y - height / 2, x - width / 2) / min(height, width)
    scan = np.empty((height, width, 6), np.float32)
    scan[..., :3] = rng.integers(60, 200, (height, width, 3))
    scan[..., 3:] = np.stack([x * 5e-4, y * 5e-4, 0.5 - 0.01 * np.cos(3 * radius)], axis=-1)
    scan[..., 5] += rng.normal(0, 1e-5, (height, width))
    scan[(radius > 0.4) | (rng.random((height, width)) < 0.02), 3:] = np.nan
    return scan


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """`(H, W, 6)` bool, cell by cell: the slow and obvious way."""
    differs = np.zeros(before.shape, dtype=bool)
    for place in np.ndindex(before.shape):
        one, other = before[place], after[place]
        differs[place] = not (one == other or (np.isnan(one) and np.isnan(other)))
    return differs


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_the_mask_is_exactly_what_changed(kind: str | None) -> None:
    scan = scan_of(40, 48)
    before = scan.copy()
    for seed in range(6):
        altered, mask = synthetic_scan_anomaly(scan, np.random.default_rng(seed), kind)
        assert altered.shape == scan.shape
        assert altered.dtype == np.float32
        assert mask.shape == scan.shape[:2]
        assert mask.dtype == bool
        assert mask.any()
        assert np.array_equal(changed(scan, altered).any(-1), mask)
    assert np.array_equal(scan, before, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_changes_its_own_modality_alone(kind: str) -> None:
    scan = scan_of()
    measured = np.isfinite(scan[..., 3:]).all(-1)
    near = ndimage.binary_dilation(measured, iterations=2)  # lost points between measured ones belong to the part
    for seed in range(8):
        altered, mask = synthetic_scan_anomaly(scan, np.random.default_rng(seed), kind)
        image = (altered[..., :3] != scan[..., :3]).any()
        points = not np.array_equal(altered[..., 3:], scan[..., 3:], equal_nan=True)
        assert (image, points) == {"geometry": (False, True), "colour": (True, False), "both": (True, True)}[
            GROUP[kind]
        ]
        assert not (mask & ~near).any()  # on the part
        assert np.isnan(altered[~measured, 3:]).all()  # no point is invented
        assert altered[..., :3].min() >= 0
        assert altered[..., :3].max() <= 255


def test_every_group_comes_up() -> None:
    scan, seen = scan_of(), set()
    for seed in range(40):
        altered, _ = synthetic_scan_anomaly(scan, np.random.default_rng(seed))
        points = not np.array_equal(altered[..., 3:], scan[..., 3:], equal_nan=True)
        seen.add(((altered[..., :3] != scan[..., :3]).any(), points))
    assert seen == {(True, False), (False, True), (True, True)}


@pytest.mark.parametrize("missing", [slice(0, 3), slice(3, 6)])
def test_a_missing_modality_stays_missing(missing: slice) -> None:
    scan = scan_of()
    scan[..., missing] = np.nan
    for seed in range(12):
        altered, mask = synthetic_scan_anomaly(scan, np.random.default_rng(seed))
        assert np.isnan(altered[..., missing]).all()
        assert mask.any()
    lacking = "stain" if missing.start == 0 else "hole"
    with pytest.raises(SettingsError, match="that the scan can show"):
        synthetic_scan_anomaly(scan, np.random.default_rng(0), lacking)


def test_a_stain_covers_lost_points_too() -> None:
    scan = scan_of()
    scan[..., :3] = 128
    measured = np.isfinite(scan[..., 3:]).all(-1)
    masks = [synthetic_scan_anomaly(scan, np.random.default_rng(seed), "stain")[1] for seed in range(20)]
    assert any((mask & ~measured).any() for mask in masks)
    for mask in masks:
        assert np.array_equal(ndimage.binary_fill_holes(mask), mask)


def test_kinds_for_what_is_there() -> None:
    assert kinds_for(True, True) == list(KINDS)
    assert {GROUP[kind] for kind in kinds_for(True, False)} == {"colour"}
    assert {GROUP[kind] for kind in kinds_for(False, True)} == {"geometry"}
    with pytest.raises(SettingsError, match="one with neither"):
        synthetic_scan_anomaly(np.full((8, 8, 6), np.nan, np.float32), np.random.default_rng(0))


def test_the_same_numbers_give_the_same_defect() -> None:
    for seed in range(8):
        one, other = (synthetic_scan_anomaly(scan_of(), np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(one[0], other[0], equal_nan=True)
        assert np.array_equal(one[1], other[1])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 9), (16, 5)])
@pytest.mark.parametrize("image", [0.0, 255.0, np.nan])
def test_never_empty_even_on_scans_that_show_nothing(height: int, width: int, image: float) -> None:
    scan = np.full((height, width, 6), image, np.float32)
    scan[..., 3:] = (0.1, 0.1, 0.6)  # all points in one place
    for seed in range(10):
        for kind in (None, *kinds_for(np.isfinite(image), True)):
            altered, mask = synthetic_scan_anomaly(scan, np.random.default_rng(seed), kind)
            assert mask.any()
            assert np.array_equal(changed(scan, altered).any(-1), mask)


def test_a_black_image_alone_still_gets_its_defect() -> None:
    scan = np.full((12, 12, 6), np.nan, np.float32)
    scan[..., :3] = 0
    for kind in ("paste", "stain", None):  # a paste of black on black leaves no trace
        altered, mask = synthetic_scan_anomaly(scan, np.random.default_rng(3), kind)
        assert mask.any()
        assert (altered[mask, :3] > 0).any()


def test_defects_are_small_and_as_deep_as_they_are_wide() -> None:
    """Floors and ceilings that a broken scale (pixels for metres) would miss."""
    scan = scan_of(120, 120)
    part = np.isfinite(scan[..., 5]).sum()
    for kind in ("push", "hole", "lump"):
        shares, depths = [], []
        for seed in range(30):
            altered, mask = synthetic_scan_anomaly(scan, np.random.default_rng(seed), kind)
            moved = np.linalg.norm(altered[..., 3:] - scan[..., 3:], axis=-1)
            shares.append(mask.sum() / part)
            depths.append(np.nanmax(moved) / (5e-4 * np.sqrt(mask.sum() / np.pi)))  # of the radius
        assert 0.001 < np.median(shares) < 0.06
        assert 0.05 < np.median(depths) < 2.0


def test_holes_are_deeper_and_lumps_nearer() -> None:
    scan = scan_of()
    for seed in range(10):
        for kind, sign in (("hole", 1), ("lump", -1)):
            altered, _ = synthetic_scan_anomaly(scan, np.random.default_rng(seed), kind)
            shift = (altered - scan)[..., 5]
            assert (sign * shift[np.isfinite(shift)] >= 0).all()
