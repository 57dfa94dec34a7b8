"""Two descriptors of the same points concatenated: FPFH and statistics of height and curvature.

FPFH (Rusu, Blodow, Beetz: Fast point feature histograms for 3D registration, ICRA 2009) describes how the directions
of normals vary and hardly by how much over which distance; the statistics are the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blemish.encoders.base import LayerRole
from blemish.encoders.layers import resolve_layers
from blemish.encoders.points.fpfh import load_fpfh
from blemish.encoders.points.point_encoder import Descriptor, DescriptorEncoder
from blemish.encoders.points.surface_statistics import load_surface_statistics
from blemish.encoders.precision import Precision


def load_two_surface(
    name: str = "points-surface",
    *,
    role: LayerRole = "deep",
    layers: Sequence[int] | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
    stride: int = 8,
) -> DescriptorEncoder:
    """An encoder of one layer: that of `points-fpfh`, then that of `points-shape`, as they are by default."""
    resolve_layers(layers, (0,), 1, name)
    parts = load_fpfh(stride=stride), load_surface_statistics(stride=stride)
    both = ConcatenatedDescriptors(parts[0].describe, parts[1].describe)
    settings = {"parts": [part.weights_sha256 for part in parts]}
    return DescriptorEncoder(
        both, name=name, stride=stride, dims=sum(part.dims[0] for part in parts), settings=settings
    )


@dataclass(frozen=True)
class ConcatenatedDescriptors:
    """Two descriptors of one surface; a cell is valid where either of them is."""

    first: Descriptor
    second: Descriptor

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`points` `(H, W, 3)` → features `(h, w, D1 + D2)` and valid `(h, w)`."""
        described = self.first(points), self.second(points)
        layers = [np.where(valid[..., None], features, 0) for features, valid in described]
        return np.concatenate(layers, axis=-1), described[0][1] | described[1][1]
