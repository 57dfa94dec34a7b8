"""AnomalyDINO: a few-shot memory bank of deep transformer features; PatchCore without a coreset, with cosine distance.

Damm, Laszkiewicz, Lederer, Fischer, "AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2", WACV
2025, https://arxiv.org/abs/2405.14529: one deep layer, rotated references, background removed, the image score is the
mean of the largest 1 % of distances.
"""

from __future__ import annotations

from dataclasses import dataclass

from blemish.detectors.patchcore import PatchCore
from blemish.detectors.settings import Count, CountOrZero, FractionAboveZero, Odd, Pooling
from blemish.encoders.base import LayerRole
from blemish.numeric.neighbours import Metric


@dataclass(kw_only=True, eq=False, repr=False)
class AnomalyDINO(PatchCore):
    """`PatchCore` with the settings of AnomalyDINO; see there what each means."""

    layers: LayerRole = "deep"
    neighbourhood_size: Odd = 1
    metric: Metric = "cosine"
    coreset_ratio: FractionAboveZero = 1.0
    reweighting_neighbours: CountOrZero = 0
    background: bool = True
    rotations: Count = 8
    pooling: Pooling = "top:0.01"
    image_size: Count = 448
    square: bool = False
