"""Point-MAE as an encoder of measured surfaces: groups around spread centres, three depths of a transformer, a grid.

Pang et al., Masked Autoencoders for Point Cloud Self-supervised Learning, ECCV 2022 (arXiv 2203.06604); as features of
industrial scans: Wang et al., M3DM, CVPR 2023, and Costanzino et al., CFM, CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from blemish.encoders.base import LayerRole
from blemish.encoders.layers import resolve_layers
from blemish.encoders.points.point_encoder import check_points
from blemish.encoders.points.point_mae_weights import find_weights, read_network
from blemish.encoders.points.point_transformer import DEPTH, PointTransformer
from blemish.encoders.precision import Precision, prepare, resolve_device, resolve_precision
from blemish.encoders.weights import file_hash
from blemish.numeric.pointsets import farthest_points, gather_points, inverse_distance_weights, nearest_points
from blemish.types import POINTS, Features
from blemish.utils.validation import check, whole

LICENCE = "MIT"
LAYERS = (3, 7, 11)  # blocks 4, 8 and 12 of 12
PARTS = 2  # a side: each cell's features are taken at the mean points of its 2 × 2 parts
SCANS_AT_ONCE = 8  # on a GPU


def load_point_mae(
    name: str = "point-mae",
    *,
    source: str | None = None,
    role: LayerRole = "deep",
    layers: Sequence[int] | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
    stride: int = 8,
    groups: int = 1024,
    group_size: int = 128,
    most_points: int = 8192,
    smooth: bool = False,
) -> PointMae:
    """The encoder of the weights at `source` (a file, or a folder of `blemish pretrain`) or at BLEMISH_POINT_MAE.

    `layers` are blocks from 0, by default those of LAYERS or, of a shorter network, the same shares of it, whatever the
    `role`; blocks after the last one taken are dropped. Raises `WeightsError` when weights are missing or unusable.
    """
    path = find_weights(name, source)
    network = read_network(path)
    depth = len(network.blocks)
    shares = sorted({max(0, round((layer + 1) * depth / DEPTH) - 1) for layer in LAYERS})
    taken = resolve_layers(layers, shares, depth, name)
    return PointMae(
        network,
        name=name,
        layers=taken,
        weights=file_hash(path),
        device=device,
        precision=precision,
        stride=stride,
        groups=groups,
        group_size=group_size,
        most_points=most_points,
        smooth=smooth,
    )


class PointMae:
    """A `PointsEncoder`: a surface's points, brought to the unit sphere, through a frozen `PointTransformer`.

    Of each surface at most `most_points`, evenly over the grid, are looked at, so that a group of `group_size` means
    the same whatever the resolution. `groups` centres are spread over them. Each cell of the grid gets the features
    of its three nearest centres by inverse squared distance; with `smooth` it is averaged with its eight neighbours. A
    surface has no more groups and no larger ones than it has points. `network` is changed for good: its batch norms are
    folded away, the blocks after the last of `layers` dropped.
    """

    def __init__(
        self,
        network: PointTransformer,
        *,
        name: str = "point-mae",
        layers: Sequence[int] = LAYERS,
        licence: str = LICENCE,
        weights: str = "none",
        device: str = "cpu",
        precision: Precision = "auto",
        stride: int = 8,
        groups: int = 1024,
        group_size: int = 128,
        most_points: int = 8192,
        smooth: bool = False,
    ) -> None:
        self.name, self.licence, self.weights = name, licence, weights
        self.modalities: tuple[str, ...] = (POINTS,)
        self.layers = resolve_layers(layers, LAYERS, len(network.blocks), name)
        self.dims: tuple[int, ...] = (network.width * len(self.layers),)
        self.stride = self.multiple = stride
        self.groups, self.group_size, self.most_points, self.smooth = groups, group_size, most_points, smooth
        check(self, *whole(self, 1, "stride", "groups", "group_size", "most_points"))
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        network.eval().embedding.fold_norms()
        del network.blocks[self.layers[-1] + 1 :]
        self.network = prepare(network, self.device, self.precision)

    def __repr__(self) -> str:
        return (
            f"<encoder {self.name}, layers {list(self.layers)}, stride {self.stride}, {self.precision}, {self.device}>"
        )

    def encode_points(self, points: np.ndarray) -> Features:
        """`points` `(B, H, W, 3)` float32 metres, NaN for holes → Features under `POINTS`; no gradient.

        Raises `SettingsError` for another shape or type, or sides that are no multiples of `stride`.
        """
        check_points(points, self.stride, self.name)
        valid = np.isfinite(points).all(axis=-1)  # (B, H, W)
        batch, height, width = valid.shape
        blocks = valid.reshape(batch, height // self.stride, self.stride, width // self.stride, self.stride)
        cells = torch.from_numpy(blocks.any(axis=(2, 4)))  # (B, h, w)
        features = torch.zeros((*cells.shape, self.dims[0]))
        measured = [i for i in range(len(points)) if valid[i].any()]
        for some in self._alike(measured, valid):
            features[some] = self._encode(points[some], valid[some])
        features *= cells[..., None]
        return Features(layers={POINTS: (features,)}, valid={POINTS: cells})

    def _alike(self, measured: list[int], valid: np.ndarray) -> list[list[int]]:
        """Surfaces that go through together: one at a time on a CPU, as many points in each on a GPU."""
        if self.device.type == "cpu":
            return [[i] for i in measured]
        by_count: dict[int, list[int]] = {}
        for i in measured:
            by_count.setdefault(min(int(valid[i].sum()), self.most_points), []).append(i)
        return [
            group[k : k + SCANS_AT_ONCE] for group in by_count.values() for k in range(0, len(group), SCANS_AT_ONCE)
        ]

    def _encode(self, points: np.ndarray, valid: np.ndarray) -> Tensor:
        """`points` `(B, H, W, 3)` with equally many looked at in each → `(B, h, w, D)`, anything where not valid."""
        sets, framed = zip(*map(self._prepare, points, valid), strict=True)
        cloud = torch.stack(sets).to(self.device)  # (B, N, 3)
        with torch.inference_mode():
            tokens, centres = self.tokens(cloud)
        places, shares = zip(*(cell_places(one, self.stride) for one in framed), strict=True)
        weights = carried(centres.cpu(), torch.stack(places), torch.stack(shares))  # (B, h·w, G)
        grid = (points.shape[1] // self.stride, points.shape[2] // self.stride)
        features = (weights.to(self.device) @ tokens).unflatten(1, grid)  # (B, h, w, D)
        if self.smooth:
            held = weights.sum(2).unflatten(1, grid).to(self.device)
            features = averaged(features, held)
        return features.cpu()

    def _prepare(self, points: np.ndarray, valid: np.ndarray) -> tuple[Tensor, Tensor]:
        """One surface `(H, W, 3)` in the unit sphere: its points looked at `(N, 3)`, and all of them on the grid."""
        measured = points[valid]
        chosen, centre, radius = to_unit_sphere(measured[evenly(len(measured), self.most_points)])
        return torch.from_numpy(chosen), torch.from_numpy(((points - centre) / radius).astype(np.float32))

    def tokens(self, cloud: Tensor) -> tuple[Tensor, Tensor]:
        """Points `(B, N, 3)` in the unit sphere → features `(B, G, D)` of groups and their centres `(B, G, 3)`."""
        count = cloud.shape[1]
        centres, groups = grouped(cloud, min(self.groups, count), min(self.group_size, count))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            taken = self.network(groups, centres, self.layers)
        return torch.cat([tokens.float() for tokens in taken], dim=-1), centres


def to_unit_sphere(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Points `(N, 3)` around their mean, the furthest at distance 1, as float32; and that mean and distance."""
    exact = points.astype(np.float64)  # metres away from the camera, differences of micrometres
    centre = exact.mean(axis=0) if len(points) else np.zeros(3)
    distances = np.linalg.norm(exact - centre, axis=1)
    radius = float(distances.max(initial=0)) or 1.0
    return ((exact - centre) / radius).astype(np.float32), centre, radius


def grouped(cloud: Tensor, groups: int, size: int) -> tuple[Tensor, Tensor]:
    """Points `(B, N, 3)` → spread centres `(B, G, 3)` and the points nearest to each, from it: `(B, G, size, 3)`."""
    centres = gather_points(cloud, farthest_points(cloud, groups))
    _, index = nearest_points(cloud, centres, size)
    return centres, gather_points(cloud, index) - centres[:, :, None]


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` of the numbers from 0 to `count` − 1, evenly spaced."""
    return np.arange(count) if count <= most else (np.arange(most) * count) // most


def cell_places(points: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Where on a surface a cell's features are taken: the mean points of its 2 × 2 parts, and the share of each.

    `points` `(H, W, 3)`, NaN for holes → places `(h·w, P, 3)` and shares `(h·w, P)`, the parts' shares in the cell's
    valid points, which add up to 1, or 0 in a cell without any. At the points themselves it would be thirty times as
    many interpolations for nearly the same mean.
    """
    parts = PARTS if stride % PARTS == 0 else 1
    valid = torch.isfinite(points).all(-1, keepdim=True)
    stacked = torch.cat([points.where(valid, torch.zeros(())), valid.float()], dim=-1)  # (H, W, 4)
    sums = functional.avg_pool2d(stacked.permute(2, 0, 1)[None], stride // parts, divisor_override=1)[0]
    sums = sums.unflatten(2, (-1, parts)).unflatten(1, (-1, parts))  # (4, h, parts, w, parts)
    sums = sums.permute(1, 3, 2, 4, 0).flatten(2, 3).flatten(0, 1)  # (h·w, P, 4)
    counts = sums[..., 3]
    places = sums[..., :3] / counts.clamp_min(1)[..., None]
    return places, counts / counts.sum(1, keepdim=True).clamp_min(1)


def carried(centres: Tensor, places: Tensor, shares: Tensor) -> Tensor:
    """How much of each centre's features a cell gets: `(B, cells, G)`, rows of sum 1, or 0 where nothing was measured.

    `centres` `(B, G, 3)`, `places` `(B, cells, P, 3)`, `shares` `(B, cells, P)`. Interpolation and mean are both
    linear, so the mean is taken of weights, which are few, and not of features.
    """
    batch, cells, _ = shares.shape
    weights, index = inverse_distance_weights(centres, places.flatten(1, 2))  # (B, cells·P, k)
    weights = (weights * shares.flatten(1)[..., None]).view(batch, cells, -1)
    table = torch.zeros((batch, cells, centres.shape[1]))
    return table.scatter_add_(2, index.view(batch, cells, -1), weights)


def averaged(features: Tensor, held: Tensor) -> Tensor:
    """`features` `(B, h, w, D)`, each the mean over the 3 × 3 cells around it that hold anything, by `held`."""
    both = torch.cat([features * held[..., None], held[..., None]], dim=-1).permute(0, 3, 1, 2)
    sums = functional.avg_pool2d(both, 3, stride=1, padding=1, divisor_override=1).permute(0, 2, 3, 1)
    return sums[..., :-1] / sums[..., -1:].clamp_min(1e-6)
