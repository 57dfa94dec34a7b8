"""k-means (Lloyd, IEEE Trans. Information Theory 28, 1982), seeded by k-means++ (Arthur & Vassilvitskii, 2007)."""

from __future__ import annotations

import torch
from torch import Tensor

from blemish.errors import SettingsError

ITERATIONS = 25  # further ones moved hardly any centre of patch features


def k_means(rows: Tensor, count: int, seed: int = 0, iterations: int = ITERATIONS) -> Tensor:
    """Centres `(k, D)` of rows `(N, D)`; k is `count`, or fewer where there are fewer different rows.

    The same rows in the same order and the same seed give the same centres. Raises SettingsError for no rows, or a
    count under 1.
    """
    if rows.ndim != 2 or not len(rows) or count < 1:
        raise SettingsError(
            "rows of shape (N, D), N ≥ 1, and a count ≥ 1", f"{tuple(rows.shape)}, {count}", "correct it"
        )
    centres = rows[_seeds(rows, count, torch.Generator().manual_seed(seed))]  # (k, D)
    for _ in range(iterations):
        nearest = squared_distances(rows, centres).argmin(1)  # (N,)
        members = torch.bincount(nearest, minlength=len(centres))  # (k,)
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)  # (k, D)
        moved = torch.where(members[:, None] > 0, sums / members.clamp_min(1)[:, None], centres)  # (k, D)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def squared_distances(rows: Tensor, centres: Tensor) -> Tensor:
    """Squared distances `(N, k)` ≥ 0 of rows `(N, D)` to centres `(k, D)`.

    From the middle of the centres: a channel that is large in all of them would leave nothing of the others' digits.
    """
    middle = centres.mean(0)
    rows, centres = rows - middle, centres - middle
    return (rows.square().sum(1)[:, None] + centres.square().sum(1) - 2 * rows @ centres.T).clamp_min(0)


def _seeds(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows `(k,)` to begin with: each drawn with the square of its distance to those before as its weight.

    Rare kinds of rows that lie far from the common ones are found so, which evenly drawn seeds miss.
    """
    chosen = [int(torch.randint(len(rows), (), generator=generator))]
    nearest = (rows - rows[chosen[0]]).square().sum(1)  # (N,)
    while len(chosen) < count and bool(nearest.max() > 0):
        ends = nearest.double().cumsum(0)  # (N,)
        drawn = torch.rand((), generator=generator, dtype=torch.float64).to(ends.device) * ends[-1]
        chosen.append(min(int(torch.searchsorted(ends, drawn, right=True)), len(rows) - 1))
        nearest = torch.minimum(nearest, (rows - rows[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen, device=rows.device)
