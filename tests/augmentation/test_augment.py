"""Augmentation keeps shape and type, leaves about half of the draws alone, and depends on its generator only."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.augmentation.augment import UNCHANGED, augment, colour_jitter


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)


def test_the_share_left_alone(image):
    rng = np.random.default_rng(1)
    alone = np.mean([augment(image, rng) is image for _ in range(2000)])
    assert alone == pytest.approx(UNCHANGED, abs=0.04)


def test_oblong_images_keep_their_shape(image):
    oblong, rng = image[:14], np.random.default_rng(2)
    assert all(augment(oblong, rng).shape == oblong.shape for _ in range(100))


def test_same_seed_same_image(image):
    for seed in range(20):
        one, two = (augment(image, np.random.default_rng(seed)) for _ in range(2))
        assert (one == two).all()


def test_jitter_of_nothing_changes_nothing_but_rounding(image):
    same = colour_jitter(image, np.random.default_rng(0), 0, 0, 0, 0)
    assert np.abs(same.astype(int) - image).max() <= 8  # hue goes through 8-bit HSV


def test_jitter_changes_colour(image):
    assert (colour_jitter(image, np.random.default_rng(0), 0.5, 0.5, 0.5, 0.5) != image).any()
