"""What detectors of scans have in common; and, of those that train a network, how its distances become scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

from torch import Tensor

from blemish.detectors.base import Needs, add_prefix, strip_prefix
from blemish.detectors.rgb3d.normalisation import DistanceNormalisation
from blemish.detectors.rgb3d.patches import Holes
from blemish.detectors.settings import Count, NotNegative, Pooling
from blemish.detectors.trained import Network, TrainedDetector
from blemish.encoders.base import LayerRole
from blemish.numeric.training import Training
from blemish.types import POINTS, RGB

Resolution = Literal["patch", "pixel"]
POINTS_STRIDE: dict[Resolution, int] = {"patch": 4, "pixel": 1}  # pixels from one described point to the next
SCAN_FRAMING = "scan"  # the only framing for points
# Chosen on generated scans: of ten classes, 24 scans each, cfm then calls 4 to 5 % of further good ones defective (10 %
# without), where 5 % are accepted. What else differs between scans than between pictures: holes, and turned surfaces.
SCORE_SPREAD = 1.5
SCAN_POOLING = "top:0.001,0.003,0.01"  # of all detectors of scans: defects from a patch to a hundredth of the scan


@dataclass(kw_only=True, eq=False, repr=False)
class ScanDetector(TrainedDetector[Network]):
    """Trains a network on normal scans, and normalises its distances in `normalisation_`.

    `normalise`: each distance is normalised over the category's normal patches (`fit_scale` in prototypes.py). `holes`:
    see patches.py. `prototypes`: of each category and modality, for scans that lack the other modality (prototypes.py).
    `layers`, `pooling`, `image_size`: see `Needs`. Training: see `TrainedDetector`; without weight decay it is Adam,
    and steps whose gradients are not finite are skipped.
    """

    normalise: bool = True
    holes: Holes = "fill"
    prototypes: Count = 512
    layers: LayerRole = "deep"
    pooling: Pooling = SCAN_POOLING
    image_size: Count = 224
    weight_decay: NotNegative = 0.0

    @property
    def needs(self) -> Needs:
        return Needs(
            layers=self.layers,
            modalities=(RGB, POINTS),
            points_stride=POINTS_STRIDE["patch"],
            image_size=self.image_size,
            square=True,
            framing=SCAN_FRAMING,
            score_exponent=2,
            score_spread=SCORE_SPREAD,
            slow_fit=True,
            pooling=self.pooling,
        )

    @property
    def training(self) -> Training:
        return replace(super().training, skip_nonfinite=True)

    def new_normalisation(self) -> DistanceNormalisation:
        """One that is fitted to nothing yet."""
        return DistanceNormalisation(self.holes, self.prototypes, self.seed)

    def state(self) -> dict[str, Tensor]:
        """The network, its widths and its loss (see trained.py), and `normalisation.…`."""
        return {**super().state(), **add_prefix(self.normalisation_.state(), "normalisation")}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Restore what `state` returned."""
        super().load_state(state)
        self.normalisation_ = self.new_normalisation().load_state(strip_prefix(state, "normalisation"))
        return self
