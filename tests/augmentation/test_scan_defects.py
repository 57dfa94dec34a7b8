"""Synthetic anomalies on scans: exact masks, one modality or both, nothing invented where nothing was measured."""

from __future__ import annotations

import numpy as np
import pytest
from scan_parts import same
from scipy import ndimage

from blemish.augmentation.scan_defects import GROUP, KINDS, kinds_for, synthetic_scan_anomaly
from blemish.errors import SettingsError
from blemish.types import POINTS, RGB, Scan


def scan_of(height: int = 64, width: int = 80, seed: int = 0) -> Scan:
    """A domed disc of 0.5 mm points half a metre away, without its background, with noise and lost points."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    radius = np.hypot(y - height / 2, x - width / 2) / min(height, width)
    rgb = rng.integers(60, 200, (height, width, 3)).astype(np.uint8)
    xyz = np.stack([x * 5e-4, y * 5e-4, 0.5 - 0.01 * np.cos(3 * radius)], axis=-1).astype(np.float32)
    xyz[..., 2] += rng.normal(0, 1e-5, (height, width))
    xyz[(radius > 0.4) | (rng.random((height, width)) < 0.02)] = np.nan
    return Scan(rgb, xyz)


def changed(before: Scan, after: Scan) -> np.ndarray:
    """`(H, W)` bool, pixel by pixel: the slow and obvious way."""
    differs = np.zeros(before.shape, dtype=bool)
    for one, other in ((before.rgb, after.rgb), (before.xyz, after.xyz)):
        assert (one is None) == (other is None)
        if one is None or other is None:
            continue
        for place in np.ndindex(before.shape):
            differs[place] |= any(
                a != b and not (np.isnan(a) and np.isnan(b)) for a, b in zip(one[place], other[place], strict=True)
            )
    return differs


def measured_in(scan: Scan) -> np.ndarray:
    return np.isfinite(scan.xyz).all(-1)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_the_mask_is_exactly_what_changed(kind: str | None) -> None:
    scan = scan_of(40, 48)
    before = scan.tobytes()
    for seed in range(6):
        altered, mask = synthetic_scan_anomaly(scan, np.random.default_rng(seed), kind)
        assert altered.shape == scan.shape
        assert (altered.rgb.dtype == np.uint8) == np.array_equal(altered.rgb, scan.rgb)
        assert altered.xyz.dtype == np.float32
        assert mask.shape == scan.shape
        assert mask.dtype == bool
        assert mask.any()
        assert np.array_equal(changed(scan, altered), mask)
    assert scan.tobytes() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_changes_its_own_modality_alone(kind: str) -> None:
    scan = scan_of()
    measured = measured_in(scan)
    near = ndimage.binary_dilation(measured, iterations=2)  # lost points between measured ones belong to the part
    for seed in range(8):
        altered, mask = synthetic_scan_anomaly(scan, np.random.default_rng(seed), kind)
        image = (altered.rgb != scan.rgb).any()
        points = not np.array_equal(altered.xyz, scan.xyz, equal_nan=True)
        assert (image, points) == {"geometry": (False, True), "colour": (True, False), "both": (True, True)}[
            GROUP[kind]
        ]
        assert not (mask & ~near).any()  # on the part
        assert np.isnan(altered.xyz[~measured]).all()  # no point is invented
        assert altered.rgb.min() >= 0
        assert altered.rgb.max() <= 255


def test_every_group_comes_up() -> None:
    scan, seen = scan_of(), set()
    for seed in range(40):
        altered, _ = synthetic_scan_anomaly(scan, np.random.default_rng(seed))
        points = not np.array_equal(altered.xyz, scan.xyz, equal_nan=True)
        seen.add(((altered.rgb != scan.rgb).any(), points))
    assert seen == {(True, False), (False, True), (True, True)}


@pytest.mark.parametrize("there", [RGB, POINTS])
def test_a_missing_modality_stays_missing(there: str) -> None:
    scan = scan_of().only(there)
    for seed in range(12):
        altered, mask = synthetic_scan_anomaly(scan, np.random.default_rng(seed))
        assert altered.available == (there,)
        assert mask.any()
    lacking = "stain" if there == POINTS else "hole"
    with pytest.raises(SettingsError, match="that the scan can show"):
        synthetic_scan_anomaly(scan, np.random.default_rng(0), lacking)


def on_a_mat() -> Scan:
    """A bright part on a dark, grainy ground, around it a flank and in it a glaring spot that have no points."""
    scan = scan_of()
    scan.xyz[26:38, 34:46] = np.nan
    is_part = ndimage.binary_dilation(ndimage.binary_fill_holes(measured_in(scan)), iterations=2)
    ground = np.random.default_rng(1).integers(10, 60, (*scan.shape, 3))
    return Scan(np.where(is_part[..., None], 230, ground).astype(np.uint8), scan.xyz)


def test_where_a_piece_is_missing_the_image_shows_the_background() -> None:
    """Neither the flank nor the glare is taken for the background, whose grain goes on."""
    scan = on_a_mat()
    for seed in range(12):
        altered, mask = synthetic_scan_anomaly(scan, np.random.default_rng(seed), "bite")
        assert np.isnan(altered.xyz[mask]).all()
        assert altered.rgb[mask].max() < 60
        assert np.array_equal(altered.rgb[~mask], scan.rgb[~mask])
        if mask.sum() > 30:
            assert altered.rgb[mask].std() == pytest.approx(scan.rgb[scan.rgb < 60].std(), rel=0.25)


def test_where_the_part_fills_the_image_a_missing_piece_shows_its_border() -> None:
    image = np.full((40, 48, 3), 30, np.uint8)
    image[1:-1, 1:-1] = 230
    y, x = np.mgrid[:40, :48].astype(np.float32) * 5e-4
    scan = Scan(image, np.stack([x, y, np.full_like(x, 0.5)], axis=-1))
    for seed in range(6):
        altered, mask = synthetic_scan_anomaly(scan, np.random.default_rng(seed), "bite")
        assert altered.rgb[mask].max() < 60


def test_points_alone_are_bitten_as_often_as_dented() -> None:
    scan = scan_of().only(POINTS)
    bitten = [
        np.isnan(altered.xyz[mask]).all()
        for altered, mask in (synthetic_scan_anomaly(scan, np.random.default_rng(seed)) for seed in range(80))
    ]
    assert 0.1 < np.mean(bitten) < 0.4
    assert np.isnan(synthetic_scan_anomaly(scan, np.random.default_rng(0), "bite")[0].xyz).any()


def test_a_stain_covers_lost_points_too() -> None:
    scan = Scan(np.full((64, 80, 3), 128, np.uint8), scan_of().xyz)
    measured = measured_in(scan)
    masks = [synthetic_scan_anomaly(scan, np.random.default_rng(seed), "stain")[1] for seed in range(20)]
    assert any((mask & ~measured).any() for mask in masks)
    for mask in masks:
        assert np.array_equal(ndimage.binary_fill_holes(mask), mask)


def test_kinds_for_what_is_there() -> None:
    assert kinds_for(True, True) == list(KINDS)
    assert {GROUP[kind] for kind in kinds_for(True, False)} == {"colour"}
    assert set(kinds_for(False, True)) == {kind for kind in KINDS if GROUP[kind] == "geometry"} | {"bite"}
    with pytest.raises(SettingsError, match="one with neither"):
        synthetic_scan_anomaly(Scan(xyz=np.full((8, 8, 3), np.nan, np.float32)), np.random.default_rng(0))


def test_the_same_numbers_give_the_same_defect() -> None:
    for seed in range(8):
        one, other = (synthetic_scan_anomaly(scan_of(), np.random.default_rng(seed)) for _ in range(2))
        assert same(one[0], other[0])
        assert np.array_equal(one[1], other[1])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 9), (16, 5)])
@pytest.mark.parametrize("level", [0, 255, None])
def test_never_empty_even_on_scans_that_show_nothing(height: int, width: int, level: int | None) -> None:
    image = None if level is None else np.full((height, width, 3), level, np.uint8)
    scan = Scan(image, np.full((height, width, 3), (0.1, 0.1, 0.6), np.float32))  # all points in one place
    for seed in range(10):
        for kind in (None, *kinds_for(level is not None, True)):
            altered, mask = synthetic_scan_anomaly(scan, np.random.default_rng(seed), kind)
            assert mask.any()
            assert np.array_equal(changed(scan, altered), mask)


def test_a_black_image_alone_still_gets_its_defect() -> None:
    scan = Scan(np.zeros((12, 12, 3), np.uint8))
    for kind in ("paste", "stain", None):  # a paste of black on black leaves no trace
        altered, mask = synthetic_scan_anomaly(scan, np.random.default_rng(3), kind)
        assert mask.any()
        assert (altered.rgb[mask] > 0).any()


def test_defects_are_small_and_as_deep_as_they_are_wide() -> None:
    """Floors and ceilings that a broken scale (pixels for metres) would miss."""
    scan = scan_of(120, 120)
    part = measured_in(scan).sum()
    for kind in ("push", "hole", "lump"):
        shares, depths = [], []
        for seed in range(30):
            altered, mask = synthetic_scan_anomaly(scan, np.random.default_rng(seed), kind)
            moved = np.linalg.norm(altered.xyz - scan.xyz, axis=-1)
            shares.append(mask.sum() / part)
            depths.append(np.nanmax(moved) / (5e-4 * np.sqrt(mask.sum() / np.pi)))  # of the radius
        assert 0.001 < np.median(shares) < 0.06
        assert 0.05 < np.median(depths) < 2.0


@pytest.mark.parametrize(
    ("turned", "offset"),
    [((1, 1, 1), 0.0), ((1, 1, 1), -1.0), ((1, -1, -1), 0.0), ((1, -1, -1), 1.0)],
    ids=["camera", "height map", "z to the viewer", "z up from a table"],
)
def test_holes_are_deeper_and_lumps_nearer(turned: tuple[int, int, int], offset: float) -> None:
    """Whichever way a sensor's axes point, and whatever the sign of z."""
    scan = scan_of()
    scan = Scan(scan.rgb, (scan.xyz * np.float32(turned) + np.float32((0, 0, offset))).astype(np.float32))
    for seed in range(10):
        for kind, sign in (("hole", 1), ("lump", -1)):
            altered, _ = synthetic_scan_anomaly(scan, np.random.default_rng(seed), kind)
            shift = turned[2] * (altered.xyz - scan.xyz)[..., 2]
            assert (sign * shift[np.isfinite(shift)] >= 0).all()
