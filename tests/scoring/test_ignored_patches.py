"""Ignored patches by numpy are those of `Features.ignored_on`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blemish.scoring.ignored_patches import ignored_patches
from blemish.types import RGB, Features


@pytest.mark.parametrize("grid", [(8, 8), (7, 5), (1, 1), (16, 3)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.4, 1.0])
def test_they_are_those_of_torch(grid: tuple[int, int], share: float) -> None:
    pixels = np.random.default_rng(0).random((40, 33)) < share
    features = Features({RGB: (torch.zeros(1, *grid, 2),)}).with_ignored(pixels)
    expected = features.ignored_on(grid)
    assert expected is not None
    assert np.array_equal(ignored_patches(pixels, grid), expected[0].numpy())
