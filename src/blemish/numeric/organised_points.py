"""Organised point clouds: point spacing, normals, box means that leave out holes, neighbourhoods on the grid.

Points are `(H, W, 3)` arrays in metres, NaN where nothing was measured. Normals point to the viewer: of a visible
surface, columns × rows points away from the viewer, so that no camera pose has to be known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

EDGE = 4.0  # times the spacing of points: a longer step along the grid is an edge; a surface seen at up to 75° has less
GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))


def measured(points: np.ndarray) -> np.ndarray:
    """Where `points` `(H, W, 3)` hold a measurement, `(H, W)` bool."""
    valid: np.ndarray = np.isfinite(points).all(axis=-1)
    return valid


def spacing(points: np.ndarray) -> float:
    """The median distance of points that are neighbours on the grid, in metres; 0 where there are none.

    Where points are repeated so often that it would be 0, repeated ones are no neighbours.
    """
    steps = (np.linalg.norm(np.diff(points, axis=axis), axis=-1) for axis in (0, 1))
    lengths = np.concatenate([step[np.isfinite(step)] for step in steps])
    middle = float(np.median(lengths)) if len(lengths) else 0.0
    apart = lengths[lengths > 0]
    return float(np.median(apart)) if middle == 0 and len(apart) else middle


def resampled(points: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """`points` `(H, W, 3)` at places on the grid `(…)`, centres of pixels at whole numbers: `(…, 3)` float64.

    Bilinear between four measured points that lie on one surface, where each step along the grid is at most `EDGE`
    times the usual one; else the nearest, so that no point hangs in the air at an edge. NaN off the grid. The spacing
    of points on a turned grid is then that of the grid before, which nearest points are not: it would be up to √2 more.
    """
    height, width = points.shape[:2]
    left, top = np.floor(across).astype(int), np.floor(down).astype(int)
    wide = np.pad(points.astype(np.float64), ((1, 1), (1, 1), (0, 0)), constant_values=np.nan)

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return wide[np.clip(row + 1, 0, height + 1), np.clip(column + 1, 0, width + 1)]

    corners = [[at(top + y, left + x) for x in (0, 1)] for y in (0, 1)]
    right, low = (across - left)[..., None], (down - top)[..., None]
    above, below = ((1 - right) * row[0] + right * row[1] for row in corners)
    between = (1 - low) * above + low * below
    cells = _cells_on_surface(wide, spacing(points))  # its border is not: beyond the grid nothing was measured
    is_surface = cells[np.clip(top + 1, 0, height), np.clip(left + 1, 0, width)]
    nearest = at(np.rint(down).astype(int), np.rint(across).astype(int))
    return np.where(is_surface[..., None], between, nearest)


def enlarged(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`points` `(H, W, 3)` on a finer grid `(h, w)` over the same area, as `resampled` gives them: `(h, w, 3)` float32.

    Measured are the places whose nearest point is. The spacing becomes that of the finer grid, where repeated points
    would have none.
    """
    places = [
        (np.arange(fine) + 0.5) * coarse / fine - 0.5 for fine, coarse in zip(size, points.shape[:2], strict=True)
    ]
    (top, left), (row, column) = ([f(own).astype(int) + 1 for own in places] for f in (np.floor, np.rint))
    low, right = (own + 1 - first for own, first in zip(places, (top, left), strict=True))
    wide = np.pad(points.astype(np.float64), ((1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    cells = _cells_on_surface(wide, spacing(points))
    between = (1 - right[:, None]) * wide[:, left] + right[:, None] * wide[:, left + 1]  # (H + 2, w, 3)
    found = points.astype(np.float32)[row - 1][:, column - 1]  # (h, w, 3)
    for index in range(size[0]):
        line = (1 - low[index]) * between[top[index]] + low[index] * between[top[index] + 1]  # (w, 3)
        np.copyto(found[index], line, where=cells[top[index], left, None], casting="same_kind")
    return found


def _cells_on_surface(points: np.ndarray, between: float) -> np.ndarray:
    """Which squares of four neighbours among `points` `(H, W, 3)` lie on one surface, `(H - 1, W - 1)` bool: all are
    measured, and none of the steps along the grid is longer than `EDGE` times the usual one, `between`."""
    along, down = (np.square(np.diff(points, axis=axis)).sum(-1) for axis in (1, 0))  # NaN where one is not measured
    longest = np.maximum(np.maximum(along[:-1], along[1:]), np.maximum(down[:, :-1], down[:, 1:]))
    on_surface: np.ndarray = longest <= (EDGE * between) ** 2
    return on_surface


def disc(radius: float, most: int | None = None) -> np.ndarray:
    """Grid offsets (rows, columns) in a disc around the origin, without it, `(K, 2)` int: one of each pair ±.

    With `most`, about half as many of them, evenly spaced over the disc by a golden-angle spiral (Vogel, "A Better Way
    to Construct the Sunflower Head", Mathematical Biosciences 1979).
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


def at_offsets(
    grid: np.ndarray, rows: np.ndarray, columns: np.ndarray, offsets: np.ndarray, empty: float
) -> np.ndarray:
    """What `grid` `(H, W, …)` holds at each of N places plus each of K offsets, `(N, K, …)`; `empty` off the grid."""
    reach = int(np.abs(offsets).max(initial=0))
    wide = np.pad(grid, ((reach, reach), (reach, reach), *[(0, 0)] * (grid.ndim - 2)), constant_values=empty)
    width = wide.shape[1]
    places = (rows + reach) * width + columns + reach  # (N,)
    found: np.ndarray = wide.reshape(-1, *grid.shape[2:]).take(places[:, None] + offsets @ (width, 1), axis=0)
    return found


def representatives(valid: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of one valid point in each square of `side` that has any: the one closest to its centre."""
    squares = _squares(valid[None], side)[0]  # (h, w, side²)
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
    covariance = around.transpose(0, 2, 1) @ around / count[..., None]
    covariance = covariance - mean[:, :, None] * mean[:, None, :]  # (N, 3, 3)
    steps = np.where(near[..., None], offsets, 0).astype(np.float64)  # (N, K, 2)
    slope = around.transpose(0, 2, 1) @ steps / count[..., None]
    slope -= mean[:, :, None] * (steps.sum(axis=1) / count)[:, None, :]  # (N, 3, 2) covariance with rows and columns
    _, normals = principal(covariance[:, (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)].T)
    normals = facing(normals, slope[..., 1].T, slope[..., 0].T).T
    return np.where(count >= 3, normals, 0)


def facing(normals: np.ndarray, along_columns: np.ndarray, along_rows: np.ndarray) -> np.ndarray:
    """`normals` `(3, …)` turned to the viewer, given the surface's directions along columns and rows, `(3, …)`."""
    away = dot(normals, cross(along_columns, along_rows)) > 0
    return np.where(away, -normals, normals)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The dot product of vectors along the first axis, `(3, …)`."""
    product: np.ndarray = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product


def cross(a: Sequence[np.ndarray] | np.ndarray, b: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """The cross product of vectors along the first axis, `(3, …)`; several times as fast as numpy's."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def principal(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, ascending, `(3, N)`, and the unit eigenvector of the smallest, `(3, N)`, in closed form.

    `covariance` `(6, N)` float64 holds xx, xy, xz, yy, yz, zz. The vector is 0 where it is not determined.
    """
    xx, xy, xz, yy, yz, zz = covariance
    mean = (xx + yy + zz) / 3
    a, b, c = xx - mean, yy - mean, zz - mean
    xy2, xz2, yz2 = xy * xy, xz * xz, yz * yz
    size = np.sqrt((a * a + b * b + c * c + 2 * (xy2 + xz2 + yz2)) / 6)
    determinant = a * (b * c - yz2) - b * xz2 - c * xy2 + 2 * xy * xz * yz
    ratio = determinant / np.where(size > 0, 2 * size * size * size, 1)
    angle = np.arccos(np.clip(ratio, -1, 1)) / 3
    cosine, sine = np.cos(angle), np.sin(angle)
    largest, smallest = mean + 2 * size * cosine, mean - size * (cosine + np.sqrt(3) * sine)
    values = np.stack([smallest, 3 * mean - largest - smallest, largest]).clip(min=0)
    first, second, third = (xx - smallest, xy, xz), (xy, yy - smallest, yz), (xz, yz, zz - smallest)
    # All rows are orthogonal to the vector; the longest cross product of two of them is the most exact.
    best = cross(first, second)
    longest = dot(best, best)
    for other in (cross(first, third), cross(second, third)):
        length = dot(other, other)
        better = length > longest
        np.copyto(best, other, where=better)
        np.copyto(longest, length, where=better)
    determined = longest > (1e-7 * (mean * 3) ** 2) ** 2  # the values themselves are known to about 1e-8
    return values, np.where(determined, best / np.sqrt(np.where(determined, longest, 1)), 0)


class BoxMeans:
    """Means over the valid points in squares around every point, for several sides, by summed-area tables.

    `values` `(C, H, W)` are 0 where nothing is valid, `valid` `(H, W)` bool. float64 inside: the tables hold sums of
    it all. No square may reach further than `most` points to each side.
    """

    def __init__(self, values: np.ndarray, valid: np.ndarray, most: int) -> None:
        self.most = most
        self._table = _summed(np.concatenate([values, valid[None]]), most)  # (C + 1, H + 1 + 2·most, …)

    def __call__(self, half: int) -> tuple[np.ndarray, np.ndarray]:
        """Means over squares of 2·half + 1 points `(C, H, W)`, 0 where no point is valid, and how many are `(H, W)`."""
        low, side = self.most - half, 2 * half + 1
        stop = -low or None
        rows = self._table[:, low + side : stop] - self._table[:, low : -low - side]
        sums = rows[:, :, low + side : stop] - rows[:, :, low : -low - side]
        count = sums[-1].round()
        return sums[:-1] / np.maximum(count, 1), count


def _summed(values: np.ndarray, margin: int) -> np.ndarray:
    """The summed-area table of `(C, H, W)` with zeros to all sides, `(C, H + 1 + 2·margin, W + 1 + 2·margin)`."""
    count, height, width = values.shape
    table = np.zeros((count, height + 1 + 2 * margin, width + 1 + 2 * margin))
    inner = table[:, margin + 1 : margin + 1 + height, margin + 1 : margin + 1 + width]
    np.cumsum(values, axis=1, out=inner)
    np.cumsum(inner, axis=2, out=inner)
    table[:, margin + 1 + height :] = table[:, margin + height, None]
    table[:, :, margin + 1 + width :] = table[:, :, margin + width, None]
    return table


def extent(valid: np.ndarray, side: int) -> tuple[slice, slice]:
    """The rows and columns, in whole squares of `side`, beyond which nothing is valid."""
    ranges = []
    for axis in (1, 0):
        places = np.flatnonzero(valid.any(axis=axis)) // side
        ranges.append(slice(places[0] * side, (places[-1] + 1) * side) if len(places) else slice(0, 0))
    return ranges[0], ranges[1]


def patch_means(patches: np.ndarray, count: int) -> csr_array:
    """The sparse matrix `(count, N)` that averages rows of N points over the patches whose indices `patches` holds."""
    from scipy.sparse import csr_array  # the light runtime has no scipy, and only enlarges points

    weight = 1 / np.bincount(patches, minlength=count)[patches]  # (N,)
    return csr_array((weight.astype(np.float32), (patches, np.arange(len(patches)))), shape=(count, len(patches)))


def farthest(values: np.ndarray, side: int) -> np.ndarray:
    """The extreme, the value farthest from 0, of `values` `(C, H, W)` in each square of `side`, `(h, w, C)`."""
    squares = _squares(values, side)  # (C, h, w, side²)
    low, high = squares.min(axis=-1), squares.max(axis=-1)
    extreme: np.ndarray = np.where(-low > high, low, high).transpose(1, 2, 0)
    return extreme


def any_valid(valid: np.ndarray, side: int) -> np.ndarray:
    """Which squares of `side` hold a valid point, `(h, w)` bool."""
    return np.asarray(_squares(valid[None], side)[0].any(axis=-1))


def _squares(values: np.ndarray, side: int) -> np.ndarray:
    """`(C, H, W)` → `(C, h, w, side²)`."""
    count, height, width = values.shape
    parts = values.reshape(count, height // side, side, width // side, side).transpose(0, 1, 3, 2, 4)
    return parts.reshape(count, height // side, width // side, side * side)
