"""Prototypes of normal patches in one modality: the anomaly score of scans that lack the other one.

A few hundred patches of each category, chosen by greedy k-centre (as PatchCore's coreset: Roth et al., CVPR 2022;
numeric/coreset.py), so that every normal patch is near one; a patch is as anomalous as it is far from the nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor

from blemish.detectors.categories import state_key
from blemish.numeric.coreset import k_centre
from blemish.numeric.neighbours import Neighbours
from blemish.numeric.standardise import RARE, floored_std

_SCALE_SAMPLE = 2048  # patches, about, whose distances the scale is fitted on: enough for a 99th percentile
_KINDS = ("rows", "mean", "std", "scale")

QUANTILE = 0.99  # of normal patches: their distances are at most 1 once normalised
_TINY = 1e-6  # distances below it count as 0
_MOST = 1e13  # so that products of normalised distances stay finite in float32
_MOST_POWER = 8.0  # where distances hardly vary

# A bank and queries (N, D) → the distance of each to the nearest row of the bank, (N,).
Nearest = Callable[[Neighbours, Tensor], Tensor]


def searched(bank: Neighbours, rows: Tensor) -> Tensor:
    """The distance `(N,)` of each of `rows` `(N, D)` to the nearest one of the bank, by its exact search."""
    return bank.search(rows)[0][:, 0]


class NormalPrototypes:
    """`count` prototypes of each category in one modality's feature space."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.count, self.seed = count, seed

    def fit(self, patches: Mapping[str, Tensor], foreground: Mapping[str, Tensor]) -> Self:
        """Choose prototypes among normal `patches` `(N, D)` of each category, of the background too.

        Distances are scaled by those of `foreground` `(n, D)`: a plain background lies at hardly any distance from
        itself, and would make everything else look anomalous.
        """
        self._clear()
        for name, rows in patches.items():
            self.mean_[name] = rows.mean(0)  # (D,)
            self.std_[name] = floored_std(rows.std(0, correction=0))  # (D,)
            standard = self._standardised(name, rows)
            self.rows_[name] = standard[k_centre(standard, self.count, seed=self.seed).to(rows.device)].contiguous()
            sample = foreground[name][:: max(1, len(foreground[name]) // _SCALE_SAMPLE)]
            self.scale_[name] = fit_scale(self.distances(name, sample))
        return self

    def _clear(self) -> None:
        self.rows_: dict[str, Tensor] = {}  # (count, D)
        self.mean_: dict[str, Tensor] = {}  # (D,)
        self.std_: dict[str, Tensor] = {}  # (D,)
        self.scale_: dict[str, Tensor] = {}  # (2,), see `fit_scale`
        self._banks: dict[str, Neighbours] = {}

    def relative_distance(self, category: str, patches: Tensor, nearest: Nearest = searched) -> Tensor:
        """Distances of `patches` `(N, D)` in units of the 99th percentile of the category's normal ones, `(N,)`."""
        return self.distances(category, patches, nearest) / self.scale_[category][0].to(patches.device)

    def normalised_distance(self, category: str, patches: Tensor, nearest: Nearest = searched) -> Tensor:
        """The same `(N,)`, distributed alike over normal patches of every category and modality: see `fit_scale`."""
        return normalised(self.distances(category, patches, nearest), self.scale_[category])

    def distances(self, category: str, patches: Tensor, nearest: Nearest = searched) -> Tensor:
        """From `patches` `(N, D)` to the nearest prototype of a category, `(N,)`, in standard deviations.

        `nearest`: how the prototypes are searched.
        """
        bank = self._banks.get(category)
        if bank is None or bank.rows.device != patches.device:
            bank = self._banks[category] = Neighbours(self.rows_[category].to(patches.device))
        return nearest(bank, self._standardised(category, patches))

    def _standardised(self, category: str, patches: Tensor) -> Tensor:
        """Standardised by channel and divided by √D, so that squared distances are means over channels."""
        mean, std = self.mean_[category].to(patches.device), self.std_[category].to(patches.device)
        standard: Tensor = ((patches - mean) / std).clamp(-RARE, RARE) / patches.shape[1] ** 0.5  # (N, D)
        return standard

    def state(self) -> dict[str, Tensor]:
        """`rows/…`, `mean/…`, `std/…` and `scale/…` of each category."""
        return {state_key(kind, name): t for kind in _KINDS for name, t in getattr(self, f"{kind}_").items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Restore what `state` returned."""
        self._clear()
        for key, tensor in state.items():
            kind, _, name = key.partition("/")
            getattr(self, f"{kind}_")[name] = tensor
        return self


def fit_scale(distances: Tensor) -> Tensor:
    """Unit and power `(2,)` of normal `distances` `(…)`, with which `normalised` distances are distributed alike.

    (d / unit)^power is at most 1 for 99 % of them, and 1/e at their median. In units of the median alone, distances
    that are small on most normal patches and large on a few dominate all others; and of two factors, the one that
    varies more decides their product. Effect: docs/methods/text-guided.md.
    """
    flat = distances.flatten().float()
    unit = flat.kthvalue(max(1, round(QUANTILE * len(flat)))).values
    unit = unit if unit > _TINY else torch.ones_like(unit)
    ratio = unit / flat.median().clamp_min(_TINY)
    return torch.stack([unit, 1 / ratio.log().clamp_min(1 / _MOST_POWER)])


def normalised(distances: Tensor, scale: Tensor) -> Tensor:
    """(d / unit)^power of `distances` `(…)` ≥ 0, `scale` as `fit_scale` returns it."""
    unit, power = scale.to(distances.device)
    scaled: Tensor = (distances / unit).pow(power).clamp_max(_MOST)
    return scaled
