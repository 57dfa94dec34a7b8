from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image
from scan_parts import heights, points_of, same

from blemish.data.points import measured, resize_points
from blemish.errors import ImageError, SettingsError
from blemish.numeric.organised_points import spacing
from blemish.preprocessing.ground_removal import keep_clusters, pad_square, remove_plane
from blemish.preprocessing.scan import ScanFraming, _square_image, _square_points
from blemish.scoring.anomaly_map import full_map
from blemish.types import LEAST_MEASURED, Scan


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


@pytest.mark.parametrize("side", [2, 9])
def test_a_few_stray_points_are_none(side: int) -> None:
    """Neither does the frame close in on them, nor does anything take them for the part."""
    whole = scan()
    stray = np.full_like(whole.xyz, np.nan)
    stray[30 : 30 + side, 40 : 40 + side] = whole.xyz[30 : 30 + side, 40 : 40 + side]
    framing = ScanFraming(image_size=96, plane=False, clusters=False)
    assert side**2 < LEAST_MEASURED * 96**2
    assert same(framing.frame(Scan(whole.rgb, stray)).encoder_input, framing.frame(Scan(whole.rgb)).encoder_input)
    alone = framing.frame(Scan(xyz=stray)).encoder_input
    assert (alone.shape, alone.available) == ((96, 96), ())


def test_a_part_that_is_small_or_full_of_holes_keeps_its_points() -> None:
    whole = scan()
    for left in (np.random.default_rng(0).random((96, 96)) < 0.05, heights(96, 1.0) > 0.97):
        xyz = np.where(left[..., None], whole.xyz, np.float32(np.nan))
        framed = ScanFraming(image_size=96, plane=False, clusters=False, turn=False).frame(Scan(whole.rgb, xyz))
        assert measured(framed.encoder_input.xyz).sum() == measured(xyz).sum() > 0


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
    frame = ScanFraming(image_size=72, multiple=16, crop=False).frame(whole)
    assert frame.encoder_input.shape == (80, 80)
    assert whole.tobytes() == before


def test_impossible_settings_and_shapes() -> None:
    for settings in ({"image_size": 0}, {"multiple": 0}, {"band": 0.0}, {"band": float("nan")}, {"band": -1.0}):
        with pytest.raises(SettingsError, match=next(iter(settings))):
            ScanFraming(**settings).fit([])
    with pytest.raises(ImageError, match=r"\(20, 20, 4\)"):
        ScanFraming().frame(np.zeros((20, 20, 4), np.float32))


def wedge(degrees: float, side: int = 120, symmetric: bool = False) -> Scan:
    """A long part on a plane, one end broader unless it is symmetric, turned by so many degrees; 1 mm a pixel."""
    down, across = (np.mgrid[:side, :side] - (side - 1) / 2).astype(np.float32)
    turned = np.deg2rad(degrees)
    along, aside = np.cos(turned) * across + np.sin(turned) * down, -np.sin(turned) * across + np.cos(turned) * down
    width = 8 if symmetric else 8 + along / 6
    part = (np.abs(along) < side / 4) & (np.abs(aside) < width)
    height = np.where(part, 20 + along / 10, 0)
    points = np.stack([across, down, 500 - height], axis=-1).astype(np.float32) / 1000
    image = np.where(part, 150 + 2 * along, 10).clip(0, 255).astype(np.uint8)
    return Scan(np.repeat(image[..., None], 3, axis=-1), points)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Of two masks, centred on a common canvas: intersection over union."""
    canvases = np.zeros((2, 160, 160), bool)
    for canvas, mask in zip(canvases, (one, other), strict=True):
        top, left = (160 - mask.shape[0]) // 2, (160 - mask.shape[1]) // 2
        canvas[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return float((canvases[0] & canvases[1]).sum() / (canvases[0] | canvases[1]).sum())


def test_long_parts_lie_alike_however_they_were_scanned() -> None:
    framing = ScanFraming(image_size=120, multiple=4)
    upright = framing.frame(wedge(0)).encoder_input
    for angle in (20, 90, 135, 181, 275):
        scan = framing.frame(wedge(angle)).encoder_input
        assert scan.shape[0] < scan.shape[1]
        assert overlap(measured(scan.xyz), measured(upright.xyz)) > 0.85
        assert np.abs(scan.rgb.mean((0, 2))[8:-8] - upright.rgb.mean((0, 2))[8 : scan.shape[1] - 8]).mean() < 12
        steps = np.diff(scan.xyz[..., 0], axis=1)  # coordinates turn with the grid: x grows along it
        assert (steps[np.isfinite(steps)] >= 0).mean() > 0.95
        lengths = np.linalg.norm(scan.xyz[measured(scan.xyz)] - (0, 0, 0.5), axis=-1)
        assert lengths.max() == pytest.approx(
            np.linalg.norm((0.030, 0.013, 0.023)), rel=0.1
        )  # and nothing is stretched


@pytest.mark.parametrize("degrees", [0, 10, 20, 30, 45, 60, 90])
def test_points_of_a_turned_part_are_as_far_apart_as_they_were(degrees: float) -> None:
    """Descriptors measure in units of that distance: it must not depend on how the part lay."""
    part = wedge(degrees)
    framed = ScanFraming(112, 14).fit([part]).frame(part).encoder_input
    side_by_side = spacing(wedge(0).xyz)
    assert spacing(framed.xyz) == pytest.approx(side_by_side, rel=0.05)


def test_a_place_on_a_turned_part_is_found_again() -> None:
    framing = ScanFraming(image_size=120, multiple=4)
    scan = wedge(65)
    row, column = 75, 68
    assert measured(framing.frame(scan).encoder_input.xyz).any()
    image = np.zeros_like(scan.rgb)
    image[row - 1 : row + 2, column - 1 : column + 2] = 255
    frame = framing.frame(Scan(image, scan.xyz))
    bright = frame.encoder_input.rgb[..., 0].astype(np.float32)
    back = full_map(bright, bright.shape, scan.shape, frame.to_image, blur=0)
    rows, columns = np.mgrid[: scan.shape[0], : scan.shape[1]]
    assert (rows * back).sum() / back.sum() == pytest.approx(row, abs=0.5)
    assert (columns * back).sum() / back.sum() == pytest.approx(column, abs=0.5)


@pytest.mark.parametrize("held", [0, 45, 90, 135])
def test_ends_that_look_alike_are_not_swapped_for_a_small_turn(held: float) -> None:
    """Held by a fixture: seen at -4° to 4°, such a part must not come out upside down now and then."""
    framing = ScanFraming(image_size=120, multiple=4)
    rights = set()
    for angle in (-4, -1, 2, 4):
        image = framing.frame(wedge(held + angle, symmetric=True)).encoder_input.rgb.astype(float)
        middle = image.shape[1] // 2
        rights.add(image[:, middle:].mean() > image[:, :middle].mean())
    assert len(rights) == 1


def test_round_parts_and_others_by_wish_stay_as_they_are() -> None:
    turned, as_it_is = (ScanFraming(image_size=96, turn=turn).frame(scan()).encoder_input for turn in (True, False))
    assert same(turned, as_it_is)
    long = wedge(40)
    turned, as_it_is = (
        ScanFraming(image_size=120, turn=turn, crop=False).frame(long).encoder_input for turn in (True, False)
    )
    assert not same(turned, as_it_is)
    assert overlap(measured(as_it_is.xyz), measured(keep_clusters(remove_plane(long.xyz)))) > 0.99


def test_what_goes_on_beyond_the_scan_has_no_direction() -> None:
    """A long strip of measured surface shows no part that could be turned."""
    down, across = np.mgrid[:60, :100].astype(np.float32)
    strip = Scan(xyz=np.stack([across, down, 500 + 20 * np.sin(across / 5) * np.cos(down / 7)], axis=-1) / 1000)
    framing = ScanFraming(image_size=96, multiple=4, plane=False)
    assert framing.frame(strip).encoder_input.shape[0] < framing.frame(strip).encoder_input.shape[1]
    upright = Scan(xyz=np.ascontiguousarray(strip.xyz.transpose(1, 0, 2)))
    assert framing.frame(upright).encoder_input.shape[0] > framing.frame(upright).encoder_input.shape[1]


def test_coarse_scans_are_not_enlarged() -> None:
    framing = ScanFraming(image_size=224, multiple=8, crop=False)
    assert framing.frame(scan(64, 64)).encoder_input.shape == (64, 64)
    assert framing.frame(scan(232, 232)).encoder_input.shape == (224, 224)
    assert framing.frame(scan(70, 60)).encoder_input.shape == (64, 64)  # nor by a few pixels
    assert framing.frame(scan(12, 12)).encoder_input.shape == (8, 8)
    earlier = ScanFraming(image_size=224, multiple=8, crop=False).load_state({})
    assert earlier.frame(scan(64, 64)).encoder_input.shape == (224, 224)


def test_a_picture_without_points_is_turned_by_the_part_it_shows() -> None:
    framing = ScanFraming(image_size=120, multiple=4)
    picture = framing.frame(Scan(wedge(50).rgb)).encoder_input
    upright = framing.frame(wedge(0)).encoder_input
    assert min(picture.shape) >= 120  # all of it is inspected
    assert overlap(picture.rgb[..., 0] > 50, upright.rgb[..., 0] > 50) > 0.8


def test_a_picture_without_points_is_not_turned_by_a_defect() -> None:
    sheet = np.random.default_rng(0).normal(120, 5, (120, 120, 1)).repeat(3, axis=2)
    scratched = sheet.copy()
    scratched[50:56, 30:70] = 30
    for image in (sheet, scratched):
        uint8 = image.clip(0, 255).astype(np.uint8)
        assert np.array_equal(ScanFraming(image_size=120, multiple=4).frame(Scan(uint8)).encoder_input.rgb, uint8)


def test_without_a_crop_nothing_of_a_long_part_is_lost() -> None:
    down, across = (np.mgrid[:120, :120] - 59.5).astype(np.float32)
    bar = (np.abs(across - down) < 6) & (np.abs(across) < 58)
    points = np.stack([across, down, np.where(bar, 470, 500)], axis=-1).astype(np.float32) / 1000
    cropped, whole = (ScanFraming(120, 4, crop=crop).frame(Scan(xyz=points)).encoder_input for crop in (True, False))
    assert measured(whole.xyz).sum() == pytest.approx(measured(cropped.xyz).sum(), rel=0.02)
    assert max(whole.shape) > 120


def test_points_turn_with_the_grid_where_y_grows_upward() -> None:
    long = wedge(35)
    upward = Scan(long.rgb, long.xyz * np.float32([1, -1, 1]))
    turned = ScanFraming(image_size=120, multiple=4).frame(upward).encoder_input.xyz
    along, down = np.diff(turned, axis=1), np.diff(turned, axis=0)
    along, down = (steps[np.isfinite(steps).all(axis=-1)][:, :2].mean(axis=0) for steps in (along, down))
    assert along == pytest.approx((1e-3, 0), abs=1e-4)
    assert down == pytest.approx((0, -1e-3), abs=1e-4)


def test_unequal_pixels_are_not_turned() -> None:
    """A profiler whose steps differ along x and y: a turn of its pixels would shear the part."""
    long = wedge(40)
    profiler = Scan(long.rgb, long.xyz * np.float32([1, 0.4, 1]))
    turned, as_it_is = (ScanFraming(120, 4, turn=turn).frame(profiler).encoder_input for turn in (True, False))
    assert same(turned, as_it_is)


def test_models_of_earlier_versions_frame_as_they_did() -> None:
    new = ScanFraming(image_size=120, multiple=4)
    again = ScanFraming(image_size=120, multiple=4).load_state(new.state())
    earlier = ScanFraming(image_size=120, multiple=4).load_state({})
    plain = ScanFraming(image_size=120, multiple=4, turn=False)
    assert same(again.frame(wedge(33)).encoder_input, new.frame(wedge(33)).encoder_input)
    assert same(earlier.frame(wedge(33)).encoder_input, plain.frame(wedge(33)).encoder_input)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (300, 7), (7, 700), (64, 64), (90, 90), (40, 64)])
def test_a_strip_is_padded_as_a_whole_square_would_be(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    points = rng.random((*size, 3), dtype=np.float32)
    whole = Image.fromarray(pad_square(image)).resize((64, 64), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(_square_image(image, 64), np.asarray(whole))
    holes = resize_points(pad_square(points, fill=np.nan), (64, 64))
    np.testing.assert_array_equal(_square_points(points, 64), holes)


def test_the_memory_for_a_strip_grows_with_its_length_alone() -> None:
    strip = Scan(np.zeros((16_000, 8, 3), np.uint8), np.ones((16_000, 8, 3), np.float32))
    tracemalloc.start()
    try:
        ScanFraming(plane=False, clusters=False).frame(strip)
        assert tracemalloc.get_traced_memory()[1] < 200e6  # a square of it has 3.8 GB
    finally:
        tracemalloc.stop()
