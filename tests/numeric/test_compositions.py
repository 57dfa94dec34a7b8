"""Compositions against loops, and what nearest neighbours see that a mean does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from blemish.numeric.compositions import (
    LEVELS,
    NOISE_FLOOR,
    CompositionBank,
    VisualWords,
    composition,
    distances_to_others,
)


def memberships(seed: int, height: int = 7, width: int = 6, words: int = 3) -> torch.Tensor:
    return torch.rand(height, width, words, generator=torch.Generator().manual_seed(seed)).softmax(-1)


@pytest.mark.parametrize("level", LEVELS)
def test_a_composition_is_the_share_of_all_patches(level: str) -> None:
    found, (rows, columns) = memberships(0), LEVELS[level]
    expected = np.zeros((rows, columns, 3))
    for y in range(7):
        for x in range(6):
            row = max(r for r in range(rows) if r * 7 // rows <= y)
            column = max(c for c in range(columns) if c * 6 // columns <= x)
            expected[row, column] += found[y, x].numpy()
    np.testing.assert_allclose(composition(found, (rows, columns)), np.sqrt(expected / 42), rtol=1e-5)
    larger = found.repeat_interleave(2, 0).repeat_interleave(2, 1)
    if not (7 % rows or 6 % columns):
        np.testing.assert_allclose(composition(larger, (rows, columns)), composition(found, (rows, columns)), rtol=1e-5)


def test_memberships_are_a_softmax_of_squared_distances() -> None:
    centres = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    words = VisualWords(centres, 0.7)
    patches = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    found = words.memberships(patches)
    for y in range(2):
        for x in range(3):
            weights = [math.exp(-float((patches[y, x] - c).square().sum()) / (2 * 0.7**2)) for c in centres]
            np.testing.assert_allclose(found[y, x], np.array(weights) / sum(weights), rtol=1e-4, atol=1e-6)


def test_the_width_follows_the_scatter_of_patches() -> None:
    rows = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    assert VisualWords.of(rows, torch.tensor([[1.0], [11.0]]), 0.5).width == pytest.approx(0.5)
    assert VisualWords.of(rows * 10, torch.tensor([[10.0], [110.0]]), 0.5).width == pytest.approx(5.0)


def two_kinds(count: int, seed: int = 0) -> torch.Tensor:
    """Compositions of images with two of one part or two of another, `(count, 2)`."""
    noise = 0.05 * torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return torch.tensor([[2.0, 0.0], [0.0, 2.0]]).repeat(count // 2, 1) + noise


def test_one_of_each_is_wrong_where_two_of_either_are_right() -> None:
    bank = CompositionBank.of(two_kinds(20))
    mixed, _ = bank.compared(torch.tensor([1.0, 1.0]))
    usual = [bank.compared(row)[0] for row in two_kinds(20, seed=1)]
    assert mixed > 2 * max(usual)
    _, difference = bank.compared(torch.tensor([3.0, 0.0]))
    assert difference[0] > 5
    assert abs(float(difference[1])) < 3


def test_noise_and_distances_are_those_of_a_loop() -> None:
    rows = two_kinds(8).double()
    bank = CompositionBank.of(rows)
    differences = []
    for i in range(8):
        j = min((j for j in range(8) if j != i), key=lambda j: float((rows[i] - rows[j]).norm()))
        differences.append((rows[i] - rows[j]).numpy())
    noise = np.sqrt((np.array(differences) ** 2).mean(0) / 2)
    noise += NOISE_FLOOR * np.sqrt((noise**2).mean())
    np.testing.assert_allclose(bank.noise, noise, rtol=1e-6)
    scaled = rows.numpy() / noise
    for i in range(8):
        nearest = min(np.linalg.norm(scaled[i] - scaled[j]) for j in range(8) if j != i)
        stays = torch.arange(8) != i
        expected = (math.log(nearest) - bank.log_mean) / bank.log_std
        assert bank.compared(rows[i], stays)[0] == pytest.approx(expected, rel=1e-5)
    assert bank.compared(rows[3])[0] < -10  # known as it is


def test_left_out_normal_images_deviate_by_nothing_on_average() -> None:
    bank = CompositionBank.of(two_kinds(40))
    found = [bank.standardised(float(d)) for d in distances_to_others(bank.rows).amin(1)]
    assert np.mean(found) == pytest.approx(0, abs=1e-4)
