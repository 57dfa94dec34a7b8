"""From distances Ψ to patch scores: normalisation over normal patches, missing modalities, attribution.

What the crossmodal detectors share around their networks. A detector measures distances of several kinds for every
patch pair; here each kind is normalised by how it is distributed over the category's normal patches (`fit_scale` in
prototypes.py), scans and holes that lack a modality are scored by prototypes of the other one, and the category of
unlabelled scans is inferred.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Self

import torch
from torch import Tensor

from blemish.detectors.base import add_prefix, strip_prefix
from blemish.detectors.categories import UNNAMED, matching_category, state_key
from blemish.detectors.rgb3d.patches import Holes, ScanPatches, chunked
from blemish.detectors.rgb3d.prototypes import NormalPrototypes, fit_scale, normalised
from blemish.detectors.rgb3d.sampling import TrainingPatches
from blemish.detectors.rgb3d.scan_batch import ScanBatch
from blemish.numeric.grids import box_mean
from blemish.types import POINTS, RGB

MODALITIES = (RGB, POINTS)
# Distances Ψ by kind. RGB is Ψ_rgb and POINTS Ψ_3d of CFM, UNIMODAL those of patches with one modality.
Distances = dict[str, Tensor]
# One scan, (h, w), or the batch of a graph, (B, h, w): what is computed of either is the same.
Scans = ScanPatches | ScanBatch
# Image (N, D1) and points (N, D2) of N patches of one category → distances, (N,) by kind.
Measure = Callable[[Tensor, Tensor, str], Distances]
UNIMODAL = {modality: f"unimodal.{modality}" for modality in MODALITIES}


class DistanceNormalisation:
    """Fitted on normal patches: a scale for each kind of distance and category, and prototypes of each modality.

    `holes`: see patches.py; `prototypes`: of each category and modality.
    """

    def __init__(self, holes: Holes, prototypes: int, seed: int) -> None:
        self.holes = holes
        self.prototypes = {modality: NormalPrototypes(prototypes, seed) for modality in MODALITIES}

    def fit(self, patches: TrainingPatches, measure: Measure) -> Self:
        """Fit scales to the distances of normal patches, and choose prototypes."""
        self.names_ = patches.names
        for index, modality in enumerate(MODALITIES):
            own = {name: rows for name, rows in patches.unimodal[modality].items() if name in patches.names}
            foreground = {name: patches.of_category(name)[index] for name in own}
            self.prototypes[modality].fit(own, foreground)
        self.scales_: dict[str, dict[str, Tensor]] = {}  # category → kind → (2,)
        for name in patches.names:
            found = over_chunks(measure, chunked(*patches.of_category(name)), name)
            self.scales_[name] = {kind: fit_scale(distance) for kind, distance in found.items()}
        return self

    def category_for(self, scan: ScanPatches) -> str:
        """The category whose statistics are used: the scan's own or, where unlabelled, the nearest one."""
        if scan.category != UNNAMED or UNNAMED in self.names_ or len(self.names_) == 1:
            return matching_category(scan.category, self.names_)
        modality, rows = (RGB, scan.image.flatten(0, 1)) if scan.has_image else (POINTS, scan.points[scan.valid])
        bank = self.prototypes[modality]
        known = [name for name in self.names_ if name in bank.rows_ and len(rows)]
        mean = {name: float(bank.distances(name, rows).mean()) for name in known}
        return min(mean, key=mean.__getitem__, default=self.names_[0])

    def distances(self, scan: Scans, category: str, measure: Measure) -> Distances:
        """Normalised distances `(…, h, w)` of the kinds of `measure` and `UNIMODAL`; 0 where a kind does not apply."""
        none, has_both = nothing(scan), scan.has_both
        found = dict.fromkeys((*self.scales_[category], *UNIMODAL.values()), none)
        image_where = torch.ones_like(scan.valid) & scan.image_alone
        if has_both is not False:
            usable = scan.usable(self.holes)
            where = usable.valid & has_both
            pairs = usable.rows(usable.image, where), usable.rows(usable.points, where)  # (N, D1), (N, D2)
            for kind, distance in over_chunks(measure, scan.chunks(*pairs), category).items():
                found[kind] = scan.spread(normalised(distance, self.scales_[category][kind]), where)
            if self.holes == "image":
                image_where = image_where | (scan.silhouette & ~scan.valid & has_both)
        if scan.image_alone is not False or self.holes == "image":
            found[UNIMODAL[RGB]] = self._unimodal(RGB, category, scan, image_where)
        if scan.points_alone is not False:
            found[UNIMODAL[POINTS]] = self._unimodal(POINTS, category, scan, scan.valid & scan.points_alone)
        return found

    def prototype_distance(self, modality: str, scan: Scans, category: str) -> Tensor:
        """Normalised distance of one modality of each patch with points to the prototypes of normal ones.

        `(…, h, w)`.
        """
        bank, has_both = self.prototypes[modality], scan.has_both
        if has_both is False or category not in bank.rows_:
            return nothing(scan)
        usable = scan.usable(self.holes)
        where = usable.valid & has_both
        rows = scan.rows(usable.image if modality == RGB else usable.points, where)  # (N, D)
        return scan.spread(bank.normalised_distance(category, rows, scan.nearest), where)

    def image_share(
        self, distances: Distances, scan: ScanPatches, category: str, evidence: Mapping[str, str] | None = None
    ) -> Tensor:
        """The image's share, in [0, 1], of what both modalities score together `(h, w)`; the rest is that of points.

        A defect of either modality breaks the mapping in both directions: both distances grow, whichever is defective.
        The split is therefore by each modality's distance to prototypes of normal patches, times the kind of normalised
        `distances` that `evidence` names for it. Where both are 0 each has a half.
        """
        own = {modality: self.prototype_distance(modality, scan, category) for modality in MODALITIES}
        if evidence:
            own = {modality: away * distances[evidence[modality]] for modality, away in own.items()}
        total = own[RGB] + own[POINTS]
        return torch.where(total > 0, own[RGB] / torch.where(total > 0, total, 1.0), 0.5)

    def unnormalised(self, distances: Distances, category: str) -> Distances:
        """Normalised `distances` as they were measured; unimodal ones in a unit like those of the others."""
        device = distances[RGB].device
        scales = {kind: scale.to(device) for kind, scale in self.scales_[category].items()}
        measured = {kind: unit * distances[kind].pow(1 / power) for kind, (unit, power) in scales.items()}
        unit = (scales[RGB][0] * scales[POINTS][0]).sqrt()
        return measured | {kind: unit * distances[kind] for kind in UNIMODAL.values()}

    def _unimodal(self, modality: str, category: str, scan: Scans, where: Tensor) -> Tensor:
        """Relative prototype distances `(…, h, w)` of one modality in the patches `where` `(…, h, w)` bool."""
        if category not in self.prototypes[modality].rows_:
            return nothing(scan)
        rows = scan.rows(scan.image if modality == RGB else scan.points, where)  # (N, D)
        distance = self.prototypes[modality].relative_distance(category, rows, scan.nearest)  # (N,)
        return scan.spread(distance, where)

    def state(self) -> dict[str, Tensor]:
        """`scale.KIND/CATEGORY` of each kind of distance, and `prototypes.MODALITY.…`."""
        state: dict[str, Tensor] = {}
        for name, kinds in self.scales_.items():
            state |= {state_key(f"scale.{kind}", name): scale for kind, scale in kinds.items()}
        for modality, bank in self.prototypes.items():
            state |= add_prefix(bank.state(), f"prototypes.{modality}")
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Restore what `state` returned."""
        self.scales_ = {}
        for key, scale in strip_prefix(state, "scale").items():
            kind, _, name = key.partition("/")
            self.scales_.setdefault(name, {})[kind] = scale
        self.names_ = tuple(sorted(self.scales_))
        for modality, bank in self.prototypes.items():
            bank.load_state(strip_prefix(state, f"prototypes.{modality}"))
        return self


def nothing(scan: Scans) -> Tensor:
    """A distance of 0 on every patch, `(…, h, w)`."""
    return torch.zeros(scan.valid.shape, device=scan.image.device)


def over_chunks(measure: Measure, chunks: Iterable[tuple[Tensor, ...]], category: str) -> Distances:
    """`measure` of `chunks` of image `(n, D1)` and points `(n, D2)`, of all of them together."""
    parts = [measure(image, points, category) for image, points in chunks]
    return {kind: torch.cat([part[kind] for part in parts]) for kind in parts[0]}


def box_filtered(scores: Tensor) -> Tensor:
    """CFM's smoothing of a map `(…, h, w)`: box filters, five of 5 × 5 and three of 7 × 7 pixels of a 224-pixel image.

    Sides are scaled to the grid; where they are smaller than a patch nothing changes.
    """
    for side, times in ((5, 5), (7, 3)):
        patches = 2 * round((side * min(scores.shape[-2:]) / 224 - 1) / 2) + 1
        for _ in range(times if patches > 1 else 0):
            scores = box_mean(scores.unsqueeze(-3), patches).squeeze(-3)
    return scores
