"""How far an answer lies from the features it should have been: the one scorer of everything that reconstructs."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import cosine_similarity

from blemish.errors import SettingsError

Distance = Literal["squared", "cosine"]


def residual(answer: Tensor, target: Tensor, distance: Distance = "squared") -> Tensor:
    """Two `(…, D)` → `(…)`, at least 0: "squared" is the mean over channels of (a − t)², "cosine" 1 − cos."""
    if distance == "squared":
        return (answer - target).square().mean(dim=-1)
    if distance == "cosine":
        return (1 - cosine_similarity(answer, target, dim=-1)).clamp_min(0)
    raise SettingsError('a distance "squared" or "cosine"', repr(distance), "choose one of them")
