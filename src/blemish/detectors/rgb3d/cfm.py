"""CFM: the image tells what the surface should be like, and the surface the image; a defect breaks the pair.

Costanzino et al., "Multimodal Industrial Anomaly Detection by CFM Feature Mapping", CVPR 2024. Two perceptrons
learn on good parts to map each cell's image features to its point features and back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from blemish.detectors.base import Needs, Progress, part_of, settings_of, under
from blemish.detectors.rgb3d.normalisation import ALONE, CellShares, Shares, smoothed
from blemish.detectors.rgb3d.patches import HOLES, Cells, Holes, cells_of
from blemish.detectors.rgb3d.sampling import Pool, at_random, pooled
from blemish.detectors.trained import Learned, learned_by, training_of
from blemish.encoders.base import LayerRole
from blemish.encoders.precision import Precision
from blemish.numeric.perceptron import perceptron
from blemish.numeric.standardise import RARE, Standardise
from blemish.numeric.training import seeded
from blemish.numeric.whiten import Whiten
from blemish.types import POINTS, RGB, Batch, Features, PatchScores
from blemish.utils.validation import among, check, flags, is_number, whole

Resolution = Literal["patch", "pixel"]
STRIDES: dict[str, int] = {"patch": 4, "pixel": 1}  # pixels between the points that are described
POOLING = "top:0.001,0.003,0.01"
PUBLISHED: dict[str, Any] = {"weight_decay": 0.0, "skip_nonfinite": True}  # of how it learns, beside the settings


class CrossmodalMapping(nn.Module):
    """Image features to point features by `to_points`, and back by `to_image`.

    Both are standardised by good cells where `standardise`, and then cut off where good cells hardly ever are.
    """

    def __init__(self, dims: tuple[int, int], to_points: nn.Module, to_image: nn.Module, standardise: bool) -> None:
        super().__init__()
        bound = RARE if standardise else math.inf
        self.image_standard, self.points_standard = (Standardise(dim, bound) for dim in dims)
        self.to_points, self.to_image = to_points, to_image
        self.image_whiten, self.points_whiten = (Whiten(dim) for dim in dims)

    def scaled(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Both, `(N, D1)` and `(N, D2)`, standardised."""
        return self.image_standard(image), self.points_standard(points)

    def loss(self, image: Tensor, points: Tensor) -> Tensor:
        """1 − cosine in both directions, mean over standardised cells."""
        there = cosine_similarity(self.to_points(image).float(), points, dim=-1)
        back = cosine_similarity(self.to_image(points).float(), image, dim=-1)
        return (1 - there).mean() + (1 - back).mean()

    def residuals(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """What is wrong with the image `(N, D1)` and the points `(N, D2)`: true − predicted, each of unit length."""
        return (
            normalize(image, dim=-1) - normalize(self.to_image(points), dim=-1),
            normalize(points, dim=-1) - normalize(self.to_points(image), dim=-1),
        )

    def distances(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Ψ_rgb and Ψ_3d of cells as they come, `(N,)` each: the lengths of the (whitened) residuals."""
        wrong_image, wrong_points = self.residuals(*self.scaled(image, points))
        return self.image_whiten(wrong_image).norm(dim=-1), self.points_whiten(wrong_points).norm(dim=-1)

    @torch.no_grad()
    def learn_scales(self, pool: Pool) -> None:
        """Standardise by the pool's cells."""
        self.image_standard.learn(pool.image)
        self.points_standard.learn(pool.points)

    @torch.no_grad()
    def learn_residuals(self, pool: Pool) -> None:
        """Whiten by what remains of the pool's cells."""
        totals: list[Tensor | float] = [0.0, 0.0]
        for image, points in zip(pool.image.split(8192), pool.points.split(8192), strict=True):
            for place, rows in enumerate(self.residuals(*self.scaled(image, points))):
                totals[place] = totals[place] + rows.T @ rows
        for whiten, total in zip((self.image_whiten, self.points_whiten), totals, strict=True):
            assert isinstance(total, Tensor)
            whiten.learn(total / len(pool.label))


class CFM:
    """CFM (`cfm`): Ψ = Ψ_rgb ⊙ Ψ_3d, the distances of true from predicted features, both of unit length.

    `width` of both hidden layers of the perceptrons. `resolution`: cells of 4 × 4 pixels ("patch"), or the paper's
    pixels, for which image features are interpolated. `sample`: good cells that are learned from, drawn evenly;
    `cells` of them in every one of `steps` steps. `standardise`: channels are brought to mean 0 and spread 1 over good
    cells first, and cut off at 4. `whiten`: residuals are measured by how those of good cells vary in each direction
    (see whiten.py). `scaled`: each Ψ is brought to one scale and one scatter over good cells of the category (see
    `level` in prototypes.py). `holes`: see patches.py. `prototypes`: cells of each category that judge scans without
    points or without an image (see prototypes.py), whose squared distances stand in for the product. `smooth`: the
    paper's box filters, which do nothing on coarse grids. `layers`, `pooling`, `image_size`, `framing`: see `Needs`.
    The paper's way is `resolution="pixel", standardise=False, scaled=False, holes="zero", pooling="max"`.
    """

    def __init__(
        self,
        *,
        width: int = 960,
        resolution: Resolution = "patch",
        steps: int = 1000,
        cells: int = 1024,
        sample: int = 131072,
        learning_rate: float = 1e-3,
        standardise: bool = True,
        whiten: bool = False,
        scaled: bool = True,
        holes: Holes = "fill",
        prototypes: int = 512,
        smooth: bool = True,
        layers: LayerRole = "deep",
        pooling: str = POOLING,
        image_size: int = 224,
        framing: str = "scan",
        precision: Precision = "auto",
        seed: int = 0,
    ) -> None:
        self.width, self.resolution = width, resolution
        self.steps, self.cells, self.sample, self.learning_rate = steps, cells, sample, learning_rate
        self.standardise, self.whiten, self.scaled, self.holes = standardise, whiten, scaled, holes
        self.prototypes, self.smooth, self.layers, self.pooling = prototypes, smooth, layers, pooling
        self.image_size, self.framing, self.precision, self.seed = image_size, framing, precision, seed
        check_learning(self)

    @property
    def needs(self) -> Needs:
        return needs_of(self)

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Learn from good scans, walked once; `loss_` `(steps,)` keeps every step's loss, NaN where it was skipped."""
        pool = pooled(batches, self.sample, self.holes, self.seed)
        with seeded(self.seed):
            network = self._build(pool.dims).to(pool.image.device)
            if self.standardise:
                network.learn_scales(pool)

            def loss_of(step: int) -> Tensor:
                drawn = at_random(self.cells, pool.label)
                return network.loss(*network.scaled(pool.image[drawn], pool.points[drawn]))

            loss = replace(training_of(self), **PUBLISHED).run(network, loss_of, progress)
        if self.whiten:
            network.learn_residuals(pool)
        self.learned_ = Learned(network, pool.dims, loss)
        with torch.no_grad():
            self.shares_ = shares_of(self).learn(pool, self._measure)
        return self

    @property
    def loss_(self) -> Tensor:
        """The loss of every step `(steps,)`, NaN where it was skipped."""
        return learned_by(self).loss

    def _build(self, dims: Sequence[int]) -> CrossmodalMapping:
        image, points = dims
        return CrossmodalMapping(
            (image, points),
            to_points=perceptron(image, self.width, points, hidden=2),
            to_image=perceptron(points, self.width, image, hidden=2),
            standardise=self.standardise,
        )

    def _measure(self, image: Tensor, points: Tensor, category: str) -> dict[str, Tensor]:
        rgb, depth = learned_by(self).network.distances(image, points)
        return {RGB: rgb, POINTS: depth}

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """Ψ of every cell `(B, h, w)`; scans go through one at a time."""
        maps = []
        for cells in cells_of(features, learned_by(self).dims):
            category, found = self._found(cells)
            if not self.scaled:
                found = self.shares_.plain(found, category)
            alone = found[ALONE + RGB] + found[ALONE + POINTS]
            psi = found[RGB] * found[POINTS] + alone.square()
            maps.append(smoothed(psi) if self.smooth else psi)
        return PatchScores(torch.stack(maps))

    @torch.no_grad()
    def explain(self, features: Features) -> dict[str, Tensor]:
        """How √(Ψ_rgb ⊙ Ψ_3d) of every cell `(B, h, w)` divides into "rgb" and "points": see `CellShares.blamed`."""
        found = []
        for cells in cells_of(features, learned_by(self).dims):
            category, shares = self._found(cells)
            found.append(self.shares_.blamed(shares, cells, category))
        return {modality: torch.stack([one[modality] for one in found]) for modality in (RGB, POINTS)}

    def _found(self, cells: Cells) -> tuple[str, Shares]:
        """The category that answers for a scan, and each Ψ, levelled by its good cells."""
        learned_by(self).on(cells.image.device)
        category = self.shares_.category_for(cells)
        return category, self.shares_.of(cells, category, self._measure)

    def state(self) -> dict[str, Tensor]:
        """The network, its widths and its loss (see trained.py), and `shares.…`."""
        return {**learned_by(self).state(), **under("shares", self.shares_.state())}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        self.learned_ = Learned.from_state(state, self._build)
        self.shares_ = shares_of(self).load_state(part_of(state, "shares"))
        return self


def needs_of(owner: Any, **more: Any) -> Needs:
    """What all crossmodal detectors need, by their settings, and `more`."""
    return Needs(
        layers=owner.layers,
        modalities=(RGB, POINTS),
        points_stride=STRIDES[owner.resolution],
        image_size=owner.image_size,
        square=True,
        framing=owner.framing,
        squared=True,
        slow=True,
        pooling=owner.pooling,
        **more,
    )


def shares_of(owner: Any) -> CellShares:
    """Shares that have not learned, by the settings of a crossmodal detector."""
    return CellShares(owner.holes, owner.prototypes, owner.seed)


def check_learning(owner: Any) -> None:
    """Refuse settings that cannot be, of those that all crossmodal detectors have."""
    rate = owner.learning_rate
    check(
        owner,
        *whole(owner, 1, "width", "steps", "cells", "sample", "prototypes", "image_size"),
        *whole(owner, 0, "seed"),
        *flags(owner, "standardise", "whiten", "scaled", "smooth"),
        ("learning_rate", "above 0", is_number(rate) and rate > 0),
        among(owner, "resolution", *STRIDES),
        among(owner, "holes", *HOLES),
    )
