"""What good cells look like to one modality alone: for images without points, and points without an image.

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
from blemish.numeric.standardise import RARE

_LEAST_SPREAD = 1e-3  # added to a channel's standard deviation, which may be 0
_MEASURED = 2048  # cells on which the typical distance is measured, about
_KINDS = ("rows", "mean", "scale", "level")

USUAL = 0.99  # share of good cells
_LEAST = 1e-6  # a distance below it is none
_MOST = 1e13  # so that products of levelled distances stay finite
_MOST_POWER = 8.0


class GoodCells:
    """`count` prototypes of each category in one modality's own space."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.count, self.seed = count, seed

    def learn(self, cells: Mapping[str, Tensor], part: Mapping[str, Tensor]) -> Self:
        """From good cells `(N, D)` of each category, the ground's too; what is typical is measured on `part` alone.

        A plain ground has hardly any distance to itself, and would make everything else look strange.
        """
        self.rows_: dict[str, Tensor] = {}
        self.mean_: dict[str, Tensor] = {}  # (D,)
        self.scale_: dict[str, Tensor] = {}  # (D,), what channels are divided by
        self.level_: dict[str, Tensor] = {}  # (2,), of distances between good cells, see `level`
        self.banks_: dict[str, Neighbours] = {}
        for name, rows in cells.items():
            spread = rows.std(0, correction=0)
            self.mean_[name] = rows.mean(0)
            self.scale_[name] = spread + _LEAST_SPREAD * spread.mean() + 1e-12
            scaled = self._scaled(name, rows)
            self.rows_[name] = scaled[k_centre(scaled, self.count, seed=self.seed).to(rows.device)].contiguous()
            self.level_[name] = level(self.distances(name, part[name][:: max(1, len(part[name]) // _MEASURED)]))
        return self

    def strangeness(self, category: str, rows: Tensor) -> Tensor:
        """How far cells `(N, D)` lie from good ones of a category, `(N,)`; 1 is as far as hardly any good cell lies."""
        return self.distances(category, rows) / self.level_[category][0].to(rows.device)

    def levelled(self, category: str, rows: Tensor) -> Tensor:
        """The same `(N,)`, brought to how good cells scatter; see `level`."""
        return levelled(self.distances(category, rows), self.level_[category])

    def distances(self, category: str, rows: Tensor) -> Tensor:
        """From cells `(N, D)` to the nearest prototype of a category, `(N,)`, as they are."""
        bank = self.banks_.get(category)
        if bank is None or bank.rows.device != rows.device:
            bank = self.banks_[category] = Neighbours(self.rows_[category].to(rows.device))
        return bank.search(self._scaled(category, rows))[0][:, 0]

    def _scaled(self, category: str, rows: Tensor) -> Tensor:
        """Cells `(N, D)` in standard deviations, so that distances are means over channels."""
        standard = (rows - self.mean_[category].to(rows.device)) / self.scale_[category].to(rows.device)
        return standard.clamp(-RARE, RARE) / rows.shape[1] ** 0.5

    def state(self) -> dict[str, Tensor]:
        return {key_of(kind, name): t for kind in _KINDS for name, t in getattr(self, f"{kind}_").items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        self.rows_, self.mean_, self.scale_, self.level_, self.banks_ = {}, {}, {}, {}, {}
        for key, tensor in state.items():
            kind, _, name = key.partition("/")
            getattr(self, f"{kind}_")[name] = tensor
        return self


def level(distances: Tensor) -> Tensor:
    """Unit and power `(2,)` that make distances of good cells alike: (d / unit)^power is 1 where all but 1 in 100 stay
    under it, and 1/e at their median.

    In units of the median alone, distances that are small on most good cells and large on a few drown all others; and
    of two that are multiplied, the one that scatters more decides, whatever the other one says.
    """
    kept = distances.flatten().float()
    unit = kept.kthvalue(max(1, round(USUAL * len(kept)))).values
    unit = unit if unit > _LEAST else torch.ones_like(unit)
    ratio = unit / kept.median().clamp_min(_LEAST)
    return torch.stack([unit, 1 / ratio.log().clamp_min(1 / _MOST_POWER)])


def levelled(distances: Tensor, how: Tensor) -> Tensor:
    """(d / unit)^power, `how` being what `level` gave."""
    unit, power = how.to(distances.device)
    return (distances / unit).pow(power).clamp_max(_MOST)
