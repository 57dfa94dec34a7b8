"""FPFH, Fast Point Feature Histograms: the angles between the normals around a point, at several radii; no weights.

Rusu, Blodow & Beetz, "Fast Point Feature Histograms (FPFH) for 3D Registration", ICRA 2009
(https://doi.org/10.1109/ROBOT.2009.5152473); for anomaly detection: Horwitz & Hoshen, "Back to the Feature", CVPR
Workshops 2023 (https://arxiv.org/abs/2203.05550). Normalised and weighted as in Open3D, against which it is tested.
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
from blemish.encoders.points.point_encoder import DescriptorEncoder, check_stride
from blemish.encoders.precision import Precision
from blemish.errors import SettingsError
from blemish.numeric.organised_points import (
    any_valid,
    at_offsets,
    cross,
    disc,
    dot,
    measured,
    normals_at,
    patch_means,
    representatives,
    spacing,
)
from blemish.utils.validation import is_whole

BINS = 11  # for each of three angles, as in Open3D and PCL
CHANNELS = 3 * BINS
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
) -> DescriptorEncoder:
    """One layer of 33 channels for each of `radii`, measured in point spacings or in metres (`unit`).

    Normals are fitted within `normal_radius` point spacings. `neighbours` bounds how many neighbours each point has;
    None takes all in the radius, exactly and slowly. Every `role` gets the same layer; `device` and `precision` have no
    effect. The default radii were chosen on synthetic defects: docs/methods/points.md.
    """
    resolve_layers(layers, (0,), 1, name)
    check_stride(stride)
    histograms = PointHistograms(stride, tuple(map(float, radii)), unit, float(normal_radius), neighbours)
    return DescriptorEncoder(
        histograms, name=name, stride=stride, dims=CHANNELS * len(histograms.radii), settings=asdict(histograms)
    )


@dataclass(frozen=True)
class PointHistograms:
    """FPFH of one organised point cloud, as the mean over each patch of `stride` × `stride` points."""

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
        if self.neighbours is not None and not is_whole(self.neighbours, 2):
            raise SettingsError("2 neighbours or more, or None for all", repr(self.neighbours), "48 suits most")

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`points` `(H, W, 3)` → features `(h, w, 33·R)` and valid `(h, w)`."""
        valid = measured(points)
        patches = any_valid(valid, self.stride)  # (h, w)
        features = np.zeros((patches.size, CHANNELS * len(self.radii)), np.float32)  # (h·w, 33·R)
        between = spacing(points)
        side = 1 if self.neighbours is None else _square_side(self.stride)
        rows, columns = representatives(valid, side)
        if between > 0 and len(rows) > 1:
            normals = normals_at(points, rows, columns, self.normal_radius, 2 * self.normal_radius * between)  # (N, 3)
            known = normals.any(axis=1)  # (N,)
            rows, columns, normals = rows[known], columns[known], normals[known].astype(np.float32)
            xyz = points[rows, columns] - points[valid].mean(axis=0)  # (N, 3), centred: float32 loses less
            mean = patch_means(
                rows // self.stride * patches.shape[1] + columns // self.stride, patches.size
            )  # (h·w, N)
            for index, radius in enumerate(self.radii):
                reach = radius * between if self.unit == "spacing" else radius
                i, j = self._pairs(xyz, rows // side, columns // side, reach, reach / between / side)
                features[:, index * CHANNELS : (index + 1) * CHANNELS] = mean @ point_histograms(xyz, normals, i, j)
        return features.reshape(*patches.shape, -1), patches

    def _pairs(
        self, xyz: np.ndarray, rows: np.ndarray, columns: np.ndarray, reach: float, radius: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Indices i and j `(P,)` of each pair of the N points up to `reach` metres apart, once.

        Found within `radius` on the grid of described points, or by a search tree where `neighbours` is None.
        """
        if self.neighbours is None:
            return tuple(cKDTree(xyz).query_pairs(reach, output_type="ndarray").T)
        if not len(rows):
            return rows, rows
        numbers = np.full((rows.max() + 1, columns.max() + 1), -1)
        numbers[rows, columns] = np.arange(len(rows))
        # A disc larger than the grid holds nothing more, and at least the adjacent points are neighbours.
        offsets = disc(float(np.clip(radius, 1, max(numbers.shape))), self.neighbours)
        j = at_offsets(numbers, rows, columns, offsets, -1)  # (N, K)
        i, _ = np.nonzero(j >= 0)  # (P,)
        j = j[j >= 0]
        offset = xyz[j] - xyz[i]  # (P, 3)
        near = np.einsum("pc,pc->p", offset, offset) <= reach * reach
        return i[near], j[near]


def _square_side(stride: int) -> int:
    """One point is described in each square of this side: at least four to a patch, and sixteen to a large one."""
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
    bin_indices = np.concatenate(
        [(i * CHANNELS + bins[:3]).ravel(), (j * CHANNELS + bins[[0, 1, 3]]).ravel()]
    )  # (6·P,)
    pairs = np.bincount(i, minlength=count) + np.bincount(j, minlength=count)  # (N,)
    simple = np.bincount(bin_indices, minlength=count * CHANNELS).reshape(count, CHANNELS).astype(points.dtype)  # SPF
    simple *= (100 / np.maximum(pairs, 1)).astype(points.dtype)[:, None]  # (N, 33)
    with np.errstate(divide="ignore"):
        weight = np.where(squared > 0, 1 / squared, 0).astype(points.dtype)  # (P,)
    weights = coo_array(  # (N, N), symmetric
        (np.concatenate([weight, weight]), (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(count, count)
    ).tocsr()
    total = weights.sum(axis=1)  # (N,)
    histograms: np.ndarray = simple + (weights @ simple) / np.where(total > 0, total, 1)[:, None]
    return histograms


def pair_bins(across: np.ndarray, squared: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Bins of the angles θ, α, φ of P pairs among 33, and of φ seen from the second end, `(4, P)`.

    `across` `(3, P)` is the vector from the first end to the second, `squared` `(P,)` its squared length, `first` and
    `second` `(3, P)` the normals. Of the two ends, the one whose normal is closer to the line between them spans the
    Darboux frame u, v, w, so the angles are the same from either end. Only where both are equally close does each end
    take its own, and φ may differ.
    """
    length = np.sqrt(squared)
    along = across / np.where(length > 0, length, 1)
    cosine, other_cosine = dot(first, along), dot(second, along)  # (P,) of each normal with the line
    swap = np.abs(cosine) < np.abs(other_cosine)
    u, other = np.where(swap, second, first), np.where(swap, first, second)  # (3, P)
    along = np.where(swap, -along, along)
    phi = np.where(swap, -other_cosine, cosine)
    phi_of_second = np.where(np.abs(cosine) == np.abs(other_cosine), -other_cosine, phi)
    v = cross(along, u)
    size = np.sqrt(dot(v, v))
    v /= np.where(size > 0, size, 1)
    alpha = dot(v, other)
    theta = np.arctan2(dot(cross(u, v), other), dot(u, other))
    parts = np.stack(
        [(theta + np.pi) / (2 * np.pi), (alpha + 1) / 2, (phi + 1) / 2, (phi_of_second + 1) / 2]
    )  # in [0, 1]
    parts[:, (length == 0) | (size == 0)] = 0.5
    bins = np.clip(np.floor(parts * BINS).astype(np.int64), 0, BINS - 1)  # (4, P), each in its histogram
    numbered: np.ndarray = bins + BINS * np.array([0, 1, 2, 2])[:, None]
    return numbered
