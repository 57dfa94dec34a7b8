"""Local shape of a surface at several scales: curvature, height above its plane, deviation of normals; no weights.

Surface variation: Pauly, Gross & Kobbelt, "Efficient Simplification of Point-Sampled Surfaces", IEEE Visualization 2002
(https://doi.org/10.1109/VISUAL.2002.1183771). Curvedness: Koenderink & van Doorn, "Surface Shape and Curvature Scales",
Image and Vision Computing 1992. The combination and its scales are blemish's own: docs/methods/points.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from blemish.encoders.base import LayerRole
from blemish.encoders.layers import resolve_layers
from blemish.encoders.points.point_encoder import DescriptorEncoder, check_stride
from blemish.encoders.precision import Precision
from blemish.errors import SettingsError
from blemish.numeric.organised_points import (
    BoxMeans,
    any_valid,
    dot,
    extent,
    facing,
    farthest,
    measured,
    patch_means,
    principal,
    spacing,
)
from blemish.utils.validation import is_whole

SCALED = ("variation", "height", "mean curvature", "curvedness", "deviation")  # one of each for every scale
SIGNED = ("height", "mean curvature")  # of these a patch has its extreme beside its mean: small dents average out
SINGLE = ("slant", "step", "missing")


def load_surface_statistics(
    name: str = "points-shape",
    *,
    role: LayerRole = "deep",
    layers: Sequence[int] | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
    stride: int = 8,
    scales: Sequence[int] = (3, 6, 12),
) -> DescriptorEncoder:
    """One layer of 7 channels a scale and 3 more; the window of a scale has a side of 2·scale + 1 points.

    Every `role` gets the same layer; `device` and `precision` have no effect.
    """
    resolve_layers(layers, (0,), 1, name)
    check_stride(stride)
    statistics = SurfaceStatistics(stride, tuple(scales))
    return DescriptorEncoder(
        statistics, name=name, stride=stride, dims=len(statistics.names), settings=asdict(statistics)
    )


@dataclass(frozen=True)
class SurfaceStatistics:
    """Statistics of one organised point cloud over patches of `stride` × `stride` points.

    All are dimensionless and of the size of small angles, so that none dominates: heights are divided by the scale,
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
        """The channels, in order."""
        scaled = [f"{what} {scale}" for scale in self.scales for what in SCALED]
        strongest = [f"strongest {what} {scale}" for scale in self.scales for what in SIGNED]
        return (*scaled, *SINGLE, *strongest)

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`points` `(H, W, 3)` → features `(h, w, D)` and valid `(h, w)`; see `names`."""
        valid = measured(points)
        patches = any_valid(valid, self.stride)  # (h, w)
        features = np.zeros((*patches.shape, len(self.names)), np.float32)  # (h, w, D)
        between = spacing(points)
        if between > 0:
            part = extent(valid, self.stride)
            inside = tuple(slice(side.start // self.stride, side.stop // self.stride) for side in part)
            features[inside] = self._pooled(point_statistics(points[part], self.scales, between), valid[part])
        return features, patches

    def _pooled(self, statistics: dict[str, np.ndarray], valid: np.ndarray) -> np.ndarray:
        """Statistics of the V points that are `valid` `(H, W)` → `(h, w, D)`."""
        height, width = (side // self.stride for side in valid.shape)
        rows, columns = np.nonzero(valid)
        mean = patch_means(rows // self.stride * width + columns // self.stride, height * width)  # (h·w, V)
        values = np.stack([statistics[name] for name in self.names if name in statistics], axis=1)  # (V, D')
        strong = np.zeros((len(self.scales) * len(SIGNED), *valid.shape))  # (C, H, W)
        strong[:, valid] = [statistics[f"{what} {scale}"] for scale in self.scales for what in SIGNED]
        features = (mean @ values).reshape(height, width, -1), farthest(strong, self.stride)
        return np.concatenate(features, axis=-1)


def point_statistics(points: np.ndarray, scales: Sequence[int], between: float) -> dict[str, np.ndarray]:
    """Statistics of the V points of `(H, W, 3)` where something was measured, each `(V,)`, by name.

    `between` is the distance of neighbouring points in metres, the unit of length here.
    """
    valid = measured(points)
    # In float64 and centred: tables hold sums of squares, of which small variances are the difference.
    xyz = (points.astype(np.float64) - points[valid].mean(axis=0, dtype=np.float64)).transpose(2, 0, 1) / between
    xyz[:, ~valid] = np.nan  # a point with one infinite coordinate is none
    steps = _steps(xyz)[valid]
    xyz[:, ~valid] = 0
    x, y, z = xyz
    means = BoxMeans(np.stack([x, y, z, x * x, x * y, x * z, y * y, y * z, z * z]), valid, scales[-1])
    places = xyz[:, valid]  # (3, V)
    boxes = {scale: means(scale) for scale in scales}  # (9, H, W) and (H, W) each
    windows = {scale: _Windows(moments[:, valid]) for scale, (moments, _) in boxes.items()}
    finest = scales[0]
    normals = facing(windows[finest].normals, *_directions(boxes[finest][0][:3], valid))  # (3, V)
    fields = np.zeros((4, *valid.shape))  # n and n · p
    fields[:3, valid], fields[3, valid] = normals, dot(normals, places)
    normal_means = BoxMeans(fields, valid, scales[-1])
    maps = {"slant": 1 - np.abs(normals[2]), "step": steps}
    for scale in scales:
        values = _of_scale(windows[scale], normal_means(scale)[0][:, valid], places, normals, scale)
        maps.update({f"{what} {scale}": value for what, value in values.items()})
    maps["missing"] = 1 - boxes[scales[-1]][1][valid] / (2 * scales[-1] + 1) ** 2
    return maps


class _Windows:
    """Of the points in a window around each of V points: mean, principal variances, plane's normal, all `(3, V)`."""

    def __init__(self, moments: np.ndarray) -> None:
        self.mean = x, y, z = moments[:3]
        self.variances, self.normals = principal(moments[3:] - np.stack([x * x, x * y, x * z, y * y, y * z, z * z]))


def _of_scale(
    windows: _Windows, normal_means: np.ndarray, places: np.ndarray, normals: np.ndarray, scale: int
) -> dict[str, np.ndarray]:
    """Each of `SCALED`, `(V,)`; `normal_means` `(4, V)` are means of normals n and of n · p over the window."""
    mean, along = normal_means[:3], normal_means[3]
    squared = dot(mean, mean)
    agreement = dot(mean, normals) / np.sqrt(np.where(squared > 0, squared, 1))
    total = windows.variances.sum(axis=0)
    total = np.where(total > 1e-9, total, np.inf)  # a single point has no shape
    above = dot(windows.normals, places - windows.mean)
    above = np.where(dot(windows.normals, mean) < 0, -above, above)
    divergence = (along - dot(mean, windows.mean)) / total  # regression of normals on positions
    return {
        "variation": np.sqrt(windows.variances[0] / total),
        "height": above / scale,
        "mean curvature": divergence * scale,
        "curvedness": np.sqrt(np.clip(1 - squared, 0, None) / total) * scale,
        "deviation": np.sqrt(np.clip(2 - 2 * agreement, 0, None)),
    }


def _directions(means: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tangents along columns and along rows of a smoothed surface `(3, H, W)` at its V points, `(3, V)` each.

    The windows of the neighbours hold the point itself too, so both always have a mean.
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
    steps: np.ndarray = np.log(np.maximum.reduce([*far, np.ones_like(far[0])]))
    return steps
