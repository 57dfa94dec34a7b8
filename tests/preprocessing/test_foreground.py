"""The foreground of a part on any background is found; of a texture it is the whole image."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.preprocessing.foreground import find_part, from_patches, from_pixels, otsu


def disc(size: int, inside: float, outside: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """An image `(size, size, 3)` of a disc, and where the disc is."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    part = np.hypot(y, x) < 0.3
    grey = np.where(part, inside, outside)[..., None] + np.random.default_rng(0).normal(0, noise, (size, size, 3))
    return np.clip(grey, 0, 255).astype(np.uint8), part


def overlap(one: np.ndarray, two: np.ndarray) -> float:
    return (one & two).sum() / (one | two).sum()


@pytest.mark.parametrize(("inside", "outside"), [(60, 220), (220, 40), (120, 180)])
def test_a_part_is_found_whether_bright_or_dark(inside, outside):
    image, part = disc(140, inside, outside, 6)
    assert overlap(from_pixels(image), part) > 0.9


def test_a_texture_is_all_foreground():
    image = np.random.default_rng(1).normal(120, 25, (140, 140, 3)).clip(0, 255).astype(np.uint8)
    assert from_pixels(image).all()


def test_a_flat_image_is_all_foreground():
    assert from_pixels(np.full((70, 70, 3), 90, dtype=np.uint8)).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_patches_of_a_part_whatever_the_sign(sign):
    _, part = disc(24, 0, 1, 0)
    rng = np.random.default_rng(2)
    patches = sign * part[..., None] * rng.normal(size=16) * 3 + rng.normal(0, 0.3, (24, 24, 16))
    assert overlap(from_patches(patches.astype(np.float32)), part) > 0.9


def test_patches_of_a_texture_are_all_foreground():
    assert from_patches(np.random.default_rng(3).normal(size=(24, 24, 16)).astype(np.float32)).all()


def test_otsu_splits_two_heaps():
    values = np.r_[np.zeros(50), np.ones(50)] + np.random.default_rng(4).normal(0, 0.05, 100)
    threshold, separation = otsu(values)
    assert 0.2 < threshold < 0.8
    assert separation > 0.9


@pytest.mark.parametrize("size", [(150, 5000), (5000, 150), (100, 4500)])
def test_a_part_on_a_long_strip_is_where_it_is(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    image[tuple(slice(int(0.45 * side), int(0.85 * side)) for side in size)] = 40  # not in the middle
    part = find_part(image)
    assert part is not None
    for places, side in zip(np.nonzero(part.mask), size, strict=True):
        assert (places.mean() + 0.5) * part.shrink == pytest.approx(0.65 * side, abs=0.05 * min(size))
