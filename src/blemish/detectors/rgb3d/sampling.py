"""The training set of the crossmodal detectors: a reservoir sample of RGB-D patch pairs, in bounded memory.

Crossmodal networks see one patch at a time, so they need no whole scans. A reservoir sample (Vitter, "Random Sampling
with a Reservoir", ACM TOMS 1985; numeric/sampling.py) of as many patches of every category costs the same on a grid of
patches and on one of pixels, and every step sees all categories, in whatever order the scans come.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from blemish.detectors.rgb3d.patches import Holes, ScanPatches, mask_on_grid, scan_patches
from blemish.errors import SettingsError
from blemish.numeric.sampling import ReservoirSample
from blemish.types import POINTS, RGB, Batch, Features

# Sizes chosen by hand for memory: at D1 = 384 some 100 MB and, a category and modality, 6 MB.
PRESENCE_SIZE = 65536  # patches that tell where points are measured (missing_points.py), all categories together
UNIMODAL_SIZE = 4096  # patches of each category and modality that prototypes are taken from
# Chosen by hand: far above rounding errors, and below what a synthetic anomaly changes in the patches it covers.
_LEAST_CHANGE = 0.01  # of the length of a patch's features


@dataclass(frozen=True)
class AnomalousPatches:
    """Patches under synthetic anomalies, with the modalities that each anomaly changed."""

    image: Tensor  # (M, D1)
    points: Tensor  # (M, D2)
    image_changed: Tensor  # (M,) bool
    points_changed: Tensor  # (M,) bool
    label: Tensor  # (M,) int, index into `TrainingPatches.names`


@dataclass(frozen=True)
class TrainingPatches:
    """Patch pairs of both modalities, evenly over categories, and what else detectors learn from."""

    names: tuple[str, ...]  # categories
    image: Tensor  # (N, D1)
    points: Tensor  # (N, D2)
    label: Tensor  # (N,) int, index into `names`
    unimodal: dict[str, dict[str, Tensor]]  # modality → category → (n, D) patches of it, of images the background too
    presence: tuple[Tensor, Tensor] | None  # image features (M, D1) of all patches, and which have points (M,) bool
    anomalous: AnomalousPatches | None  # None where no synthetic anomalies were given

    @property
    def dims(self) -> tuple[int, int]:
        """The widths D1 and D2."""
        return self.image.shape[1], self.points.shape[1]

    def of_category(self, name: str) -> tuple[Tensor, Tensor]:
        """Image `(n, D1)` and points `(n, D2)` of the patch pairs of one category."""
        own = self.label == self.names.index(name)
        return self.image[own], self.points[own]


def sample_patches(
    batches: Iterable[Batch], size: int, holes: Holes, seed: int, presence: bool = False
) -> TrainingPatches:
    """A reservoir sample of at most `size` patch pairs of normal scans, from one pass over `batches`.

    `presence`: whether to sample patches with and without points as well. Raises SettingsError where no scan has both
    modalities.
    """
    reservoirs = _Reservoirs(size, holes, seed, presence)
    for batch in batches:
        reservoirs.add(batch)
    return reservoirs.training_patches()


def random_indices(count: int, rows: Tensor) -> Tensor:
    """Indices `(count,)` into `rows` `(N, …)`, drawn uniformly with replacement by torch's global generator."""
    return torch.randint(len(rows), (count,)).to(rows.device)


class _PerCategory:
    """A reservoir sample for each category; `shared`: `size` is that of all categories together."""

    def __init__(self, size: int, seed: int, shared: bool) -> None:
        self.size, self.seed, self.shared = size, seed, shared
        self.samples: dict[str, ReservoirSample] = {}

    def add(self, category: str, rows: Tensor) -> None:
        """Offer `rows` `(n, D)` to a category's reservoir."""
        if category not in self.samples:
            self.samples[category] = ReservoirSample(self.size, self.seed)
            if self.shared:
                for sample in self.samples.values():
                    sample.limit(max(1, self.size // len(self.samples)))
        self.samples[category].add(rows)

    def by_category(self) -> dict[str, Tensor]:
        """The sample `(n, D)` of each category."""
        return {category: sample.rows() for category, sample in self.samples.items()}

    def stacked(self, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """The samples of all categories `(N, D)`, and each row's index into `names` `(N,)`."""
        rows = [(self.samples[name].rows(), index) for index, name in enumerate(names) if name in self.samples]
        labels = [torch.full((len(own),), index, device=own.device) for own, index in rows]
        return torch.cat([own for own, _ in rows]), torch.cat(labels)


class _Reservoirs:
    """All that is sampled in one pass over normal scans."""

    def __init__(self, size: int, holes: Holes, seed: int, presence: bool) -> None:
        self.holes = holes
        self.pairs = _PerCategory(size, seed, shared=True)  # rows (D1 + D2)
        self.unimodal = {modality: _PerCategory(UNIMODAL_SIZE, seed, shared=False) for modality in (RGB, POINTS)}
        self.presence = _PerCategory(PRESENCE_SIZE, seed, shared=True) if presence else None  # rows (D1 + 1)
        self.anomalous = _PerCategory(max(1, size // 4), seed, shared=True)  # rows (D1 + D2 + 2)
        self.dims = (0, 0)

    def add(self, batch: Batch) -> None:
        """Sample the patches of a batch of normal scans and, where it has them, of their synthetic anomalies."""
        for index, scan in enumerate(scan_patches(batch.features)):
            self.dims = scan.image.shape[-1], scan.points.shape[-1]
            if scan.has_image:
                self.unimodal[RGB].add(scan.category, scan.image.flatten(0, 1))
            if scan.valid.any():
                self.unimodal[POINTS].add(scan.category, scan.points[scan.valid])
            if scan.has_both:
                self._add_pairs(scan, batch, index)

    def _add_pairs(self, scan: ScanPatches, batch: Batch, index: int) -> None:
        if self.presence is not None:
            rows = torch.cat([scan.image, scan.valid[..., None]], dim=-1)  # (h, w, D1 + 1)
            self.presence.add(scan.category, rows.flatten(0, 1))
        usable = scan.usable(self.holes)
        self.pairs.add(scan.category, _paired(usable)[usable.valid])
        if batch.altered is not None and batch.altered_mask is not None:
            altered = batch.altered.take(slice(index, index + 1))
            if len(rows := _anomalous_rows(usable, altered, batch.altered_mask[index])):
                self.anomalous.add(scan.category, rows)

    def training_patches(self) -> TrainingPatches:
        """What was sampled so far."""
        if not self.pairs.samples:
            raise SettingsError(
                "at least one good scan with a picture and points", "none", "give good scans to learn from"
            )
        names = tuple(sorted(self.pairs.samples))
        rows, label = self.pairs.stacked(names)  # (N, D1 + D2), (N,)
        image, points = rows.split(self.dims, dim=1)
        unimodal = {modality: sampled.by_category() for modality, sampled in self.unimodal.items()}
        presence = None
        if self.presence is not None:
            rows, _ = self.presence.stacked(names)  # (M, D1 + 1)
            presence = rows[:, :-1], rows[:, -1] > 0
        anomalous = self._anomalous_patches(names) if self.anomalous.samples else None
        return TrainingPatches(names, image, points, label, unimodal, presence, anomalous)

    def _anomalous_patches(self, names: tuple[str, ...]) -> AnomalousPatches:
        rows, label = self.anomalous.stacked(names)
        image, points, changed = rows.split((*self.dims, 2), dim=1)
        return AnomalousPatches(image, points, changed[:, 0] > 0, changed[:, 1] > 0, label)


def _paired(scan: ScanPatches) -> Tensor:
    return torch.cat([scan.image, scan.points], dim=-1)  # (h, w, D1 + D2)


def _anomalous_rows(normal: ScanPatches, altered: Features, mask: Tensor) -> Tensor:
    """The patches under the synthetic anomaly of a scan, `(m, D1 + D2 + 2)`.

    `altered` are the features of the scan with its anomaly, `mask` `(h', w')` bool what that covers. The last two
    columns are 1 where it changed the image and the points.
    """
    anomalous = next(scan_patches(altered)).filled()
    grid = (normal.valid.shape[0], normal.valid.shape[1])
    under = mask_on_grid(mask, grid) & anomalous.valid & normal.valid  # (h, w)
    modalities = (anomalous.image, normal.image), (anomalous.points, normal.points)
    changed = [_changed(one[under], other[under]) for one, other in modalities]
    return torch.cat([_paired(anomalous)[under], *(flag[:, None] for flag in changed)], dim=1)


def _changed(anomalous: Tensor, normal: Tensor) -> Tensor:
    """Rows `(m, D)` each → `(m,)` float, 1 where they differ by more than rounding."""
    changed: Tensor = (anomalous - normal).norm(dim=1) > _LEAST_CHANGE * normal.norm(dim=1)
    return changed.float()
