"""Areas that are not judged: read from boxes and masks, laid onto images and onto what the encoder sees of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.errors import DatasetError, ImageError, SettingsError
from blemish.preprocessing.crop_to_part import PartFraming
from blemish.preprocessing.framing import Frame, PlainFraming
from blemish.preprocessing.ignored_area import (
    Box,
    fill_ignored,
    filled_in,
    ignored_areas,
    ignored_pixels,
    read_ignored,
    resized_area,
)
from blemish.types import Scan


def area_of(given: Any, *sizes: tuple[int, int]) -> np.ndarray:
    return ignored_areas(read_ignored(given), {"": sizes or ((100, 200),)})[""]


def test_a_box_in_pixels_and_the_same_in_percent_are_one_area() -> None:
    expected = np.zeros((100, 200), dtype=bool)
    expected[10:30, 50:90] = True
    assert np.array_equal(area_of("50,10,40,20"), expected)
    assert np.array_equal(area_of(" 25%, 10% ,20%,20%"), expected)
    assert np.array_equal(area_of("25%,10,40,20%"), expected)


def test_cells_that_a_box_touches_belong_to_it() -> None:
    assert area_of("0.9,0,0.2,1", (4, 4))[0].tolist() == [True, True, False, False]
    assert area_of("1,1,1,1", (4, 4)).sum() == 1


def test_several_areas_add_up() -> None:
    both = area_of(["0,0,10,10", "100,50,10,10"])
    assert both.sum() == 200
    assert both[0, 0]
    assert both[55, 105]


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5", "-1,0,5,5", "1;2;3;4", "0,0,0,5"])
def test_what_is_no_box_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="box"):
        read_ignored(text)


def test_a_box_ends_inside_the_pictures() -> None:
    assert area_of("190,90,10,10")[-1, -1]
    with pytest.raises(SettingsError, match=r"200x100; got '190,90,11,10'"):
        area_of("190,90,11,10")


def test_pixels_mean_nothing_where_pictures_differ_in_size() -> None:
    assert area_of("10%,10%,10%,10%", (100, 200), (50, 90)).any()
    with pytest.raises(SettingsError, match="percent"):
        area_of("10,10,10,10", (100, 200), (50, 100))


def test_a_mask_of_the_same_aspect_ratio_is_scaled(tmp_path: Path) -> None:
    mask = np.zeros((50, 100), dtype=np.uint8)
    mask[10:20, 30:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for given in (tmp_path / "mask.png", str(tmp_path / "mask.png"), mask, mask > 0):
        expected = np.zeros((100, 200), dtype=bool)
        expected[20:40, 60:80] = True
        assert np.array_equal(area_of(given), expected)
    assert area_of(mask, (33, 66)).any()  # a pixel more or less is rounding


def test_a_mask_of_another_aspect_ratio_is_refused_by_name(tmp_path: Path) -> None:
    Image.new("L", (100, 60), 255).save(tmp_path / "other.png")
    with pytest.raises(ImageError, match=r"200x100, in '.*other\.png'; got 100x60"):
        area_of(tmp_path / "other.png")


def test_a_mask_that_is_black_is_refused() -> None:
    with pytest.raises(ImageError, match="black"):
        read_ignored(np.zeros((10, 20), dtype=bool))


def test_all_ignored_leaves_nothing_to_judge() -> None:
    assert not area_of("0,0,100%,99%").all()
    with pytest.raises(DatasetError, match="left to judge"):
        area_of(["0,0,50%,100%", "50%,0,50%,100%"])


def test_areas_by_category() -> None:
    sizes = {"bolt": [(10, 10)], "nut": [(10, 10)]}
    found = ignored_areas(read_ignored({"bolt": "0,0,5,5", None: ["9,9,1,1"]}), sizes)
    assert found["bolt"].sum() == 26
    assert found["nut"].sum() == 1
    assert set(ignored_areas(read_ignored({"nut": "0,0,5,5"}), sizes)) == {"nut"}
    assert ignored_areas(read_ignored(None), sizes) == {}
    with pytest.raises(SettingsError, match="bolt, nut; got 'screw'"):
        ignored_areas(read_ignored({"screw": "0,0,5,5"}), sizes)


def test_a_large_area_is_kept_small_and_covers_the_same() -> None:
    area = area_of("1000,500,1000,500", (2000, 4000))
    assert area.shape == (512, 1024)
    assert abs(area.mean() - 1 / 16) < 1e-6
    back = resized_area(area, (2000, 4000))
    assert back[500:1000, 1000:2000].all()
    assert back.sum() == 500 * 1000


def test_small_things_survive_shrinking() -> None:
    area = np.zeros((300, 300), dtype=bool)
    area[100, 100] = True
    assert resized_area(area, (30, 30))[10, 10]
    assert resized_area(area, (30, 30)).sum() == 1


def test_the_whole_picture_resized_shows_the_area_where_it_lies() -> None:
    frame = PlainFraming(image_size=56, multiple=14).frame(np.zeros((100, 200, 3), np.uint8))
    pixels = ignored_pixels(area_of("50%,50%,50%,50%"), frame)
    assert pixels.shape == (56, 112)
    assert pixels[28:, 56:].all()
    assert not pixels[:28].any()
    assert not pixels[:, :56].any()


def test_a_turned_crop_shows_the_area_where_the_part_carries_it() -> None:
    """Against a loop: a pixel of the frame is ignored where the image's pixel that it shows is."""
    angle = 0.4
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * 1.5
    to_image = np.column_stack([turn, [40.0, -10.0]])  # reaches beyond the upper edge
    frame = Frame(np.zeros((40, 60, 3), np.uint8), (100, 200), to_image)
    area = area_of("60,0,40,30")
    found = ignored_pixels(area, frame)
    expected = np.zeros((40, 60), dtype=bool)
    for row in range(40):
        for column in range(60):
            x, y = to_image @ (column + 0.5, row + 0.5, 1)
            expected[row, column] = area[int(abs(y)), int(x)]
    assert expected.any()
    assert np.array_equal(found, expected)


def test_a_part_is_framed_with_its_area() -> None:
    """The area follows the image into the crop, and its map lands on the image again."""
    image = np.full((300, 400, 3), 20, np.uint8)
    image[100:160, 150:250] = (200, 180, 90)
    framing = PartFraming(image_size=112, multiple=14).fit([image])
    frame = framing.frame(image)
    assert frame.to_image is not None
    area = area_of("150,100,50,60", (300, 400))  # the part's left half
    pixels = ignored_pixels(area, frame)
    height, width = pixels.shape
    assert pixels[height // 2, : width // 2 - 2][-20:].all()
    assert not pixels[:, width // 2 + 2 :].any()


def test_nothing_of_the_area_is_left() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (100, 200, 3), dtype=np.uint8)
    other = image.copy()
    area = area_of("30,20,50,40")
    other[20:60, 30:80] = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    one, two = fill_ignored(image, area), fill_ignored(other, area)
    assert isinstance(one, np.ndarray)
    assert np.array_equal(one, two)
    outside = ~resized_area(area, (100, 200))
    assert np.array_equal(one[outside], image[outside])
    other[70, 100] = 255 - other[70, 100]
    assert not np.array_equal(one, fill_ignored(other, area))


def test_filling_takes_the_colours_nearby_and_leaves_the_rest() -> None:
    image = np.zeros((128, 128, 3), np.uint8)
    image[:, :64], image[:, 64:] = (200, 10, 10), (10, 10, 200)
    pixels = np.zeros((128, 128), dtype=bool)
    pixels[40:60, 8:24] = pixels[40:60, 104:120] = True
    before = image.copy()
    image[pixels] = 255
    found = filled_in(image, pixels)
    assert np.abs(found.astype(int) - before).max() < 12
    assert np.array_equal(found[~pixels], before[~pixels])
    assert not filled_in(image, np.ones_like(pixels)).any()
    assert np.array_equal(filled_in(image, np.zeros_like(pixels)), image)


def test_points_in_the_area_count_as_not_measured() -> None:
    scan = Scan(np.zeros((20, 20, 3), np.uint8), np.ones((20, 20, 3), np.float32))
    area = area_of("0,0,5,5", (20, 20))
    filled = fill_ignored(scan, area)
    assert isinstance(filled, Scan)
    assert filled.xyz is not None
    assert np.array_equal(np.isnan(filled.xyz).all(axis=-1), area)
    assert scan.xyz is not None
    assert np.isfinite(scan.xyz).all()


def test_without_an_area_the_image_is_itself() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    assert fill_ignored(image, None) is image


def test_each_number_is_in_pixels_or_percent() -> None:
    assert Box.of("1,2,3%,4").is_share == (False, False, True, False)
