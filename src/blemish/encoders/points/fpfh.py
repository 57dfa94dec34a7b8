"""Fast Point Feature Histograms: how the normals around a point turn, at several radii; no weights.

Rusu et al., Fast Point Feature Histograms (FPFH) for 3D Registration, ICRA 2009; for finding defects: Horwitz & Hoshen,
Back to the Feature, CVPR workshops 2023. Normalised and weighted as Open3D does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Literal, get_args

import numpy as np
from scipy.sparse import coo_array
from scipy.spatial import cKDTree

from blemish.encoders.base import LayerRole
from blemish.encoders.layers import resolve_layers
from blemish.encoders.points.point_encoder import SurfaceEncoder, check_stride
from blemish.encoders.precision import Precision
from blemish.errors import SettingsError
from blemish.numeric.surfaces import (
    any_valid,
    at_offsets,
    cell_means,
    cross,
    disc,
    dot,
    measured,
    normals_at,
    representatives,
    spacing,
)

BINS = 11  # for each of three angles
SIZE = 3 * BINS
Unit = Literal["spacing", "metres"]


def load_fpfh(
    name: str = "points-fpfh",
    *,
    role: LayerRole = "deep",
    layers: Sequence[int] | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
    stride: int = 8,
    radii: Sequence[float] = (8.0, 16.0),
    unit: Unit = "spacing",
    normal_radius: float = 3.0,
    neighbours: int | None = 48,
) -> SurfaceEncoder:
    """One layer of 33 numbers for each of `radii`, measured in point spacings or in metres (`unit`).

    Normals are fitted within `normal_radius` point spacings. `neighbours` bounds how many points are looked at around
    each; None looks at all there are in the radius, exactly and slowly. Every `role` gets the same layer; `device` and
    `precision` have no effect.
    """
    resolve_layers(layers, (0,), 1, name)
    check_stride(stride)
    histograms = PointHistograms(stride, tuple(map(float, radii)), unit, float(normal_radius), neighbours)
    return SurfaceEncoder(
        histograms, name=name, stride=stride, dims=SIZE * len(histograms.radii), settings=asdict(histograms)
    )


@dataclass(frozen=True)
class PointHistograms:
    """Histograms of one surface, as the mean over each cell of `stride` × `stride` points."""

    stride: int
    radii: tuple[float, ...]
    unit: Unit
    normal_radius: float
    neighbours: int | None

    def __post_init__(self) -> None:
        if not self.radii or not all(isfinite(radius) and radius > 0 for radius in self.radii):
            raise SettingsError("one or more positive radii", f"{list(self.radii)}", "such as 8 and 16 point spacings")
        if self.unit not in get_args(Unit):
            raise SettingsError("the unit spacing or metres", repr(self.unit), "choose one of them")
        if not (isfinite(self.normal_radius) and self.normal_radius >= 1):
            raise SettingsError("a normal_radius of 1 point spacing or more", f"{self.normal_radius}", "3 suits most")
        whole = isinstance(self.neighbours, int) and not isinstance(self.neighbours, bool)
        if self.neighbours is not None and not (whole and self.neighbours >= 2):
            raise SettingsError("2 neighbours or more, or None for all", repr(self.neighbours), "48 suits most")

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`points` `(H, W, 3)` → features `(h, w, 33·R)` and valid `(h, w)`."""
        valid = measured(points)
        cells = any_valid(valid, self.stride)
        features = np.zeros((cells.size, SIZE * len(self.radii)), np.float32)  # (h·w, 33·R)
        between = spacing(points)
        side = 1 if self.neighbours is None else _square_side(self.stride)
        rows, columns = representatives(valid, side)
        if between > 0 and len(rows) > 1:
            normals = normals_at(points, rows, columns, self.normal_radius, 2 * self.normal_radius * between)
            known = normals.any(axis=1)
            rows, columns, normals = rows[known], columns[known], normals[known].astype(np.float32)
            places = points[rows, columns] - points[valid].mean(axis=0)  # small numbers lose less in float32
            mean = cell_means(rows // self.stride * cells.shape[1] + columns // self.stride, cells.size)
            for index, radius in enumerate(self.radii):
                reach = radius * between if self.unit == "spacing" else radius
                i, j = self._pairs(places, rows // side, columns // side, reach, reach / between / side)
                features[:, index * SIZE : (index + 1) * SIZE] = mean @ point_histograms(places, normals, i, j)
        return features.reshape(*cells.shape, -1), cells

    def _pairs(
        self, places: np.ndarray, rows: np.ndarray, columns: np.ndarray, reach: float, radius: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Each pair of points no more than `reach` metres apart, once; found on the grid unless all are wanted."""
        if self.neighbours is None:
            return tuple(cKDTree(places).query_pairs(reach, output_type="ndarray").T)
        if not len(rows):
            return rows, rows
        numbers = np.full((rows.max() + 1, columns.max() + 1), -1)
        numbers[rows, columns] = np.arange(len(rows))
        # A disc larger than the grid holds nothing more, and at least the next points are looked at.
        offsets = disc(float(np.clip(radius, 1, max(numbers.shape))), self.neighbours)
        j = at_offsets(numbers, rows, columns, offsets, -1)  # (N, K)
        i, _ = np.nonzero(j >= 0)
        j = j[j >= 0]
        apart = places[j] - places[i]
        near = np.einsum("pc,pc->p", apart, apart) <= reach * reach
        return i[near], j[near]


def _square_side(stride: int) -> int:
    """One point is described in each square of this side: at least four to a cell, and sixteen to a large one."""
    return max(side for side in range(1, max(1, min(stride // 2, 2), stride // 4) + 1) if stride % side == 0)


def point_histograms(points: np.ndarray, normals: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """FPFH of N points, `(N, 33)`: three histograms that add up to 200 each, 0 for points without neighbours.

    `points` and `normals` `(N, 3)`; `i` and `j` `(P,)` name the two ends of each pair of neighbours, once. With SPF the
    histograms of a point's own pairs, adding up to 100 each: FPFH(p) = SPF(p) + Σ w SPF(q) / Σ w, w = 1 / ‖p − q‖².
    """
    count = len(points)
    across = points[j] - points[i]  # (P, 3)
    squared = np.einsum("pc,pc->p", across, across)
    bins = pair_bins(across.T, squared, normals[i].T, normals[j].T)  # (4, P)
    places = np.concatenate([(i * SIZE + bins[:3]).ravel(), (j * SIZE + bins[[0, 1, 3]]).ravel()])
    pairs = np.bincount(i, minlength=count) + np.bincount(j, minlength=count)  # (N,)
    simple = np.bincount(places, minlength=count * SIZE).reshape(count, SIZE).astype(points.dtype)
    simple *= (100 / np.maximum(pairs, 1)).astype(points.dtype)[:, None]  # (N, 33)
    with np.errstate(divide="ignore"):
        weight = np.where(squared > 0, 1 / squared, 0).astype(points.dtype)
    near = coo_array(
        (np.concatenate([weight, weight]), (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(count, count)
    ).tocsr()
    total = near.sum(axis=1)  # (N,)
    return simple + (near @ simple) / np.where(total > 0, total, 1)[:, None]


def pair_bins(across: np.ndarray, squared: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """The bins of a pair's angles θ, α, φ among 33, and of φ from their end, `(4, P)`; `across` leads from us to them.

    Of the two ends, the one whose normal lies closer to the line between them spans the frame u, v, w, so the angles
    are the same from either end. Only where both lie equally close does each end take itself, and φ may differ.
    """
    length = np.sqrt(squared)
    along = across / np.where(length > 0, length, 1)
    here, there = dot(ours, along), dot(theirs, along)
    swap = np.abs(here) < np.abs(there)
    u, other = np.where(swap, theirs, ours), np.where(swap, ours, theirs)
    along = np.where(swap, -along, along)
    phi = np.where(swap, -there, here)
    phi_of_them = np.where(np.abs(here) == np.abs(there), -there, phi)
    v = cross(along, u)
    size = np.sqrt(dot(v, v))
    v /= np.where(size > 0, size, 1)
    alpha = dot(v, other)
    theta = np.arctan2(dot(cross(u, v), other), dot(u, other))
    parts = np.stack([(theta + np.pi) / (2 * np.pi), (alpha + 1) / 2, (phi + 1) / 2, (phi_of_them + 1) / 2])
    parts[:, (length == 0) | (size == 0)] = 0.5
    return np.clip(np.floor(parts * BINS).astype(np.int64), 0, BINS - 1) + BINS * np.array([0, 1, 2, 2])[:, None]
