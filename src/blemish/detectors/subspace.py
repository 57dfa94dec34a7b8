"""SubspaceAD: the residual of a patch outside the principal subspace of normal patches is its anomaly score.

Lendering, Akdağ, Bondarev, "SubspaceAD: Training-Free Few-Shot Anomaly Detection via Subspace Modeling", CVPR 2026,
https://arxiv.org/abs/2602.23013: patch features are the mean of several middle layers of a transformer, references are
rotated, a principal component analysis keeps 99 % of the variance, the score is the squared length of the residual.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from typing import Self

import torch
from torch import Tensor

from blemish.detectors.base import Needs, Progress
from blemish.detectors.categories import by_category, categories_of, matching_category, state_key
from blemish.detectors.patches import judged_patches, numbered
from blemish.detectors.settings import Configurable, Count, FractionAboveZero, ImageFraming, Pooling
from blemish.encoders.base import LayerRole
from blemish.errors import NotFittedError, SettingsError
from blemish.types import RGB, Batch, Features, PatchScores, resize_to_finest

SEPARATE_IMAGES = 16  # images of a category whose sums are kept apart, D² float64 each: 1.2 MB at D = 384


@dataclass(kw_only=True, eq=False, repr=False)
class SubspaceAD(Configurable):
    """One affine subspace of normal patch features a category.

    `layers`: what to ask the encoder for; layers of one width are averaged, others joined side by side. `variance`: the
    share of the normal patches' variance that the subspace holds; it has as few dimensions as that takes. `rotations`
    (and `flips`): copies of every normal image; `max_copies`: with more images fewer copies of each are taken.
    `pooling`, `image_size`, `square`, `framing`: see `Needs`.
    """

    layers: LayerRole = "middle"
    variance: FractionAboveZero = 0.99
    rotations: Count = 8
    flips: bool = False
    max_copies: Count = 128
    pooling: Pooling = "top:0.01"
    image_size: Count = 448
    square: bool = False
    framing: ImageFraming = "plain"

    @property
    def needs(self) -> Needs:
        return Needs(
            layers=self.layers,
            rotations=self.rotations,
            flips=self.flips,
            max_copies=self.max_copies,
            score_exponent=2,  # scores are squared distances
            image_size=self.image_size,
            square=self.square,
            framing=self.framing,
            pooling=self.pooling,
        )

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """A subspace for each category, in one epoch over `batches` and from sums: memory does not grow with them."""
        self.sums_: dict[str, SumsByImage] = {}
        for batch, shown, _ in numbered(batches):
            judged = judged_patches(mean_of_layers(batch.features.layers[RGB]), batch.features)  # (N, D) each
            for name, rows, image in zip(categories_of(batch.features), judged, shown, strict=True):
                self.sums_.setdefault(name, SumsByImage()).add(rows, image)
        if not self.sums_:
            raise SettingsError("at least one good picture", "none", "give good pictures to learn from")
        self.subspaces_: dict[str, Subspace] = {}
        for done, (name, sums) in enumerate(self.sums_.items(), start=1):
            self.subspaces_[name] = Subspace.of(sums.total(), self.variance)
            if progress:
                progress(done, len(self.sums_), {"dimensions": float(self.subspaces_[name].basis.shape[1])})
        return self

    def score(self, features: Features) -> PatchScores:
        """Squared distances to the subspace `(B, h, w)`."""
        return self._score(features, self.subspace_for)

    def graph_scores(self, features: Features, category: str) -> PatchScores:
        """As `score`."""
        patches = mean_of_layers(features.layers[RGB])  # (B, h, w, D)
        subspace = self.subspace_for(matching_category(category, self.subspaces_), patches.device)
        return PatchScores(subspace.squared_distances(patches))

    def can_leave_out(self, category: str) -> bool:
        """Whether the sums of the category's images are known apart: more than one and at most `SEPARATE_IMAGES`."""
        self._check_fitted()
        return len(self.sums_[matching_category(category, self.subspaces_)].images) > 1

    def score_without(self, features: Features, left_out: Collection[int]) -> PatchScores:
        """As `score`, exactly as by a detector that was fitted without the images of these numbers (`Batch.images`)."""

        def subspace_without(category: str, device: torch.device) -> Subspace:
            return Subspace.of(self.sums_[category].total(left_out), self.variance).to(device)

        return self._score(features, cache(subspace_without))

    @torch.no_grad()
    def _score(self, features: Features, subspace_of: Callable[[str, torch.device], Subspace]) -> PatchScores:
        self._check_fitted()
        scores = []
        for name, patches in zip(categories_of(features), mean_of_layers(features.layers[RGB]), strict=True):
            subspace = subspace_of(matching_category(name, self.subspaces_), patches.device)
            scores.append(subspace.squared_distances(patches))  # (h, w)
        return PatchScores(torch.stack(scores))

    def state(self) -> dict[str, Tensor]:
        """For each category `mean/…` `(D,)` and `basis/…` `(D, r)`."""
        self._check_fitted()
        state = {state_key("mean", name): one.mean.cpu() for name, one in self.subspaces_.items()}
        return state | {state_key("basis", name): one.basis.cpu() for name, one in self.subspaces_.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        bases = by_category(state, "basis")
        self.subspaces_ = {name: Subspace(mean, bases[name]) for name, mean in by_category(state, "mean").items()}
        self.sums_ = {name: SumsByImage() for name in self.subspaces_}
        return self

    def subspace_for(self, category: str, device: torch.device) -> Subspace:
        """The subspace of a category, moved to where the features are."""
        if self.subspaces_[category].mean.device != device:
            self.subspaces_[category] = self.subspaces_[category].to(device)
        return self.subspaces_[category]

    def _check_fitted(self) -> None:
        if not hasattr(self, "subspaces_"):
            raise NotFittedError("a subspace that has learned", "none", "call fit with good pictures first")


@dataclass(frozen=True, eq=False)
class PatchSums:
    """Number, sum `(D,)` and sum of outer products `(D, D)` of patches, in float64."""

    count: int
    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> PatchSums:
        """Of patches `(N, D)`."""
        exact = rows.double()
        return cls(len(rows), exact.sum(0), exact.T @ exact)

    def __add__(self, other: PatchSums) -> PatchSums:
        return PatchSums(self.count + other.count, self.first + other.first, self.second + other.second)

    @property
    def mean(self) -> Tensor:
        """`(D,)`."""
        return self.first / self.count

    @property
    def covariance(self) -> Tensor:
        """`(D, D)`, of the patches as the whole population."""
        return self.second / self.count - torch.outer(self.mean, self.mean)


@dataclass
class SumsByImage:
    """The sums over one category's patches, kept apart by image while there are at most `SEPARATE_IMAGES`."""

    images: dict[int, PatchSums] = field(default_factory=dict)
    merged: PatchSums | None = None  # of all images, once they are too many to be kept apart

    def add(self, rows: Tensor, image: int) -> None:
        """Take in the patches `(N, D)` of one view of the normal image of that number."""
        sums = PatchSums.of(rows)
        if self.merged is not None:
            self.merged += sums
            return
        self.images[image] = self.images[image] + sums if image in self.images else sums
        if len(self.images) > SEPARATE_IMAGES:
            self.merged = self.total()
            self.images.clear()

    def total(self, left_out: Collection[int] = ()) -> PatchSums:
        """The sums over all images but those of these numbers, which must be kept apart, and not be all."""
        kept = [sums for image, sums in self.images.items() if image not in left_out]
        if self.merged is not None and not left_out:
            return self.merged
        if not kept:
            raise NotFittedError("sums of other images", "none", "ask can_leave_out first")
        return reduce(PatchSums.__add__, kept)


@dataclass(frozen=True, eq=False)
class Subspace:
    """An affine subspace: a point `mean` `(D,)` of it and orthonormal directions, the columns of `basis` `(D, r)`."""

    mean: Tensor
    basis: Tensor

    @classmethod
    def of(cls, sums: PatchSums, variance: float) -> Subspace:
        """The one of fewest dimensions that holds a share `variance`, in (0, 1], of the patches' variance; float32."""
        values, vectors = torch.linalg.eigh(sums.covariance.cpu())  # (D,) ascending, (D, D)
        held = values.flip(0).clamp_min(0).cumsum(0)  # (D,): variance of so many dimensions
        count = int((held < variance * held[-1]).sum()) + 1 if held[-1] > 0 else 0
        return cls(sums.mean.cpu().float(), vectors.flip(1)[:, :count].float().contiguous())

    def to(self, device: torch.device) -> Subspace:
        """The same on another device."""
        return Subspace(self.mean.to(device), self.basis.to(device))

    def squared_distances(self, patches: Tensor) -> Tensor:
        """‖(I − UUᵀ)(x − μ)‖² of `patches` `(…, D)`: `(…)`.

        The residual itself is summed up, as ‖x − μ‖² − ‖Uᵀ(x − μ)‖² would lose small ones to rounding.
        """
        centred = patches - self.mean  # (…, D)
        residual = centred - (centred @ self.basis) @ self.basis.T  # (…, D)
        return residual.square().sum(-1)


def mean_of_layers(layers: Sequence[Tensor]) -> Tensor:
    """Layers, each `(B, h, w, D)` on its own grid → their mean `(B, h, w, D)` on the finest.

    Where their widths differ they are joined side by side instead: `(B, h, w, ΣD)`.
    """
    ready = resize_to_finest([layer.float() for layer in layers])  # each (B, h, w, D)
    if len({layer.shape[-1] for layer in ready}) > 1:
        return torch.cat(ready, dim=-1)  # (B, h, w, ΣD)
    return torch.stack(ready).mean(0)
