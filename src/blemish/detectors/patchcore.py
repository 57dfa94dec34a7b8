"""A memory of good patches: a patch is as strange as it is far from the nearest one remembered.

One class, two published methods by settings. PatchCore (Roth et al., CVPR 2022): two mid-level layers, each averaged
over 3×3 patches, a k-centre coreset, Euclidean distance, the largest distance re-weighted by its neighbourhood
(equation 7). AnomalyDINO (Damm et al., WACV 2025): one deep layer, rotated references, cosine distance, background
removed, mean of the largest 1 %. A third, `closeup`, is blemish's own default: patches as in PatchCore, standardised,
of the part alone in one pose (see crop_to_part.py), and several shares of the largest distances joined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from blemish.detectors.base import Needs, Progress, settings_of
from blemish.detectors.categories import answering, key_of, names_of
from blemish.detectors.patches import Grid, joined
from blemish.encoders.base import LayerRole
from blemish.errors import NotFittedError, SettingsError
from blemish.numeric.background import foreground, learn_background
from blemish.numeric.coreset import k_centre
from blemish.numeric.neighbours import Metric, Neighbours
from blemish.numeric.sampling import EvenSample
from blemish.types import RGB, Batch, Features, PatchScores
from blemish.utils.validation import among, check, flags, is_number, is_whole, whole


class PatchCore:
    """Remembers patches of good images, one bank a category, and measures how far others are from them.

    The defaults are PatchCore; the registry's `anomalydino` holds AnomalyDINO's.

    `layers`: what to ask the encoder for. `aggregation`: side of the square of patches each layer is averaged over
    (odd, 1: none) before the layers are joined on the finest grid. `unit_layers`: each layer's patches are made unit
    length before they are joined, so that none outweighs the others.
    `standardise`: channels are divided by their standard deviation over the category's good patches (and by √D, so that
    a distance reads as so many standard deviations), so that none outweighs the others. `grid`: join the layers on the
    "finest" one's grid, or average the finer ones down to the "coarsest".
    `metric`: "l2" or "cosine". `coreset`: share of the patches remembered, in (0, 1]; banks of `least_patches` and
    fewer are kept whole, none is larger than `most_patches` (inspection time grows with the bank: about 4 ms a
    thousand patches of width 384, per 1024 patches inspected, on one core with AVX512-BF16).
    `sample`: patches of a category that are looked at, drawn evenly from all; bounds memory while learning.
    `reweight`: neighbours in the re-weighted image score (0: by `pooling`). `background`: patches that look
    like the background of the good images score 0, where the good images agree on what that is.
    `rotations` (and `flips`): copies of every good image; `most_copies`: with more images fewer copies of each are
    taken. `pooling`, `image_size`, `square`, `framing`: see `Needs`. `seed`: of sample and coreset.
    """

    def __init__(
        self,
        *,
        layers: LayerRole = "pair",
        aggregation: int = 3,
        unit_layers: bool = False,
        standardise: bool = False,
        grid: Grid = "finest",
        metric: Metric = "l2",
        coreset: float = 0.1,
        least_patches: int = 2048,
        most_patches: int = 16384,
        sample: int = 131072,
        reweight: int = 9,
        background: bool = False,
        rotations: int = 1,
        flips: bool = False,
        most_copies: int = 128,
        pooling: str = "max",
        image_size: int = 224,
        square: bool = True,
        framing: str = "plain",
        seed: int = 0,
    ) -> None:
        self.layers, self.aggregation, self.unit_layers, self.metric = layers, aggregation, unit_layers, metric
        self.standardise, self.grid = standardise, grid
        self.coreset, self.least_patches, self.most_patches, self.sample = coreset, least_patches, most_patches, sample
        self.reweight, self.background = reweight, background
        self.rotations, self.flips, self.most_copies = rotations, flips, most_copies
        self.pooling, self.image_size, self.square = pooling, image_size, square
        self.framing, self.seed = framing, seed
        self._check()

    @property
    def needs(self) -> Needs:
        return Needs(
            layers=self.layers,
            rotations=self.rotations,
            flips=self.flips,
            most_copies=self.most_copies,
            squared=self.metric == "cosine",  # 1 − cosine is half the squared distance of unit vectors
            image_size=self.image_size,
            square=self.square,
            framing=self.framing,
            pooling=self.pooling,
        )

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Remember the good patches of each category. Walks `batches` once."""
        samples: dict[str, EvenSample] = {}
        shown: dict[str, list[Tensor]] = {}
        for batch in batches:
            for name, patches in zip(names_of(batch.features), self._patches(batch.features), strict=True):
                samples.setdefault(name, EvenSample(self.sample, self.seed)).add(patches.flatten(0, 1))
                if self.background and len(images := shown.setdefault(name, [])) < _SHOWN:
                    images.append(patches)
        if not samples:
            raise SettingsError("at least one good picture", "none", "give good pictures to learn from")
        self.banks_: dict[str, Neighbours] = {}
        self.patches_: dict[str, Tensor] = {}
        found = {name: learn_background(images) for name, images in shown.items()}
        self.backgrounds_ = {name: axis for name, axis in found.items() if axis is not None}
        self.scales_: dict[str, Tensor] = {}
        for done, (name, sample) in enumerate(samples.items(), start=1):
            rows = sample.rows()
            if self.standardise:
                self.scales_[name] = (rows.std(0, correction=0) + _LEAST_SPREAD) * rows.shape[1] ** 0.5  # (D,)
            self._remember(name, self._thinned(self._scaled(name, rows)))
            if progress:
                progress(done, len(samples), {"patches": float(len(self.patches_[name]))})
        return self

    def score(self, features: Features) -> PatchScores:
        """Distances to the nearest remembered patch `(B, h, w)`; also image scores when `reweight` is set."""
        scores, images = [], []
        for name, patches in zip(names_of(features), self._patches(features), strict=True):  # (h, w, D)
            category = self.category_for(name)
            bank = self._bank(category, patches.device)
            rows = self._scaled(category, patches.flatten(0, 1))  # (h·w, D)
            distance, index = bank.search(rows)  # (h·w, 1) each
            if self.reweight:
                images.append(self._reweighted(bank, rows, distance[:, 0], index[:, 0]))
            grid = distance.view(patches.shape[:2])
            background = self.backgrounds_.get(category)
            scores.append(grid if background is None else grid * foreground(background, patches))
        return PatchScores(torch.stack(scores), torch.stack(images) if images else None)

    def state(self) -> dict[str, Tensor]:
        self._check_fitted()
        state = {key_of("bank", name): rows for name, rows in self.patches_.items()}
        state |= {key_of("background", name): axis for name, axis in self.backgrounds_.items()}
        return state | {key_of("scale", name): scale for name, scale in self.scales_.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        self.banks_, self.patches_, self.backgrounds_, self.scales_ = {}, {}, {}, {}
        for key, tensor in state.items():
            kind, _, name = key.partition("/")
            if kind == "bank":
                self._remember(name, tensor)
            elif kind == "background":
                self.backgrounds_[name] = tensor
            elif kind == "scale":
                self.scales_[name] = tensor
        self._check_fitted()
        return self

    def _patches(self, features: Features) -> Tensor:
        """Patches `(B, h, w, D)` on one grid."""
        return joined(features.layers[RGB], self.aggregation, self.grid, self.unit_layers)

    def _scaled(self, category: str, rows: Tensor) -> Tensor:
        scale = self.scales_.get(category)
        return rows if scale is None else rows / scale.to(rows.device)

    def _thinned(self, rows: Tensor) -> Tensor:
        """The coreset of `rows` `(N, D)`."""
        share = max(round(self.coreset * len(rows)), min(self.least_patches, len(rows)))
        count = min(share, self.most_patches)
        if count >= len(rows):
            return rows
        measured = normalize(rows, dim=1) if self.metric == "cosine" else rows
        return rows[k_centre(measured, count, seed=self.seed).to(rows.device)]

    def _remember(self, category: str, rows: Tensor) -> None:
        self.patches_[category] = rows.detach().float().contiguous()
        self.banks_[category] = Neighbours(self.patches_[category], self.metric)

    def _bank(self, category: str, device: torch.device) -> Neighbours:
        """The bank of a category, moved to where the features are."""
        if self.banks_[category].rows.device != device:
            self.banks_[category] = Neighbours(self.patches_[category].to(device), self.metric)
        return self.banks_[category]

    def category_for(self, name: str) -> str:
        """Which bank answers for an image of category `name`."""
        self._check_fitted()
        return answering(name, self.banks_)

    def _reweighted(self, bank: Neighbours, patches: Tensor, distance: Tensor, index: Tensor) -> Tensor:
        """PatchCore's image score, equation 7: the largest distance s*, less where its bank patch m* is a lonely one.

        s = (1 − exp ‖q − m*‖ / Σ_{m ∈ N(m*)} exp ‖q − m‖) · s*, N(m*) the `reweight` bank patches nearest to m*, itself
        among them. A bank of one patch has no neighbourhood: s = s*.
        """
        strangest = int(distance.argmax())
        count = min(self.reweight, len(bank))
        if count < 2:
            return distance[strangest]
        nearest = index[strangest]
        neighbours = bank.search(bank.rows[nearest][None], count)[1]  # (1, count)
        around = bank.measure(patches[strangest][None], neighbours)[0]  # (count,)
        return -torch.expm1(distance[strangest] - around.logsumexp(0)) * distance[strangest]

    def _check_fitted(self) -> None:
        if not getattr(self, "banks_", None):
            raise NotFittedError("a memory bank that has learned", "an empty one", "call fit with good pictures first")

    def _check(self) -> None:
        wishes = (
            among(self, "layers", *get_args(LayerRole)),
            ("aggregation", "an odd number ≥ 1", is_whole(self.aggregation, 1) and self.aggregation % 2 == 1),
            among(self, "grid", "finest", "coarsest"),
            among(self, "framing", "plain", "part"),
            among(self, "metric", "l2", "cosine"),
            ("coreset", "a share in (0, 1]", is_number(self.coreset) and 0 < self.coreset <= 1),
            *whole(self, 1, "least_patches", "most_patches", "sample", "rotations", "most_copies", "image_size"),
            *whole(self, 0, "reweight", "seed"),
            *flags(self, "unit_layers", "standardise", "background", "flips", "square"),
        )
        check(self, *wishes)


_SHOWN = 32  # images of a category that tell part from background
_LEAST_SPREAD = 1e-3  # added to a channel's standard deviation, which may be 0
