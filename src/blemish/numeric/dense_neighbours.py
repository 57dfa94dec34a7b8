"""A memory bank as operations of a graph: the nearest row by matrix products, its distance by the difference.

As in `numeric/neighbours.py` the products only choose the nearest row; its distance is measured by the difference to
it, so that it is as exact as there. Which row is taken where two are equally near to within the rounding of float32 may
differ; their distances don't.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from blemish.numeric.neighbours import DENSE_ROWS, Neighbours


def nearest_distances(bank: Neighbours, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Distances by the bank's metric and indices, `(N, 1)` each, of the rows nearest to `queries` `(N, D)`."""
    queries = normalize(queries, dim=1) if bank.metric == "cosine" else queries
    centred = queries - bank.centre.float()  # (N, D)
    best, index = None, None
    for number, (rows, halves) in enumerate(bank.dense_operands):
        likeness, own = (centred @ rows - halves).max(1, keepdim=True)  # (N, 1) each
        own = own + number * DENSE_ROWS
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
