"""Overlays leave good areas alone, mark defective ones, and cope with any size."""

from __future__ import annotations

import io
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from blemish.errors import ImageError
from blemish.preprocessing.ignored_area import resized_area
from blemish.report.colours import HEAT, from_oklab
from blemish.report.overlays import (
    JPEG_SIDE,
    _strip_texts,
    draw_ignored,
    draw_mask,
    draw_overlay,
    fits_jpeg,
    heat_image,
    thumbnail,
)
from blemish.types import VERDICTS, Region


def to_oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB `(…, 3)` in 0…255 → OKLab `(…, 3)`, with the constants of Ottosson's page."""
    value = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_cone = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(linear @ to_cone.T) @ to_lab.T


def test_heat_rises_evenly_in_lightness():
    lightness = to_oklab(HEAT)[:, 0]
    steps = np.diff(lightness)
    assert (steps > -0.002).all()  # rounding to 8 bits moves a step by less than this
    assert lightness[-1] - lightness[0] > 0.75
    blocks = np.diff(lightness[::15])
    assert blocks.max() < 2.2 * blocks.min()


def test_oklab_there_and_back():
    colours = np.random.default_rng(0).integers(0, 256, (500, 3))
    assert (from_oklab(to_oklab(colours)) == colours).all()


def test_a_good_image_is_untouched_but_for_the_strip(predict, grain):
    image = grain()
    assert (draw_overlay(image, predict(), strip=False) == image).all()
    changed = (draw_overlay(image, predict()) != image).any(axis=(1, 2))
    assert 0 < changed.sum() < 30


def test_the_strip_has_the_word_of_the_verdict_and_no_letter_that_is_missing(predict):
    found = replace(predict(), verdict="defective", score=2.3, threshold=1.0, regions=())
    assert _strip_texts(found) == ["DEFECTIVE  ·  2.3 times the limit", "DEFECTIVE"]


def test_only_the_neighbourhood_of_a_region_changes(predict, grain):
    image, box = grain((256, 320)), (100, 120, 150, 160)
    before = image.copy()
    drawn = draw_overlay(image, predict(score=2.0, box=box, size=(256, 320)), strip=False)
    assert (image == before).all(), "the picture given must not be drawn on"
    changed = (drawn != image).any(axis=2)
    assert changed[120:160, 100:150].mean() > 0.95
    near = np.zeros_like(changed)
    near[120 - 32 : 160 + 8, 100 - 8 : 150 + 8] = True
    assert not changed[~near].any()


def test_heat_grows_denser_with_the_score(predict):
    image = np.full((96, 128, 3), 128, np.uint8)
    shift = []
    for peak in (0.51, 0.8, 1.5, 4.0):
        drawn = draw_overlay(image, predict(box=(40, 30, 80, 70), peak=peak), boxes=False, strip=False)
        shift.append(np.abs(to_oklab(drawn[50, 60]) - to_oklab(image[50, 60])).sum())
    assert shift == sorted(shift)
    assert shift[0] < 0.1 < shift[-1]


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (16, 16), (23, 64), (100, 40), (700, 900)])
def test_any_size_can_be_drawn(predict, grain, size):
    box = (0, 0, max(1, size[1] // 2), max(1, size[0] // 2))
    bad = predict(score=1.0, box=box, size=size)
    for drawn in (draw_overlay(grain(size), bad), heat_image(bad), draw_mask(grain(size), bad.map > 0.5)):
        assert drawn.shape == (*size, 3)
        assert drawn.dtype == np.uint8


def test_maps_and_images_of_other_sizes_meet(predict, grain):
    bad = predict(score=1.0, box=(40, 30, 80, 70), size=(96, 128))
    small = draw_overlay(grain((48, 64)), bad, strip=False) != grain((48, 64))
    assert small.any(axis=2)[20:30, 25:35].all()
    assert not small.any(axis=2)[:, 55:].any()
    large = draw_overlay(grain((384, 512)), bad, strip=False, boxes=False) != grain((384, 512))
    rows, columns = np.flatnonzero(large.any(axis=(1, 2))), np.flatnonzero(large.any(axis=(0, 2)))
    assert abs(rows[0] - 120) < 8
    assert abs(rows[-1] - 280) < 8
    assert abs(columns[0] - 160) < 8
    assert abs(columns[-1] - 320) < 8


def test_odd_maps_do_not_break_an_overlay(predict, grain):
    bad = predict(score=1.0, box=(40, 30, 80, 70))
    holes = bad.map.copy()
    holes[:10] = np.nan
    holes[40, 60] = np.inf
    for scores, limit in ((holes, 0.5), (np.zeros((0, 0), np.float32), 0.5), (bad.map, 0.0), (bad.map * 0, 0.0)):
        assert draw_overlay(grain(), replace(bad, map=scores, region_threshold=limit)).shape == (96, 128, 3)
    many = tuple(Region((i, i, i + 3, i + 3), 9, 1.0, 1.0, (i + 1, i + 1)) for i in range(60))
    draw_overlay(grain(), replace(bad, regions=many))


def test_what_is_no_image_is_refused(predict):
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(ImageError, match="uint8"):
            draw_overlay(wrong, predict())


def test_thumbnails_keep_the_shape(grain):
    assert thumbnail(grain((400, 200)), 100).shape == (100, 50, 3)
    assert thumbnail(grain((1, 4000)), 100).shape == (1, 100, 3)
    assert (thumbnail(grain((40, 50)), 100) == grain((40, 50))).all()


def test_every_verdict_has_a_strip_of_its_own(predict, grain):
    image, colours = grain((200, 320)), set()
    for verdict in VERDICTS:
        drawn = draw_overlay(image, replace(predict(), verdict=verdict))
        rows = (drawn != image).any(axis=(1, 2)).nonzero()[0]
        colours.add(tuple(drawn[rows[0], -1]))
    assert len(colours) == len(VERDICTS)


def test_an_overlay_is_quick(predict, grain):
    image, bad = grain((512, 512)), predict(score=1.0, box=(100, 100, 300, 300), size=(512, 512))
    times = []
    for _ in range(7):
        start = time.perf_counter()
        draw_overlay(image, bad)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.06  # about 4 ms on one free core; room for a busy machine


def test_an_ignored_area_is_hatched_and_named_and_the_rest_is_untouched(predict, grain):
    image = grain((256, 320))
    area = np.zeros((64, 80), dtype=bool)
    area[8:32, 10:60] = True
    prediction = replace(predict(size=(256, 320)), ignored=area)
    for drawn, plain in (
        (draw_overlay(image, prediction, strip=False), image),
        (heat_image(prediction), heat_image(predict(size=(256, 320)))),
        (draw_ignored(image, area), image),
    ):
        changed = (drawn != plain).any(axis=2)
        assert not changed[~resized_area(area, (256, 320))].any()
        assert changed[32:128, 40:240].mean() > 0.9
        assert drawn[60:100, 100:180].min(axis=2).max() > 220  # letters
    assert (draw_ignored(image, np.zeros((64, 80), dtype=bool)) == image).all()


def test_no_letters_where_they_do_not_fit(grain):
    image, area = np.zeros((256, 320, 3), np.uint8), np.zeros((256, 320), dtype=bool)
    area[:, 10:20] = True
    drawn = draw_ignored(image, area)
    assert drawn[:, 10:20].any()
    assert drawn.max() < 255
    assert not drawn[:, 20:].any()


@pytest.mark.parametrize("size", [(JPEG_SIDE + 1, 2), (2, JPEG_SIDE + 1), (JPEG_SIDE, 2)])
def test_what_a_jpeg_cannot_hold_gets_smaller(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    fitting = fits_jpeg(image)
    assert max(fitting.shape) == JPEG_SIDE
    assert (fitting is image) == (max(size) == JPEG_SIDE)
    Image.fromarray(fitting).save(io.BytesIO(), "JPEG")
