"""Masks partition the grid, leave something to look at, and are squares."""

from __future__ import annotations

import pytest
import torch

from blemish.numeric.masking import complementary_masks, random_mask

GRIDS = [(1, 2), (2, 1), (2, 2), (5, 7), (24, 24), (1, 9), (13, 3)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("count", [2, 3, 4, 9])
@pytest.mark.parametrize("side", [1, 2, 4])
def test_every_patch_is_hidden_once_and_never_with_all_others(grid, count, side):
    masks = complementary_masks(grid, count, side)
    assert masks.shape == (count, grid[0] * grid[1])
    assert (masks.sum(0) == 1).all()
    assert not masks.all(dim=1).any()
    assert torch.equal(masks, complementary_masks(grid, count, side))


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_squares_beside_one_another_are_in_different_masks(count):
    number = complementary_masks((12, 12), count, 2).float().argmax(0).view(12, 12)
    for way in ((0, 2), (2, 0)):
        height, width = 12 - way[0], 12 - way[1]
        assert (number[way[0] :, way[1] :] != number[:height, :width]).all()
    squares = number.view(6, 2, 6, 2)
    assert (squares == squares[:, :1, :, :1]).all()


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.75, 0.99])
@pytest.mark.parametrize("grid", GRIDS)
def test_random_masks_hide_something_and_show_something(grid, share):
    torch.manual_seed(0)
    for side in (1, 2, 5):
        for _ in range(5):
            mask = random_mask(grid, share, side)
            assert mask.any()
            assert not mask.all()


def test_random_masks_hide_their_share_everywhere():
    torch.manual_seed(0)
    masks = torch.stack([random_mask((10, 10), 0.3, 2) for _ in range(400)]).float()
    assert float(masks.mean()) == pytest.approx(0.3, abs=0.02)
    assert float(masks.mean(0).min()) > 0.2  # no place is spared: the squares lie anywhere
    assert float(masks.mean(0).max()) < 0.4
