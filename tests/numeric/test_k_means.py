"""Centres against a plain loop, and what they promise of seeds, repeats and rare rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blemish.errors import SettingsError
from blemish.numeric.k_means import k_means, squared_distances


def blobs(sizes: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Rows `(N, 3)` around far middles, so many of each."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([10.0 * i + torch.randn(size, 3, generator=generator) for i, size in enumerate(sizes)])


def test_centres_are_the_means_of_what_is_nearest_to_them() -> None:
    rows = torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
    centres = k_means(rows, 5, iterations=200)
    nearest = [min(range(5), key=lambda k: float((row - centres[k]).square().sum())) for row in rows]
    for k in range(5):
        np.testing.assert_allclose(centres[k], rows[np.array(nearest) == k].mean(0), rtol=1e-4, atol=1e-5)


def test_a_rare_kind_of_rows_gets_its_own_centre() -> None:
    centres = k_means(blobs((500, 500, 8)), 8)
    assert (centres.mean(1) - 20).abs().min() < 1


def test_no_more_centres_than_different_rows() -> None:
    rows = torch.tensor([[0.0, 1.0]] * 5 + [[2.0, 1.0]] * 5)
    centres = k_means(rows, 8)
    assert sorted(centres.tolist()) == [[0.0, 1.0], [2.0, 1.0]]


def test_the_seed_decides() -> None:
    rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(2))
    assert torch.equal(k_means(rows, 7, seed=3), k_means(rows, 7, seed=3))
    assert not torch.equal(k_means(rows, 7, seed=3, iterations=0), k_means(rows, 7, seed=4, iterations=0))


def test_distances_are_those_of_a_loop() -> None:
    rows, centres = torch.randn(6, 3), torch.randn(4, 3)
    expected = [[float((row - centre).square().sum()) for centre in centres] for row in rows]
    np.testing.assert_allclose(squared_distances(rows, centres), expected, rtol=1e-4, atol=1e-5)


def test_channels_that_are_large_and_constant_cost_no_exactness() -> None:
    generator = torch.Generator().manual_seed(3)
    rows = torch.cat([torch.randn(200, 16, generator=generator), torch.full((200, 8), 5000.0)], 1)
    exact = torch.cdist(rows.double(), rows[:5].double()).square()
    np.testing.assert_allclose(squared_distances(rows, rows[:5]), exact, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("rows", "count"), [(torch.zeros(0, 3), 2), (torch.zeros(4), 2), (torch.zeros(4, 3), 0)])
def test_what_has_no_centres_is_refused(rows: torch.Tensor, count: int) -> None:
    with pytest.raises(SettingsError, match="count ≥ 1"):
        k_means(rows, count)
