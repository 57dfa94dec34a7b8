"""Point-MAE as an encoder of organised point clouds: group tokens of three transformer blocks, interpolated to patches.

Pang et al., "Masked Autoencoders for Point Cloud Self-supervised Learning", ECCV 2022 (https://arxiv.org/abs/2203.06604).
As features of industrial scans: Wang et al., "Multimodal Industrial Anomaly Detection via Hybrid Fusion" (M3DM), CVPR
2023 (https://arxiv.org/abs/2303.00601), and Costanzino et al. (CFM), CVPR 2024 (https://arxiv.org/abs/2312.04521).
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
from blemish.numeric.organised_points import measured
from blemish.numeric.pointsets import farthest_points, gather_points, inverse_distance_weights, nearest_points
from blemish.types import POINTS, Features
from blemish.utils.validation import check, whole

LICENCE = "MIT"
LAYERS = (3, 7, 11)  # blocks 4, 8 and 12 of 12, as M3DM and CFM take
PARTS = 2  # a side: features of a patch are interpolated at the mean points of its 2 × 2 parts
SCANS_AT_ONCE = 8  # on a GPU; chosen by hand to bound memory


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
    """The encoder with the weights at `source` (a file, or a folder of `blemish pretrain`) or at BLEMISH_POINT_MAE.

    `layers` are blocks from 0, by default those of LAYERS or, of a shorter network, those at the same fractions of its
    depth, whatever the `role`; blocks after the last one taken are dropped. Other settings: see `PointMae`. Raises
    WeightsError when weights are missing or unusable.
    """
    path = find_weights(name, source)
    network = read_network(path)
    depth = len(network.blocks)
    proportional = sorted({max(0, round((layer + 1) * depth / DEPTH) - 1) for layer in LAYERS})
    taken = resolve_layers(layers, proportional, depth, name)
    return PointMae(
        network,
        name=name,
        layers=taken,
        weights_sha256=file_hash(path),
        device=device,
        precision=precision,
        stride=stride,
        groups=groups,
        group_size=group_size,
        most_points=most_points,
        smooth=smooth,
    )


class PointMae:
    """A `PointsEncoder`: points, normalised to the unit sphere, through a frozen `PointTransformer`.

    At most `most_points` of each scan are used, evenly over the grid, so that a group of `group_size` points covers as
    much of the surface at every resolution. Farthest point sampling chooses `groups` centres. A patch gets the features
    of its three nearest centres by inverse squared distance; with `smooth` it is averaged with its eight neighbours. A
    scan has no more groups and no larger ones than it has points. `network` is changed for good: its batch norms are
    folded, the blocks after the last of `layers` dropped.
    """

    def __init__(
        self,
        network: PointTransformer,
        *,
        name: str = "point-mae",
        layers: Sequence[int] = LAYERS,
        licence: str = LICENCE,
        weights_sha256: str = "none",
        device: str = "cpu",
        precision: Precision = "auto",
        stride: int = 8,
        groups: int = 1024,
        group_size: int = 128,
        most_points: int = 8192,
        smooth: bool = False,
    ) -> None:
        self.name, self.licence, self.weights_sha256 = name, licence, weights_sha256
        self.modalities: tuple[str, ...] = (POINTS,)
        self.layers = resolve_layers(layers, LAYERS, len(network.blocks), name)
        self.dims: tuple[int, ...] = (network.width * len(self.layers),)
        self.stride = self.size_multiple = stride
        self.groups, self.group_size, self.most_points, self.smooth = groups, group_size, most_points, smooth
        check(self, *whole(self, 1, "stride", "groups", "group_size", "most_points"))
        self.feature_settings = {
            "groups": groups,
            "group_size": group_size,
            "most_points": most_points,
            "smooth": smooth,
        }
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
        valid = measured(points)  # (B, H, W)
        batch, height, width = valid.shape
        blocks = valid.reshape(batch, height // self.stride, self.stride, width // self.stride, self.stride)
        patches = torch.from_numpy(blocks.any(axis=(2, 4)))  # (B, h, w)
        features = torch.zeros((*patches.shape, self.dims[0]))  # (B, h, w, D)
        indices = [i for i in range(len(points)) if valid[i].any()]
        for some in self._batched(indices, valid):
            features[some] = self._encode(points[some], valid[some])
        features *= patches[..., None]
        return Features(layers={POINTS: (features,)}, valid={POINTS: patches})

    def _batched(self, indices: list[int], valid: np.ndarray) -> list[list[int]]:
        """Which scans go through the network together: one at a time on a CPU, those of equal size on a GPU."""
        if self.device.type == "cpu":
            return [[i] for i in indices]
        by_count: dict[int, list[int]] = {}
        for i in indices:
            by_count.setdefault(min(int(valid[i].sum()), self.most_points), []).append(i)
        return [
            group[k : k + SCANS_AT_ONCE] for group in by_count.values() for k in range(0, len(group), SCANS_AT_ONCE)
        ]

    def _encode(self, points: np.ndarray, valid: np.ndarray) -> Tensor:
        """`points` `(B, H, W, 3)` with equally many used of each → `(B, h, w, D)`, anything where not valid."""
        clouds, grids = zip(*map(self._prepare, points, valid), strict=True)
        cloud = torch.stack(clouds).to(self.device)  # (B, N, 3)
        with torch.inference_mode():
            tokens, centres = self.tokens(cloud)  # (B, G, D), (B, G, 3)
        places, fractions = zip(*(patch_places(grid, self.stride) for grid in grids), strict=True)
        weights = patch_weights(centres.cpu(), torch.stack(places), torch.stack(fractions))  # (B, h·w, G)
        grid = (points.shape[1] // self.stride, points.shape[2] // self.stride)
        features: Tensor = (weights.to(self.device) @ tokens).unflatten(1, grid)  # (B, h, w, D)
        if self.smooth:
            held = weights.sum(2).unflatten(1, grid).to(self.device)  # (B, h, w)
            features = smoothed(features, held)
        return features.cpu()

    def _prepare(self, points: np.ndarray, valid: np.ndarray) -> tuple[Tensor, Tensor]:
        """One scan `(H, W, 3)` in the unit sphere: the points used `(N, 3)`, and all on the grid `(H, W, 3)`."""
        own = points[valid]
        chosen, centre, radius = to_unit_sphere(own[evenly_spaced(len(own), self.most_points)])
        return torch.from_numpy(chosen), torch.from_numpy(((points - centre) / radius).astype(np.float32))

    def tokens(self, cloud: Tensor) -> tuple[Tensor, Tensor]:
        """Points `(B, N, 3)` in the unit sphere → features `(B, G, D)` of groups and their centres `(B, G, 3)`."""
        count = cloud.shape[1]
        centres, groups = group_points(cloud, min(self.groups, count), min(self.group_size, count))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            taken = self.network(groups, centres, self.layers)
        return torch.cat([tokens.float() for tokens in taken], dim=-1), centres


def to_unit_sphere(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Points `(N, 3)` centred on their mean, the farthest at distance 1, as float32; and that mean and distance."""
    exact = points.astype(np.float64)  # metres away from the camera, differences of micrometres
    centre = exact.mean(axis=0) if len(points) else np.zeros(3)
    distances = np.linalg.norm(exact - centre, axis=1)
    radius = float(distances.max(initial=0)) or 1.0
    return ((exact - centre) / radius).astype(np.float32), centre, radius


def group_points(cloud: Tensor, groups: int, size: int) -> tuple[Tensor, Tensor]:
    """Points `(B, N, 3)` → centres `(B, G, 3)` and the points nearest to each, relative to it: `(B, G, size, 3)`."""
    centres = gather_points(cloud, farthest_points(cloud, groups))  # (B, G, 3)
    _, index = nearest_points(cloud, centres, size)  # (B, G, size)
    return centres, gather_points(cloud, index) - centres[:, :, None]


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """At most `most` of the indices from 0 to `count` − 1, evenly spaced."""
    return np.arange(count) if count <= most else (np.arange(most) * count) // most


def patch_places(points: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Where features of a patch are interpolated: the mean points of its 2 × 2 parts, and the fraction of each.

    `points` `(H, W, 3)`, NaN for holes → places `(h·w, P, 3)` and fractions `(h·w, P)` of the patch's valid points
    that each part holds: of sum 1, or 0 in a patch without any. Interpolating at the points themselves would cost
    thirty times as much for nearly the same mean.
    """
    parts = PARTS if stride % PARTS == 0 else 1
    valid = torch.isfinite(points).all(-1, keepdim=True)  # (H, W, 1)
    stacked = torch.cat([points.where(valid, torch.zeros(())), valid.float()], dim=-1)  # (H, W, 4)
    sums = functional.avg_pool2d(stacked.permute(2, 0, 1)[None], stride // parts, divisor_override=1)[0]
    sums = sums.unflatten(2, (-1, parts)).unflatten(1, (-1, parts))  # (4, h, parts, w, parts)
    sums = sums.permute(1, 3, 2, 4, 0).flatten(2, 3).flatten(0, 1)  # (h·w, P, 4)
    counts = sums[..., 3]  # (h·w, P)
    places = sums[..., :3] / counts.clamp_min(1)[..., None]
    return places, counts / counts.sum(1, keepdim=True).clamp_min(1)


def patch_weights(centres: Tensor, places: Tensor, fractions: Tensor) -> Tensor:
    """The weight of each of G centres in a patch's features: `(B, N, G)`, rows of sum 1, or 0 without valid points.

    `centres` `(B, G, 3)`, `places` `(B, N, P, 3)`, `fractions` `(B, N, P)` of N patches. Interpolation (PointNet++: Qi
    et al., NeurIPS 2017) and mean are both linear, so weights are averaged instead of features, which are wider.
    """
    batch, patches, _ = fractions.shape
    weights, index = inverse_distance_weights(centres, places.flatten(1, 2))  # (B, N·P, k)
    weights = (weights * fractions.flatten(1)[..., None]).view(batch, patches, -1)  # (B, N, P·k)
    table = torch.zeros((batch, patches, centres.shape[1]))  # (B, N, G)
    return table.scatter_add_(2, index.view(batch, patches, -1), weights)


def smoothed(features: Tensor, held: Tensor) -> Tensor:
    """`features` `(B, h, w, D)` averaged over the 3 × 3 patches around each, weighted by `held` `(B, h, w)`."""
    both = torch.cat([features * held[..., None], held[..., None]], dim=-1).permute(0, 3, 1, 2)  # (B, D + 1, h, w)
    sums = functional.avg_pool2d(both, 3, stride=1, padding=1, divisor_override=1).permute(0, 2, 3, 1)
    return sums[..., :-1] / sums[..., -1:].clamp_min(1e-6)
