"""PatchCore: a coreset of normal patch features is the memory bank, a patch scores the distance to its nearest in it.

Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler, "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022,
https://arxiv.org/abs/2106.08265. Two mid-level layers, each averaged over 3×3 patches, a greedy k-centre coreset,
Euclidean distance, the largest distance re-weighted by its neighbourhood (equation 7).

The detectors anomalydino, closeup and closeup-vit are this one with other defaults, in files of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import normalize

from blemish.detectors.base import Needs, Progress
from blemish.detectors.categories import by_category, categories_of, matching_category, state_key
from blemish.detectors.collected_patches import BankRows, CollectedPatches, Coreset, PatchesByImage, PooledPatches
from blemish.detectors.patches import Grid, concatenate_layers, judged_patches, numbered
from blemish.detectors.settings import (
    Configurable,
    Count,
    CountOrZero,
    FractionAboveZero,
    ImageFraming,
    Odd,
    Pooling,
    Seed,
)
from blemish.encoders.base import LayerRole
from blemish.errors import NotFittedError, SettingsError
from blemish.numeric.background import fit_background, foreground
from blemish.numeric.dense_neighbours import nearest_distances, true_distances
from blemish.numeric.neighbours import Metric, Neighbours
from blemish.numeric.standardise import channel_scale
from blemish.types import RGB, Batch, Features, PatchScores

# Images of a category, as they are, that the background is learned from; bounds memory and time. The corners of turned
# copies are filled by reflection and say nothing about it.
BACKGROUND_IMAGES = 32


@dataclass(kw_only=True, eq=False, repr=False)
class PatchCore(Configurable):
    """One memory bank of normal patch features a category.

    The defaults are close to the paper's; docs/methods/patchcore.md lists where they depart from it. The limits
    `min_patches`, `max_patches` and `reservoir_size` are not the paper's: they were chosen by hand for memory and time.

    `layers`: what to ask the encoder for. `neighbourhood_size`: side of the square of patches each layer is averaged
    over (odd, 1: none) before the layers are joined. `unit_layers`: each layer's patches are made unit length before
    they are joined, so that none outweighs the others.
    `standardise`: channels are divided by their standard deviation over the category's normal patches, and by √D, so
    that a distance reads as so many standard deviations. `grid`: join the layers on the "finest" one's grid, or average
    the finer ones down to the "coarsest".
    `metric`: "l2" or "cosine". `coreset_ratio`: fraction of the patches kept in the bank; banks of `min_patches` and
    fewer are kept whole, none is larger than `max_patches` (inspection time grows with the bank: about 4 ms a
    thousand patches of width 384, per 1024 patches inspected, on one core with AVX512-BF16).
    `reservoir_size`: patches of a category that the coreset is drawn from, a uniform sample of all (reservoir
    sampling); bounds memory in `fit`.
    `reweighting_neighbours`: b of equation 7, the neighbours in the re-weighted image score (0: the score is
    `pooling`'s).
    `background`: patches that look like the background of the normal images score 0, where these agree on what that is.
    `keep_originals`: the patches of every normal image as it is stay in the bank, as long as they fill at most half of
    it, and only those of turned copies are thinned: few images are then known whole.
    `rotations` (and `flips`): copies of every normal image; `max_copies`: with more images fewer copies of each are
    taken. `pooling`, `image_size`, `square`, `framing`: see `Needs`. `seed`: of sample and coreset.
    """

    layers: LayerRole = "pair"
    neighbourhood_size: Odd = 3
    unit_layers: bool = False
    standardise: bool = False
    grid: Grid = "finest"
    metric: Metric = "l2"
    coreset_ratio: FractionAboveZero = 0.1
    min_patches: Count = 2048
    max_patches: Count = 16384
    reservoir_size: Count = 131072
    reweighting_neighbours: CountOrZero = 9
    background: bool = False
    keep_originals: bool = False
    rotations: Count = 8
    flips: bool = False
    max_copies: Count = 128
    pooling: Pooling = "max"
    image_size: Count = 224
    square: bool = True
    framing: ImageFraming = "plain"
    seed: Seed = 0

    @property
    def needs(self) -> Needs:
        return Needs(
            layers=self.layers,
            rotations=self.rotations,
            flips=self.flips,
            max_copies=self.max_copies,
            score_exponent=2 if self.metric == "cosine" else 1,  # 1 − cosine is half a squared distance
            image_size=self.image_size,
            square=self.square,
            framing=self.framing,
            pooling=self.pooling,
        )

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Fill a memory bank for each category; one epoch over `batches`."""
        collected: dict[str, CollectedPatches] = {}
        images: dict[str, list[Tensor]] = {}  # patches (h, w, D) that the background is learned from
        for batch, shown, originals in numbered(batches):
            every = self.patches(batch.features)  # (B, h, w, D)
            judged = judged_patches(every, batch.features)  # (N, D) each
            for name, patches, rows, image, is_original in zip(
                categories_of(batch.features), every, judged, shown, originals, strict=True
            ):  # (h, w, D), (N, D)
                if name not in collected:
                    collected[name] = (PatchesByImage if self.keep_originals else PooledPatches)(
                        self.reservoir_size, self.seed
                    )
                collected[name].add(rows, image, is_original)
                if self.background and is_original and len(own := images.setdefault(name, [])) < BACKGROUND_IMAGES:
                    own.append(patches)
        if not collected:
            raise SettingsError("at least one good picture", "none", "give good pictures to learn from")
        self.banks_: dict[str, Neighbours] = {}
        self.patches_: dict[str, Tensor] = {}
        self.scales_: dict[str, Tensor] = {}
        self.rows_of_: dict[str, BankRows] = {}  # of the banks: which normal image each row is from
        backgrounds = {name: fit_background(own) for name, own in images.items()}
        self.backgrounds_ = {name: axis for name, axis in backgrounds.items() if axis is not None}
        coreset = Coreset(self.coreset_ratio, self.min_patches, self.max_patches, self.metric == "cosine", self.seed)
        for done, (name, patches_of) in enumerate(collected.items(), start=1):
            if self.standardise:
                self.scales_[name] = channel_scale(patches_of.rows().std(0, correction=0))  # (D,)
            self.rows_of_[name] = patches_of.bank(coreset, partial(self._scaled, name))
            self._store(name, self.rows_of_[name].rows)
            if progress:
                progress(done, len(collected), {"patches": float(len(self.patches_[name]))})
        return self

    def score(self, features: Features) -> PatchScores:
        """Distances to the nearest patch in the bank `(B, h, w)`; also image scores where these are re-weighted."""
        return self._score(features, self.bank_for)

    def graph_scores(self, features: Features, category: str) -> PatchScores:
        """As `score`, by products with the whole bank (see numeric/dense_neighbours.py)."""
        category = self.category_for(category)
        bank = self.banks_[category]
        patches = self.patches(features)  # (B, h, w, D)
        rows = self._scaled(category, patches.flatten(0, 2))  # (B·h·w, D)
        distance, index = nearest_distances(bank, rows)  # (B·h·w, 1) each
        grid = distance.view(patches.shape[:3])  # (B, h, w)
        background = self.backgrounds_.get(category)
        if background is not None:
            grid = grid * foreground(background, patches)
        images = None
        if self.reweighting_neighbours:
            largest, at = grid.flatten(1).max(1)  # (B,) each
            count = min(self.reweighting_neighbours, len(bank))
            if count > 1:
                query = rows.unflatten(0, (patches.shape[0], -1))[torch.arange(patches.shape[0]), at]  # (B, D)
                query = normalize(query, dim=1) if bank.metric == "cosine" else query  # (B, D)
                nearest = index.view(patches.shape[0], -1).gather(1, at[:, None])[:, 0]  # (B,)
                around = true_distances(bank, query, bank.neighbourhoods(count)[nearest])  # (B, count)
                images = -torch.expm1(largest - around.logsumexp(1)) * largest  # (B,)
            else:
                images = largest
        return PatchScores(grid, images)

    def can_leave_out(self, category: str) -> bool:
        """Whether banks without some of the category's images are known: `keep_originals`, and few images."""
        found = self.rows_of_.get(self.category_for(category))
        return found is not None and found.is_separable

    def score_without(self, features: Features, left_out: Collection[int]) -> PatchScores:
        """As `score`, by banks without what the images of these numbers (`Batch.images`) gave.

        Where `can_leave_out` as if these images had not been given, but for the channels' scale (`standardise`) and how
        many patches were kept of each image's copies; elsewhere a little high, as what is left was chosen beside them.
        """
        gone = torch.tensor(sorted(left_out))
        return self._score_by_rows(
            features, lambda rows: None if rows.images is None else ~torch.isin(rows.images, gone)
        )

    def score_by_turned(self, features: Features) -> PatchScores:
        """As `score`, by what the turned copies of the normal images gave alone. There must be some."""
        return self._score_by_rows(features, lambda rows: rows.is_turned)

    def _score_by_rows(self, features: Features, stays: Callable[[BankRows], Tensor | None]) -> PatchScores:
        """As `score`, by the rows of each bank for which `stays` gives True, `(M,)`; None where that is not known."""

        def bank_of(category: str, device: torch.device) -> Neighbours:
            kept = stays(self.rows_of_[category])  # (M,)
            if kept is None:
                raise NotFittedError("banks that know their images", "others", "set keep_originals, and fit again")
            return Neighbours(self.patches_[category][kept].to(device), self.metric)

        return self._score(features, cache(bank_of))

    def _score(self, features: Features, bank_of: Callable[[str, torch.device], Neighbours]) -> PatchScores:
        scores, images = [], []
        every = self.patches(features)  # (B, h, w, D)
        ignored = features.ignored_on(every.shape[1:3])  # (B, h, w)
        for i, (name, patches) in enumerate(zip(categories_of(features), every, strict=True)):  # (h, w, D)
            category = self.category_for(name)
            bank = bank_of(category, patches.device)
            rows = self._scaled(category, patches.flatten(0, 1))  # (h·w, D)
            distance, index = bank.search(rows)  # (h·w, 1) each
            background = self.backgrounds_.get(category)
            if background is not None:
                distance = distance * foreground(background, patches[None])[0].view(-1, 1)
            if self.reweighting_neighbours:
                judged = distance[:, 0]  # (h·w,)
                if ignored is not None:
                    judged = judged.masked_fill(ignored[i].flatten().to(judged.device), 0)
                images.append(reweighted_score(bank, rows, judged, index[:, 0], self.reweighting_neighbours))
            scores.append(distance.view(patches.shape[:2]))  # (h, w)
        return PatchScores(torch.stack(scores), torch.stack(images) if images else None)

    def state(self) -> dict[str, Tensor]:
        """For each category `bank/…` `(M, D)`, and where there is one `background/…` `(D + 1,)`, `scale/…` `(D,)`."""
        self._check_fitted()
        state = {state_key("bank", name): rows for name, rows in self.patches_.items()}
        state |= {state_key("background", name): axis for name, axis in self.backgrounds_.items()}
        return state | {state_key("scale", name): scale for name, scale in self.scales_.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        self.banks_, self.patches_, self.rows_of_ = {}, {}, {}
        self.backgrounds_, self.scales_ = by_category(state, "background"), by_category(state, "scale")
        for name, rows in by_category(state, "bank").items():
            self._store(name, rows)
        self._check_fitted()
        return self

    def category_for(self, name: str) -> str:
        """The category whose bank an image of category `name` is compared with."""
        self._check_fitted()
        return matching_category(name, self.banks_)

    def patches(self, features: Features) -> Tensor:
        """What a bank holds of images before channels are standardised: patches `(B, h, w, D)` on one grid."""
        return concatenate_layers(features.layers[RGB], self.neighbourhood_size, self.grid, self.unit_layers)

    def _scaled(self, category: str, rows: Tensor) -> Tensor:
        """`rows` `(N, D)`, standardised where the category has a scale."""
        scale = self.scales_.get(category)
        return rows if scale is None else rows / scale.to(rows.device)

    def _store(self, category: str, rows: Tensor) -> None:
        self.patches_[category] = rows.detach().float().contiguous()  # (M, D)
        self.banks_[category] = Neighbours(self.patches_[category], self.metric)

    def bank_for(self, category: str, device: torch.device) -> Neighbours:
        """The bank of a category, moved to where the features are."""
        if self.banks_[category].rows.device != device:
            self.banks_[category] = Neighbours(self.patches_[category].to(device), self.metric)
        return self.banks_[category]

    def _check_fitted(self) -> None:
        if not getattr(self, "banks_", None):
            raise NotFittedError("a memory bank that has learned", "an empty one", "call fit with good pictures first")


def reweighted_score(bank: Neighbours, patches: Tensor, distance: Tensor, index: Tensor, neighbours: int) -> Tensor:
    """PatchCore's image score, equation 7, of one image's `patches` `(N, D)`; a scalar.

    `distance` and `index` `(N,)` are those of the nearest in the bank. With q the patch of the largest distance s*, m*
    its nearest and N(m*) the `neighbours` bank patches nearest to m*, itself among them:
    s = (1 − exp ‖q − m*‖ / Σ_{m ∈ N(m*)} exp ‖q − m‖) · s*. The score is less where m* lies among many alike. A bank of
    one patch has no neighbourhood: s = s*.
    """
    largest = int(distance.argmax())
    count = min(neighbours, len(bank))
    if count < 2:
        return distance[largest]
    nearest = index[largest]
    around = bank.search(bank.rows[nearest][None], count)[1]  # (1, count)
    distances = bank.distances_to(patches[largest][None], around)[0]  # (count,)
    return -torch.expm1(distance[largest] - distances.logsumexp(0)) * distance[largest]
