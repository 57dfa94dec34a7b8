"""The part alone, in one pose: bars and discs on a plain ground, textures, broken parts, empty images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from blemish.preprocessing.crop_to_part import GROWN, MARGIN, PartFraming, cut
from blemish.preprocessing.foreground import find_part
from blemish.preprocessing.framing import Frame, Framing, PlainFraming

SIZE = (240, 320)  # height, width
GROUND, METAL = (90, 90, 90), (210, 180, 60)
LENGTH, WIDTH = 140.0, 40.0


def grain(image: np.ndarray, seed: int = 0) -> np.ndarray:
    """With what every camera adds."""
    noise = np.random.default_rng(seed).normal(0, 2, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def along(degrees: float, centre: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of every pixel centre along and across a direction that is turned clockwise, from `centre` (x, y)."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    angle = np.deg2rad(degrees)
    x, y = x - centre[0], y - centre[1]
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def bar(degrees: float, centre: tuple[float, float] = (160, 120), seed: int = 0, gap: float = 0) -> np.ndarray:
    """A bar on a plain ground, wider towards one end so that it has a direction; `gap` breaks it in two."""
    u, v = along(degrees, centre)
    image = np.full((*SIZE, 3), GROUND, dtype=float)
    half = np.where(u > LENGTH / 4, WIDTH / 2, WIDTH / 2.5)
    image[(np.abs(u) < LENGTH / 2) & (np.abs(v) < half) & (np.abs(u + LENGTH / 8) >= gap / 2)] = METAL
    return grain(image, seed)


def disc(radius: float = 40, centre: tuple[float, float] = (160, 120), seed: int = 0) -> np.ndarray:
    u, v = along(0, centre)
    image = np.full((*SIZE, 3), GROUND, dtype=float)
    image[np.hypot(u, v) < radius] = METAL
    return grain(image, seed)


def texture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def learned(images: list[np.ndarray], **settings: int) -> PartFraming:
    return PartFraming(**{"image_size": 128, "multiple": 16} | settings).fit(images)


@pytest.fixture(scope="module")
def of_bars() -> PartFraming:
    return learned([bar(degrees, seed=degrees) for degrees in (0, 25, 70, 130)])


def metal(pixels: np.ndarray) -> np.ndarray:
    """Which pixels show the part."""
    away = [np.abs(pixels - np.array(colour, dtype=float)).sum(-1) for colour in (METAL, GROUND)]
    return away[0] < away[1]


def touches_the_edge(mask: np.ndarray) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def in_image(frame: Frame, x: float, y: float) -> np.ndarray:
    assert frame.to_image is not None
    return frame.to_image @ np.array([x, y, 1.0])


def test_it_is_a_framing() -> None:
    assert isinstance(PartFraming(), Framing)


@pytest.mark.parametrize("degrees", [0, 15, 45, 90, 200, 285])
def test_a_turned_bar_comes_out_level_and_fills_the_frame(of_bars: PartFraming, degrees: float) -> None:
    seen = metal(of_bars.frame(bar(degrees, (150, 125), seed=9)).encoder_input)
    height, width = seen.shape
    assert width > 1.5 * height
    ys, xs = np.nonzero(seen)
    spread = np.cov(np.stack([xs, ys]))
    assert abs(spread[0, 1]) < 0.03 * spread[0, 0]  # level
    assert np.ptp(xs) > 0.75 * width
    assert np.ptp(ys) > 0.55 * height
    assert not touches_the_edge(seen)


@pytest.mark.parametrize("degrees", [10, 100, 190, 280])
def test_all_poses_come_out_the_same_way_round(of_bars: PartFraming, degrees: float) -> None:
    seen = [metal(of_bars.frame(bar(turned, seed=9)).encoder_input) for turned in (10, degrees)]
    assert seen[0].shape == seen[1].shape
    assert (seen[0] != seen[1]).mean() < 0.03


@pytest.mark.parametrize("degrees", [0, 33, 118, 240])
def test_the_way_back_finds_a_mark_within_two_pixels(of_bars: PartFraming, degrees: float) -> None:
    image = bar(degrees, (170, 110), seed=3)
    u, v = along(degrees, (170, 110))
    spot = np.hypot(u - 30, v + 5) < 5
    image[spot] = (0, 0, 255)
    ys, xs = np.nonzero(spot)
    frame = of_bars.frame(image)
    blue = frame.encoder_input.astype(int)
    seen_y, seen_x = np.nonzero((blue[..., 2] > 150) & (blue[..., 0] < 100))
    assert len(seen_x)
    found = in_image(frame, seen_x.mean() + 0.5, seen_y.mean() + 0.5)
    assert np.hypot(*(found - [xs.mean() + 0.5, ys.mean() + 0.5])) < 2


def test_a_level_part_has_four_poses_and_a_round_one_leaves_them_to_the_detector(of_bars: PartFraming) -> None:
    assert of_bars.poses is not None
    assert of_bars.poses[0] == (0.0, False)
    assert len(set(of_bars.poses)) == 4
    assert learned([disc(seed=i) for i in range(3)]).poses is None


def test_a_small_disc_is_cropped_close_and_not_enlarged_without_end() -> None:
    framing = learned([disc(28, seed=i) for i in range(3)], image_size=512)
    frame = framing.frame(disc(28, (60, 180), seed=7))
    height, width = frame.encoder_input.shape[:2]
    assert height < 150  # 56 px across: there is nothing more to see
    np.testing.assert_allclose(in_image(frame, width / 2, height / 2), (60, 180), atol=2)


@pytest.mark.parametrize("centre", [(52.0, 52.0), (268.0, 120.0), (160.0, 188.0)])
def test_a_frame_stays_inside_the_image_where_it_fits(centre: tuple[float, float]) -> None:
    framing = PartFraming(128, 8).fit([disc(), disc(seed=1)])
    frame = framing.frame(disc(48, centre))
    assert frame.to_image is not None
    height, width = frame.encoder_input.shape[:2]
    corners = frame.to_image @ np.array([[0, width], [0, height], [1, 1]])
    assert corners.min() >= -1e-6
    assert (corners.max(axis=1) <= np.array([SIZE[1], SIZE[0]]) + 1e-6).all()


def test_beyond_the_edge_an_image_is_mirrored_not_drawn_out() -> None:
    image = texture()
    shifted = np.array([[1.0, 0, -16], [0, 1, 0]])  # 16 px of the frame lie left of the image
    pixels = cut(image, shifted, (64, 64))
    np.testing.assert_array_equal(pixels[:, :16], image[:64, :16][:, ::-1])
    np.testing.assert_array_equal(pixels[:, 16:], image[:64, :48])


def test_every_frame_has_one_of_few_sizes(of_bars: PartFraming) -> None:
    shapes = {of_bars.frame(bar(degrees, seed=degrees)).encoder_input.shape for degrees in range(0, 180, 12)}
    assert len(shapes) <= len(GROWN)
    assert all(side % of_bars.multiple == 0 for shape in shapes for side in shape[:2])


def test_a_larger_part_than_any_learned_is_seen_whole() -> None:
    framing = learned([disc(30, seed=i) for i in range(3)])
    seen = metal(framing.frame(disc(30 * (1 + 2 * MARGIN) * 1.3, seed=9)).encoder_input)
    assert not touches_the_edge(seen)


@pytest.mark.parametrize("kind", ["texture", "part that fills the picture", "one good picture without a part"])
def test_without_a_part_on_a_plain_ground_images_are_seen_whole(kind: str) -> None:
    images = {
        "texture": [texture(i) for i in range(3)],
        "part that fills the picture": [disc(150, seed=i) for i in range(3)],
        "one good picture without a part": [disc(seed=1), texture(), disc(seed=2)],
    }[kind]
    framing = learned(images)
    for image in images:
        frame = framing.frame(image)
        assert frame.to_image is None
        assert frame.original_size == SIZE
        assert frame.encoder_input.shape[1] > frame.encoder_input.shape[0]  # aspect ratio kept
        assert frame.encoder_input.shape[0] * frame.encoder_input.shape[1] == pytest.approx(128**2, rel=0.2)
    assert PartFraming(128, 16, square=True).fit(images).frame(images[0]).encoder_input.shape == (128, 128, 3)


@pytest.mark.parametrize("gap", [14, 24])
def test_a_part_broken_in_two_is_framed_whole(of_bars: PartFraming, gap: float) -> None:
    whole = metal(of_bars.frame(bar(20, seed=4)).encoder_input)
    frame = of_bars.frame(bar(20, seed=4, gap=gap))
    seen = metal(frame.encoder_input)
    assert np.ptp(np.nonzero(seen)[1]) == pytest.approx(np.ptp(np.nonzero(whole)[1]), rel=0.1)
    assert not touches_the_edge(seen)


def test_an_image_without_the_part_is_seen_whole(of_bars: PartFraming) -> None:
    frame = of_bars.frame(np.full((*SIZE, 3), GROUND, dtype=np.uint8))
    assert frame.to_image is None
    assert frame.original_size == SIZE


def test_what_was_learned_comes_back(of_bars: PartFraming) -> None:
    again = PartFraming(**of_bars.settings).load_state(of_bars.state())
    image = bar(77, seed=5)
    ours, theirs = again.frame(image), of_bars.frame(image)
    assert np.array_equal(ours.encoder_input, theirs.encoder_input)
    assert np.array_equal(ours.to_image, theirs.to_image)  # type: ignore[arg-type]
    assert again.poses == of_bars.poses
    assert PartFraming().load_state(PartFraming().state()).crops_ is False


def test_nothing_seen_is_nothing_to_crop_to() -> None:
    assert not PartFraming().fit([]).crops_


def test_find_part_against_the_drawing() -> None:
    u, v = along(0, (160, 120))
    part = find_part(disc(40))
    assert part is not None
    size = (part.mask.shape[1], part.mask.shape[0])
    drawn = np.asarray(Image.fromarray(np.hypot(u, v) < 40).resize(size)).astype(bool)
    assert (drawn & part.mask).sum() / (drawn | part.mask).sum() > 0.93
    assert part.shrink == pytest.approx(SIZE[1] / size[0], rel=0.01)


def at_scale(image: np.ndarray, scale: float) -> np.ndarray:
    size = round(scale * image.shape[1]), round(scale * image.shape[0])
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def difference(one: Frame, other: Frame) -> float:
    """Mean absolute difference of two frames in grey levels."""
    return float(np.abs(one.encoder_input.astype(float) - other.encoder_input).mean())


def soft(image: np.ndarray) -> np.ndarray:
    """As through a lens."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.8)))


# Grey levels. Enlarged, nothing is lost; reduced, the image's own noise is.
MOST_DIFFERENT = {0.5: 2.2, 0.75: 1.2, 1.5: 0.5, 2: 0.5, 3: 0.5}


@pytest.fixture(scope="module")
def of_soft_bars() -> PartFraming:
    return learned([soft(bar(degrees, seed=degrees)) for degrees in (0, 25, 70, 130)])


@pytest.mark.parametrize("scale", MOST_DIFFERENT)
@pytest.mark.parametrize("degrees", [0, 30, 77])
def test_another_resolution_of_the_same_view_gives_nearly_the_same_frame(
    of_soft_bars: PartFraming, scale: float, degrees: float
) -> None:
    image = soft(bar(degrees))
    scaled = at_scale(image, scale)
    expected, found = of_soft_bars.frame(image), of_soft_bars.frame(scaled)
    assert found.encoder_input.shape == expected.encoder_input.shape
    assert difference(expected, found) < MOST_DIFFERENT[scale]
    assert found.original_size == scaled.shape[:2]
    assert in_image(found, 100, 60) == pytest.approx(scale * in_image(expected, 100, 60), abs=scale)


@pytest.mark.parametrize("scale", MOST_DIFFERENT)
@pytest.mark.parametrize("framing", [PartFraming(128, 16), PlainFraming(128, 16)])
def test_a_whole_image_of_another_resolution_gives_nearly_the_same_frame(framing: Framing, scale: float) -> None:
    images = [soft(soft(texture(seed))) for seed in range(3)]
    framing.fit(images)
    expected, found = framing.frame(images[0]), framing.frame(at_scale(images[0], scale))
    assert expected.to_image is None
    assert difference(expected, found) < MOST_DIFFERENT[scale]


def test_normal_images_of_several_resolutions_are_one_view() -> None:
    """The part's share of the image is stable, its size in pixels is not."""
    framing = learned([at_scale(soft(bar(30 * i, seed=i)), scale) for i, scale in enumerate((0.75, 1, 1, 2))])
    assert framing.view_.size == SIZE
    frames = [framing.frame(at_scale(soft(bar(50)), scale)) for scale in (1, 1.5, 2)]
    assert max(difference(frames[0], other) for other in frames[1:]) < MOST_DIFFERENT[2]


def test_too_low_a_resolution_and_another_shape_are_named(of_bars: PartFraming) -> None:
    wide = np.pad(bar(30), ((0, 0), (40, 40), (0, 0)), mode="edge")
    assert [of_bars.frame(at_scale(bar(30), scale)).note for scale in (0.75, 1, 1.01, 2)] == [""] * 4
    assert "has 160x120 pixels instead of 320x240" in of_bars.frame(at_scale(bar(30), 0.5)).note
    assert "another shape" in of_bars.frame(wide).note
    assert of_bars.frame(wide[:, 30:-30]).note == ""  # hardly another one
    assert PartFraming(128, 16).fit([bar(30), wide]).frame(at_scale(bar(30), 0.5)).note == ""  # nothing to go by


def test_detail_that_no_frame_shows_is_not_missed() -> None:
    """Frames half as fine as the normal images lose nothing by half the resolution."""
    framing = learned([bar(degrees, seed=degrees) for degrees in (0, 25, 70)], image_size=32, multiple=8)
    assert framing.zoom_ < 0.6
    assert framing.frame(at_scale(bar(30), 0.5)).note == ""
    assert "detail" in framing.frame(at_scale(bar(30), 0.2)).note


def test_another_shape_or_learned_sizes_that_differ_are_no_other_resolution(of_bars: PartFraming) -> None:
    """A part of the same size in pixels, in a larger picture, is the same part with more ground around it."""
    image = bar(30)
    wide = np.pad(image, ((0, 0), (40, 40), (0, 0)), mode="edge")
    assert of_bars.frame(wide).encoder_input.shape == of_bars.frame(image).encoder_input.shape
    of_two_sizes = PartFraming(*of_bars.settings.values()).fit(
        [bar(30), np.pad(bar(60), ((9, 9), (12, 12), (0, 0)), "edge")]
    )
    large = np.pad(image, ((24, 24), (32, 32), (0, 0)), mode="edge")
    assert of_two_sizes.frame(large).encoder_input.shape == of_two_sizes.frame(image).encoder_input.shape


@pytest.mark.parametrize(("aspect", "seen"), [(4, 64), (8, 64), (31, 64), (200, 64)])
def test_a_strip_is_seen_as_wide_as_one_of_four_to_one_up_to_a_limit(aspect: int, seen: int) -> None:
    strip = np.random.default_rng(0).integers(0, 256, (32, 32 * aspect, 3), dtype=np.uint8)
    framing = learned([strip, strip])
    shape = framing.frame(strip).encoder_input.shape
    assert shape[:2] == (seen, seen * min(aspect, 64))
    upright = learned([strip.swapaxes(0, 1)]).frame(strip.swapaxes(0, 1)).encoder_input.shape
    assert upright[:2] == shape[1::-1]
    assert (framing.poses is None) == (aspect <= 4)


def test_cutting_without_turning_is_slicing() -> None:
    image = texture()
    shift = np.array([[1.0, 0, 30], [0, 1.0, 20]])
    assert np.array_equal(cut(image, shift, (50, 60)), image[20:70, 30:90])
    beyond = cut(image, np.array([[1.0, 0, -10], [0, 1.0, -10]]), (40, 40))
    assert np.array_equal(beyond[10:, 10:], image[:30, :30])
    assert np.array_equal(beyond[:10, :10], image[9::-1, 9::-1])  # mirrored


@pytest.mark.parametrize("shift", [(-500.0, 0.0), (900.0, 0.0), (0.0, -500.0), (0.0, 900.0)])
def test_a_frame_wholly_beside_the_image_shows_its_edge_mirrored(shift: tuple[float, float]) -> None:
    beside = cut(texture(), np.array([[1.0, 0, shift[0]], [0, 1.0, shift[1]]]), (30, 20))
    assert (beside.shape, beside.dtype) == ((30, 20, 3), np.uint8)


def test_shrinking_averages_instead_of_skipping() -> None:
    rows = np.zeros((80, 80, 3), dtype=np.uint8)
    rows[::2] = 200
    small = cut(rows, np.array([[4.0, 0, 0], [0, 4.0, 0]]), (20, 20))
    assert np.abs(small[2:-2, 2:-2].astype(int) - 100).max() <= 12
