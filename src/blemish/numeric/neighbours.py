"""Exact k-nearest neighbours in bounded memory: a fast search with a known error, then the candidates' true distances.

Matrix products are the fastest way to compare many rows, but `‖a‖² + ‖b‖² − 2ab` cancels: at 16 bits it is rough, and
even at 32 it loses small distances. So the product only nominates: every bank row that could be the nearest, given the
product's rounding error, is a candidate, and candidates are measured by their differences. A row with too many
candidates climbs to the next precision. The result is that of brute force at any precision, as far as the error holds:
the part that comes from rounding the operands is a bound (Cauchy–Schwarz); the part from accumulating the product in
float32 grows with √D, as for rounding errors that are independent (Higham & Mary, "A New Approach to Probabilistic
Rounding Error Analysis", SIAM Journal on Scientific Computing 41, 2019), and not with D, the worst case, which is never
observed and would nominate far too many. tests/numeric/test_neighbours.py compares with float64.

Patches lie near a subspace, so most of a product can be saved: rows are first compared by a few principal components
and the length of what those leave. No distance is larger there than between the rows themselves (triangle inequality),
so whatever lies further away than some row's true distance is no candidate: the bound of a branch-and-bound search
(Fukunaga & Narendra, "A Branch and Bound Algorithm for Computing k-Nearest Neighbors", IEEE Transactions on Computers,
1975), by one matrix product instead of a tree.

On one thread of a processor that multiplies bfloat16 it is 4.4 (patches of an image, a bank of 16,384) to 8.3 times
(drawn rows, 100,000) as fast as chunked `torch.cdist` and 2.5 to 4.7 times as fast as faiss-cpu's `IndexFlatL2`; where
a query all but repeats a row of the bank both of these have every distance wrong, this none
(benchmarks/results/neighbours_speed.csv).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from blemish.encoders.precision import multiplies_bf16
from blemish.errors import SettingsError

Metric = Literal["l2", "cosine"]
SearchPrecision = Literal["auto", "bfloat16", "float32"]

DENSE_ROWS = 4096  # of the bank that a graph compares at once: bounds what it holds to 16 kB a patch
_BLOCK = 128  # bank columns whose maximum is taken at once
_CANDIDATES = 128  # a row with more goes on to the next precision
_SPARE = 8  # candidates beyond k that a k > 1 search looks at
# What principal components may leave of the bank's variance, the rows that they are fitted on, and how many pairs all
# searches so far compared and what part of the columns is saved before they pay (benchmarks/neighbours_speed.py).
_RESIDUAL, _FITTED_ON, _PAIRS, _SAVED = 0.03, 4096, 1 << 22, 0.4
_SAMPLE = 1024  # rows that the median distance between rows is taken over, at least
_TRUE = 1e-5  # relative error of a distance measured by differences, generously


class Neighbours:
    """A bank of rows `(M, D)` searched for those nearest to a query.

    `metric` is "l2" (Euclidean) or "cosine" (1 − cosine, in [0, 2]; a zero row lies ½ from any direction).
    `precision` chooses how candidates are nominated ("auto": bfloat16 where the processor multiplies it natively); it
    changes the speed, not the result. A search holds no more than about `budget` bytes besides the bank and its result;
    what it makes of the bank is kept, at most four copies: projected or whole, at each precision. It runs on the bank's
    device. A query's result never depends on the other queries. `dense_operands` and `neighbourhoods` are for
    dense_neighbours.py; they are made when they are first asked for.
    """

    def __init__(
        self, bank: Tensor, metric: Metric = "l2", precision: SearchPrecision = "auto", budget: int = 1 << 23
    ) -> None:
        if bank.ndim != 2 or not len(bank):
            raise SettingsError("a bank of shape (M, D), M ≥ 1", f"shape {tuple(bank.shape)}", "pass patches as rows")
        if metric not in ("l2", "cosine"):
            raise SettingsError("metric 'l2' or 'cosine'", repr(metric), "choose one of them")
        self.metric, self.budget = metric, budget
        self.rows = self._prepared(bank)  # (M, D), unit length for cosine
        self.centre = self.rows.double().mean(0)  # (D,) float64: distances don't change, cancellation does
        self.precisions = [torch.float32]
        if precision == "bfloat16" or (precision == "auto" and multiplies_bf16(bank.device)):
            self.precisions.insert(0, torch.bfloat16)
        self._banks: dict[tuple[bool, torch.dtype], tuple[Tensor, float, float]] = {}
        self._compared = 0  # pairs of a query and a row, of all searches so far
        self._basis: Tensor | None = None  # (D, k) once it was asked for; k = 0 where it saves too little
        self._neighbourhoods: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def search(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """The `k` nearest rows of each query `(N, D)`: distances `(N, k)` float32, ascending, and indices `(N, k)`."""
        if queries.ndim != 2 or queries.shape[1] != self.rows.shape[1]:
            raise SettingsError(
                f"queries of shape (N, {self.rows.shape[1]})", f"{tuple(queries.shape)}", "reshape them"
            )
        if not 1 <= k <= len(self):
            raise SettingsError(f"1 ≤ k ≤ {len(self)}, the size of the bank", f"k={k}", "ask for fewer neighbours")
        queries = self._prepared(queries.to(self.rows.device))  # (N, D)
        squared, index = self._nearest(queries) if k == 1 else self._nearest_k(queries, k)
        return self._distance(squared), index

    def median_nn_distance(self) -> float:
        """The median distance of the bank's rows (some of them, evenly drawn) to their nearest other; > 0.

        1 where that is undefined or 0: for a single row, or where most rows have a duplicate.
        """
        if len(self) < 2:
            return 1.0
        rows = self.rows[:: max(1, len(self) // _SAMPLE)]
        distance = float(self.search(rows, 2)[0][:, 1].median())  # the nearest is the row itself
        return distance if distance > 0 else 1.0

    def distances_to(self, queries: Tensor, index: Tensor) -> Tensor:
        """Distances `(N, c)` float32 of queries `(N, D)` to the bank rows that `index` `(N, c)` names."""
        squared = self._squared(self._prepared(queries.to(self.rows.device)), index.to(self.rows.device))
        return self._distance(squared)

    @cached_property
    def dense_operands(self) -> list[tuple[Tensor, Tensor]]:
        """The rows from the centre, transposed `(D, m)`, and half of each one's square `(m,)`, `DENSE_ROWS` at a time.

        They depend on no query; kept, so that a graph holds them instead of making them whenever it is loaded.
        """
        parts = (self.rows - self.centre.float()).split(DENSE_ROWS)  # (m, D) each
        return [(part.T.contiguous(), part.square().sum(1) / 2) for part in parts]

    def neighbourhoods(self, count: int) -> Tensor:
        """The `count` rows nearest to each row, itself among them: `(M, count)`; kept, as a search has no place in a
        graph."""
        if count not in self._neighbourhoods:
            self._neighbourhoods[count] = self.search(self.rows, count)[1]
        return self._neighbourhoods[count]

    def _distance(self, squared: Tensor) -> Tensor:
        """Distances by `metric` from squared Euclidean ones, of any shape; for cosine those of unit rows."""
        return squared.sqrt() if self.metric == "l2" else squared / 2

    def _prepared(self, rows: Tensor) -> Tensor:
        """Rows `(N, D)` in float32, of unit length for cosine, contiguous."""
        rows = rows.detach().float()
        return normalize(rows, dim=1) if self.metric == "cosine" else rows.contiguous()

    def _nearest(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distance and index of the one nearest row, `(N, 1)` each."""
        squared = queries.new_full((len(queries),), torch.nan)  # (N,)
        index = torch.zeros(len(queries), dtype=torch.long, device=queries.device)  # (N,)
        waiting = torch.arange(len(queries), device=queries.device)  # (N',) queries without a result yet
        for is_projected, dtype in self._levels(len(queries)):
            crowded = []
            for part in self._chunks(waiting, dtype.itemsize):  # (n,)
                row, column = self._candidates(queries[part], dtype, is_projected)  # (P,) each, of n queries
                many = torch.bincount(row, minlength=len(part)) > _CANDIDATES  # (n,)
                few = ~many[row]  # (P,)
                squared[part], index[part] = self._best(queries[part], row[few], column[few])
                crowded.append(part[many])
            waiting = torch.cat(crowded) if crowded else waiting
        if len(waiting):
            found = self._search_double(queries[waiting], 1)  # (N', 1)
            squared[waiting] = self._squared(queries[waiting], found)[:, 0]
            index[waiting] = found[:, 0]
        return squared[:, None], index[:, None]

    def _nearest_k(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Squared distances and indices of the k nearest rows, `(N, k)` each."""
        if not len(queries):
            return queries.new_zeros(0, k), torch.zeros(0, k, dtype=torch.long, device=queries.device)
        found = [self._top_k(queries[part], k) for part in self._chunks(torch.arange(len(queries)), 4)]
        return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])

    def _top_k(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The same for queries `(n, D)` whose product with the bank fits into memory: `(n, k)` each."""
        wide = min(len(self), k + _SPARE)
        similarity, error = self._similarity(queries, torch.float32)  # (n, M'), (n,)
        approximate, column = similarity.topk(wide, dim=1)
        squared, column = self._sorted(queries, column)
        if wide < len(self):  # what was not nominated lies beyond this bound; closer ones need the exact search
            unsure = ~(squared[:, k - 1] <= -2 * (approximate[:, -1] + error))
            if unsure.any():
                double = self._search_double(queries[unsure], wide)
                squared[unsure], column[unsure] = self._sorted(queries[unsure], double)
        return squared[:, :k], column[:, :k]

    def _sorted(self, queries: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances to the bank rows `column` `(n, c)`, ascending, and these in that order, `(n, c)` each."""
        column = column.sort(dim=1).values  # equal distances come in the bank's order
        squared, order = self._squared(queries, column).sort(dim=1, stable=True)
        return squared, column.gather(1, order)

    def _levels(self, queries: int) -> list[tuple[bool, torch.dtype]]:
        """Ways to nominate, the quickest first: whether by projected rows, and at which precision.

        Projected rows that are too many at the first precision are too many at the next as well: it is what the
        projection leaves out, and not the rounding, that keeps them apart too little.
        """
        self._compared += queries * len(self)
        projected = self._compared >= _PAIRS and self._principal_components().shape[1] > 0
        whole = [(False, dtype) for dtype in self.precisions]
        return [(True, self.precisions[0]), *whole] if projected else whole

    def _principal_components(self) -> Tensor:
        """An orthonormal basis `(D, k)` float64 that leaves `_RESIDUAL` of the bank's variance; k = 0: none pays."""
        if self._basis is None:
            some = self.rows[:: max(1, len(self) // _FITTED_ON)].double() - self.centre  # (N, D)
            variance, directions = torch.linalg.eigh(some.T @ some)  # (D,) ascending, (D, D)
            left = variance.clamp_min(0).cumsum(0) / variance.clamp_min(0).sum().clamp_min(1e-300)  # (D,)
            count = int((left > _RESIDUAL).sum())
            pays = count + 1 <= (1 - _SAVED) * self.rows.shape[1]
            self._basis = directions[:, -count:] if pays and count else directions[:, :0]
        return self._basis

    def _centred(self, rows: Tensor, projected: bool = False) -> Tensor:
        """Rows `(N, D)` from the bank's centre, float64; projected to `(N, k + 1)`, where no distance is larger."""
        centred = rows.double() - self.centre
        if not projected:
            return centred
        main = centred @ self._principal_components()  # (N, k)
        left = (centred.square().sum(1) - main.square().sum(1)).clamp_min(0).sqrt()  # (N,)
        return torch.cat([main, left[:, None]], 1)

    def _candidates(self, queries: Tensor, dtype: torch.dtype, projected: bool = False) -> tuple[Tensor, Tensor]:
        """All pairs (row, bank row), `(P,)` each, that could be nearest, given the rounding of a product at `dtype`.

        By projected rows: all that seem no further away than the true distance to the one that seems nearest.
        """
        similarity, error = self._similarity(queries, dtype, projected)  # (n, M'), (n,)
        blocks = similarity.view(len(queries), -1, _BLOCK)
        highest = blocks.amax(-1)  # (n, M' / _BLOCK)
        if projected:
            block = highest.argmax(1)  # (n,)
            lane = blocks[torch.arange(len(queries), device=queries.device), block].argmax(1)  # (n,)
            seeming = (block * _BLOCK + lane).clamp_max(len(self) - 1)  # (n,)
            best, ends = -(1 + _TRUE) * self._squared(queries, seeming[:, None])[:, 0] / 2, 1  # (n,)
        else:
            best, ends = highest.amax(1).float(), 2  # the result itself is rounded, too
        rounding = 0.51 * torch.finfo(dtype).eps * best.abs()  # at one or either end of the window
        least = (best - ends * (error + rounding)).to(torch.float32)  # (n,) similarity of what could be the nearest
        row, block = (highest.float() >= least[:, None]).nonzero(as_tuple=True)  # (Q,) each: blocks that reach it
        pair, lane = (blocks[row, block].float() >= least[row, None]).nonzero(as_tuple=True)  # (P,) each, P ≥ Q
        column = block[pair] * _BLOCK + lane  # (P,)
        real = column < len(self)  # (P,) False in the padding
        return row[pair][real], column[real]

    def _similarity(self, queries: Tensor, dtype: torch.dtype, projected: bool = False) -> tuple[Tensor, Tensor]:
        """−½ ‖a − b‖² of each query to each bank row `(n, M')`, by a product at `dtype`, and each query's error `(n,)`.

        The halved squares ride along as columns that multiply ones, so the product itself is small where rows are near
        and its rounding is relative to the distance, not to the length of the rows.
        """
        columns, longest, loss = self._bank(dtype, projected)
        left, length, own_loss = _operand(self._centred(queries, projected), dtype, squares_first=True)
        accumulated = 2 * math.sqrt(columns.shape[1]) * 2.0**-23 * (length * longest + length**2 + longest**2)
        return left @ columns.T, own_loss * longest + (length + own_loss) * loss + accumulated

    def _bank(self, dtype: torch.dtype, projected: bool = False) -> tuple[Tensor, float, float]:
        """The bank as right operand of the product, padded to whole blocks; its longest row; its largest rounding."""
        key = projected, dtype
        if key not in self._banks:
            right, length, loss = _operand(self._centred(self.rows, projected), dtype, squares_first=False)
            if missing := -len(right) % _BLOCK:
                right = pad(right, (0, 0, 0, missing))
                right[len(self) :, -1] = -3e38  # never the nearest
            self._banks[key] = right, float(length.max()), float(loss.max())
        return self._banks[key]

    def _best(self, queries: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest of the candidate pairs `(P,)` for each query: squared distances and indices, `(n,)` each.

        NaN and 0 where a query has none.
        """
        squared = torch.cat(
            [(queries[r] - self.rows[c]).square().sum(1) for r, c in zip(*self._pair_chunks(row, column), strict=True)]
        )
        nearest = queries.new_full((len(queries),), torch.inf).scatter_reduce(0, row, squared, "amin")
        winner = squared == nearest[row]
        index = torch.full((len(queries),), len(self), device=queries.device)
        index = index.scatter_reduce(0, row[winner], column[winner], "amin")
        empty = index == len(self)
        return nearest.masked_fill(empty, torch.nan), index.masked_fill(empty, 0)

    def _pair_chunks(self, row: Tensor, column: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Both ends `(P,)` of pairs in parts whose differences `(p, D)` stay inside the budget."""
        step = max(1, self.budget // (12 * self.rows.shape[1]))  # two gathered rows and their difference
        return row.split(step), column.split(step)

    def _squared(self, queries: Tensor, column: Tensor) -> Tensor:
        """True squared distances of each query to its own candidates: `(n, D)`, `(n, c)` → `(n, c)`."""
        row = torch.arange(len(queries), device=queries.device)[:, None].expand_as(column)
        parts = zip(*self._pair_chunks(row.reshape(-1), column.reshape(-1)), strict=True)
        return torch.cat([(queries[r] - self.rows[c]).square().sum(1) for r, c in parts]).view(column.shape)

    def _search_double(self, queries: Tensor, k: int) -> Tensor:
        """Indices `(n, k)` of the nearest rows by products in float64, a slice of the bank at a time."""
        step = max(1, self.budget // (16 * self.rows.shape[1]))
        found = []
        for part in (queries.double() - self.centre).split(max(1, self.budget // (16 * min(step, len(self))))):
            best = part.new_full((len(part), k), -torch.inf)
            index = torch.zeros(len(part), k, dtype=torch.long, device=part.device)
            for start in range(0, len(self), step):
                rows = self.rows[start : start + step].double() - self.centre
                score = part @ rows.T - rows.square().sum(1) / 2  # (n, m)
                top, column = score.topk(min(k, len(rows)), dim=1)
                best, order = torch.cat([best, top], 1).topk(k, dim=1)
                index = torch.cat([index, column + start], 1).gather(1, order)
            found.append(index)  # (n, k)
        return torch.cat(found)

    def _chunks(self, rows: Tensor, itemsize: int) -> Iterator[Tensor]:
        """`rows` in parts whose product with the whole bank stays inside the budget."""
        return iter(rows.split(max(1, self.budget // (itemsize * (len(self) + _BLOCK)))) if len(rows) else ())


def _operand(exact: Tensor, dtype: torch.dtype, *, squares_first: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Rows `(N, D)` float64 at `dtype`, with −½‖row‖² and ones as further columns; each row's length and rounding loss.

    Three columns hold the halved square: one would be as rough as the precision, three carry all 24 bits.
    """
    centred = exact.float() if dtype != torch.float64 else exact
    rounded = centred.to(dtype)
    loss = (centred - rounded.float()).norm(dim=1) + centred.norm(dim=1) * 2.0**-24
    half = -centred.double().square().sum(1) / 2
    squares = []
    for _ in range(3):
        squares.append(half.to(dtype))
        half = half - squares[-1].double()
    ones = [torch.ones_like(squares[0])] * 3
    columns = [*squares, *ones] if squares_first else [*ones, *squares]
    return torch.cat([rounded, torch.stack(columns, 1)], 1), centred.norm(dim=1), loss
