"""Turning keeps shape, is exact for quarter turns, and leaves no empty corner."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.augmentation.rotate import rotate


def test_quarter_turns_of_a_square_are_exact():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    assert (rotate(image, 90) == np.rot90(image)).all()
    assert (rotate(image, 360) == image).all()


@pytest.mark.parametrize("shape", [(40, 40, 3), (30, 50, 3), (8, 90, 3), (1, 1, 3)])
@pytest.mark.parametrize("degrees", [30, 45, 90, 135, 180])
def test_no_empty_corner(shape, degrees):
    turned = rotate(np.full(shape, 200, dtype=np.uint8), degrees)
    assert turned.shape == shape
    assert turned.min() >= 199


def test_there_and_back_is_nearly_the_same():
    y, x = np.mgrid[:64, :64]
    image = np.repeat((127 + 100 * np.sin(x / 9) * np.cos(y / 7)).astype(np.uint8)[..., None], 3, axis=-1)
    back = rotate(rotate(image, 30), -30)
    assert np.abs(back.astype(int) - image)[20:44, 20:44].mean() < 3
