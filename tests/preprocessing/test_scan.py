from __future__ import annotations

import numpy as np
import pytest
from scan_parts import heights, points_of, same

from blemish.data.points import measured, resize_points
from blemish.errors import ImageError, SettingsError
from blemish.preprocessing.ground_removal import pad_square
from blemish.preprocessing.scan import ScanFraming
from blemish.scoring.anomaly_map import full_map
from blemish.types import Scan


def scan(height: int = 96, width: int = 96, top: float = 0.03) -> Scan:
    """A part on a tilted plane, cut out of a square scan."""
    side = max(height, width)
    rows, columns = (side - height) // 2, (side - width) // 2
    points = points_of(heights(side, top), (0.2, 0.1), noise=2e-4, holes=0.05)
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Scan(image, points).crop(slice(rows, rows + height), slice(columns, columns + width))


def test_a_square_scan_without_its_background() -> None:
    whole = scan()
    frame = ScanFraming(image_size=96, crop=False).frame(whole)
    assert frame.encoder_input.shape == (96, 96)
    assert frame.original_size == (96, 96)
    assert frame.to_image is None
    assert np.array_equal(frame.encoder_input.rgb, whole.rgb)  # the image stays whole
    left = measured(frame.encoder_input.xyz)
    assert np.array_equal(frame.encoder_input.xyz[left], whole.xyz[left])
    high = heights(96, 0.03)
    assert left[measured(whole.xyz) & (high > 0.007)].all()
    assert not left[high < 0.003].any()


def test_what_is_switched_off_is_not_done() -> None:
    whole = scan()
    frame = ScanFraming(image_size=96, plane=False, clusters=False).frame(whole)
    assert same(frame.encoder_input, whole)
    wide = ScanFraming(image_size=96, band=0.001).frame(whole)
    assert (
        measured(wide.encoder_input.xyz).sum()
        > measured(ScanFraming(image_size=96).frame(whole).encoder_input.xyz).sum()
    )


@pytest.mark.parametrize(("height", "width"), [(60, 100), (100, 60), (64, 64), (37, 90), (300, 211)])
@pytest.mark.parametrize("image_size", [48, 120])
def test_a_mark_in_the_frame_lands_where_it_was(height: int, width: int, image_size: int) -> None:
    """A bright square patch is found in the frame, and its place in the image from there."""
    marked = np.zeros((height, width, 3), np.uint8)
    top, left, side = height // 3, width // 2, max(height, width) // 8
    marked[top : top + side, left : left + side] = 255
    frame = ScanFraming(image_size=image_size).frame(Scan(marked))
    bright = frame.encoder_input.rgb[..., 0] / 255
    size = frame.encoder_input.shape[:2]
    back = full_map(bright.astype(np.float32), size, (height, width), frame.to_image, blur=0)
    assert back.shape == (height, width)
    rows, columns = np.mgrid[:height, :width]
    centre = (rows * back).sum() / back.sum(), (columns * back).sum() / back.sum()
    coarse = max(1.0, max(height, width) / image_size)
    assert centre == pytest.approx((top + (side - 1) / 2, left + (side - 1) / 2), abs=0.5 * coarse)
    assert back.sum() == pytest.approx(side**2, rel=0.25)
    if frame.to_image is not None:
        row, column = np.argwhere(bright > 0.5).mean(axis=0) + 0.5
        x, y = frame.to_image @ (column, row, 1)
        assert (y, x) == pytest.approx((top + side / 2, left + side / 2), abs=0.6 * coarse)


@pytest.mark.parametrize(("height", "width"), [(60, 100), (100, 60), (80, 80)])
def test_image_points_and_mask_stay_on_one_grid(height: int, width: int) -> None:
    """Points that hold their own pixel's place lie, after framing, where the way back says."""
    down, across = np.mgrid[:height, :width]
    places = np.stack([across, down, np.ones((height, width))], axis=-1).astype(np.float32)
    image = np.repeat(((across // 20 + down // 20) % 2 * 255)[..., None], 3, axis=-1).astype(np.uint8)
    frame = ScanFraming(image_size=56, plane=False, clusters=False, crop=False).frame(Scan(image, places))
    scale = max(height, width) / 56
    to_image = np.array([[scale, 0, 0], [0, scale, 0]]) if frame.to_image is None else frame.to_image
    rows, columns = np.nonzero(measured(frame.encoder_input.xyz))
    expected = to_image @ np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])  # (2, N)
    found = frame.encoder_input.xyz[rows, columns, :2].T + 0.5
    assert np.abs(found - expected).max() <= 0.5 + 1e-4
    assert len(rows) == pytest.approx(height * width / scale**2, rel=0.05)
    mask = resize_points(pad_square(image[..., 0] > 0, fill=0), (56, 56))
    bright = frame.encoder_input.rgb[..., 0] > 127
    inside = measured(frame.encoder_input.xyz)
    assert (mask == bright)[inside].mean() > 0.9


@pytest.mark.parametrize(("height", "width"), [(96, 96), (60, 100), (100, 60)])
def test_a_crop_holds_all_of_the_part_and_knows_the_way_back(height: int, width: int) -> None:
    """What the crop leaves out has no points, and every cell of it lies where the uncropped frame has it."""
    whole = scan(height, width)
    all_of_it = ScanFraming(image_size=64, multiple=4, crop=False).frame(whole)
    frame = ScanFraming(image_size=64, multiple=4).frame(whole)
    assert frame.to_image is not None
    assert all(side % 4 == 0 and side < 64 for side in frame.encoder_input.shape[:2])
    assert measured(frame.encoder_input.xyz).sum() == measured(all_of_it.encoder_input.xyz).sum() > 0
    scale = max(height, width) / 64
    identity = np.array([[scale, 0, 0], [0, scale, 0]])
    back = identity if all_of_it.to_image is None else all_of_it.to_image
    x, y = np.linalg.solve(back[:, :2], frame.to_image[:, 2] - back[:, 2])  # the crop's corner in the uncropped frame
    assert (x, y) == (pytest.approx(round(x)), pytest.approx(round(y)))
    rows, columns = frame.encoder_input.shape[:2]
    place = all_of_it.encoder_input.crop(slice(round(y), round(y) + rows), slice(round(x), round(x) + columns))
    assert same(frame.encoder_input, place)


def test_an_image_without_points() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    frame = ScanFraming(image_size=64).frame(image)
    assert frame.encoder_input.shape == (64, 64)
    assert frame.encoder_input.rgb.shape == (64, 64, 3)
    assert frame.encoder_input.xyz is None
    nothing_measured = np.full((50, 70, 3), np.nan, np.float32)
    for scan_alike in (Scan(image), Scan(image, nothing_measured)):
        assert same(ScanFraming(image_size=64).frame(scan_alike).encoder_input, frame.encoder_input)


def test_points_without_an_image() -> None:
    whole = scan()
    pixels = ScanFraming(image_size=48).frame(Scan(xyz=whole.xyz)).encoder_input
    assert pixels.rgb is None
    assert measured(pixels.xyz).any()
    assert np.array_equal(pixels.xyz, ScanFraming(image_size=48).frame(whole).encoder_input.xyz, equal_nan=True)


def test_the_frame_is_a_multiple_and_its_input_is_left_alone() -> None:
    whole = scan(70, 90)
    before = whole.tobytes()
    frame = ScanFraming(image_size=100, multiple=16, crop=False).frame(whole)
    assert frame.encoder_input.shape == (96, 96)
    assert whole.tobytes() == before


def test_impossible_settings_and_shapes() -> None:
    for settings in ({"image_size": 0}, {"multiple": 0}, {"band": 0.0}, {"band": float("nan")}, {"band": -1.0}):
        with pytest.raises(SettingsError, match=next(iter(settings))):
            ScanFraming(**settings).fit([])
    with pytest.raises(ImageError, match=r"\(20, 20, 4\)"):
        ScanFraming().frame(np.zeros((20, 20, 4), np.float32))
