"""Surfaces measured on a grid: point spacing, normals, box means that know holes, and what lies in a neighbourhood.

Points are `(H, W, 3)` arrays in metres, NaN where nothing was measured. A normal points to the viewer: of a surface
that is seen, columns × rows points away from whoever sees it, so no place of a camera has to be known.
"""

from __future__ import annotations

import numpy as np

GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))


def measured(points: np.ndarray) -> np.ndarray:
    """Where `points` `(H, W, 3)` hold a measurement, `(H, W)` bool."""
    return np.isfinite(points).all(axis=-1)


def spacing(points: np.ndarray) -> float:
    """The median distance of points that are neighbours on the grid, in metres; 0 where there are none."""
    steps = (np.linalg.norm(np.diff(points, axis=axis), axis=-1) for axis in (0, 1))
    lengths = np.concatenate([step[np.isfinite(step)] for step in steps])
    return float(np.median(lengths)) if len(lengths) else 0.0


def disc(radius: float, most: int | None = None) -> np.ndarray:
    """Grid offsets (rows, columns) in a disc around the origin, without it, `(K, 2)` int: half of it, one of ± each.

    With `most`, about half as many of them, spread evenly over the disc by a sunflower's spiral.
    """
    reach = int(radius)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    inside = rows**2 + columns**2 <= radius**2
    offsets = np.stack([rows[inside], columns[inside]], axis=1)  # (K, 2)
    if most is not None and len(offsets) - 1 > most:
        turns = np.arange(most)
        radii, angles = radius * np.sqrt((turns + 0.5) / most), turns * GOLDEN_ANGLE
        offsets = np.rint(radii[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1)).astype(int)
    backwards = (offsets[:, 0] < 0) | ((offsets[:, 0] == 0) & (offsets[:, 1] < 0))
    offsets = np.where(backwards[:, None], -offsets, offsets)
    return np.unique(offsets[offsets.any(axis=1)], axis=0)


def at_offsets(grid: np.ndarray, rows: np.ndarray, columns: np.ndarray, offsets: np.ndarray, empty: float) -> np.ndarray:
    """What `grid` `(H, W, …)` holds at each of N places plus each of K offsets, `(N, K, …)`; `empty` off the grid."""
    reach = int(np.abs(offsets).max(initial=0))
    wide = np.pad(grid, ((reach, reach), (reach, reach), *[(0, 0)] * (grid.ndim - 2)), constant_values=empty)
    width = wide.shape[1]
    places = (rows + reach) * width + columns + reach  # (N,)
    return wide.reshape(-1, *grid.shape[2:]).take(places[:, None] + offsets @ (width, 1), axis=0)


def representatives(valid: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of one valid point in each square of `side` that has any: the one closest to its centre."""
    height, width = valid.shape
    squares = valid.reshape(height // side, side, width // side, side).transpose(0, 2, 1, 3)
    squares = squares.reshape(height // side, width // side, side * side)
    rows, columns = np.divmod(np.arange(side * side), side)
    middle = (side - 1) / 2
    order = np.argsort((rows - middle) ** 2 + (columns - middle) ** 2, kind="stable")
    tops, lefts = np.nonzero(squares.any(axis=-1))
    chosen = order[squares[tops, lefts][:, order].argmax(axis=1)]
    return tops * side + rows[chosen], lefts * side + columns[chosen]


def normals_at(points: np.ndarray, rows: np.ndarray, columns: np.ndarray, radius: float, reach: float) -> np.ndarray:
    """Normals at N places, `(N, 3)` of length 1, by PCA of the points within `radius` on the grid and `reach` metres.

    0 where fewer than three points lie there, or all on a line.
    """
    half = disc(radius)
    offsets = np.concatenate([half, -half, np.zeros((1, 2), int)])
    around = at_offsets(points, rows, columns, offsets, np.nan) - points[rows, columns][:, None]  # (N, K, 3)
    with np.errstate(invalid="ignore"):
        near = np.einsum("nkc,nkc->nk", around, around) <= reach * reach
    around = np.where(near[..., None], around, 0).astype(np.float64)
    count = near.sum(axis=1)[:, None]  # (N, 1), the point itself included
    mean = around.sum(axis=1) / count
    spread = around.transpose(0, 2, 1) @ around / count[..., None] - mean[:, :, None] * mean[:, None, :]  # (N, 3, 3)
    steps = np.where(near[..., None], offsets, 0).astype(np.float64)  # (N, K, 2)
    tilt = around.transpose(0, 2, 1) @ steps / count[..., None]
    tilt -= mean[:, :, None] * (steps.sum(axis=1) / count)[:, None, :]  # (N, 3, 2) covariance with rows and columns
    _, normals = principal(spread[:, (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)].T)
    normals = facing(normals, tilt[..., 1].T, tilt[..., 0].T).T
    return np.where(count >= 3, normals, 0)


def facing(normals: np.ndarray, along_columns: np.ndarray, along_rows: np.ndarray) -> np.ndarray:
    """`normals` `(3, …)` turned to the viewer, given the surface's directions along columns and rows, `(3, …)`."""
    away = (normals * cross(along_columns, along_rows)).sum(axis=0) > 0
    return np.where(away, -normals, normals)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cross product of vectors along the first axis, `(3, …)`; several times as fast as numpy's."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def principal(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, ascending, `(3, …)`, and the unit eigenvector of the smallest, `(3, …)`, in closed form.

    `covariance` `(6, …)` float64 holds xx, xy, xz, yy, yz, zz. The vector is 0 where it is not determined.
    """
    xx, xy, xz, yy, yz, zz = covariance
    mean = (xx + yy + zz) / 3
    a, b, c = xx - mean, yy - mean, zz - mean
    off = xy * xy + xz * xz + yz * yz
    size = np.sqrt((a * a + b * b + c * c + 2 * off) / 6)
    cubed = a * (b * c - yz * yz) - xy * (xy * c - yz * xz) + xz * (xy * yz - b * xz)  # determinant
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(size > 0, np.clip(cubed / (2 * size**3), -1, 1), 1)
    angle = np.arccos(ratio) / 3
    largest, smallest = mean + 2 * size * np.cos(angle), mean + 2 * size * np.cos(angle + 2 * np.pi / 3)
    values = np.stack([smallest, 3 * mean - largest - smallest, largest]).clip(min=0)
    first, second, third = (
        np.stack([xx - smallest, xy, xz]),
        np.stack([xy, yy - smallest, yz]),
        np.stack([xz, yz, zz - smallest]),
    )
    # All rows are orthogonal to the vector; the longest cross product of two of them is the most exact.
    best = cross(first, second)
    longest = (best * best).sum(axis=0)
    for other in (cross(first, third), cross(second, third)):
        length = (other * other).sum(axis=0)
        best, longest = np.where(length > longest, other, best), np.maximum(longest, length)
    determined = longest > (1e-12 * (mean * 3) ** 2) ** 2
    return values, np.where(determined, best / np.sqrt(np.where(determined, longest, 1)), 0)


class BoxMeans:
    """Means over the valid points in squares around every point, for any number of sides, by summed-area tables.

    `values` `(C, H, W)` may hold anything where not `valid` `(H, W)`. float64 inside: the tables hold sums of it all.
    """

    def __init__(self, values: np.ndarray, valid: np.ndarray) -> None:
        self.valid = valid
        self._table = _summed(np.where(valid, values, 0))
        self._count = _summed(valid[None].astype(np.float64))

    def __call__(self, half: int) -> np.ndarray:
        """Means over squares of 2·half + 1 points, cut at the border, `(C, H, W)`; 0 where no point is valid."""
        return _boxes(self._table, half) / np.maximum(_boxes(self._count, half), 1)

    def missing(self, half: int) -> np.ndarray:
        """The share of such a square on the grid that holds no valid point, `(H, W)`."""
        area = _boxes(_summed(np.ones((1, *self.valid.shape))), half)
        return (1 - _boxes(self._count, half) / area)[0]


def _summed(values: np.ndarray) -> np.ndarray:
    """The summed-area table `(C, H + 1, W + 1)` of `(C, H, W)`."""
    table = np.zeros((len(values), values.shape[1] + 1, values.shape[2] + 1))
    np.cumsum(values, axis=1, out=table[:, 1:, 1:])
    np.cumsum(table[:, 1:, 1:], axis=2, out=table[:, 1:, 1:])
    return table


def _boxes(table: np.ndarray, half: int) -> np.ndarray:
    """Sums over squares of 2·half + 1 around every point, `(C, H, W)`."""
    for axis in (1, 2):
        length = table.shape[axis] - 1
        places = np.arange(length)
        ends, starts = np.minimum(places + half + 1, length), np.maximum(places - half, 0)
        table = table.take(ends, axis=axis) - table.take(starts, axis=axis)
    return table


def pooled(values: np.ndarray, valid: np.ndarray, side: int) -> np.ndarray:
    """The mean of `values` `(C, H, W)` over the valid points of each square of `side`, `(h, w, C)`; 0 where none is."""
    counts = _squares(valid[None].astype(values.dtype), side).sum(axis=-1)  # (1, h, w)
    sums = _squares(np.where(valid, values, 0), side).sum(axis=-1)  # (C, h, w)
    return (sums / np.maximum(counts, 1)).transpose(1, 2, 0)


def farthest(values: np.ndarray, valid: np.ndarray, side: int) -> np.ndarray:
    """Of `values` `(C, H, W)` the one farthest from 0 among the valid points of each square of `side`, `(h, w, C)`."""
    squares = _squares(np.where(valid, values, 0), side)  # (C, h, w, side²)
    low, high = squares.min(axis=-1), squares.max(axis=-1)
    return np.where(-low > high, low, high).transpose(1, 2, 0)


def any_valid(valid: np.ndarray, side: int) -> np.ndarray:
    """Which squares of `side` hold a valid point, `(h, w)` bool."""
    return _squares(valid[None], side).any(axis=-1)[0]


def _squares(values: np.ndarray, side: int) -> np.ndarray:
    """`(C, H, W)` → `(C, h, w, side²)`."""
    count, height, width = values.shape
    parts = values.reshape(count, height // side, side, width // side, side).transpose(0, 1, 3, 2, 4)
    return parts.reshape(count, height // side, width // side, side * side)
