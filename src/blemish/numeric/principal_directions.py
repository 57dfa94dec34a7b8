"""Patches by their main directions, on a coarse grid: few numbers that tell places of an image apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from blemish.numeric.grids import averaged_to
from blemish.types import Features

CELLS = 40  # a side of the grid on which places are compared
WIDTH = 64  # directions that are kept of features
ROWS = 4096  # patches that they are fitted on


@dataclass(frozen=True, eq=False)
class PrincipalDirections:
    """The main directions of a category's patches: `mean` (D,), `matrix` `(D, K)`, of one `modality`."""

    modality: str
    mean: Tensor
    matrix: Tensor

    @classmethod
    def fit(cls, modality: str, rows: Tensor) -> Self:
        """Of patches `(N, D)`: subspace iteration from a fixed start; each is divided by the root of its deviation."""
        rows = rows[:: max(1, len(rows) // ROWS)].float()
        mean = rows.mean(0)
        centred = rows - mean  # (N, D)
        width = min(WIDTH, *centred.shape)
        start = torch.randn(centred.shape[1], width, generator=torch.Generator().manual_seed(0))
        basis = torch.linalg.qr(start)[0]  # (D, K)
        for _ in range(3):
            basis = torch.linalg.qr(centred.T @ (centred @ basis))[0]
        std = (centred @ basis).std(0, correction=0)  # (K,)
        return cls(modality, mean, basis / (std + 1e-2 * std.max() + 1e-12).sqrt())

    def cells(self, features: Features) -> np.ndarray:
        """The patches `(gh, gw, K)` float32 of unit length of one image's features."""
        patches = pooled(features, self.modality)[0].cpu()  # (gh, gw, D)
        found = (patches - self.mean) @ self.matrix
        return np.asarray(found / found.norm(dim=-1, keepdim=True).clamp_min(1e-12))


def pooled(features: Features, modality: str) -> Tensor:
    """Patches `(B, gh, gw, D)` float32 of a modality, on a grid of at most `CELLS` a side."""
    patches = features[modality].detach().float()  # (B, h, w, D)
    return averaged_to(patches, (min(CELLS, patches.shape[1]), min(CELLS, patches.shape[2])))
