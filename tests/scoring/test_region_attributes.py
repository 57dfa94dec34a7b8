"""Shapes against closed forms; colours, textures, presence and heights of made-up crops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from blemish.numeric.cielab import delta_e_2000, lab_of
from blemish.scoring.region_attributes import Background, Crops, compare, height_above, missing_points, shape_of

PLAIN = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
SIZE = 96


def bar(length: float, width: float, degrees: float, centre: tuple[float, float] = (48.0, 48.0)) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    angle = math.radians(degrees)
    dx, dy = x - centre[0], centre[1] - y  # y points up
    along, across = math.cos(angle) * dx + math.sin(angle) * dy, -math.sin(angle) * dx + math.cos(angle) * dy
    found: np.ndarray = (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2)
    return found


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 120, 179])
def test_a_bar_has_its_length_width_and_direction(degrees: float) -> None:
    found = shape_of(bar(50, 8, degrees), PLAIN)
    assert found.length == pytest.approx(50, rel=0.03)
    assert found.width == pytest.approx(8, rel=0.08)
    assert found.elongation == pytest.approx(50 / 8, rel=0.1)
    turn = abs(found.degrees - degrees) % 180
    assert min(turn, 180 - turn) < 1.5  # of pixels
    assert found.centre == pytest.approx((48, 48), abs=0.5)


def test_an_ellipse_has_the_moments_of_its_closed_form() -> None:
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    inside = ((x - 50) / 30) ** 2 + ((y - 40) / 10) ** 2 <= 1
    found = shape_of(inside, PLAIN)
    assert found.length == pytest.approx(30 * math.sqrt(3), rel=0.01)  # variance a²/4, as length²/12
    assert found.width == pytest.approx(10 * math.sqrt(3), rel=0.02)
    assert found.area == pytest.approx(math.pi * 300, rel=0.01)


def test_one_pixel_is_a_square() -> None:
    one = np.zeros((5, 5), dtype=bool)
    one[2, 3] = True
    found = shape_of(one, PLAIN)
    assert (found.length, found.width, found.area) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    assert found.centre == (3.5, 2.5)


def test_shapes_are_those_of_the_image() -> None:
    turn = np.array([[0.0, -2.0, 100.0], [2.0, 0.0, 10.0]])  # twice as large, turned by 90°
    small, large = shape_of(bar(40, 6, 0), PLAIN), shape_of(bar(40, 6, 0), turn)
    assert large.length == pytest.approx(2 * small.length, rel=1e-6)
    assert large.degrees == pytest.approx(90)
    assert large.area == pytest.approx(4 * small.area)
    assert large.centre == pytest.approx((100 - 2 * small.centre[1], 10 + 2 * small.centre[0]))


def crops(found: np.ndarray, good: np.ndarray, inside: np.ndarray) -> Crops:
    return Crops(found, good, inside, PLAIN)


def grey(seed: int = 0, std: float = 2.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.rint(np.array([140.0, 120, 100]) + random.normal(0, std, (SIZE, SIZE, 3))).clip(0, 255).astype(np.uint8)


def test_equal_crops_differ_in_nothing() -> None:
    found = compare(crops(grey(), grey(1), bar(20, 20, 0)))
    assert found is not None
    assert found.visible is None
    assert found.colour_difference < 1
    assert found.texture_ratio == pytest.approx(1, abs=0.15)
    assert found.edge_ratio == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("change", [(-40, -40, -40), (40, 40, 40), (40, -10, -10), (-5, -5, 60)])
def test_a_change_of_colour_is_measured(change: tuple[int, int, int]) -> None:
    good, image = grey(1), grey()
    mask = bar(16, 14, 30)
    image[mask] = (image[mask].astype(int) + change).clip(0, 255).astype(np.uint8)
    found = compare(crops(image, good, bar(26, 26, 0)))
    assert found is not None
    assert found.visible is not None
    shared = (found.visible & mask).sum() / (found.visible | mask).sum()
    assert shared > 0.85
    true, expected = lab_of(image[mask]).mean(axis=0), lab_of(good[mask]).mean(axis=0)
    measured = (found.lightness, found.redness, found.yellowness)
    np.testing.assert_allclose(measured, true - expected, atol=1.5)
    assert found.colour_difference == pytest.approx(float(delta_e_2000(true, expected)), rel=0.1)


def test_a_change_of_light_is_no_defect() -> None:
    good = grey(1)
    image = (grey().astype(int) + 25).clip(0, 255).astype(np.uint8)
    found = compare(crops(image, good, bar(20, 20, 0)))
    assert found is not None
    assert found.colour_difference < 1


def test_grain_is_rough_and_not_a_colour() -> None:
    image, mask = grey(), bar(24, 24, 0)
    image[mask] = grey(5, std=20)[mask]
    found = compare(crops(image, grey(1), mask))
    assert found is not None
    assert found.colour_difference < 2.5
    assert found.texture_ratio > 4


def test_what_shows_the_background_is_missing_and_the_other_way_round_extra() -> None:
    part = np.zeros((SIZE, SIZE), dtype=bool)
    part[:, :60] = True
    ground = np.where(part[..., None], grey(1), np.uint8(230)).astype(np.uint8)
    background = Background.of(lab_of(np.full((50, 3), 230, np.uint8)))
    hole = bar(14, 14, 0, (30, 40))
    image = ground.copy()
    image[hole] = 230
    found = compare(crops(image, ground, hole), background)
    assert found is not None
    assert found.presence == "missing"
    blob = bar(12, 12, 0, (80, 40))
    image = ground.copy()
    image[blob] = (60, 60, 160)
    found = compare(crops(image, ground, blob), background)
    assert found is not None
    assert found.presence == "extra"
    unknown = compare(crops(image, ground, blob))
    assert unknown is not None
    assert unknown.presence == ""


def test_textures_that_lie_differently_are_compared_by_their_colours() -> None:
    random = np.random.default_rng(0)

    def texture() -> np.ndarray:
        cells = random.integers(90, 160, (SIZE // 4, SIZE // 4))
        return np.repeat(np.repeat(np.repeat(cells[..., None], 4, 0), 4, 1), 3, 2).astype(np.uint8)

    image, good = texture(), texture()
    inside = bar(28, 28, 0)
    clean = compare(crops(image, good, inside))
    assert clean is not None
    assert abs(clean.lightness) < 5
    image[bar(20, 20, 0)] = 20
    dark = compare(crops(image, good, inside))
    assert dark is not None
    assert dark.visible is not None
    assert dark.lightness < -20
    assert dark.visible.sum() == pytest.approx(400, rel=0.2)


def test_nothing_to_compare_is_none() -> None:
    inside = bar(10, 10, 0)
    assert compare(Crops(None, None, inside, PLAIN)) is None
    assert compare(Crops(grey(), None, inside, PLAIN)) is None


def test_heights_over_a_tilted_plane() -> None:
    y, x = np.mgrid[:60, :60].astype(np.float32) * 1e-3
    inside = np.hypot(x - 0.03, y - 0.03) < 0.008
    for rise in (0.0, 1.5, -2.5):
        z = 0.4 + 0.2 * x - 0.1 * y - np.where(inside, rise / 1000, 0)
        xyz = np.stack([x, y, z], axis=-1).astype(np.float32)
        assert height_above(xyz, inside) == pytest.approx(rise, abs=0.02)
    xyz[inside] = np.nan
    assert height_above(xyz, inside) is None
    assert missing_points(xyz, None, inside) == 1
    assert missing_points(xyz, xyz, inside) == 0
