"""A place of the image has one position, whatever the grid, and no other place has it."""

from __future__ import annotations

import torch

from blemish.numeric.positions import sine_positions


def test_positions_are_those_of_the_image_whatever_the_grid():
    fine, coarse = sine_positions((42, 42), 16), sine_positions((14, 14), 16)
    torch.testing.assert_close(fine[1::3, 1::3], coarse)


def test_no_two_places_share_one():
    places = sine_positions((5, 7), 10)
    assert places.shape == (5, 7, 10)
    assert len(places.flatten(0, 1).unique(dim=0)) == 35
