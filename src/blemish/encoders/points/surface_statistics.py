"""What shape a surface has around each point, at several scales: curvature, height, spread of normals; no weights.

Surface variation: Pauly, Gross & Kobbelt, Efficient Simplification of Point-Sampled Surfaces, IEEE Visualization 2002.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from blemish.encoders.base import LayerRole
from blemish.encoders.layers import resolve_layers
from blemish.encoders.points.point_encoder import SurfaceEncoder, check_stride
from blemish.encoders.precision import Precision
from blemish.errors import SettingsError
from blemish.numeric.surfaces import (
    BoxMeans,
    any_valid,
    cell_means,
    dot,
    extent,
    facing,
    farthest,
    measured,
    principal,
    spacing,
)
from blemish.utils.validation import is_whole

SCALED = ("variation", "height", "mean curvature", "curvedness", "deviation")  # one of each a scale
SIGNED = ("height", "mean curvature")  # of these a cell keeps its strongest point beside its mean
SINGLE = ("slant", "step", "missing")


def load_shape(
    name: str = "points-shape",
    *,
    role: LayerRole = "deep",
    layers: Sequence[int] | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
    stride: int = 8,
    scales: Sequence[int] = (3, 6, 12),
) -> SurfaceEncoder:
    """One layer of 7 numbers a scale and 3 more; a scale looks at squares of 2·scale + 1 points.

    Every `role` gets the same layer; `device` and `precision` have no effect.
    """
    resolve_layers(layers, (0,), 1, name)
    check_stride(stride)
    statistics = ShapeStatistics(stride, tuple(scales))
    return SurfaceEncoder(statistics, name=name, stride=stride, dims=len(statistics.names), settings=asdict(statistics))


@dataclass(frozen=True)
class ShapeStatistics:
    """Statistics of one surface over cells of `stride` × `stride` points.

    All are ratios of lengths, like small angles, so that none drowns another: heights are divided by the scale,
    curvatures multiplied by it.
    """

    stride: int
    scales: tuple[int, ...]

    def __post_init__(self) -> None:
        whole = all(map(is_whole, self.scales))
        if not self.scales or not whole or list(self.scales) != sorted(set(self.scales)):
            raise SettingsError(
                "growing scales of 1 or more whole points", f"{list(self.scales)}", "such as 3, 6 and 12"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """What each number of a cell is, in order."""
        scaled = [f"{what} {scale}" for scale in self.scales for what in SCALED]
        strongest = [f"strongest {what} {scale}" for scale in self.scales for what in SIGNED]
        return (*scaled, *SINGLE, *strongest)

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`points` `(H, W, 3)` → features `(h, w, D)` and valid `(h, w)`; see `names`."""
        valid = measured(points)
        cells = any_valid(valid, self.stride)
        features = np.zeros((*cells.shape, len(self.names)), np.float32)
        between = spacing(points)
        if between > 0:
            part = extent(valid, self.stride)
            inside = tuple(slice(side.start // self.stride, side.stop // self.stride) for side in part)
            features[inside] = self._pooled(point_statistics(points[part], self.scales, between), valid[part])
        return features, cells

    def _pooled(self, statistics: dict[str, np.ndarray], valid: np.ndarray) -> np.ndarray:
        """Statistics of the V points that are `valid` `(H, W)` → `(h, w, D)`."""
        height, width = (side // self.stride for side in valid.shape)
        rows, columns = np.nonzero(valid)
        mean = cell_means(rows // self.stride * width + columns // self.stride, height * width)
        values = np.stack([statistics[name] for name in self.names if name in statistics], axis=1)  # (V, D')
        strong = np.zeros((len(self.scales) * len(SIGNED), *valid.shape))
        strong[:, valid] = [statistics[f"{what} {scale}"] for scale in self.scales for what in SIGNED]
        features = (mean @ values).reshape(height, width, -1), farthest(strong, self.stride)
        return np.concatenate(features, axis=-1)


def point_statistics(points: np.ndarray, scales: Sequence[int], between: float) -> dict[str, np.ndarray]:
    """Statistics of the V points of `(H, W, 3)` where something was measured, each `(V,)`, by name.

    `between` is the distance of neighbouring points in metres, the unit of length here.
    """
    valid = measured(points)
    # In float64, around the middle: tables hold sums of squares from which small spreads are told by subtraction.
    xyz = (points.astype(np.float64) - points[valid].mean(axis=0, dtype=np.float64)).transpose(2, 0, 1) / between
    steps = _steps(xyz)[valid]
    xyz[:, ~valid] = 0
    x, y, z = xyz
    means = BoxMeans(np.stack([x, y, z, x * x, x * y, x * z, y * y, y * z, z * z]), valid, scales[-1])
    places = xyz[:, valid]  # (3, V)
    boxes = {scale: means(scale) for scale in scales}
    patches = {scale: _Patches(moments[:, valid]) for scale, (moments, _) in boxes.items()}
    finest = scales[0]
    normals = facing(patches[finest].normals, *_directions(boxes[finest][0][:3], valid))  # (3, V)
    turning = np.zeros((4, *valid.shape))
    turning[:3, valid], turning[3, valid] = normals, dot(normals, places)
    turns = BoxMeans(turning, valid, scales[-1])
    maps = {"slant": 1 - np.abs(normals[2]), "step": steps}
    for scale in scales:
        values = _of_scale(patches[scale], turns(scale)[0][:, valid], places, normals, scale)
        maps.update({f"{what} {scale}": value for what, value in values.items()})
    maps["missing"] = 1 - boxes[scales[-1]][1][valid] / (2 * scales[-1] + 1) ** 2
    return maps


class _Patches:
    """Of the points in a square around each of V points: their mean, spreads and plane's normal, all `(3, V)`."""

    def __init__(self, moments: np.ndarray) -> None:
        self.mean = x, y, z = moments[:3]
        self.spreads, self.normals = principal(moments[3:] - np.stack([x * x, x * y, x * z, y * y, y * z, z * z]))


def _of_scale(
    patches: _Patches, turns: np.ndarray, places: np.ndarray, normals: np.ndarray, scale: int
) -> dict[str, np.ndarray]:
    """One of each of `SCALED`, `(V,)`; `turns` `(4, V)` are means of normals and of normal · place."""
    mean, along = turns[:3], turns[3]
    squared = dot(mean, mean)
    agreement = dot(mean, normals) / np.sqrt(np.where(squared > 0, squared, 1))
    total = patches.spreads.sum(axis=0)
    total = np.where(total > 1e-9, total, np.inf)  # one point alone has no shape
    above = dot(patches.normals, places - patches.mean)
    above = np.where(dot(patches.normals, mean) < 0, -above, above)
    divergence = (along - dot(mean, patches.mean)) / total  # slope of normals over places
    return {
        "variation": np.sqrt(patches.spreads[0] / total),
        "height": above / scale,
        "mean curvature": divergence * scale,
        "curvedness": np.sqrt(np.clip(1 - squared, 0, None) / total) * scale,
        "deviation": np.sqrt(np.clip(2 - 2 * agreement, 0, None)),
    }


def _directions(means: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How a smoothed surface `(3, H, W)` goes along columns and along rows at its V points, two `(3, V)`.

    Squares one point further on hold the point itself too, so there always is a mean.
    """
    wide = np.pad(means, ((0, 0), (1, 1), (1, 1)), mode="edge")
    along_columns, along_rows = wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2], wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]
    return along_columns[:, valid], along_rows[:, valid]


def _steps(xyz: np.ndarray) -> np.ndarray:
    """The logarithm of the largest distance to a neighbour on the grid, `(H, W)`, 0 at ordinary distances."""
    down, right = (np.diff(xyz, axis=axis) for axis in (1, 2))
    down, right = (np.nan_to_num(np.sqrt(dot(step, step))) for step in (down, right))
    sides = [((1, 0), (0, 0)), ((0, 1), (0, 0)), ((0, 0), (1, 0)), ((0, 0), (0, 1))]
    far = [np.pad(length, side) for length, side in zip((down, down, right, right), sides, strict=True)]
    return np.log(np.maximum.reduce([*far, np.ones_like(far[0])]))
