"""What cfm and text-guided have in common: settings, and the way from a scan to patch scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from blemish.detectors.base import Needs, add_prefix, strip_prefix
from blemish.detectors.rgb3d.normalisation import DistanceNormalisation, Distances, box_filtered
from blemish.detectors.rgb3d.patches import Holes, ScanPatches, scan_patches
from blemish.detectors.rgb3d.sampling import TrainingPatches
from blemish.detectors.settings import Count, NotNegative, Pooling
from blemish.detectors.trained import Network, TrainedDetector
from blemish.encoders.base import LayerRole
from blemish.numeric.training import Training
from blemish.types import POINTS, RGB, Features, PatchScores

Resolution = Literal["patch", "pixel"]
POINTS_STRIDE: dict[Resolution, int] = {"patch": 4, "pixel": 1}  # pixels from one described point to the next
SCAN_FRAMING = "scan"  # the only framing for points
SCAN_POOLING = "top:0.001,0.003,0.01"  # of all detectors of scans: defects from a patch to a hundredth of the scan


@dataclass(kw_only=True, eq=False, repr=False)
class CrossmodalDetector(TrainedDetector[Network]):
    """Maps the features of one modality to those of the other, patch by patch, and scores by the distances.

    `width`: of the networks' hidden layers. `resolution`: patches of 4 × 4 pixels, or single pixels, to which image
    features are interpolated (the paper's way). `reservoir_size`: normal patch pairs that are learned from, evenly over
    categories; `patches_per_step` of them in each training step. `standardise`: channels have mean 0 and standard
    deviation 1 over normal patches, and are clipped at 4. `whiten`: residuals are whitened by their second moments over
    normal patches (numeric/whiten.py). `normalise`: each distance is normalised over the category's normal patches
    (`fit_scale` in prototypes.py). `holes`: see patches.py. `prototypes`: of each category and modality, for scans that
    lack the other modality (prototypes.py). `smooth`: the paper's box filters, which do nothing on coarse grids.
    `layers`, `pooling`, `image_size`: see `Needs`. Training: see `TrainedDetector`; without weight decay it is Adam, as
    published, and steps whose gradients are not finite are skipped, as in text-guided.
    """

    width: Count = 960
    resolution: Resolution = "patch"
    patches_per_step: Count = 1024
    reservoir_size: Count = 131072
    standardise: bool = True
    whiten: bool = False
    normalise: bool = True
    holes: Holes = "fill"
    prototypes: Count = 512
    smooth: bool = True
    layers: LayerRole = "deep"
    pooling: Pooling = SCAN_POOLING
    image_size: Count = 224
    weight_decay: NotNegative = 0.0

    @property
    def needs(self) -> Needs:
        return Needs(
            layers=self.layers,
            modalities=(RGB, POINTS),
            points_stride=POINTS_STRIDE[self.resolution],
            image_size=self.image_size,
            square=True,
            framing=SCAN_FRAMING,
            score_exponent=2,
            slow_fit=True,
            pooling=self.pooling,
        )

    @property
    def training(self) -> Training:
        return replace(super().training, skip_nonfinite=True)

    @abstractmethod
    def measure(self, image_features: Tensor, point_features: Tensor, category: str) -> Distances:
        """Distances Ψ by kind, `(N,)` each, of N patches' features `(N, D1)` and `(N, D2)`."""

    @abstractmethod
    def fused(self, psi: Distances, scan: ScanPatches, category: str) -> Tensor:
        """The anomaly map `(h, w)` of a scan from its distances."""

    def distances(self, scan: ScanPatches, category: str) -> Distances:
        """Normalised distances Ψ by kind, `(h, w)` each; see `DistanceNormalisation.distances`."""
        return self.normalisation_.distances(scan, category, self.measure)

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """The anomaly map of every scan `(B, h, w)`; scans go through one at a time."""
        maps = []
        for scan in scan_patches(features, self.trained.dims):
            category, psi = self.map_distances(scan)
            fused = self.fused(psi, scan, category)
            maps.append(box_filtered(fused) if self.smooth else fused)
        return PatchScores(torch.stack(maps))

    def map_distances(self, scan: ScanPatches) -> tuple[str, Distances]:
        """As `scan_distances`, as the map is made of them: as they were measured unless `normalise`."""
        category, psi = self.scan_distances(scan)
        return category, psi if self.normalise else psi | self.normalisation_.unnormalised(psi, category)

    def scan_distances(self, scan: ScanPatches) -> tuple[str, Distances]:
        """The category whose statistics are used, and the distances of a scan to it."""
        self.trained.on(scan.image.device)
        category = self.normalisation_.category_for(scan)
        return category, self.distances(scan, category)

    @torch.no_grad()
    def fit_normalisation(self, patches: TrainingPatches) -> None:
        """Fit scales and prototypes to normal patches, once the network is trained."""
        self.normalisation_ = self._new_normalisation().fit(patches, self.measure)

    def _new_normalisation(self) -> DistanceNormalisation:
        return DistanceNormalisation(self.holes, self.prototypes, self.seed)

    def state(self) -> dict[str, Tensor]:
        """The network, its widths and its loss (see trained.py), and `normalisation.…`."""
        return {**super().state(), **add_prefix(self.normalisation_.state(), "normalisation")}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Restore what `state` returned."""
        super().load_state(state)
        self.normalisation_ = self._new_normalisation().load_state(strip_prefix(state, "normalisation"))
        return self
