"""A `PointsEncoder` made of a handcrafted descriptor: a function of one organised point cloud that needs no weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from blemish.errors import SettingsError
from blemish.types import POINTS, Features
from blemish.utils.validation import is_whole

# Points (H, W, 3) float32 → features (h, w, D) and which patches hold a point, (h, w) bool.
Descriptor = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class DescriptorEncoder:
    """Describes one point cloud at a time, on the CPU; `settings` are all that its features depend on."""

    def __init__(self, describe: Descriptor, *, name: str, stride: int, dims: int, settings: Mapping[str, Any]) -> None:
        self.describe = describe
        self.name, self.stride, self.dims = name, stride, (dims,)
        self.modalities: tuple[str, ...] = (POINTS,)
        self.licence = "none needed"
        facts = {"name": name, "stride": stride, **settings}
        self.weights_sha256 = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"<points encoder {self.name}, stride {self.stride}, {self.dims[0]} channels>"

    def encode_points(self, points: np.ndarray) -> Features:
        """`points` `(B, H, W, 3)` float32 metres, NaN where nothing was measured → Features; see `PointsEncoder`."""
        check_points(points, self.stride, self.name)
        described = [self.describe(one) for one in points]
        features = np.stack([np.where(valid[..., None], values, 0) for values, valid in described])  # (B, h, w, D)
        return Features(
            layers={POINTS: (torch.from_numpy(features.astype(np.float32)),)},
            valid={POINTS: torch.from_numpy(np.stack([valid for _, valid in described]))},  # (B, h, w)
        )


def check_points(points: np.ndarray, stride: int, name: str) -> None:
    """Raise SettingsError unless `points` are what a `PointsEncoder` of this stride takes."""
    if points.ndim != 4 or points.shape[-1] != 3 or points.dtype != np.float32 or len(points) == 0:
        raise SettingsError(
            "points as a (B, H, W, 3) float32 array with B ≥ 1",
            f"shape {tuple(points.shape)} of {points.dtype}",
            "stack the x, y, z of scans of one size",
        )
    height, width = points.shape[1:3]
    if height % stride or width % stride or not height or not width:
        raise SettingsError(
            f"sides that are multiples of {stride} for the encoder {name!r}",
            f"{height}×{width} points",
            "resize or pad the scans first, or choose another stride",
        )


def check_stride(stride: int) -> None:
    """Raise SettingsError unless `stride` is a whole number ≥ 1."""
    if not is_whole(stride):
        raise SettingsError("a stride of 1 or more whole points", repr(stride), "8 suits most")
