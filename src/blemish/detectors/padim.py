"""PaDiM: at each place of the image a Gaussian of what good patches look like there; the distance is Mahalanobis's.

Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization", ICPR 2021
workshops: the encoder's layers joined, a random choice of their channels, mean and covariance + ε I at every position.
For parts that always lie alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, get_args

import torch
from torch import Tensor

from blemish.detectors.base import Needs, Progress, settings_of
from blemish.detectors.categories import answering, key_of, names_of
from blemish.detectors.patches import Grid, joined
from blemish.encoders.base import LayerRole
from blemish.errors import NotFittedError, SettingsError
from blemish.types import RGB, Batch, Features, PatchScores
from blemish.utils.validation import among, check, flags, is_number, is_whole, whole

_AT_ONCE = 1024  # positions whose matrices are picked together where the grid is another one
_LEAST_SPREAD = 1e-6


class PaDiM:
    """PaDiM (`padim`): a Gaussian for each position of the grid and each category.

    `channels` of the joined layers (see `patches.joined` for `aggregation` and `grid`) are drawn at random once; fewer
    where there are not so many. `epsilon` is added to the covariance's diagonal. `standardise`: channels are divided by
    their standard deviation over all good patches first, so that `epsilon` means the same for any encoder.

    `shrinkage`: with n good images a position's covariance is (1 − w) of its own + w of one that all positions share,
    w = `shrinkage` / (`shrinkage` + n): images that the shared one is worth; 0 is the paper. The shared one is the
    mean of all positions' covariances + that of the steps from a position's mean to its neighbours', so that one good
    image says something, and a part may lie a little aside.

    Features on another grid than the first image learned are measured by the Gaussians at the same relative place.
    `flips`, `rotations`, `pooling`, `image_size`, `square`, `framing`: see `Needs`. `seed`: of the channels.
    """

    def __init__(
        self,
        *,
        layers: LayerRole = "pair",
        channels: int = 100,
        epsilon: float = 0.01,
        shrinkage: float = 100.0,
        standardise: bool = True,
        aggregation: int = 1,
        grid: Grid = "finest",
        rotations: int = 1,
        flips: bool = False,
        pooling: str = "top:0.01",
        image_size: int = 224,
        square: bool = True,
        framing: str = "part",
        seed: int = 0,
    ) -> None:
        self.layers, self.channels, self.epsilon, self.shrinkage = layers, channels, epsilon, shrinkage
        self.standardise, self.aggregation, self.grid = standardise, aggregation, grid
        self.rotations, self.flips, self.pooling = rotations, flips, pooling
        self.image_size, self.square, self.framing, self.seed = image_size, square, framing, seed
        self._check()

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

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Means and whitening matrices of each category, from sums: memory does not grow with the images."""
        sums: dict[str, Sums] = {}
        for batch in batches:
            patches = joined(batch.features.layers[RGB], self.aggregation, self.grid)  # (B, h, w, D)
            if not sums:
                drawn = torch.Generator().manual_seed(self.seed)
                self.chosen_ = torch.randperm(patches.shape[-1], generator=drawn)[: self.channels].sort().values
            for name, image in zip(names_of(batch.features), patches, strict=True):
                seen = image[..., self.chosen_.to(image.device)]  # (h, w, C)
                sums.setdefault(name, Sums.around(seen)).add(seen)
        if not sums:
            raise SettingsError("at least one good picture", "none", "give good pictures to learn from")
        self.means_: dict[str, Tensor] = {}
        self.whitenings_: dict[str, Tensor] = {}
        for done, name in enumerate(list(sums), start=1):
            self.means_[name], self.whitenings_[name] = self._learned(sums.pop(name))
            if progress:
                progress(done, done + len(sums), {"positions": float(self.means_[name][..., 0].numel())})
        return self

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """Mahalanobis distances `(B, h, w)`."""
        if not hasattr(self, "means_"):
            raise NotFittedError("Gaussians that have learned", "none", "call fit with good pictures first")
        patches = joined(features.layers[RGB], self.aggregation, self.grid)[..., self.chosen_.to(features[RGB].device)]
        pairs = zip(names_of(features), patches, strict=True)
        return PatchScores(torch.stack([self._distances(answering(name, self.means_), one) for name, one in pairs]))

    def state(self) -> dict[str, Tensor]:
        """`channels` `(C,)`, and for each category `mean/…` `(h, w, C)` and `whitening/…` `(h, w, C, C)`."""
        if not hasattr(self, "means_"):
            raise NotFittedError("Gaussians that have learned", "none", "call fit with good pictures first")
        state = {"channels": self.chosen_}
        state |= {key_of("mean", name): mean.cpu() for name, mean in self.means_.items()}
        return state | {key_of("whitening", name): matrices.cpu() for name, matrices in self.whitenings_.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        self.chosen_, self.means_, self.whitenings_ = state["channels"], {}, {}
        for key, tensor in state.items():
            kind, _, name = key.partition("/")
            if kind == "mean":
                self.means_[name] = tensor
            elif kind == "whitening":
                self.whitenings_[name] = tensor
        return self

    def _learned(self, sums: Sums) -> tuple[Tensor, Tensor]:
        """Means `(h, w, C)` and the matrices `(h, w, C, C)` that make good patches there uncorrelated, of spread 1."""
        means, covariance = sums.means(), sums.covariances()  # (P, C), (P, C, C)
        pooled = covariance.mean(dim=0)  # (C, C)
        scale = torch.ones_like(means[0])
        if self.standardise:
            scale = (pooled.diagonal() + means.var(dim=0, correction=0)).sqrt().clamp_min(_LEAST_SPREAD)
        weight = self.shrinkage / (self.shrinkage + sums.count)
        covariance.lerp_(pooled + steps_between(means.view(*sums.grid, -1)), weight)
        covariance /= scale[:, None] * scale
        covariance.diagonal(dim1=1, dim2=2).add_(self.epsilon)
        triangles = torch.linalg.cholesky(covariance)  # (P, C, C)
        unit = torch.eye(len(scale), device=means.device).expand_as(triangles)
        whitening = torch.linalg.solve_triangular(triangles, unit, upper=False) / scale
        return means.view(*sums.grid, -1), whitening.view(*sums.grid, *whitening.shape[1:])

    def _distances(self, category: str, patches: Tensor) -> Tensor:
        """One image's distances `(h, w)`; patches `(h, w, C)`."""
        if self.means_[category].device != patches.device:
            self.means_[category] = self.means_[category].to(patches.device)
            self.whitenings_[category] = self.whitenings_[category].to(patches.device)
        means, matrices = self.means_[category].flatten(0, 1), self.whitenings_[category].flatten(0, 1)
        rows, grid = patches.flatten(0, 1), patches.shape[:2]  # (N, C)
        if grid == self.means_[category].shape[:2]:
            return _whitened(matrices, rows - means).view(grid)
        places = same_place(grid, self.means_[category].shape[:2]).to(rows.device)  # (N,)
        parts = zip(places.split(_AT_ONCE), rows.split(_AT_ONCE), strict=True)
        return torch.cat([_whitened(matrices[at], part - means[at]) for at, part in parts]).view(grid)

    def _check(self) -> None:
        wishes = (
            among(self, "layers", *get_args(LayerRole)),
            ("epsilon", "a number above 0", is_number(self.epsilon) and 0 < self.epsilon < torch.inf),
            ("shrinkage", "a number ≥ 0", is_number(self.shrinkage) and 0 <= self.shrinkage < torch.inf),
            ("aggregation", "an odd number ≥ 1", is_whole(self.aggregation, 1) and self.aggregation % 2 == 1),
            among(self, "grid", "finest", "coarsest"),
            among(self, "framing", "plain", "part"),
            *whole(self, 1, "channels", "rotations", "image_size"),
            *whole(self, 0, "seed"),
            *flags(self, "standardise", "flips", "square"),
        )
        check(self, *wishes)


@dataclass
class Sums:
    """Sums over good images, at each of P positions: from them come means and covariances, whatever their number.

    They are taken about `origin`, the first image, lest small differences drown in large numbers.
    """

    grid: tuple[int, int]
    origin: Tensor  # (P, C)
    first: Tensor  # (P, C)
    second: Tensor  # (P, C, C)
    count: int = 0

    @classmethod
    def around(cls, image: Tensor) -> Sums:
        """Empty sums on the grid of `image` `(h, w, C)`."""
        height, width, channels = image.shape
        origin = image.reshape(-1, channels).float().clone()
        return cls((height, width), origin, torch.zeros_like(origin), origin.new_zeros(*origin.shape, channels))

    def add(self, image: Tensor) -> None:
        """Take in an image's patches `(h, w, C)`; on another grid, those at the same relative places."""
        rows = image.flatten(0, 1).float()
        if image.shape[:2] != self.grid:
            rows = rows[same_place(self.grid, image.shape[:2]).to(rows.device)]
        rows = rows - self.origin
        self.first += rows
        self.second.baddbmm_(rows[:, :, None], rows[:, None])
        self.count += 1

    def means(self) -> Tensor:
        """`(P, C)`."""
        return self.origin + self.first / self.count

    def covariances(self) -> Tensor:
        """`(P, C, C)`, unbiased; zero after a single image. Takes the place of `second`."""
        aside = self.first / self.count
        self.second.baddbmm_(self.first[:, :, None], aside[:, None], alpha=-1)
        return self.second.div_(max(1, self.count - 1))


def steps_between(means: Tensor) -> Tensor:
    """The mean outer product `(C, C)` of the steps between neighbours (down, to the right) of `means` `(h, w, C)`."""
    down, right = (means.diff(dim=axis).flatten(0, 1) for axis in (0, 1))
    steps = torch.cat([down, right])
    return steps.T @ steps / max(1, len(steps))


def same_place(grid: Sequence[int], other: Sequence[int]) -> Tensor:
    """For each position of `grid` `(h, w)` the number of the one at the same relative place of the `other` grid."""
    y, x = (((torch.arange(n) + 0.5) / n * m).long() for n, m in zip(grid, other, strict=True))
    return (y[:, None] * other[1] + x).flatten()  # (h·w,)


def _whitened(matrices: Tensor, rows: Tensor) -> Tensor:
    """Lengths `(N,)` of rows `(N, C)`, each multiplied by its own matrix `(C, C)`."""
    return torch.bmm(matrices, rows[:, :, None])[:, :, 0].norm(dim=1)
