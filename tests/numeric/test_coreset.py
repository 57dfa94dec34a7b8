"""The short-list k-centre against the plain algorithm, row by row, and its memory at 200,000 patches."""

from __future__ import annotations

import pytest
import torch

from blemish.errors import SettingsError
from blemish.numeric import coreset
from blemish.numeric.coreset import k_centre, project


def clustered(count: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = 4 * torch.randn(30, width, generator=generator)
    chosen = torch.randint(30, (count,), generator=generator)
    return centres[chosen] + torch.randn(count, width, generator=generator)


def naive(rows: torch.Tensor, count: int, first: int) -> list[int]:
    """Gonzalez's greedy selection as it is written down."""
    rows = rows.double()
    selected, distance = [first], torch.full((len(rows),), torch.inf, dtype=torch.double)
    while len(selected) < count:
        distance = torch.minimum(distance, (rows - rows[selected[-1]]).square().sum(1))
        distance[selected] = -1
        selected.append(int(distance.argmax()))
    return selected


def test_equals_the_plain_algorithm() -> None:
    rows = clustered(1500, 24)
    selected = k_centre(rows, 300, projection=None, seed=3).tolist()
    assert selected == naive(rows, 300, selected[0])


def test_equals_the_plain_algorithm_in_the_projection() -> None:
    rows = clustered(800, 64)
    generator = torch.Generator().manual_seed(5)
    first = int(torch.randint(800, (1,), generator=generator))
    assert k_centre(rows, 100, projection=16, seed=5).tolist() == naive(project(rows, 16, generator), 100, first)


def test_selects_the_first_centre_and_each_row_once() -> None:
    rows = clustered(200, 8)
    selected = k_centre(rows, 200, seed=1)
    assert selected[0] == torch.randint(200, (1,), generator=torch.Generator().manual_seed(1))
    assert sorted(selected.tolist()) == list(range(200))
    assert k_centre(rows, 1, seed=1).tolist() == selected[:1].tolist()


def test_same_seed_same_selection_and_more_is_a_longer_list() -> None:
    rows = clustered(500, 16)
    assert torch.equal(k_centre(rows, 50, seed=2), k_centre(rows, 50, seed=2))
    assert torch.equal(k_centre(rows, 80, seed=2)[:50], k_centre(rows, 50, seed=2))


def test_stops_when_only_copies_are_left() -> None:
    distinct = clustered(20, 6) + 100
    selected = k_centre(distinct.repeat(30, 1), 100, seed=0)
    assert sorted((selected % 20).tolist()) == list(range(20))


def test_covers_better_than_chance() -> None:
    rows = clustered(3000, 16)

    def radius(index: torch.Tensor) -> float:
        return float(torch.cdist(rows, rows[index]).amin(1).max())

    chance = min(radius(torch.randperm(3000, generator=torch.Generator().manual_seed(s))[:60]) for s in range(5))
    assert radius(k_centre(rows, 60)) < 0.9 * chance


def test_projection_keeps_distances() -> None:
    rows = clustered(300, 400)
    near = project(rows, 128, torch.Generator().manual_seed(0))
    ratio = torch.pdist(near) / torch.pdist(rows)
    assert near.shape == (300, 128)
    assert abs(float(ratio.median()) - 1) < 0.15
    assert float(ratio.std()) < 0.1


@pytest.mark.slow
def test_memory_is_flat_at_200_000_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    original = torch.addmm

    def watched(*operands: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        product = original(*operands)
        largest = max(largest, product.nbytes)
        return product

    monkeypatch.setattr(coreset.torch, "addmm", watched)
    rows = torch.randn(200_000, 4, generator=torch.Generator().manual_seed(0))
    assert len(set(k_centre(rows, 600).tolist())) == 600
    assert 0 < largest <= 1 << 26  # a matrix of all rows against all selected would take 480 MB


@pytest.mark.parametrize("wrong", [(torch.zeros(0, 3), 1), (torch.zeros(3), 1), (torch.zeros(3, 3), 0)])
def test_wrong_use_is_named(wrong: tuple[torch.Tensor, int]) -> None:
    with pytest.raises(SettingsError):
        k_centre(*wrong)


def test_one_row_far_from_all_others_does_not_end_the_selection() -> None:
    rows = torch.randn(500, 8, generator=torch.Generator().manual_seed(5))
    rows[77] = 1e5
    selected = k_centre(rows, 100, projection=None).tolist()
    assert len(set(selected)) == 100
    others = rows[:77]
    assert (
        torch.cdist(others, rows[selected]).amin(1).max() < 0.6 * torch.cdist(others, rows[selected[:10]]).amin(1).max()
    )
