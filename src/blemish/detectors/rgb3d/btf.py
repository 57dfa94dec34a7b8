"""BTF, Back to the Feature: PatchCore over patches that join image features with classical 3D descriptors.

Horwitz & Hoshen, "Back to the Feature: Classical 3D Features Are (Almost) All You Need for 3D Anomaly Detection", CVPR
Workshops (VAND) 2023, https://arxiv.org/abs/2203.05550. The published 3D features are FPFH (encoders/points/fpfh.py);
for the memory bank see patchcore.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from blemish.detectors.base import Needs, Progress, add_prefix, strip_prefix
from blemish.detectors.categories import UNNAMED, state_key
from blemish.detectors.patchcore import PatchCore
from blemish.detectors.patches import concatenate_layers
from blemish.detectors.rgb3d.patches import ScanPatches, scan_patches
from blemish.detectors.rgb3d.scan_detector import SCAN_FRAMING, SCAN_POOLING
from blemish.detectors.settings import Configurable, Count, FractionAboveZero, Odd, Pooling, Positive, Seed
from blemish.encoders.base import LayerRole
from blemish.errors import NotFittedError, SettingsError
from blemish.numeric.moments import Moments
from blemish.numeric.neighbours import Neighbours
from blemish.numeric.standardise import floored_std, rare_bounds
from blemish.types import POINTS, RGB, Batch, Features, PatchScores

_NOT_PATCHCORE = ("weight", "neighbourhood_size")  # settings that are BTF's own
_RECOGNISED_BY = 256  # patches of an unlabelled scan, about, that its category is recognised by


@dataclass(kw_only=True, eq=False, repr=False)
class BTF(Configurable):
    """A memory bank of (image, √weight · points) of every patch (`btf`).

    Channels of both are clipped at 4 standard deviations of the category's normal patches (of points, of those that
    have any), divided by one and by √D, so that neither modality dominates by its width; `weight` is that of the
    points' squared distance. Patches without points hold zeros. A scan that lacks a modality is compared in the columns
    of the other one, and its distances are multiplied by how far apart the bank's patches are in all columns, over how
    far in these. Normal scans that lack a modality are not learned from. An unlabelled scan is compared with the
    category whose bank it is nearest to, relative to how far apart the bank's own patches are.

    `neighbourhood_size`: side of the square of patches that image features are averaged over. `layers`,
    `coreset_ratio`, `min_patches`, `max_patches`, `reservoir_size`, `pooling`, `image_size`, `seed`: as in `PatchCore`.
    """

    weight: Positive = 1.0
    layers: LayerRole = "pair"
    neighbourhood_size: Odd = 3
    coreset_ratio: FractionAboveZero = 0.1
    min_patches: Count = 4096
    max_patches: Count = 16384
    reservoir_size: Count = 65536
    pooling: Pooling = SCAN_POOLING
    image_size: Count = 224
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        shared = {name: value for name, value in self.settings.items() if name not in _NOT_PATCHCORE}
        self._patchcore = PatchCore(**shared, neighbourhood_size=1, reweighting_neighbours=0, rotations=1)

    @property
    def needs(self) -> Needs:
        return replace(self._patchcore.needs, modalities=(RGB, POINTS), framing=SCAN_FRAMING)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Fit the channels' scales of each category, then its memory bank; two passes over `batches`.

        Raises SettingsError where no scan has both modalities.
        """
        self._fit_scales(batches)
        self._patchcore.fit(self._joined(batches), progress)
        self._clear_unimodal()
        return self

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """Distances to the nearest patch in the bank `(B, h, w)`."""
        self._check_fitted()
        return PatchScores(torch.stack([self._distances(scan) for scan in self._scans(features, self.dims_)]))

    def _distances(self, scan: ScanPatches) -> Tensor:
        """The anomaly map of a scan `(h, w)`."""
        category = self.category_for(scan)
        rows = self._rows(scan, category).flatten(0, 1)  # (h·w, D1 + D2)
        bank, unit, columns = self._bank(scan, category)
        distance = unit * bank.search(rows[:, columns])[0].view(scan.valid.shape)  # (h, w)
        return distance if scan.has_image else distance * scan.valid

    def category_for(self, scan: ScanPatches) -> str:
        """The category whose bank is used: the scan's own or, where unlabelled, the one it is nearest to.

        Raises SettingsError for a category that was not fitted.
        """
        names = self._patchcore.banks_
        if scan.category != UNNAMED or UNNAMED in names or len(names) == 1:
            return self._patchcore.category_for(scan.category)
        where = torch.ones_like(scan.valid) if scan.has_image else scan.valid
        some = where.flatten().nonzero()[:, 0]
        some = some[:: max(1, len(some) // _RECOGNISED_BY)]  # (n,)
        if not len(some):
            return next(iter(names))

        def relative_distance(name: str) -> float:
            bank, _, columns = self._bank(scan, name)
            rows = self._rows(scan, name).flatten(0, 1)[some]  # (n, D1 + D2)
            return float(bank.search(rows[:, columns])[0].mean()) / bank.median_nn_distance()

        return min(names, key=relative_distance)

    def _bank(self, scan: ScanPatches, category: str) -> tuple[Neighbours, float, slice]:
        """What a scan is compared with: a category's bank, the unit of its distances, and the columns it has."""
        device = scan.image.device
        if scan.has_both:
            return self._patchcore.bank_for(category, device), 1.0, slice(None)
        modality = RGB if scan.has_image else POINTS
        return *self._unimodal_bank(category, modality, device), self._columns(modality)

    def _unimodal_bank(self, category: str, modality: str, device: torch.device) -> tuple[Neighbours, float]:
        """The bank's columns of one modality on a device, and what brings distances in them to those in all."""
        cached = self.unimodal_.get((category, modality))
        if cached is None or cached[0].rows.device != device:
            joint = self._patchcore.bank_for(category, device)
            rows = joint.rows[:, self._columns(modality)]
            rows = rows[rows.any(dim=1)] if modality == POINTS and rows.any() else rows  # patches with points
            bank = Neighbours(rows)
            cached = self.unimodal_[category, modality] = bank, joint.median_nn_distance() / bank.median_nn_distance()
        return cached

    def _clear_unimodal(self) -> None:
        self.unimodal_: dict[tuple[str, str], tuple[Neighbours, float]] = {}

    def _columns(self, modality: str) -> slice:
        return slice(None, self.dims_[0]) if modality == RGB else slice(self.dims_[0], None)

    def state(self) -> dict[str, Tensor]:
        """The bank under `bank.…`, for each category `scale/…` and `bound/…`, and the widths D1 and D2 as `dims`."""
        self._check_fitted()
        bank = add_prefix(self._patchcore.state(), "bank")
        scales = {state_key("scale", name): scale for name, scale in self.scales_.items()}
        bounds = {state_key("bound", name): bound for name, bound in self.bounds_.items()}
        return {**bank, **scales, **bounds, "dims": torch.tensor(self.dims_)}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Restore what `state` returned."""
        self._patchcore.load_state(strip_prefix(state, "bank"))
        kinds = {key: key.partition("/") for key in state}
        self.scales_ = {name: state[key] for key, (kind, _, name) in kinds.items() if kind == "scale"}
        self.bounds_ = {name: state[key] for key, (kind, _, name) in kinds.items() if kind == "bound"}
        self.dims_ = int(state["dims"][0]), int(state["dims"][1])
        self._clear_unimodal()
        return self

    def _scans(self, features: Features, dims: tuple[int, int] | None = None) -> Iterator[ScanPatches]:
        if RGB in features.layers:
            image = concatenate_layers(features.layers[RGB], self.neighbourhood_size)  # (B, h', w', D1)
            features = replace(features, layers={**features.layers, RGB: (image,)})
        return scan_patches(features, dims)

    def _fit_scales(self, batches: Iterable[Batch]) -> None:
        """Fit `scales_` `(D1 + D2,)`, what channels are divided by, and `bounds_` `(2, D1 + D2)` of each category."""
        moments: dict[str, tuple[Moments, Moments]] = {}  # of image and points
        self.dims_ = 0, 0
        for batch in batches:
            for scan in self._scans(batch.features):
                if not scan.has_both:
                    continue
                self.dims_ = scan.image.shape[-1], scan.points.shape[-1]
                image, points = moments.setdefault(scan.category, (Moments(), Moments()))
                image.add(scan.image.flatten(0, 1))
                points.add(scan.points[scan.valid])
        if not moments:
            raise SettingsError(
                "at least one good scan with a picture and points", "none", "give good scans to learn from"
            )
        self.scales_, self.bounds_ = {}, {}
        weights = 1.0, self.weight
        for name, both in moments.items():
            scales = [_scale(own) * (dim / w) ** 0.5 for own, dim, w in zip(both, self.dims_, weights, strict=True)]
            self.scales_[name] = torch.cat(scales)
            self.bounds_[name] = torch.cat([rare_bounds(own.mean, own.std).float() for own in both], dim=1)

    def _rows(self, scan: ScanPatches, category: str) -> Tensor:
        """Joint features `(h, w, D1 + D2)`, scaled; zeros where there are no points."""
        rows = torch.cat([scan.image, scan.points], dim=-1)
        low, high = self.bounds_[category].to(rows.device)  # (D1 + D2,) each
        rows = rows.clamp(low, high) / self.scales_[category].to(rows.device)
        rows[..., self._columns(POINTS)] *= scan.valid[..., None]
        return rows

    def _joined(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches with the joint features of scans with both modalities as those of an image, for PatchCore."""
        for batch in batches:
            scans = [scan for scan in self._scans(batch.features) if scan.has_both]
            if scans:
                rows = torch.stack([self._rows(scan, scan.category) for scan in scans])
                yield Batch(Features({RGB: (rows,)}, categories=tuple(scan.category for scan in scans)))

    def _check_fitted(self) -> None:
        if not hasattr(self, "scales_"):
            raise NotFittedError("a memory bank that has learned", "an empty one", "call fit with good scans first")


def _scale(moments: Moments) -> Tensor:
    """The standard deviation `(D,)` float32, never 0."""
    return floored_std(moments.std).float()
