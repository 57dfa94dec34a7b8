"""Augmentation keeps shape and type, leaves about half of the draws alone, and depends on its generator only."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.synthesis.augment import UNCHANGED, augment, colour_jitter


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)


def test_the_share_left_alone(picture):
    rng = np.random.default_rng(1)
    alone = np.mean([augment(picture, rng) is picture for _ in range(2000)])
    assert alone == pytest.approx(UNCHANGED, abs=0.04)


def test_oblong_pictures_keep_their_shape(picture):
    oblong, rng = picture[:14], np.random.default_rng(2)
    assert all(augment(oblong, rng).shape == oblong.shape for _ in range(100))


def test_same_seed_same_picture(picture):
    for seed in range(20):
        one, two = (augment(picture, np.random.default_rng(seed)) for _ in range(2))
        assert (one == two).all()


def test_jitter_of_nothing_changes_nothing_but_rounding(picture):
    same = colour_jitter(picture, np.random.default_rng(0), 0, 0, 0, 0)
    assert np.abs(same.astype(int) - picture).max() <= 8  # hue goes through 8-bit HSV


def test_jitter_changes_colour(picture):
    assert (colour_jitter(picture, np.random.default_rng(0), 0.5, 0.5, 0.5, 0.5) != picture).any()
