"""Histograms of normals and shape statistics of the same cells side by side: what each leaves out the other has.

Histograms tell how normals turn and little of how far; statistics of height and curvature the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blemish.encoders.base import LayerRole
from blemish.encoders.layers import resolve_layers
from blemish.encoders.points.fpfh import load_fpfh
from blemish.encoders.points.point_encoder import Describe, SurfaceEncoder
from blemish.encoders.points.surface_statistics import load_shape
from blemish.encoders.precision import Precision


def load_side_by_side(
    name: str = "points-surface",
    *,
    role: LayerRole = "deep",
    layers: Sequence[int] | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
    stride: int = 8,
) -> SurfaceEncoder:
    """One layer: that of `points-fpfh`, then that of `points-shape`, as they are by default."""
    resolve_layers(layers, (0,), 1, name)
    parts = load_fpfh(stride=stride), load_shape(stride=stride)
    both = SideBySide(parts[0].describe, parts[1].describe)
    settings = {"parts": [part.weights for part in parts]}
    return SurfaceEncoder(both, name=name, stride=stride, dims=sum(part.dims[0] for part in parts), settings=settings)


@dataclass(frozen=True)
class SideBySide:
    """Two descriptions of one surface; a cell is valid where either says so."""

    first: Describe
    second: Describe

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`points` `(H, W, 3)` → features `(h, w, D1 + D2)` and valid `(h, w)`."""
        answers = self.first(points), self.second(points)
        shown = [np.where(valid[..., None], features, 0) for features, valid in answers]
        return np.concatenate(shown, axis=-1), answers[0][1] | answers[1][1]
