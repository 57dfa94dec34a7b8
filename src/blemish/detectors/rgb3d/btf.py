"""BTF: patches of the image and of the measured surface side by side in one memory bank.

Horwitz & Hoshen, "Back to the Feature: Classical 3D Features Are (Almost) All You Need for 3D Anomaly Detection", CVPR
workshops 2023: PatchCore (see patchcore.py) over colour features joined with classical descriptors of the surface.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from blemish.detectors.base import Needs, Progress, part_of, settings_of, under
from blemish.detectors.categories import key_of
from blemish.detectors.patchcore import PatchCore
from blemish.detectors.patches import joined
from blemish.detectors.rgb3d.patches import Cells, cells_of
from blemish.encoders.base import LayerRole
from blemish.errors import NotFittedError, SettingsError
from blemish.numeric.neighbours import Neighbours
from blemish.numeric.standardise import RARE
from blemish.types import POINTS, RGB, Batch, Features, PatchScores
from blemish.utils.validation import check, is_number, is_whole

_LEAST_SPREAD = 1e-3  # added to a channel's standard deviation, which may be 0
_OWN = ("weight", "aggregation", "framing")  # settings that are not the bank's


class BTF:
    """A `PatchCore` over (image, √weight · points) of every cell (`btf`).

    Channels of both are held within 4 standard deviations of the category's good cells (the points' of measured ones)
    and divided by one and by √D, so that neither outweighs the other by its width; `weight` is how much the points'
    squared distance counts. Cells without points hold zeros. A scan without points, or without an image, is compared
    in the other's columns alone, and its distances are brought to the whole bank's by the typical distance between good
    cells in both.

    `aggregation`: side of the square of patches that the image's layers are averaged over. `layers`, `coreset`,
    `least_patches`, `most_patches`, `sample`, `pooling`, `image_size`, `framing`, `seed`: as in `PatchCore`.
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        layers: LayerRole = "pair",
        aggregation: int = 3,
        coreset: float = 0.1,
        least_patches: int = 4096,
        most_patches: int = 16384,
        sample: int = 65536,
        pooling: str = "top:0.001,0.003,0.01",
        image_size: int = 224,
        framing: str = "scan",
        seed: int = 0,
    ) -> None:
        self.weight, self.layers, self.aggregation, self.coreset = weight, layers, aggregation, coreset
        self.least_patches, self.most_patches, self.sample = least_patches, most_patches, sample
        self.pooling, self.image_size, self.framing, self.seed = pooling, image_size, framing, seed
        check(
            self,
            ("weight", "above 0", is_number(weight) and weight > 0),
            ("aggregation", "an odd number ≥ 1", is_whole(aggregation, 1) and aggregation % 2 == 1),
        )
        shared = {name: value for name, value in self.settings.items() if name not in _OWN}
        self._bank = PatchCore(**shared, aggregation=1, reweight=0)

    @property
    def needs(self) -> Needs:
        return replace(self._bank.needs, modalities=(RGB, POINTS), framing=self.framing)

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Measure the channels of each category, then remember its good cells. Walks `batches` twice."""
        self.scales_, self.bounds_, self.dims_ = self._measured(batches)
        self._bank.fit(self._joined(batches), progress)
        self.parts_: dict[tuple[str, str], tuple[Neighbours, float]] = {}
        return self

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """Distances to the nearest remembered cell `(B, h, w)`."""
        if not hasattr(self, "scales_"):
            raise NotFittedError("a memory bank that has learned", "an empty one", "call fit with good scans first")
        return PatchScores(torch.stack([self._distances(cells) for cells in self._cells(features, self.dims_)]))

    def _distances(self, cells: Cells) -> Tensor:
        category = self._bank.category_for(cells.category)
        rows = self._rows(cells, category).flatten(0, 1)  # (h·w, D1 + D2)
        if cells.complete:
            distance = self._bank.banks_[category].search(rows)[0]
            return distance.view(cells.measured.shape)
        modality = RGB if cells.seen else POINTS
        bank, unit = self._part(category, modality)
        distance = unit * bank.search(rows[:, self._columns(modality)])[0].view(cells.measured.shape)
        return distance if cells.seen else distance * cells.measured

    def _part(self, category: str, modality: str) -> tuple[Neighbours, float]:
        """The bank's columns of one modality, and what brings distances in them to those in all."""
        if (category, modality) not in self.parts_:
            rows = self._bank.patches_[category][:, self._columns(modality)]
            rows = rows[rows.any(dim=1)] if modality == POINTS and rows.any() else rows  # measured cells
            bank = Neighbours(rows)
            self.parts_[category, modality] = bank, self._bank.banks_[category].spacing() / bank.spacing()
        return self.parts_[category, modality]

    def _columns(self, modality: str) -> slice:
        return slice(None, self.dims_[0]) if modality == RGB else slice(self.dims_[0], None)

    def state(self) -> dict[str, Tensor]:
        """The bank under `bank.…`, of the channels `scale/…` and `bound/…`, the widths of both modalities as `dims`."""
        if not hasattr(self, "scales_"):
            raise NotFittedError("a memory bank that has learned", "an empty one", "call fit with good scans first")
        bank = under("bank", self._bank.state())
        scales = {key_of("scale", name): scale for name, scale in self.scales_.items()}
        bounds = {key_of("bound", name): bound for name, bound in self.bounds_.items()}
        return {**bank, **scales, **bounds, "dims": torch.tensor(self.dims_)}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        self._bank.load_state(part_of(state, "bank"))
        kinds = {key: key.partition("/") for key in state}
        self.scales_ = {name: state[key] for key, (kind, _, name) in kinds.items() if kind == "scale"}
        self.bounds_ = {name: state[key] for key, (kind, _, name) in kinds.items() if kind == "bound"}
        self.dims_ = int(state["dims"][0]), int(state["dims"][1])
        self.parts_ = {}
        return self

    def _cells(self, features: Features, dims: tuple[int, int] | None = None) -> Iterator[Cells]:
        if RGB in features.layers:
            image = joined(features.layers[RGB], self.aggregation)
            features = replace(features, layers={**features.layers, RGB: (image,)})
        return cells_of(features, dims)

    def _measured(self, batches: Iterable[Batch]) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[int, int]]:
        """By category, what channels are divided by `(D1 + D2,)` and held between `(2, D1 + D2)`; both widths."""
        sums: dict[str, tuple[Tensor, Tensor]] = {}  # of image and of points, (3, D): how many, sum, sum of squares
        dims = 0, 0
        for batch in batches:
            for cells in self._cells(batch.features):
                dims = cells.image.shape[-1], cells.points.shape[-1]
                found = _moments(cells.image.flatten(0, 1)), _moments(cells.points[cells.measured])
                old = sums.get(cells.category)
                sums[cells.category] = (old[0] + found[0], old[1] + found[1]) if old else found
        if not sums:
            raise SettingsError("at least one good scan", "none", "give good scans to learn from")
        weights = 1.0, self.weight
        scales = {
            name: torch.cat([_spread(own) * (dim / w) ** 0.5 for own, dim, w in zip(both, dims, weights, strict=True)])
            for name, both in sums.items()
        }
        bounds = {name: torch.cat([_bounds(own) for own in both], dim=1) for name, both in sums.items()}
        return scales, bounds, dims

    def _rows(self, cells: Cells, category: str) -> Tensor:
        """`(h, w, D1 + D2)`, scaled, zeros where nothing was measured."""
        rows = torch.cat([cells.image, cells.points], dim=-1)
        low, high = self.bounds_[category].to(rows.device)
        rows = rows.clamp(low, high) / self.scales_[category].to(rows.device)
        rows[..., self._columns(POINTS)] *= cells.measured[..., None]
        return rows

    def _joined(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            rows = torch.stack([self._rows(cells, cells.category) for cells in self._cells(batch.features)])
            yield Batch(Features({RGB: (rows,)}, categories=batch.features.categories))


def _moments(rows: Tensor) -> Tensor:
    """How many rows `(N, D)`, their sum, the sum of their squares: `(3, D)` float64."""
    rows = rows.double()
    return torch.stack([torch.full_like(rows[:1].sum(0), len(rows)), rows.sum(0), rows.square().sum(0)])


def _spread(moments: Tensor) -> Tensor:
    """The standard deviation `(D,)` float32."""
    spread = _mean_and_deviation(moments)[1]
    return (spread + _LEAST_SPREAD * spread.mean() + 1e-12).float()


def _bounds(moments: Tensor) -> Tensor:
    """Between what channels are held, `(2, D)` float32: a few standard deviations about the mean."""
    mean, deviation = _mean_and_deviation(moments)
    return torch.stack([mean - RARE * deviation, mean + RARE * deviation]).float()


def _mean_and_deviation(moments: Tensor) -> tuple[Tensor, Tensor]:
    count, total, squares = moments
    count = count.clamp_min(1)
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(0).sqrt()
