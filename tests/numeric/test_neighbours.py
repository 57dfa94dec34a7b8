"""Neighbours against brute force in float64: exact at any precision, any offset, any batch."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from blemish.errors import SettingsError
from blemish.numeric import dense_neighbours, neighbours
from blemish.numeric.neighbours import Neighbours

PRECISIONS = ("float32", "bfloat16")


@pytest.fixture(autouse=True, params=[True, False], ids=["projected", "whole"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Every test runs with and without a first comparison by projected rows, which small banks are spared."""
    monkeypatch.setattr(neighbours, "_PAIRS", 0 if request.param else 1 << 60)
    return bool(request.param)


def rows(count: int, seed: int, width: int = 96, offset: float = 0.0) -> torch.Tensor:
    """Clustered rows, so that neighbours lie close together as patches do."""
    shared, own = torch.Generator().manual_seed(7), torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(20, width, generator=shared)
    chosen = torch.randint(20, (count,), generator=own)
    return centres[chosen] + 0.3 * torch.randn(count, width, generator=own) + offset


def brute(queries: torch.Tensor, bank: torch.Tensor, metric: str) -> torch.Tensor:
    """All distances in float64, `(N, M)`, smallest first."""
    queries, bank = queries.double(), bank.double()
    if metric == "cosine":
        queries, bank = queries / queries.norm(dim=1, keepdim=True), bank / bank.norm(dim=1, keepdim=True)
    distances = torch.stack([(query - bank).square().sum(1) for query in queries])
    return (distances.sqrt() if metric == "l2" else distances / 2).sort(dim=1).values


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_equals_brute_force(metric: str, precision: str, offset: float) -> None:
    bank, queries = rows(700, 0, offset=offset), rows(90, 1, offset=offset)
    queries[:10] = bank[:10]
    search = Neighbours(bank, metric, precision)
    truth = brute(queries, bank, metric)
    for k in (1, 5):
        distances, index = search.search(queries, k)
        assert distances.shape == index.shape == (90, k)
        torch.testing.assert_close(distances.double(), truth[:, :k], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(distances, search.distances_to(queries, index), rtol=0, atol=0)
    assert (search.search(queries)[0][:10] == 0).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tiny_distances_survive_far_clusters(precision: str) -> None:
    # Two clusters 2000 apart, rows inside them 0.01 apart: ‖a‖² + ‖b‖² − 2ab in float32 sees nothing of that.
    generator = torch.Generator().manual_seed(0)
    bank = 0.01 * torch.randn(600, 32, generator=generator)
    bank[300:] += 2000
    queries = bank[::7] + 0.001 * torch.randn(86, 32, generator=generator)
    distances, _ = Neighbours(bank, "l2", precision).search(queries)
    torch.testing.assert_close(distances.double(), brute(queries, bank, "l2")[:, :1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_does_not_depend_on_its_batch(precision: str) -> None:
    bank, queries = rows(500, 0), rows(64, 1)
    search = Neighbours(bank, "cosine", precision)
    for k in (1, 4):
        together = search.search(queries, k)
        alone = [search.search(queries[i : i + 1], k) for i in range(64)]
        assert torch.equal(together[0], torch.cat([a[0] for a in alone]))
        assert torch.equal(together[1], torch.cat([a[1] for a in alone]))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_many_equal_rows_are_no_trouble(precision: str) -> None:
    bank = torch.cat([torch.ones(400, 16), rows(50, 0, width=16)])
    distances, index = Neighbours(bank, "l2", precision).search(torch.ones(3, 16), 2)
    assert (distances == 0).all()
    assert (index < 400).all()


def test_a_small_budget_gives_the_same_answer() -> None:
    bank, queries = rows(500, 0), rows(64, 1)
    wide, narrow = Neighbours(bank).search(queries), Neighbours(bank, budget=1 << 14).search(queries)
    assert torch.equal(wide[0], narrow[0])
    assert torch.equal(wide[1], narrow[1])


def test_products_stay_inside_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    original = Neighbours._similarity

    def watched(self: Neighbours, *given: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal largest
        similarity, error = original(self, *given, **named)
        largest = max(largest, similarity.nbytes)
        return similarity, error

    monkeypatch.setattr(neighbours.Neighbours, "_similarity", watched)
    search = Neighbours(rows(3000, 0, width=8), budget=1 << 18)
    search.search(rows(2000, 1, width=8))
    search.search(rows(2000, 1, width=8), 3)
    assert 0 < largest <= 1 << 18


def test_no_queries_and_a_bank_of_one() -> None:
    search = Neighbours(torch.ones(1, 4))
    assert search.search(torch.zeros(0, 4))[0].shape == (0, 1)
    assert search.search(torch.zeros(2, 4))[0].tolist() == [[2.0], [2.0]]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Neighbours(torch.zeros(0, 4)),
        lambda: Neighbours(torch.zeros(4)),
        lambda: Neighbours(torch.zeros(3, 4), "manhattan"),  # type: ignore[arg-type]
        lambda: Neighbours(torch.zeros(3, 4)).search(torch.zeros(2, 5)),
        lambda: Neighbours(torch.zeros(3, 4)).search(torch.zeros(2, 4), 4),
        lambda: Neighbours(torch.zeros(3, 4)).search(torch.zeros(2, 4), 0),
    ],
)
def test_wrong_use_is_named(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SettingsError):
        wrong()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_distance_grows_by_projection_and_few_rows_remain_candidates(precision: str) -> None:
    bank, queries = rows(3000, 0), rows(200, 1)
    search = Neighbours(bank, precision=precision)  # type: ignore[arg-type]
    short, short_bank = search._centred(queries, projected=True), search._centred(search.rows, projected=True)
    assert short.shape[1] == search._principal_components().shape[1] + 1 <= 0.6 * bank.shape[1]
    truth = torch.cdist(queries.double(), bank.double())
    assert (torch.cdist(short, short_bank) <= truth * (1 + 1e-6) + 1e-9).all()
    row, column = search._candidates(queries, torch.float32, projected=True)
    assert len(row) < 0.1 * len(queries) * len(bank)
    assert set(zip(range(200), truth.argmin(1).tolist(), strict=True)) <= set(
        zip(row.tolist(), column.tolist(), strict=True)
    )


def test_rows_that_fill_all_directions_are_compared_whole() -> None:
    search = Neighbours(torch.randn(2000, 40, generator=torch.Generator().manual_seed(0)))
    assert search._principal_components().shape == (40, 0)
    assert [way for way, _ in search._levels(1000)] == [False] * len(search.precisions)


def test_many_small_searches_are_worth_a_projection_as_one_large_is(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, queries = rows(600, 0), rows(30, 1)
    monkeypatch.setattr(neighbours, "_PAIRS", 3 * len(bank) * len(queries))
    search = Neighbours(bank)
    first, second, third = (search.search(queries) for _ in range(3))
    assert {way for way, _ in search._banks} == {False, True}  # the third by projected rows
    for one in (second, third):
        assert torch.equal(one[0], first[0])
        assert torch.equal(one[1], first[1])


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_as_operations_of_a_graph_it_finds_the_same(metric: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "DENSE_ROWS", 70)
    monkeypatch.setattr(dense_neighbours, "DENSE_ROWS", 70)
    bank, queries = Neighbours(rows(200, 1), metric), rows(50, 2)
    distance, index = dense_neighbours.nearest_distances(bank, queries)
    expected, at = bank.search(queries)
    assert torch.equal(index, at)
    torch.testing.assert_close(distance, expected)
    assert torch.equal(bank.neighbourhoods(3), bank.search(bank.rows, 3)[1])
    assert bank.neighbourhoods(3) is bank.neighbourhoods(3)
    assert bank.neighbourhoods(2).shape == (200, 2)


def test_what_a_graph_holds_of_a_bank_goes_with_it() -> None:
    bank = Neighbours(rows(200, 1))
    dense_neighbours.nearest_distances(bank, rows(5, 2))
    kept = [weakref.ref(tensor) for tensor in (bank.rows, bank.dense_operands[0][0], bank.neighbourhoods(3))]
    del bank
    gc.collect()
    assert [one() for one in kept] == [None] * 3
