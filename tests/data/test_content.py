from __future__ import annotations

import numpy as np
import pytest

from blemish.data.content import Content, check_normal_contents, content_warnings
from blemish.errors import DatasetError


def ordinary(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 200, (30, 40, 3), dtype=np.uint8)


def mask() -> np.ndarray:
    levels = np.zeros((30, 40, 3), np.uint8)
    levels[10:15, 10:15] = 255
    return levels


@pytest.mark.parametrize(
    ("image", "kinds"),
    [
        (ordinary(), []),
        (np.full((9, 9, 3), 7, np.uint8), ["constant"]),
        (mask(), ["two-level"]),
        (ordinary() // 16, ["range"]),  # 12 bits of 16
        (ordinary() // 8, []),
        (np.full((1, 1, 3), 7, np.uint8), ["constant"]),
        (np.full((9, 9, 3), (0, 154, 0), np.uint8), ["constant"]),  # what a camera shows whose cable is loose
        (np.full((9, 9, 3), (10, 20, 30), np.uint8), ["constant"]),
        ((mask() // (1, 2, 5)).astype(np.uint8), ["two-level"]),  # in a colour
    ],
)
def test_each_kind_is_seen_and_no_other(image: np.ndarray, kinds: list[str]) -> None:
    found = content_warnings(image, "a.png")
    assert [warning.kind for warning in found] == kinds
    assert all("a.png" in str(warning) for warning in found)


def test_one_hot_pixel_is_no_range() -> None:
    image = np.random.default_rng(0).integers(0, 8, (200, 200, 3), dtype=np.uint8)
    image[100, 100] = 255
    assert [warning.kind for warning in content_warnings(image, "a.png")] == ["range"]


def contents(*images: np.ndarray) -> list[Content]:
    return [Content.of(image, f"{i}.png") for i, image in enumerate(images)]


def test_masks_among_the_images_to_learn_from_are_refused_unless_stated_good() -> None:
    mixed = contents(ordinary(), mask(), ordinary(1))
    with pytest.raises(DatasetError, match=r"1 of 3 .*two levels.*'1\.png'.*--assume-good"):
        check_normal_contents(mixed)
    assert [warning.kind for warning in check_normal_contents(mixed, assume_good=True)] == ["two-level"]


def test_parts_that_all_have_two_levels_are_parts() -> None:
    assert [warning.kind for warning in check_normal_contents(contents(mask(), mask()))] == ["two-level"] * 2
    assert check_normal_contents(contents(ordinary(), ordinary(1))) == []
    assert check_normal_contents([]) == []


def test_nothing_but_black_is_refused() -> None:
    black = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(DatasetError, match="2 of one single colour"):
        check_normal_contents(contents(black, black))
    assert len(check_normal_contents(contents(black, ordinary()))) == 1
