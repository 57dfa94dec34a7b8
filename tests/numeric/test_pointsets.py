"""Sets of points against loops over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blemish.errors import SettingsError
from blemish.numeric import pointsets
from blemish.numeric.pointsets import (
    chamfer,
    farthest_points,
    gather_points,
    inverse_distance_weights,
    nearest_points,
)


def cloud(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed))


def distances(ones: torch.Tensor, others: torch.Tensor) -> np.ndarray:
    return np.linalg.norm(ones.numpy()[:, None] - others.numpy()[None], axis=-1)


def test_farthest_points_equal_a_plain_loop() -> None:
    points = cloud(2, 300)
    chosen = farthest_points(points, 40)
    for some, own in zip(points, chosen, strict=True):
        apart = distances(some, some)
        expected = [int(np.linalg.norm(some.numpy() - some.numpy().mean(0), axis=1).argmax())]
        while len(expected) < 40:
            expected.append(int(apart[expected].min(axis=0).argmax()))
        assert own.tolist() == expected


def test_farthest_points_do_not_depend_on_order_or_batch() -> None:
    points = cloud(3, 200)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    chosen, shuffled = farthest_points(points, 25), farthest_points(points[:, order], 25)
    torch.testing.assert_close(gather_points(points, chosen), gather_points(points[:, order], shuffled))
    assert torch.equal(farthest_points(points[1:2], 25), chosen[1:2])
    assert sorted(farthest_points(points, 200)[0].tolist()) == list(range(200))  # nobody twice


@pytest.mark.parametrize("way", ["tree", "table"])
def test_nearest_points_equal_a_sort_of_all_distances(way: str) -> None:
    points, centres = cloud(2, 150), cloud(2, 20, seed=1)
    squared, index = getattr(pointsets, f"_nearest_by_{way}")(points, centres, 7)
    for b in range(2):
        apart = distances(centres[b], points[b])
        assert np.array_equal(index[b].numpy(), apart.argsort(axis=1)[:, :7])
        np.testing.assert_allclose(squared[b].numpy(), np.sort(apart, axis=1)[:, :7] ** 2, rtol=1e-4, atol=1e-6)


def test_one_neighbour_keeps_its_axis() -> None:
    squared, index = nearest_points(cloud(1, 5), cloud(1, 3, seed=1), 1)
    assert squared.shape == index.shape == (1, 3, 1)


@pytest.mark.parametrize("count", [0, 6])
def test_impossible_counts_are_refused(count: int) -> None:
    with pytest.raises(SettingsError, match="centres"):
        farthest_points(cloud(1, 5), count)
    with pytest.raises(SettingsError, match="neighbours"):
        nearest_points(cloud(1, 5), cloud(1, 2), count)


def test_gathering_takes_rows() -> None:
    values, index = torch.randn(2, 9, 4), torch.randint(9, (2, 3, 5))
    gathered = gather_points(values, index)
    assert all(
        torch.equal(gathered[b, i, j], values[b, index[b, i, j]]) for b in (0, 1) for i in range(3) for j in (0, 4)
    )


def test_inverse_distances_equal_the_formula_and_reproduce_centres() -> None:
    centres, places = cloud(1, 30), cloud(1, 12, seed=1)
    weights, index = inverse_distance_weights(centres, places)
    apart = distances(places[0], centres[0])
    for row in range(12):
        near = apart[row].argsort()[:3]
        assert index[0, row].tolist() == near.tolist()
        expected = apart[row][near] ** -2.0
        np.testing.assert_allclose(weights[0, row].numpy(), expected / expected.sum(), rtol=1e-3)
    at_centres, own = inverse_distance_weights(centres, centres)
    assert torch.equal(own[0, :, 0], torch.arange(30))
    assert at_centres[0, :, 0].min() > 0.999
    assert inverse_distance_weights(centres[:, :2], places)[0].shape == (1, 12, 2)


def test_chamfer_equals_a_plain_loop_and_points_the_way() -> None:
    ones, others = cloud(3, 10), cloud(3, 14, seed=1)
    expected = np.mean(
        [
            (distances(a, b).min(1) ** 2).mean() + (distances(a, b).min(0) ** 2).mean()
            for a, b in zip(ones, others, strict=True)
        ]
    )
    assert chamfer(ones, others).item() == pytest.approx(expected, rel=1e-5)
    assert chamfer(ones, ones[:, torch.randperm(10)]).item() == 0
    moving = ones.clone().requires_grad_()
    chamfer(moving, others).backward()
    assert chamfer(ones - 0.1 * moving.grad, others) < chamfer(ones, others)
