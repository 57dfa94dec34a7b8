"""Reconstruction error: the distance between reconstructed and target features, of every detector that reconstructs."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import cosine_similarity

from blemish.errors import SettingsError

Distance = Literal["squared", "cosine"]


def residual(reconstruction: Tensor, target: Tensor, distance: Distance = "squared") -> Tensor:
    """Two `(…, D)` → `(…)`, at least 0: "squared" is the mean over channels of (r − t)², "cosine" 1 − cos."""
    if distance == "squared":
        return (reconstruction - target).square().mean(dim=-1)
    if distance == "cosine":
        return (1 - cosine_similarity(reconstruction, target, dim=-1)).clamp_min(0)
    raise SettingsError('a distance "squared" or "cosine"', repr(distance), "choose one of them")
