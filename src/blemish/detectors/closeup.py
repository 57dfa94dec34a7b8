"""Close-up: PatchCore on the part only, framed at full resolution in one pose; for convolutional encoders.

blemish's own settings of PatchCore (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022,
https://arxiv.org/abs/2106.08265): the framing of crop_to_part.py, standardised channels, and an image score that joins
the means of several fractions of the largest distances. Chosen on synthetic anomalies on normal training images, with
no test image; docs/methods/hybrid.md says how.
"""

from __future__ import annotations

from dataclasses import dataclass

from blemish.detectors.patchcore import PatchCore
from blemish.detectors.patches import Grid
from blemish.detectors.settings import Count, CountOrZero, FractionAboveZero, ImageFraming, Pooling
from blemish.numeric.pooling import SEVERAL_SHARES


@dataclass(kw_only=True, eq=False, repr=False)
class CloseUp(PatchCore):
    """`PatchCore` with settings for parts that are framed close up; see there what each means."""

    standardise: bool = True
    grid: Grid = "coarsest"
    coreset_ratio: FractionAboveZero = 0.25
    min_patches: Count = 16384
    reservoir_size: Count = 65536
    reweighting_neighbours: CountOrZero = 0
    keep_originals: bool = True
    rotations: Count = 8
    pooling: Pooling = SEVERAL_SHARES
    image_size: Count = 512
    square: bool = False
    framing: ImageFraming = "part"
