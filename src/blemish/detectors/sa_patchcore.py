"""SA-PatchCore: a memory bank of patches with their context in the image; finds wrong co-occurrences, too.

Ishida, Takena, Nota, Mochizuki, Matsumura, Ohashi, "SA-PatchCore: Anomaly Detection in Dataset With Co-Occurrence
Relationships Using Self-Attention", IEEE Access 11, 2023, https://ieeexplore.ieee.org/document/10007829: PatchCore over
features that also carry context gathered by self-attention over all patches of the image. The attention here is not
trained: queries, keys and values are the patches themselves. What it gathers changes with how much of each kind of
patch there is, so a part that is right by itself, in the wrong number or beside the wrong one, lies far from every
normal patch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import normalize

from blemish.detectors.base import Needs, Progress, add_prefix, strip_prefix
from blemish.detectors.categories import by_category, categories_of, matching_category, state_key
from blemish.detectors.patchcore import PatchCore
from blemish.detectors.patches import Grid, concatenate_layers, judged_patches
from blemish.detectors.settings import (
    Configurable,
    Count,
    FractionAboveZero,
    ImageFraming,
    NotNegative,
    Odd,
    Pooling,
    Positive,
    Seed,
)
from blemish.encoders.base import LayerRole
from blemish.errors import NotFittedError, SettingsError
from blemish.numeric.moments import Moments
from blemish.numeric.standardise import channel_scale
from blemish.types import RGB, Batch, Features, PatchScores

_OWN = ("temperatures", "context")  # settings that PatchCore lacks


@dataclass(kw_only=True, eq=False, repr=False)
class SAPatchCore(Configurable):
    """A memory bank of patches concatenated with what they attend to.

    Patches x_i are the encoder's layers, averaged over `neighbourhood_size` × `neighbourhood_size` and joined on
    `grid`, channels divided by their standard deviation over the category's normal patches and by √D (`scales_`). With
    u the same at unit length, patch i gathers c_i = Σ_j softmax_j(u_i·u_j / τ) x_j for each τ of `temperatures`: a low
    one attends to patches of its own kind only, a very high one gives the image's mean. The bank holds (x_i, context ·
    c_i, …); `context` 0 is PatchCore.

    `layers`, `coreset_ratio`, `min_patches`, `max_patches`, `reservoir_size`, `rotations`, `max_copies`, `pooling`,
    `image_size`, `square`, `framing`, `seed`: as in `PatchCore`. Quarter turns leave a square image's composition as it
    is; other turns reflect what the corners lack, which may show a part twice.
    """

    temperatures: Sequence[Positive] = (0.5,)
    context: NotNegative = 8.0
    layers: LayerRole = "pair"
    neighbourhood_size: Odd = 3
    grid: Grid = "coarsest"
    coreset_ratio: FractionAboveZero = 0.25
    min_patches: Count = 4096
    max_patches: Count = 16384
    reservoir_size: Count = 65536
    rotations: Count = 4
    max_copies: Count = 128
    pooling: Pooling = "top:0.03"
    image_size: Count = 224
    square: bool = True
    framing: ImageFraming = "plain"
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.temperatures = list(self.temperatures)
        shared = {name: value for name, value in self.settings.items() if name not in _OWN}
        self._patchcore = PatchCore(**shared, reweighting_neighbours=0)

    @property
    def needs(self) -> Needs:
        return self._patchcore.needs

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Measure each category's channels, then fill its memory bank with patches in context; two epochs."""
        self.scales_ = self._fitted_scales(batches)
        self._patchcore.fit((replace(batch, features=self._in_context(batch.features)) for batch in batches), progress)
        return self

    def score(self, features: Features) -> PatchScores:
        """Distances to the nearest patch in context in the bank `(B, h, w)`."""
        if not hasattr(self, "scales_"):
            raise NotFittedError("a memory bank that has learned", "an empty one", "call fit with good pictures first")
        return self._patchcore.score(self._in_context(features))

    def graph_scores(self, features: Features, category: str) -> PatchScores:
        """As `score`, by products with the whole bank."""
        patches = self._patches(features)  # (B, h, w, D)
        scaled = patches / self.scales_[matching_category(category, self.scales_)]  # (B, h, w, D)
        rows = scaled.flatten(1, 2)  # (B, N, D)
        gathered = [self.context * one for one in contexts(rows, self.temperatures)] if self.context else []
        joined = torch.cat([rows, *gathered], dim=-1).unflatten(1, patches.shape[1:3])  # (B, h, w, …)
        return self._patchcore.graph_scores(replace(features, layers={RGB: (joined,)}), category)

    def state(self) -> dict[str, Tensor]:
        """The bank under `bank.…`, the channels' scales under `scale/…`."""
        bank = add_prefix(self._patchcore.state(), "bank")
        return bank | {state_key("scale", name): scale for name, scale in self.scales_.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        self._patchcore.load_state(strip_prefix(state, "bank"))
        self.scales_ = by_category(state, "scale")
        return self

    def _fitted_scales(self, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """The standard deviation of each channel over the normal patches, times √D, `(D,)` by category."""
        moments: dict[str, Moments] = {}
        for batch in batches:
            judged = judged_patches(self._patches(batch.features), batch.features)  # (N, D) each
            for name, rows in zip(categories_of(batch.features), judged, strict=True):
                moments.setdefault(name, Moments()).add(rows)
        if not moments:
            raise SettingsError("at least one good picture", "none", "give good pictures to learn from")
        return {name: channel_scale(one.std.float()) for name, one in moments.items()}

    def _in_context(self, features: Features) -> Features:
        """Features whose one layer holds the patches beside their contexts, `(B, h, w, D · (1 + temperatures))`."""
        names = categories_of(features)
        images = [
            self._with_context(name, patches) for name, patches in zip(names, self._patches(features), strict=True)
        ]
        return replace(features, layers={RGB: (torch.stack(images),)})

    def _with_context(self, category: str, patches: Tensor) -> Tensor:
        """One image's patches `(h, w, D)` beside their contexts, `(h, w, D · (1 + temperatures))`."""
        scaled = patches / self.scales_[matching_category(category, self.scales_)].to(patches.device)  # (h, w, D)
        rows = scaled.flatten(0, 1)  # (N, D)
        gathered = [self.context * one for one in contexts(rows, self.temperatures)] if self.context else []
        return torch.cat([rows, *gathered], dim=1).unflatten(0, patches.shape[:2])

    def _patches(self, features: Features) -> Tensor:
        """Patches `(B, h, w, D)` on one grid."""
        return concatenate_layers(features.layers[RGB], self.neighbourhood_size, self.grid)


def contexts(rows: Tensor, temperatures: Sequence[float]) -> list[Tensor]:
    """What each of an image's patches `(…, N, D)` gathers from all of them, `(…, N, D)` for each temperature."""
    unit = normalize(rows, dim=-1)
    cosines = unit @ unit.transpose(-1, -2)  # (…, N, N)
    return [(cosines / temperature).softmax(dim=-1) @ rows for temperature in temperatures]
