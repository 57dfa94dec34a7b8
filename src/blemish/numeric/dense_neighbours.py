"""A memory bank as operations of a graph: the nearest row by matrix products, its distance by the difference.

As in `numeric/neighbours.py` the products only choose the nearest row; its distance is measured by the difference to
it, so that it is as exact as there. Which row is taken where two are equally near to within the rounding of float32 may
differ; their distances don't.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import normalize

from blemish.numeric.neighbours import Neighbours

ROWS = 4096  # of the bank that are compared at once: bounds what a graph holds to 16 kB a patch


def nearest_distances(bank: Neighbours, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Distances by the bank's metric and indices, `(N, 1)` each, of the rows nearest to `queries` `(N, D)`."""
    queries = normalize(queries, dim=1) if bank.metric == "cosine" else queries
    centred = queries - bank.centre.float()  # (N, D)
    best, index = None, None
    for number, (rows, halves) in enumerate(operands(bank)):
        likeness, own = (centred @ rows - halves).max(1, keepdim=True)  # (N, 1) each
        own = own + number * ROWS
        if best is None or index is None:
            best, index = likeness, own
        else:
            index = torch.where(likeness > best, own, index)
            best = torch.maximum(likeness, best)
    assert index is not None  # a bank has rows
    return true_distances(bank, queries, index), index


def true_distances(bank: Neighbours, queries: Tensor, index: Tensor) -> Tensor:
    """Distances `(N, k)` by the bank's metric of `queries` `(N, D)`, prepared as its rows are, to the rows `index`
    `(N, k)`."""
    squared = (queries[:, None] - bank.rows[index]).square().sum(-1)  # (N, k)
    return squared.sqrt() if bank.metric == "l2" else squared / 2


@lru_cache(maxsize=2)  # `hybrid` has two banks
def operands(bank: Neighbours) -> list[tuple[Tensor, Tensor]]:
    """The bank from its centre, transposed `(D, M)`, and half of each row's square `(M,)`, `ROWS` rows at a time.

    They depend on no query; kept, so that a graph holds them instead of making them whenever it is loaded.
    """
    parts = (bank.rows - bank.centre.float()).split(ROWS)  # (M, D) each
    return [(part.T.contiguous(), part.square().sum(1) / 2) for part in parts]


@lru_cache(maxsize=1)
def neighbourhoods(bank: Neighbours, count: int) -> Tensor:
    """The `count` rows nearest to each row of the bank, itself among them: `(M, count)`.

    It depends on no query; kept, as a search has no place in a graph.
    """
    return bank.search(bank.rows, count)[1]
