"""Places, shares and ratios in words."""

from __future__ import annotations

import pytest

from blemish.scoring.describe import (
    number,
    place_in_words,
    rarity_in_words,
    region_in_words,
    share_in_words,
    strength_in_words,
    times_in_words,
)
from blemish.types import Region


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ((10, 10), "upper left"),
        ((150, 10), "top centre"),
        ((290, 10), "upper right"),
        ((10, 100), "left of centre"),
        ((150, 100), "centre"),
        ((290, 100), "right of centre"),
        ((10, 190), "lower left"),
        ((150, 190), "bottom centre"),
        ((299.9, 199.9), "lower right"),
        ((300, 200), "lower right"),
    ],
)
def test_points_fall_into_nine_places(point, words):
    assert place_in_words(point, (200, 300)) == words


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((0, 0, 300, 200), "all over"),
        ((0, 0, 300, 20), "full width, upper"),
        ((0, 90, 300, 110), "full width, middle"),
        ((280, 0, 300, 200), "full height, right"),
        ((0, 0, 20, 20), "upper left"),
    ],
)
def test_boxes_that_span_the_image_say_so(box, words):
    assert place_in_words(box, (200, 300)) == words


def test_mirroring_the_image_mirrors_the_words():
    swap = {"left": "right", "right": "left"}
    for x in range(0, 300, 7):
        for y in range(0, 200, 7):
            words = place_in_words((x + 0.5, y + 0.5), (200, 300)).split()
            mirrored = place_in_words((300 - x - 0.5, y + 0.5), (200, 300)).split()
            assert mirrored == [swap.get(w, w) for w in words]


def test_a_score_over_its_limit_never_reads_as_a_tie():
    assert times_in_words(1.004, 1.0) == "1.01× the limit"
    assert times_in_words(1.0, 1.0) == "1.00× the limit"
    assert times_in_words(0.999, 1.0) == "0.99× the limit"
    assert times_in_words(0.5, 1.0) == "0.50× the limit"
    assert times_in_words(1.04, 1.0) == "1.04× the limit"
    assert times_in_words(3.21, 1.0) == "3.2× the limit"
    assert times_in_words(31.8, 1.0) == "32× the limit"
    assert times_in_words(0.7, 0.0) == "0.7"
    assert strength_in_words(1.004, 1.0) == "strength 1.01 (outlined from 1)"
    assert strength_in_words(31.8, 1.0) == "strength 32 (outlined from 1)"
    assert strength_in_words(0.7, 0.0) == "strength 0.7"


def test_the_promised_sentence():
    region = Region((0, 0, 60, 14), 1260, 3.2, 2.0, (30.0, 7.0))
    expected = "upper left, 2.1 % of the picture, strength 3.2 (outlined from 1)"
    assert region_in_words(region, (200, 300), 1.0) == expected


@pytest.mark.parametrize(
    ("area", "words"), [(55_000, "all over, 92 %"), (30_000, "all over, 50 %"), (2700, "left of centre, 4.5 %")]
)
def test_all_over_is_what_covers_most_of_the_picture(area, words):
    """A box as large as the picture may hold a ring, or a few specks."""
    region = Region((0, 0, 300, 200), area, 3.2, 2.0, (90.0, 100.0))
    assert region_in_words(region, (200, 300), 1.0) == f"{words} of the picture, strength 3.2 (outlined from 1)"


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "0"), (0.41234, "0.412"), (12.34, "12.3"), (1234.5, "1,234"), (1e-7, "1.00e-07")]
)
def test_numbers_keep_three_digits(value, words):
    assert number(value) == words


def test_odd_numbers_do_not_break_words():
    assert number(float("nan")) == "nan"
    assert share_in_words(1, (0, 0)) == "100 % of the picture"
    assert share_in_words(1, (20000, 20000)) == "under 0.01 % of the picture"
    assert rarity_in_words(0.02) == "about 1 good part in 50 scores this high"
    assert rarity_in_words(0.0).startswith("about 1 good part in 1,000,000,000")
