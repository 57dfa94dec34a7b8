"""CFM, crossmodal feature mapping: image and point features predict each other; the errors of both are the score.

Costanzino, Zama Ramirez, Lisanti & Di Stefano, "Multimodal Industrial Anomaly Detection by Crossmodal Feature Mapping",
CVPR 2024 (https://arxiv.org/abs/2312.04521). Two perceptrons learn on normal patches to map image features to point
features and back; on a defect in either modality the predictions disagree with the features that were measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from blemish.detectors.base import Progress
from blemish.detectors.rgb3d.crossmodal import CrossmodalDetector
from blemish.detectors.rgb3d.normalisation import UNIMODAL, Distances
from blemish.detectors.rgb3d.sampling import TrainingPatches, random_indices, sample_patches
from blemish.detectors.trained import TrainedNetwork
from blemish.numeric.perceptron import perceptron
from blemish.numeric.standardise import RARE, Standardise
from blemish.numeric.training import seeded
from blemish.numeric.whiten import Whiten
from blemish.types import POINTS, RGB, Batch

_PATCHES_AT_ONCE = 8192  # whose residuals are held together


class CrossmodalMapping(nn.Module):
    """Image features (D1) to point features (D2) by `to_points`, and back by `to_image`.

    With `standardise` both are standardised over normal patches and clipped at ± RARE.
    """

    def __init__(self, dims: tuple[int, int], to_points: nn.Module, to_image: nn.Module, standardise: bool) -> None:
        super().__init__()
        bound = RARE if standardise else math.inf
        self.image_standard, self.points_standard = (Standardise(dim, bound) for dim in dims)
        self.to_points, self.to_image = to_points, to_image
        self.image_whiten, self.points_whiten = (Whiten(dim) for dim in dims)

    def standardised(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Features of N patches, `(N, D1)` and `(N, D2)`, standardised."""
        return self.image_standard(image), self.points_standard(points)

    def loss(self, image: Tensor, points: Tensor) -> Tensor:
        """1 − cosine in both directions, mean over standardised patches `(N, D1)` and `(N, D2)`; a scalar."""
        forth = cosine_similarity(self.to_points(image).float(), points, dim=-1)  # (N,)
        back = cosine_similarity(self.to_image(points).float(), image, dim=-1)  # (N,)
        return (1 - forth).mean() + (1 - back).mean()

    def residuals(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Measured − predicted features of standardised patches, at unit length each: `(N, D1)` and `(N, D2)`."""
        return (
            normalize(image, dim=-1) - normalize(self.to_image(points), dim=-1),
            normalize(points, dim=-1) - normalize(self.to_points(image), dim=-1),
        )

    def distances(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Ψ_rgb and Ψ_3d `(N,)` of features as they come: the lengths of the (whitened) residuals."""
        image_residual, points_residual = self.residuals(*self.standardised(image, points))
        return self.image_whiten(image_residual).norm(dim=-1), self.points_whiten(points_residual).norm(dim=-1)

    @torch.no_grad()
    def fit_standardisation(self, patches: TrainingPatches) -> None:
        """Standardise by mean and standard deviation of normal patches."""
        self.image_standard.fit(patches.image)
        self.points_standard.fit(patches.points)

    @torch.no_grad()
    def fit_whitening(self, patches: TrainingPatches) -> None:
        """Whiten residuals by their second moments over normal patches."""
        moments: list[Tensor | float] = [0.0, 0.0]  # (D1, D1) and (D2, D2)
        chunks = zip(patches.image.split(_PATCHES_AT_ONCE), patches.points.split(_PATCHES_AT_ONCE), strict=True)
        for image, points in chunks:
            for index, residual in enumerate(self.residuals(*self.standardised(image, points))):  # (n, D)
                moments[index] = moments[index] + residual.T @ residual
        for whiten, moment in zip((self.image_whiten, self.points_whiten), moments, strict=True):
            assert isinstance(moment, Tensor)
            whiten.fit(moment / len(patches.label))


@dataclass(kw_only=True, eq=False, repr=False)
class CFM(CrossmodalDetector[CrossmodalMapping]):
    """CFM (`cfm`): Ψ = Ψ_rgb ⊙ Ψ_3d, the distances of measured from predicted features, both at unit length.

    Scans and holes with one modality score the square of its distance to prototypes. Settings: `CrossmodalDetector`;
    the paper's are `resolution="pixel", standardise=False, normalise=False, holes="zero", pooling="max"`.
    """

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Learn from normal scans, in one pass over `batches`; `loss_` keeps every step's loss."""
        patches = sample_patches(batches, self.reservoir_size, self.holes, self.seed)
        with seeded(self.seed):
            network = self.build_network(patches.dims).to(patches.image.device)
            if self.standardise:
                network.fit_standardisation(patches)

            def loss_of(step: int) -> Tensor:
                drawn = random_indices(self.patches_per_step, patches.label)
                return network.loss(*network.standardised(patches.image[drawn], patches.points[drawn]))

            loss = self.training.run(network, loss_of, progress)
        if self.whiten:
            network.fit_whitening(patches)
        self.trained_ = TrainedNetwork(network, patches.dims, loss)
        self.fit_normalisation(patches)
        return self

    def build_network(self, dims: Sequence[int]) -> CrossmodalMapping:
        image_dim, point_dim = dims
        return CrossmodalMapping(
            (image_dim, point_dim),
            to_points=perceptron(image_dim, self.width, point_dim, hidden=2),
            to_image=perceptron(point_dim, self.width, image_dim, hidden=2),
            standardise=self.standardise,
        )

    def measure(self, image_features: Tensor, point_features: Tensor, category: str) -> Distances:
        psi_rgb, psi_3d = self.trained.network.distances(image_features, point_features)
        return {RGB: psi_rgb, POINTS: psi_3d}

    def fused(self, psi: Distances, category: str) -> Tensor:
        return psi[RGB] * psi[POINTS] + (psi[UNIMODAL[RGB]] + psi[UNIMODAL[POINTS]]).square()

    def parts(self, psi: Distances, category: str, image_share: Tensor) -> dict[str, Tensor]:
        joint = psi[RGB] * psi[POINTS]
        return {
            RGB: joint * image_share + psi[UNIMODAL[RGB]].square(),
            POINTS: joint * (1 - image_share) + psi[UNIMODAL[POINTS]].square(),
        }
