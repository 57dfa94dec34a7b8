"""What cfm and text-guided have in common: settings, and the way from a scan to patch scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from blemish.detectors.base import Needs
from blemish.detectors.categories import matching_category
from blemish.detectors.rgb3d.normalisation import Distances, Scans, box_filtered
from blemish.detectors.rgb3d.patches import ScanPatches, scan_patches
from blemish.detectors.rgb3d.sampling import TrainingPatches
from blemish.detectors.rgb3d.scan_batch import scan_batch
from blemish.detectors.rgb3d.scan_detector import POINTS_STRIDE, Resolution, ScanDetector
from blemish.detectors.settings import Count
from blemish.detectors.trained import Network
from blemish.types import Features, PatchScores


@dataclass(kw_only=True, eq=False, repr=False)
class CrossmodalDetector(ScanDetector[Network]):
    """Maps the features of one modality to those of the other, patch by patch, and scores by the distances.

    `width`: of the networks' hidden layers. `resolution`: patches of 4 × 4 pixels, or single pixels, to which image
    features are interpolated (the paper's way). `reservoir_size`: normal patch pairs that are learned from, evenly over
    categories; `patches_per_step` of them in each training step. `standardise`: channels have mean 0 and standard
    deviation 1 over normal patches, and are clipped at 4. `whiten`: residuals are whitened by their second moments over
    normal patches (numeric/whiten.py). `smooth`: the paper's box filters, which do nothing on coarse grids. All others:
    see `ScanDetector`; Adam and the skipping of steps are as published.
    """

    width: Count = 960
    resolution: Resolution = "patch"
    patches_per_step: Count = 1024
    reservoir_size: Count = 131072
    standardise: bool = True
    whiten: bool = False
    smooth: bool = True

    @property
    def needs(self) -> Needs:
        return replace(super().needs, points_stride=POINTS_STRIDE[self.resolution])

    @abstractmethod
    def measure(self, image_features: Tensor, point_features: Tensor, category: str) -> Distances:
        """Distances Ψ by kind, `(N,)` each, of N patches' features `(N, D1)` and `(N, D2)`."""

    @abstractmethod
    def fused(self, psi: Distances, category: str) -> Tensor:
        """The anomaly map `(…, h, w)` from distances."""

    @abstractmethod
    def parts(self, psi: Distances, category: str, image_share: Tensor) -> dict[str, Tensor]:
        """What "rgb", "points" and, of some, "text" add to `fused` `(h, w)`, which is their sum.

        `image_share` `(h, w)`: the image's share of terms that compare both modalities.
        """

    @property
    def evidence(self) -> Mapping[str, str] | None:
        """The kind of distance by modality that `image_share` takes beside that to prototypes; None: no other."""
        return None

    def distances(self, scan: Scans, category: str) -> Distances:
        """Normalised distances Ψ by kind, `(…, h, w)` each; see `DistanceNormalisation.distances`."""
        return self.normalisation_.distances(scan, category, self.measure)

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """The anomaly map of every scan `(B, h, w)`; scans go through one at a time."""
        maps = []
        for scan in scan_patches(features, self.trained.dims):
            category, psi = self.scan_distances(scan)
            maps.append(self.map_of(psi, category))
        return PatchScores(torch.stack(maps))

    @torch.no_grad()
    def explain(self, features: Features) -> dict[str, Tensor]:
        """The patch scores, split among "rgb", "points" and, of some, "text": `(B, h, w)` each, whose sum they are."""
        found: dict[str, list[Tensor]] = {}
        for scan in scan_patches(features, self.trained.dims):
            category, psi = self.scan_distances(scan)
            image_share = self.normalisation_.image_share(psi, scan, category, self.evidence)
            for name, part in self.parts(self.as_mapped(psi, category), category, image_share).items():
                found.setdefault(name, []).append(self.smoothed(part))
        return {name: torch.stack(parts) for name, parts in found.items()}

    def graph_scores(self, features: Features, category: str) -> PatchScores:
        """As `score`, of all scans at once (see scan_batch.py)."""
        scans = scan_batch(features, self.trained.dims)
        category = matching_category(category, self.normalisation_.names_)
        return PatchScores(self.map_of(self.distances(scans, category), category))

    def map_of(self, psi: Distances, category: str) -> Tensor:
        """The anomaly map `(…, h, w)` from normalised distances."""
        return self.smoothed(self.fused(self.as_mapped(psi, category), category))

    def smoothed(self, scores: Tensor) -> Tensor:
        """A map `(…, h, w)`, box-filtered where that is set."""
        return box_filtered(scores) if self.smooth else scores

    def as_mapped(self, psi: Distances, category: str) -> Distances:
        """Normalised distances as the map is made of them: as they were measured unless `normalise`."""
        return psi if self.normalise else psi | self.normalisation_.unnormalised(psi, category)

    def scan_distances(self, scan: ScanPatches) -> tuple[str, Distances]:
        """The category whose statistics are used, and the distances of a scan to it."""
        self.trained.on(scan.image.device)
        category = self.normalisation_.category_for(scan)
        return category, self.distances(scan, category)

    @torch.no_grad()
    def fit_normalisation(self, patches: TrainingPatches) -> None:
        """Fit scales and prototypes to normal patches, once the network is trained."""
        self.normalisation_ = self.new_normalisation().fit(patches, self.measure)
