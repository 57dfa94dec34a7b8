"""Layers on one grid, and windows of it."""

from __future__ import annotations

import torch

from blemish.numeric.grids import on_coarsest, random_window


def test_finer_layers_are_averaged_over_what_a_coarse_patch_covers():
    fine, coarse = torch.randn(2, 4, 6, 3), torch.randn(2, 2, 3, 5)
    ours = on_coarsest([fine, coarse])
    expected = fine.reshape(2, 2, 2, 3, 2, 3).mean(dim=(2, 4))
    torch.testing.assert_close(ours[0], expected)
    assert torch.equal(ours[1], coarse)


def test_windows_reach_every_place_and_stay_inside():
    torch.manual_seed(0)
    grid = torch.arange(20.0).view(1, 4, 5)
    found = {tuple(grid[random_window((4, 5), 3)].flatten().tolist()) for _ in range(200)}
    assert {len(window) for window in found} == {9}
    assert {window[0] for window in found} == {0, 1, 2, 5, 6, 7}


def test_a_window_is_no_larger_than_the_grid():
    assert torch.zeros(2, 4, 9, 1)[random_window((4, 9), 6)].shape == (2, 4, 6, 1)
