"""Channels to mean 0 and spread 1, and back."""

from __future__ import annotations

import pytest
import torch

from blemish.numeric.standardise import Standardise


def test_it_does_nothing_until_it_learns():
    patches = torch.randn(4, 3)
    assert torch.equal(Standardise(3)(patches), patches)
    assert torch.equal(Standardise(3).back(patches), patches)


def test_good_patches_get_mean_zero_and_spread_one():
    torch.manual_seed(0)
    patches = torch.randn(5, 7, 3) * torch.tensor([0.1, 1.0, 30.0]) + torch.tensor([5.0, 0.0, -2.0])
    standard = Standardise(3)
    standard.fit(patches)
    scaled = standard(patches).flatten(0, 1)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(0), torch.ones(3))
    torch.testing.assert_close(standard.back(standard(patches)), patches)


def test_a_channel_that_never_changes_stays_finite():
    standard = Standardise(1)
    standard.fit(torch.full((6, 1), 3.0))
    assert standard(torch.full((2, 1), 3.0)).abs().max() == pytest.approx(0)


def test_a_single_patch_is_the_mean_and_has_a_scale_of_1() -> None:
    standard = Standardise(2)
    standard.fit(torch.tensor([[3.0, -1.0]]))
    assert torch.equal(standard(torch.tensor([[3.0, -1.0], [5.0, 0.0]])), torch.tensor([[0.0, 0.0], [2.0, 1.0]]))
