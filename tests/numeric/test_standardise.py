"""Patches in standard deviations from the mean of good ones, and the way back."""

from __future__ import annotations

import torch

from blemish.numeric.standardise import Standardised


def test_good_patches_get_mean_0_and_spread_1_and_come_back():
    torch.manual_seed(0)
    patches = torch.randn(4, 9, 5) * torch.logspace(-2, 2, 5) + 3
    patches[..., 0] = 7  # a channel that never changes
    network = Standardised(5)
    torch.testing.assert_close(network.standardised(patches), patches)
    network.standardise(patches)
    scaled = network.standardised(patches).flatten(0, 1)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(0)[1:], torch.ones(4))
    assert torch.isfinite(scaled).all()
    torch.testing.assert_close(network.restored(network.standardised(patches)), patches)
    assert set(network.state_dict()) == {"mean", "scale"}
