"""Preprocessing of organised points: background plane removed, small clusters of noise removed, padded to a square.

The steps of BTF (Horwitz, Hoshen: Back to the feature: classical 3D features are (almost) all you need for 3D anomaly
detection, CVPRW 2023) that later methods on MVTec 3D-AD share. The plane that a part lies on is fitted by RANSAC
(Fischler, Bolles: Random sample consensus, Communications of the ACM 24(6), 1981) to a strip along the border, and the
points near it are removed. Planes are ranked by their median distance (Rousseeuw: Least median of squares regression,
Journal of the American Statistical Association 79, 1984), so that the background need only be more than half of the
border.

All functions take points `(H, W, 3)` in metres, NaN where nothing was measured, and change nothing in place.
"""

from __future__ import annotations

import numpy as np

from blemish.data.points import measured

# BTF takes a strip of 10 pixels from scans of 400 to 800, and removes what is nearer than 5 mm. The other constants
# were chosen by eye on generated scans (research/synthetic_scans); none was tuned on a test set.
STRIP = 10 / 600  # width of the border strip over the short side
MIN_BORDER = 0.2  # share of the strip that must be measured: where it is empty, the background is gone already
MIN_EXPLAINED = 0.6  # share of the strip's points that must lie on the plane
MIN_FOREGROUND = 0.005  # share of the points that must stand out: a plane that takes all is the part itself
RELIEF = 0.25  # share of a low part's median height that the band may take
MIN_BAND = 6.0  # standard deviations of the background that the band is wide at least: it may bend a little, too
TRIALS, SAMPLED = 200, 2000  # planes that RANSAC tries, on so many points of the strip at most
REFITS = 5  # of the best plane to its inliers
SPECK = 5e-4  # share of the grid up to which a cluster is noise
GAP = 8.0  # median distances between neighbours from which two neighbours lie on different surfaces


def remove_plane(points: np.ndarray, band: float = 0.005, seed: int = 0) -> np.ndarray:
    """Points without the plane they lie on: those within `band` metres of it become NaN.

    Under low parts the band is narrower: a quarter of the part's median height, but not less than the unevenness of
    the background. Points are left as they are where the border holds hardly any, where no plane explains the border,
    and where hardly anything stands out from it. A flat part that reaches the border on all sides cannot be told from
    a background.
    """
    plane = border_plane(points, band, seed)
    if plane is None:
        return points
    centre, normal, noise = plane
    distance = np.abs((points - centre) @ normal)  # (H, W), NaN where nothing was measured
    least = MIN_FOREGROUND * int(measured(points).sum())
    standing = distance[distance > min(MIN_BAND * noise, band)]
    if len(standing) < least:
        return points
    near = min(band, max(MIN_BAND * noise, RELIEF * float(np.median(standing))))
    if (distance > near).sum() < least:
        return points
    return np.where((distance <= near)[..., None], np.float32(np.nan), points)


def border_plane(points: np.ndarray, band: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, float] | None:
    """A point `(3,)` of the plane along the border, its unit normal `(3,)`, and the standard deviation of its inliers.

    None where there is no such plane; see `remove_plane`.
    """
    height, width = points.shape[:2]
    strip = max(2, round(STRIP * min(height, width)))
    inside = np.zeros((height, width), dtype=bool)
    inside[strip:-strip, strip:-strip] = True
    border = points[~inside].astype(np.float64)  # (N, 3)
    border = border[measured(border)]
    if len(border) < max(3, MIN_BORDER * (~inside).sum()):
        return None
    rng = np.random.default_rng(seed)
    some = border if len(border) <= SAMPLED else rng.choice(border, SAMPLED, replace=False)
    found = _ransac(some, rng)
    if found is None:
        return None
    centre, normal = found
    for _ in range(REFITS):  # a plane through three points is coarse: what leans on the background must not tilt it
        distance = np.abs((border - centre) @ normal)  # (N,)
        inliers = distance <= min(band, max(3 * _robust_std(distance), 1e-9))
        if inliers.sum() < 3:
            return None
        centre, normal = _least_squares_plane(border[inliers])
    distance = np.abs((border - centre) @ normal)
    noise = float(np.sqrt((distance[inliers] ** 2).mean()))
    return (centre, normal, noise) if (distance <= band).mean() >= MIN_EXPLAINED else None


def keep_clusters(points: np.ndarray, speck: float = SPECK) -> np.ndarray:
    """Points without small clusters, flying pixels at depth edges above all; the largest cluster always stays.

    A cluster is a connected component of the 8-neighbourhood, two neighbours being connected where they lie near each
    other in space; it is small with at most the share `speck` of the grid's points. Larger ones stay, wherever they
    lie: a crumb beside a part is a defect.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    known = measured(points)  # (H, W)
    count = int(known.sum())
    if count == 0:
        return points
    number = np.cumsum(known).reshape(known.shape) - 1  # (H, W): which measured point this is
    steps = [_neighbours(points, number, down, across) for down, across in ((0, 1), (1, 0), (1, 1), (1, -1))]
    straight = [distance for *_, distance in steps[:2] if len(distance)]
    farthest = GAP * float(np.median(np.concatenate(straight))) if straight else 0.0
    start, end = (np.concatenate([s[i][s[2] <= farthest] for s in steps]) for i in (0, 1))
    links = coo_matrix((np.ones(len(start), dtype=bool), (start, end)), shape=(count, count))
    _, cluster = connected_components(links, directed=False)  # (count,)
    sizes = np.bincount(cluster)
    is_small = sizes <= max(3, speck * known.size)
    is_small[sizes.argmax()] = False
    if not is_small.any():
        return points
    removed = np.zeros(known.shape, dtype=bool)
    removed[known] = is_small[cluster]
    return np.where(removed[..., None], np.float32(np.nan), points)


def pad_square(array: np.ndarray, fill: float | None = None) -> np.ndarray:
    """`array` `(H, W, …)` centred in a square `(S, S, …)`: edges repeated (images), or `fill` (points NaN, masks 0)."""
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


def _ransac(points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    """The plane (point, unit normal) through three of `points` `(N, 3)` with the least median distance to all of them.

    Not the one with the most points within the band: that would lean towards whatever low thing lies on the border.
    """
    triples = points[rng.integers(0, len(points), (TRIALS, 3))]  # (T, 3, 3)
    normals = np.cross(triples[:, 1] - triples[:, 0], triples[:, 2] - triples[:, 0])  # (T, 3)
    lengths = np.linalg.norm(normals, axis=1)
    is_plane = lengths > 1e-12  # not three points on a line
    if not is_plane.any():
        return None
    centres, normals = triples[is_plane, 0], normals[is_plane] / lengths[is_plane, None]
    distance = np.abs(points @ normals.T - (centres * normals).sum(axis=1))  # (N, T)
    best = int(np.median(distance, axis=0).argmin())
    return centres[best], normals[best]


def _least_squares_plane(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least-squares plane of `points` `(N, 3)`: their mean, and the direction of their least variance."""
    centre = points.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov((points - centre).T))
    return centre, directions[:, 0]


def _robust_std(distance: np.ndarray) -> float:
    """The standard deviation of Gaussian noise whose absolute deviations have this median (MAD)."""
    return 1.4826 * float(np.median(distance))


def _neighbours(
    points: np.ndarray, number: np.ndarray, down: int, across: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measured pairs one step apart on the grid: the numbers of both `(P,)`, and their distance in space `(P,)`."""
    height, width = number.shape
    start = (slice(0, height - down), slice(max(0, -across), width - max(0, across)))
    end = (slice(down, height), slice(max(0, across), width + min(0, across)))
    distance = np.linalg.norm(points[end] - points[start], axis=-1)  # NaN beside a hole
    both = np.isfinite(distance)
    return number[start][both], number[end][both], distance[both]
