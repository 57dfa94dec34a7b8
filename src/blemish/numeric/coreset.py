"""Greedy k-centre: the few rows from which no other row is far (Gonzalez 1985; Sener & Savarese 2018; PatchCore 2022).

The plain algorithm reads all rows once a selection. Distances to the selected set only shrink, so the farthest rows can
be chosen among a short list for as long as they stay farther than anything off the list was; all rows are then brought
up to date with one matrix product for the whole round. The selection is that of the plain algorithm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from blemish.errors import SettingsError

_BUDGET = 1 << 26  # bytes of scratch
_SHORT_LIST = 64, 1024  # candidate rows of a round: at least, at most; they change the speed, not the result


def k_centre(rows: Tensor, count: int, *, projection: int | None = 128, seed: int = 0) -> Tensor:
    """Indices `(count,)` of rows `(N, D)` in the order of selection, each the farthest from those before it.

    The first is drawn with `seed` and is itself selected. `projection` is the width of the random projection in which
    distances are measured (None, or D and more: no projection). Fewer than `count` are returned when all others
    coincide with a selected row. Holds `rows`, their projection and a fixed scratch; nothing grows with `count`.
    """
    if rows.ndim != 2 or not len(rows):
        raise SettingsError("rows of shape (N, D), N ≥ 1", f"shape {tuple(rows.shape)}", "pass patches as rows")
    if count < 1:
        raise SettingsError("count ≥ 1", f"{count}", "select at least one row")
    generator = torch.Generator().manual_seed(seed)
    first = int(torch.randint(len(rows), (1,), generator=generator))
    if projection is None or projection >= rows.shape[1]:
        near = rows.detach().float() - rows.detach().float().mean(0)
    else:
        near = project(rows, projection, generator)
    return _select(near, min(count, len(rows)), first)


def project(rows: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Rows `(N, D)`, centred, in a random Gaussian projection `(N, width)` that keeps distances roughly.

    Johnson & Lindenstrauss: with width 128 a distance is off by 6 % (one standard deviation), whatever D is.
    """
    axes = torch.randn(rows.shape[1], width, generator=generator).to(rows.device) / math.sqrt(width)
    step = max(1, _BUDGET // (8 * rows.shape[1]))
    mean = sum(part.double().sum(0) for part in rows.split(step)) / len(rows)
    return torch.cat([(part.detach().float() - mean.float()) @ axes for part in rows.split(step)])


def _select(rows: Tensor, count: int, first: int) -> Tensor:
    squares = rows.square().sum(1)  # (N,)
    same = 1e-6 * squares  # (N,) a row this near to a selected one is that row, up to rounding
    distance = torch.full_like(squares, torch.inf)  # (N,) squared, to the nearest selected row
    selected, fresh = [first], [first]
    while True:
        _lower(distance, rows, squares, torch.tensor(fresh, device=rows.device))
        distance[distance <= same] = -1
        wanted = count - len(selected)
        if not wanted:
            break
        length = min(len(rows), max(_SHORT_LIST[0], min(_SHORT_LIST[1], len(rows) // 64)))
        fresh = _round(distance, rows, squares, length, wanted, same)
        if not fresh:
            break
        selected += fresh
    return torch.tensor(selected)


def _round(distance: Tensor, rows: Tensor, squares: Tensor, length: int, wanted: int, same: Tensor) -> list[int]:
    """The next selections: the farthest of a short list, while they are farther than all that is off the list."""
    top, listed = distance.topk(min(length + 1, len(rows)))
    beyond = float(top[length]) if length < len(top) else -math.inf  # the farthest row off the list
    top, listed = top[:length].clone(), listed[:length]
    near, square, same = rows[listed], squares[listed], same[listed]  # (L, D), (L,), (L,)
    fresh: list[int] = []
    while len(fresh) < wanted:
        best = int(top.argmax())
        if top[best] < 0 or (fresh and top[best] < beyond):
            break
        if top[best] > same[best]:
            fresh.append(int(listed[best]))
            torch.minimum(top, square + square[best] - 2 * (near @ near[best]), out=top)
        top[best] = -1
    return fresh


def _lower(distance: Tensor, rows: Tensor, squares: Tensor, fresh: Tensor) -> None:
    """Bring every row's distance up to date with the freshly selected rows; those themselves are never far again."""
    centres, offsets = rows[fresh], squares[fresh] / 2  # (F, D), (F,)
    step = max(1, _BUDGET // (4 * len(fresh)))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        nearest = torch.addmm(-offsets, rows[part], centres.T).amax(1)  # ab − ½b², largest where nearest
        torch.minimum(distance[part], squares[part] - 2 * nearest, out=distance[part])
    distance[fresh] = -1
