"""Close-up for transformers: AnomalyDINO's distance on the part only, framed at full resolution in one pose.

The close-up settings of closeup.py with the layer and the distance of Damm, Laszkiewicz, Lederer, Fischer,
"AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2", WACV 2025,
https://arxiv.org/abs/2405.14529.
"""

from __future__ import annotations

from dataclasses import dataclass

from blemish.detectors.closeup import CloseUp
from blemish.detectors.patches import Grid
from blemish.detectors.settings import Count, Odd
from blemish.encoders.base import LayerRole
from blemish.numeric.neighbours import Metric


@dataclass(kw_only=True, eq=False, repr=False)
class CloseUpViT(CloseUp):
    """`CloseUp` with one deep layer and cosine distance; see `PatchCore` what each setting means."""

    layers: LayerRole = "deep"
    neighbourhood_size: Odd = 1
    standardise: bool = False
    grid: Grid = "finest"
    metric: Metric = "cosine"
    image_size: Count = 448
