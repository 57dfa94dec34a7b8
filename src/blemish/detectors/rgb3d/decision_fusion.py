"""Decision layer fusion (DLF) of M3DM: a one-class SVM weighs the distances to several memory banks.

Wang et al., "Multimodal Industrial Anomaly Detection via Hybrid Fusion", CVPR 2023 (https://arxiv.org/abs/2303.00601).
The score is w·x, the SVM's projection and not its decision with the sign turned, as in the code that the authors
published: distances of normal patches are what the SVM learns to lie far from the origin, and those of defects lie
farther in the same direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from blemish.numeric.one_class_svm import LinearOneClassSVM

_TINY = 1e-6  # of distances that hardly vary, or are 0 on all normal patches


@dataclass(frozen=True, eq=False)
class DecisionFusion:
    """Distances `(…, K)` to K banks, in `unit`s `(K,)`, weighed by `svm`; `level` `(K,)` is the mean of normal ones.

    Distances are scaled and not centred: a linear one-class SVM compares with the origin, and around their mean normal
    distances have no direction.
    """

    unit: Tensor
    level: Tensor
    svm: LinearOneClassSVM

    @classmethod
    def fit(cls, distances: Tensor, unit: Tensor) -> Self:
        """Fit to the distances `(N, K)` of normal patches or scans, in given units `(K,)`."""
        unit = unit.detach().float().cpu().clamp_min(_TINY)
        scaled = distances.detach().float().cpu() / unit  # (N, K)
        return cls(unit, scaled.mean(0), LinearOneClassSVM.fit(scaled))

    def scaled(self, distances: Tensor) -> Tensor:
        """Distances `(…, K)` in units of the standard deviation of normal ones."""
        return distances / self.unit.to(distances.device)

    def terms(self, distances: Tensor, only: int | None = None) -> Tensor:
        """What each bank adds to the score: `(…, K)` ≥ 0; their sum is the score.

        `only`: the one bank there is, whose mean over normal ones then is that of the sum.
        """
        weights = self.svm.coef
        if only is not None:
            alone = torch.zeros_like(weights)
            alone[only] = (weights * self.level).sum() / self.level[only].clamp_min(_TINY)
            weights = alone
        return self.scaled(distances) * weights.to(distances.device)

    def excess(self, distances: Tensor) -> Tensor:
        """By how much each bank's weighted distance `(…, K)` exceeds the mean of normal ones; ≥ 0."""
        above = (self.scaled(distances) - self.level.to(distances.device)).clamp_min(0)
        return above * self.svm.coef.to(distances.device)

    def state(self) -> dict[str, Tensor]:
        """`unit`, `level` and `coef` `(K,)`, `offset` `()`."""
        return {"unit": self.unit, "level": self.level, "coef": self.svm.coef, "offset": self.svm.offset}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        return cls(state["unit"], state["level"], LinearOneClassSVM(state["coef"], state["offset"]))
