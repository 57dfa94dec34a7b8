from __future__ import annotations

import numpy as np
import pytest

from blemish.augmentation.blob import spot


@pytest.mark.parametrize("level", [0, 90, 127, 255])
@pytest.mark.parametrize("size", [(64, 80), (9, 7), (200, 40)])
def test_a_spot_is_obvious_and_nothing_else_changes(level: int, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), level, np.uint8)
    for seed in range(8):
        altered, mask = spot(image, np.ones(size, bool), np.random.default_rng(seed))
        assert altered.shape == image.shape
        assert mask.any()
        assert (altered[~mask] == level).all()
        assert abs(altered[mask].astype(float).mean() - level) > 40
    assert (image == level).all()


def test_it_lies_on_the_part_and_has_about_the_wished_size() -> None:
    part = np.zeros((120, 160), bool)
    part[30:90, 40:120] = True
    shares = []
    for seed in range(30):
        mask = spot(np.zeros((120, 160, 3), np.uint8), part, np.random.default_rng(seed), (0.1, 0.1))[1]
        assert (mask & part).sum() > 0.25 * mask.sum()
        shares.append(mask.sum() / part.sum())
    assert 0.07 < np.mean(shares) < 0.15


def test_the_same_numbers_give_the_same_spot() -> None:
    image, part = np.zeros((50, 50, 3), np.uint8), np.zeros((50, 50), bool)  # no part: anywhere
    one, other = (spot(image, part, np.random.default_rng(4))[0] for _ in range(2))
    assert np.array_equal(one, other)
