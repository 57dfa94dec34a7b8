"""What is done to organised points before they are looked at: the ground taken away, crumbs of noise, size and shape.

The steps of BTF (Horwitz and Hoshen, CVPRW 2023) that later methods on MVTec 3D-AD share: the plane that a part lies on
is fitted by RANSAC (Fischler and Bolles, 1981) to a strip along the border, and the points near it are taken away.
Planes compete by their median distance (Rousseeuw, 1984), so that the ground need only be more than half of the border.
All functions take points `(H, W, 3)` in metres with NaN in the holes, and change nothing in place.
"""

from __future__ import annotations

import numpy as np

from blemish.data.points import measured

STRIP = 10 / 600  # width of the border strip over the short side: 10 pixels in scans of 400 to 800
LEAST_BORDER = 0.2  # share of the strip that must be measured: where it is empty, the ground is gone already
EXPLAINED = 0.6  # share of the strip's points that must lie on the plane
LEAST_LEFT = 0.005  # share of the points that must stand out: a plane that takes all is the part itself
RELIEF = 0.25  # share of a low part's usual height that the band may take
NOISE = 6.0  # standard deviations of the ground that the band is wide at least: the ground may bend a little, too
TRIALS, LOOKED_AT = 200, 2000  # planes that RANSAC tries, on so many points of the strip at most
REFITS = 5
SPECK = 5e-4  # share of the grid up to which a cluster is noise
GAP = 8.0  # usual distances between neighbours from which two neighbours lie on different surfaces


def remove_plane(points: np.ndarray, band: float = 0.005, seed: int = 0) -> np.ndarray:
    """Points without the plane they lie on: those within `band` metres of it become NaN.

    Under low parts the band is narrower: a quarter of the height at which most of the part lies, but not less than the
    ground's own unevenness. Points are left as they are where the border holds hardly any, where no plane explains the
    border, and where hardly anything stands out from it. A flat part that reaches the border all round cannot be told
    from a ground.
    """
    ground = border_plane(points, band, seed)
    if ground is None:
        return points
    centre, normal, noise = ground
    away = np.abs((points - centre) @ normal)  # (H, W), NaN in the holes
    least = LEAST_LEFT * int(measured(points).sum())
    standing = away[away > min(NOISE * noise, band)]
    if len(standing) < least:
        return points
    near = min(band, max(NOISE * noise, RELIEF * float(np.median(standing))))
    if (away > near).sum() < least:
        return points
    return np.where((away <= near)[..., None], np.float32(np.nan), points)


def border_plane(points: np.ndarray, band: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, float] | None:
    """A point of the plane along the border, its unit normal, and the standard deviation of what lies on it.

    None where there is none; see `remove_plane`.
    """
    height, width = points.shape[:2]
    strip = max(2, round(STRIP * min(height, width)))
    inside = np.zeros((height, width), dtype=bool)
    inside[strip:-strip, strip:-strip] = True
    border = points[~inside].astype(np.float64)  # (N, 3)
    border = border[measured(border)]
    if len(border) < max(3, LEAST_BORDER * (~inside).sum()):
        return None
    random = np.random.default_rng(seed)
    some = border if len(border) <= LOOKED_AT else random.choice(border, LOOKED_AT, replace=False)
    found = _ransac(some, random)
    if found is None:
        return None
    centre, normal = found
    for _ in range(REFITS):  # the best of three points is coarse: what leans on the ground must not tilt it
        away = np.abs((border - centre) @ normal)
        on = away <= min(band, max(3 * _deviation(away), 1e-9))
        if on.sum() < 3:
            return None
        centre, normal = _fit(border[on])
    away = np.abs((border - centre) @ normal)
    noise = float(np.sqrt((away[on] ** 2).mean()))
    return (centre, normal, noise) if (away <= band).mean() >= EXPLAINED else None


def keep_clusters(points: np.ndarray, speck: float = SPECK) -> np.ndarray:
    """Points without small clusters, the flying ones at edges above all; the largest cluster always stays.

    A cluster is what hangs together over the 8 neighbours of each point that lie near it in space; it is small with at
    most the share `speck` of the grid's points. Larger ones stay, wherever they lie: a crumb beside a part is a defect.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    there = measured(points)  # (H, W)
    count = int(there.sum())
    if count == 0:
        return points
    number = np.cumsum(there).reshape(there.shape) - 1  # (H, W): which measured point this is
    steps = [_neighbours(points, number, down, across) for down, across in ((0, 1), (1, 0), (1, 1), (1, -1))]
    usual = [distance for *_, distance in steps[:2] if len(distance)]
    limit = GAP * float(np.median(np.concatenate(usual))) if usual else 0.0
    start, end = (np.concatenate([s[i][s[2] <= limit] for s in steps]) for i in (0, 1))
    links = coo_matrix((np.ones(len(start), dtype=bool), (start, end)), shape=(count, count))
    _, cluster = connected_components(links, directed=False)
    sizes = np.bincount(cluster)
    small = sizes <= max(3, speck * there.size)
    small[sizes.argmax()] = False
    if not small.any():
        return points
    gone = np.zeros(there.shape, dtype=bool)
    gone[there] = small[cluster]
    return np.where(gone[..., None], np.float32(np.nan), points)


def pad_square(array: np.ndarray, fill: float | None = None) -> np.ndarray:
    """`array` `(H, W, …)` in the middle of a square: its edge drawn out (images), or `fill` (points NaN, masks 0)."""
    rows, columns = square_margins(*array.shape[:2])
    margins = (rows, columns, *((0, 0),) * (array.ndim - 2))
    if fill is None:
        return np.pad(array, margins, mode="edge")
    return np.pad(array, margins, constant_values=fill)


def square_margins(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """What `pad_square` adds: (above, below) and (left, right)."""
    side = max(height, width)
    above, left = (side - height) // 2, (side - width) // 2
    return (above, side - height - above), (left, side - width - left)


def _ransac(points: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    """The plane (point, unit normal) through three of `points` `(N, 3)` that lies nearest to the nearer half of them.

    Not the one with the most points within the band: that would lean towards whatever low thing lies on the border.
    """
    triples = points[random.integers(0, len(points), (TRIALS, 3))]  # (T, 3, 3)
    normals = np.cross(triples[:, 1] - triples[:, 0], triples[:, 2] - triples[:, 0])  # (T, 3)
    lengths = np.linalg.norm(normals, axis=1)
    sound = lengths > 1e-12
    if not sound.any():
        return None
    centres, normals = triples[sound, 0], normals[sound] / lengths[sound, None]
    away = np.abs(points @ normals.T - (centres * normals).sum(axis=1))  # (N, T)
    best = int(np.median(away, axis=0).argmin())
    return centres[best], normals[best]


def _fit(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least-squares plane of `points` `(N, 3)`: their mean, and the direction in which they spread least."""
    centre = points.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov((points - centre).T))
    return centre, directions[:, 0]


def _deviation(away: np.ndarray) -> float:
    """The standard deviation of normal noise with these distances from its mean, whatever a minority of them is."""
    return 1.4826 * float(np.median(away))


def _neighbours(
    points: np.ndarray, number: np.ndarray, down: int, across: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measured pairs one step apart on the grid: the numbers of both, and how far apart they are in space."""
    height, width = number.shape
    here = (slice(0, height - down), slice(max(0, -across), width - max(0, across)))
    there = (slice(down, height), slice(max(0, across), width + min(0, across)))
    distance = np.linalg.norm(points[there] - points[here], axis=-1)  # NaN beside a hole
    both = np.isfinite(distance)
    return number[here][both], number[there][both], distance[both]
