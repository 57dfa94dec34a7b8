"""Sets of points in space: spread centres over them, gather the nearest, carry values from centres, compare two sets.

Farthest point sampling and interpolation are those of Qi et al., PointNet++, NeurIPS 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blemish.errors import SettingsError

NEIGHBOURS = 3  # centres that a place gets its value from, as published
DISTANCES_AT_ONCE = 1 << 22  # numbers in one block of distances: 16 MB


def farthest_points(points: Tensor, count: int) -> Tensor:
    """Which points lie furthest apart: `points` `(B, N, 3)` → indices `(B, count)`, each furthest from those before.

    The first is the one furthest from the mean, so that the choice does not depend on the order of the points.
    """
    if not 1 <= count <= points.shape[1]:
        raise SettingsError(f"1 to {points.shape[1]} centres among as many points", str(count), "ask for fewer centres")
    axes = points.transpose(1, 2).contiguous()  # (B, 3, N): coordinates side by side are several times faster
    chosen = torch.empty((len(points), count), dtype=torch.long, device=points.device)
    furthest = (axes - axes.mean(2, keepdim=True)).square_().sum(1).argmax(1, keepdim=True)  # (B, 1)
    nearest = torch.full((len(points), points.shape[1]), torch.inf, dtype=points.dtype, device=points.device)
    for step in range(count):
        chosen[:, step : step + 1] = furthest
        last = axes.gather(2, furthest[:, None].expand(-1, 3, 1))  # (B, 3, 1)
        torch.minimum(nearest, (axes - last).square_().sum(1), out=nearest)
        furthest = nearest.argmax(1, keepdim=True)
    return chosen


def nearest_points(points: Tensor, centres: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` points nearest to each centre, the nearest first.

    `points` `(B, N, 3)`, `centres` `(B, G, 3)` → squared distances and indices, both `(B, G, count)`.
    """
    if not 1 <= count <= points.shape[1]:
        raise SettingsError(f"1 to {points.shape[1]} neighbours among as many points", str(count), "ask for fewer")
    if points.device.type == "cpu":
        return _nearest_by_tree(points, centres, count)
    size = max(1, DISTANCES_AT_ONCE // (len(points) * points.shape[1]))
    parts = [_nearest_by_table(points, part, count) for part in centres.split(size, dim=1)]
    squared, index = (torch.cat(same, dim=1) for same in zip(*parts, strict=True))
    return squared, index


def _nearest_by_tree(points: Tensor, centres: Tensor, count: int) -> tuple[Tensor, Tensor]:
    from scipy.spatial import cKDTree

    distances = torch.empty((*centres.shape[:2], count), dtype=points.dtype)
    index = torch.empty(distances.shape, dtype=torch.long)
    for i, (some, own) in enumerate(zip(points.detach(), centres.detach(), strict=True)):
        near, which = cKDTree(some.numpy(), balanced_tree=False).query(own.numpy(), k=range(1, count + 1))
        distances[i], index[i] = torch.from_numpy(near), torch.from_numpy(which)
    return distances.square_(), index


def _nearest_by_table(points: Tensor, centres: Tensor, count: int) -> tuple[Tensor, Tensor]:
    squared, index = squared_distances(centres, points).topk(count, dim=2, largest=False)
    return squared, index


def squared_distances(ones: Tensor, others: Tensor) -> Tensor:
    """`(B, M, 3)` and `(B, N, 3)` → `(B, M, N)`, from the differences themselves: exact for points close together."""
    axes = zip(ones.unbind(2), others.unbind(2), strict=True)
    squares = [(one[:, :, None] - other[:, None]).square() for one, other in axes]
    return squares[0] + squares[1] + squares[2]


def gather_points(values: Tensor, index: Tensor) -> Tensor:
    """`values` `(B, N, D)` at `index` `(B, …)` → `(B, …, D)`."""
    flat = index.flatten(1)[..., None].expand(-1, -1, values.shape[2])
    return values.gather(1, flat).view(*index.shape, values.shape[2])


def inverse_distance_weights(centres: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """How much of each near centre's value a place gets: weights by 1 / distance², of sum 1.

    `centres` `(B, G, 3)`, `places` `(B, M, 3)` → weights and indices of centres, both `(B, M, k)`, where k is
    `NEIGHBOURS`, or G where there are fewer centres.
    """
    squared, index = nearest_points(centres, places, min(NEIGHBOURS, centres.shape[1]))
    weights = 1 / (squared + 1e-8)
    return weights / weights.sum(2, keepdim=True), index


def chamfer(ones: Tensor, others: Tensor) -> Tensor:
    """How far two sets of points lie apart, a scalar: the mean squared distance to the nearest in the other set, twice.

    `(B, M, 3)` and `(B, N, 3)`; Chamfer distance ℓ2, from either side.
    """
    with torch.autocast(ones.device.type, enabled=False):
        squared = squared_distances(ones.float(), others.float())  # (B, M, N)
        return squared.amin(2).mean() + squared.amin(1).mean()
