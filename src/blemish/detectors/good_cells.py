"""What good cells look like to one modality alone: for pictures without points, and points without a picture.

A few hundred cells of each category, from which no other is far (see numeric/coreset.py); a cell is as strange as it is
far from the nearest, in typical distances of good cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from blemish.detectors.categories import key_of
from blemish.numeric.coreset import k_centre
from blemish.numeric.neighbours import Neighbours

_LEAST_SPREAD = 1e-3  # added to a channel's standard deviation, which may be 0
_MEASURED = 2048  # cells on which the typical distance is measured, about
_KINDS = ("rows", "scale", "typical")

USUAL = 0.99  # share of good cells


class GoodCells:
    """`count` prototypes of each category in one modality's own space."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.count, self.seed = count, seed

    def learn(self, cells: Mapping[str, Tensor], part: Mapping[str, Tensor]) -> Self:
        """From good cells `(N, D)` of each category, the ground's too; what is typical is measured on `part` alone.

        A plain ground has hardly any distance to itself, and would make everything else look strange.
        """
        self.rows_: dict[str, Tensor] = {}
        self.scale_: dict[str, Tensor] = {}  # (D,), what channels are divided by
        self.typical_: dict[str, Tensor] = {}  # scalar, how far good cells lie apart, by `usual`
        self.banks_: dict[str, Neighbours] = {}
        for name, rows in cells.items():
            spread = rows.std(0, correction=0)
            self.scale_[name] = (spread + _LEAST_SPREAD * spread.mean() + 1e-12) * rows.shape[1] ** 0.5
            scaled = rows / self.scale_[name]
            self.rows_[name] = scaled[k_centre(scaled, self.count, seed=self.seed).to(rows.device)].contiguous()
            self.typical_[name] = torch.ones((), device=rows.device)
            own = part[name][:: max(1, len(part[name]) // _MEASURED)]
            typical = usual(self.strangeness(name, own))
            self.typical_[name] = typical if typical > 0 else torch.ones_like(typical)
        return self

    def strangeness(self, category: str, rows: Tensor) -> Tensor:
        """How far cells `(N, D)` lie from good ones of a category, `(N,)`; 1 is as far as hardly any good cell lies."""
        bank = self.banks_.get(category)
        if bank is None or bank.rows.device != rows.device:
            bank = self.banks_[category] = Neighbours(self.rows_[category].to(rows.device))
        distance = bank.search(rows / self.scale_[category].to(rows.device))[0][:, 0]
        return distance / self.typical_[category].to(rows.device)

    def state(self) -> dict[str, Tensor]:
        return {key_of(kind, name): t for kind in _KINDS for name, t in getattr(self, f"{kind}_").items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        self.rows_, self.scale_, self.typical_, self.banks_ = {}, {}, {}, {}
        for key, tensor in state.items():
            kind, _, name = key.partition("/")
            getattr(self, f"{kind}_")[name] = tensor
        return self


def usual(values: Tensor) -> Tensor:
    """What all but 1 in 100 good cells stay under: distances in this unit are alike where it matters, at their tail.

    In units of the median, distances that are small on most good cells and large on a few drown all others.
    """
    kept = values.flatten().float()
    return kept.kthvalue(max(1, round(USUAL * len(kept)))).values
