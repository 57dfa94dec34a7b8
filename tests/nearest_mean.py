"""A detector small enough to read, for tests of whatever lies around detectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import torch

from blemish.detectors.base import Needs, Progress
from blemish.detectors.settings import Configurable, Count, Positive
from blemish.types import RGB, Batch, Features, PatchScores


@dataclass(kw_only=True, eq=False, repr=False)
class NearestMean(Configurable):
    """A detector in a few lines: distance of every patch to the mean patch of the normal images."""

    power: Positive = 1.0
    image_size: Count = 64
    images: Count = 1

    @property
    def needs(self) -> Needs:
        return Needs(image_size=self.image_size, pooling="top:4", min_images=self.images)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        patches = torch.cat([batch.features[RGB].flatten(0, 2) for batch in batches])  # (N, D)
        self.mean_ = patches.mean(0)
        self.spread_ = patches.std(0, correction=0) + 0.05
        return self

    def score(self, features: Features) -> PatchScores:
        away = (features[RGB] - self.mean_) / self.spread_
        return PatchScores(away.square().mean(-1) ** (self.power / 2))

    def state(self) -> dict[str, torch.Tensor]:
        return {"mean": self.mean_, "spread": self.spread_}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> Self:
        self.mean_, self.spread_ = state["mean"], state["spread"]
        return self
