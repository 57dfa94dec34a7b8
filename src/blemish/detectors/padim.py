"""PaDiM: a Gaussian of normal patch features at each position; the Mahalanobis distance is the anomaly score.

Defard, Setkov, Loesch, Audigier, "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
Localization", ICPR 2020 workshops (published 2021), https://arxiv.org/abs/2011.08785: the encoder's layers joined, a
random choice of their channels, mean and covariance + ε I at every position. For parts that always lie alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from blemish.detectors.base import Needs, Progress
from blemish.detectors.categories import by_category, categories_of, matching_category, state_key
from blemish.detectors.patches import Grid, concatenate_layers, numbered
from blemish.detectors.settings import Configurable, Count, ImageFraming, NotNegative, Odd, Pooling, Positive, Seed
from blemish.encoders.base import LayerRole
from blemish.errors import NotFittedError, SettingsError
from blemish.numeric.standardise import raised_std
from blemish.types import RGB, Batch, Features, PatchScores

POSITIONS_AT_ONCE = 1024  # whose matrices are gathered together where the grid is another one; bounds memory


@dataclass(kw_only=True, eq=False, repr=False)
class PaDiM(Configurable):
    """A Gaussian for each position of the grid and each category.

    `channels` of the concatenated layers are drawn at random once; fewer where there are not so many. For
    `neighbourhood_size` and `grid` see `patches.concatenate_layers`. `epsilon` is added to the covariance's diagonal.
    `standardise`: channels are divided by their standard deviation over all normal patches first, so that `epsilon`
    means the same for any encoder.

    `shrinkage`: with n normal images, their copies not counted, a position's covariance is (1 − w) of its own + w of
    one that all positions share, w = `shrinkage` / (`shrinkage` + n), as if the shared one came from so many images; 0
    is the paper. The shared one is the mean of all positions' covariances + that of the steps from a position's mean to
    its neighbours', so that one normal image says something, and a part may be shifted a little.

    Features on another grid than the first image fitted are compared with the Gaussians at the same relative position.
    `flips`, `rotations`, `pooling`, `image_size`, `square`, `framing`: see `Needs`. `seed`: of the channels.
    """

    layers: LayerRole = "pair"
    channels: Count = 100
    epsilon: Positive = 0.01
    shrinkage: NotNegative = 100.0
    standardise: bool = True
    neighbourhood_size: Odd = 1
    grid: Grid = "finest"
    rotations: Count = 1
    flips: bool = False
    pooling: Pooling = "top:0.01"
    image_size: Count = 224
    square: bool = True
    framing: ImageFraming = "part"
    seed: Seed = 0

    @property
    def needs(self) -> Needs:
        return Needs(
            layers=self.layers,
            rotations=self.rotations,
            flips=self.flips,
            image_size=self.image_size,
            square=self.square,
            framing=self.framing,
            pooling=self.pooling,
        )

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Means and whitening matrices of each category, from sums: memory does not grow with the images.

        Raises SettingsError for an `epsilon` too small for the encoder's features.
        """
        sums: dict[str, Sums] = {}
        for batch, numbers, _ in numbered(batches):
            patches = self._patches(batch.features)  # (B, h, w, D)
            if not sums:
                random = torch.Generator().manual_seed(self.seed)
                order = torch.randperm(patches.shape[-1], generator=random)
                self.channels_ = order[: self.channels].sort().values  # (C,)
            for name, image, number in zip(categories_of(batch.features), patches, numbers, strict=True):
                chosen = image[..., self.channels_.to(image.device)]  # (h, w, C)
                if name not in sums:
                    sums[name] = Sums.around(chosen)
                sums[name].add(chosen, number)
        if not sums:
            raise SettingsError("at least one good picture", "none", "give good pictures to learn from")
        self.means_: dict[str, Tensor] = {}
        self.whitenings_: dict[str, Tensor] = {}
        for done, name in enumerate(list(sums), start=1):
            self.means_[name], self.whitenings_[name] = self._gaussians(sums.pop(name))
            if progress:
                progress(done, done + len(sums), {"positions": float(self.means_[name][..., 0].numel())})
        return self

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """Mahalanobis distances `(B, h, w)`."""
        self._check_fitted()
        patches = self._patches(features)  # (B, h, w, D)
        patches = patches[..., self.channels_.to(patches.device)]  # (B, h, w, C)
        pairs = zip(categories_of(features), patches, strict=True)
        distances = [self._distances(matching_category(name, self.means_), image) for name, image in pairs]
        return PatchScores(torch.stack(distances))

    def graph_scores(self, features: Features, category: str) -> PatchScores:
        """As `score`."""
        category = matching_category(category, self.means_)
        patches = self._patches(features)[..., self.channels_]  # (B, h, w, C)
        grid, fitted = patches.shape[1:3], self.means_[category].shape[:2]
        means, matrices = self.means_[category].flatten(0, 1), self.whitenings_[category].flatten(0, 1)
        if grid != fitted:
            at = same_position(grid, fitted)  # (N,)
            means, matrices = means[at], matrices[at]
        rows = patches.flatten(1, 2) - means  # (B, N, C)
        whitened = torch.einsum("nij,bnj->bni", matrices, rows)  # (B, N, C)
        return PatchScores(whitened.norm(dim=2).unflatten(1, grid))

    def state(self) -> dict[str, Tensor]:
        """`channels` `(C,)`, and for each category `mean/…` `(h, w, C)` and `whitening/…` `(h, w, C, C)`."""
        self._check_fitted()
        state = {"channels": self.channels_}
        state |= {state_key("mean", name): mean.cpu() for name, mean in self.means_.items()}
        return state | {state_key("whitening", name): matrices.cpu() for name, matrices in self.whitenings_.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        self.channels_ = state["channels"]
        self.means_, self.whitenings_ = by_category(state, "mean"), by_category(state, "whitening")
        return self

    def _patches(self, features: Features) -> Tensor:
        """Patches `(B, h, w, D)` on one grid."""
        return concatenate_layers(features.layers[RGB], self.neighbourhood_size, self.grid)

    def _gaussians(self, sums: Sums) -> tuple[Tensor, Tensor]:
        """Means `(h, w, C)` and the matrices `(h, w, C, C)` that whiten normal patches at each position."""
        means, covariance = sums.means(), sums.covariances()  # (P, C), (P, C, C)
        pooled = covariance.mean(dim=0)  # (C, C)
        scale = torch.ones_like(means[0])  # (C,)
        if self.standardise:
            scale = raised_std((pooled.diagonal() + means.var(dim=0, correction=0)).sqrt())  # (C,)
        weight = self.shrinkage / (self.shrinkage + len(sums.images))
        covariance.lerp_(pooled + steps_between(means.view(*sums.grid, -1)), weight)
        covariance /= scale[:, None] * scale
        covariance.diagonal(dim1=1, dim2=2).add_(self.epsilon)
        triangles, failed = torch.linalg.cholesky_ex(covariance)  # (P, C, C), (P,)
        if bool(failed.any()):
            raise SettingsError(
                "an epsilon that rounding to float32 does not swallow in the covariances of patches",
                f"{self.epsilon:g} beside variances of up to {float(pooled.diagonal().max()):.3g}",
                "raise epsilon, or set standardise=True",
            )
        unit = torch.eye(len(scale), device=means.device).expand_as(triangles)
        whitening = torch.linalg.solve_triangular(triangles, unit, upper=False) / scale  # (P, C, C)
        return means.view(*sums.grid, -1), whitening.view(*sums.grid, *whitening.shape[1:])

    def _distances(self, category: str, patches: Tensor) -> Tensor:
        """One image's distances `(h, w)`; patches `(h, w, C)`."""
        means, matrices = self._moved(category, patches.device)  # (H, W, C), (H, W, C, C)
        rows, grid, fitted = patches.flatten(0, 1), patches.shape[:2], means.shape[:2]  # (N, C)
        means, matrices = means.flatten(0, 1), matrices.flatten(0, 1)  # (P, C), (P, C, C)
        if grid == fitted:
            return _whitened(matrices, rows - means).view(grid)
        positions = same_position(grid, fitted).to(rows.device)  # (N,)
        parts = zip(positions.split(POSITIONS_AT_ONCE), rows.split(POSITIONS_AT_ONCE), strict=True)
        return torch.cat([_whitened(matrices[at], part - means[at]) for at, part in parts]).view(grid)

    def _moved(self, category: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """Means and whitening matrices of a category, kept where the features are; both, whatever other threads do."""
        means, matrices = self.means_[category].to(device), self.whitenings_[category].to(device)
        self.means_[category], self.whitenings_[category] = means, matrices
        return means, matrices

    def _check_fitted(self) -> None:
        if not hasattr(self, "means_"):
            raise NotFittedError("Gaussians that have learned", "none", "call fit with good pictures first")


@dataclass
class Sums:
    """Sums over normal images at each of P positions: from them come means and covariances, whatever their number.

    They are taken about `origin`, the first image, so that small differences are not lost in large numbers. `count`
    includes turned and mirrored copies; `images` are the numbers of the images that these are of.
    """

    grid: tuple[int, int]
    origin: Tensor  # (P, C)
    first: Tensor  # (P, C)
    second: Tensor  # (P, C, C)
    count: int = 0
    images: set[int] = field(default_factory=set)

    @classmethod
    def around(cls, image: Tensor) -> Sums:
        """Empty sums on the grid of `image` `(h, w, C)`."""
        height, width, channels = image.shape
        origin = image.reshape(-1, channels).float().clone()
        return cls((height, width), origin, torch.zeros_like(origin), origin.new_zeros(*origin.shape, channels))

    def add(self, image: Tensor, number: int) -> None:
        """Take in the patches `(h, w, C)` of a copy of the image of that number; on another grid, those at the same
        relative positions."""
        rows = image.flatten(0, 1).float()  # (h·w, C)
        if image.shape[:2] != self.grid:
            rows = rows[same_position(self.grid, image.shape[:2]).to(rows.device)]  # (P, C)
        rows = rows - self.origin
        self.first += rows
        self.second.baddbmm_(rows[:, :, None], rows[:, None])
        self.count += 1
        self.images.add(number)

    def means(self) -> Tensor:
        """`(P, C)`."""
        return self.origin + self.first / self.count

    def covariances(self) -> Tensor:
        """`(P, C, C)`, unbiased; zero after a single image. Takes the place of `second`."""
        mean_offset = self.first / self.count
        self.second.baddbmm_(self.first[:, :, None], mean_offset[:, None], alpha=-1)
        return self.second.div_(max(1, self.count - 1))


def steps_between(means: Tensor) -> Tensor:
    """The mean outer product `(C, C)` of the steps between neighbours (down, to the right) of `means` `(h, w, C)`."""
    down, right = (means.diff(dim=axis).flatten(0, 1) for axis in (0, 1))
    steps = torch.cat([down, right])
    return steps.T @ steps / max(1, len(steps))


def same_position(grid: Sequence[int], other: Sequence[int]) -> Tensor:
    """For each position of `grid` `(h, w)` the number of the one at the same relative position of the `other` grid."""
    y, x = (((torch.arange(n) + 0.5) / n * m).long() for n, m in zip(grid, other, strict=True))
    return (y[:, None] * other[1] + x).flatten()  # (h·w,)


def _whitened(matrices: Tensor, rows: Tensor) -> Tensor:
    """Lengths `(N,)` of rows `(N, C)`, each multiplied by its own matrix `(C, C)`."""
    return torch.bmm(matrices, rows[:, :, None])[:, :, 0].norm(dim=1)
