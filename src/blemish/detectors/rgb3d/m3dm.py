"""M3DM, multi-3D-memory: memory banks of image, points and both fused; one-class SVMs weigh the distances to them.

Wang, Peng, Zhang, Yi, Wang & Wang, "Multimodal Industrial Anomaly Detection via Hybrid Fusion", CVPR 2023
(https://arxiv.org/abs/2303.00601). Features are fused in feature_fusion.py, distances in decision_fusion.py; coreset
and image scores are PatchCore's. docs/methods/m3dm.md lists the departures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

import torch
from torch import Tensor

from blemish.detectors.base import Needs, Progress, add_prefix, strip_prefix
from blemish.detectors.categories import UNNAMED, by_category, matching_category, state_key
from blemish.detectors.collected_patches import Coreset
from blemish.detectors.patchcore import reweighted_score
from blemish.detectors.patches import numbered
from blemish.detectors.rgb3d.decision_fusion import DecisionFusion
from blemish.detectors.rgb3d.feature_fusion import FeatureFusion
from blemish.detectors.rgb3d.memory_bank import MemoryBank
from blemish.detectors.rgb3d.normalisation import MODALITIES
from blemish.detectors.rgb3d.patches import ScanPatches, scan_patches
from blemish.detectors.rgb3d.scan_detector import SCAN_FRAMING, SCAN_POOLING
from blemish.detectors.settings import Count, CountOrZero, FractionAboveZero, Pooling, Positive
from blemish.detectors.trained import TrainedDetector, TrainedNetwork
from blemish.encoders.base import LayerRole
from blemish.errors import SettingsError
from blemish.numeric.one_class_svm import linear_models
from blemish.numeric.sampling import ReservoirSample
from blemish.numeric.training import seeded
from blemish.types import POINTS, RGB, Batch, Features, PatchScores
from blemish.utils.progress import progress_within

FUSED = "fused"
BANKS = (RGB, POINTS, FUSED)  # the order of distances (…, 3)
DECISION_SCANS = 32  # normal scans of a category that its SVMs are fitted on; chosen by hand for time
_STANDARDISED_BY = 4096  # patch pairs of a category that the channels of both are standardised by before they are fused
_RECOGNISED_BY = 256  # patches of an unlabelled scan, about, that its category is recognised by
_PATCHES_AT_ONCE = 8192  # that go through the network together: bounds memory
_PLAIN_SHARE = 1e-6  # of a share: where no distance exceeds its mean over normal patches, plain distances are split

Banks = Mapping[str, MemoryBank]  # by names of BANKS


@dataclass(frozen=True, eq=False)
class CategoryPatches:
    """A uniform sample of N patches of one category's normal scans."""

    image: Tensor  # (N, D1)
    points: Tensor  # (N, D2), zeros where not `valid`
    valid: Tensor  # (N,) bool, patches with points
    scans: Tensor  # (N,) long, the number of the scan of each
    numbers: tuple[int, ...]  # of all scans, in the order they came

    def pairs(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Image and points of the patches `index` `(n,)`: `(n, D1)` and `(n, D2)`."""
        return self.image[index], self.points[index]

    @property
    def decision_scans(self) -> frozenset[int]:
        """The scans that SVMs are fitted on, at most DECISION_SCANS, evenly spaced."""
        count = min(len(self.numbers), DECISION_SCANS)
        return frozenset(self.numbers[i * len(self.numbers) // count] for i in range(count))


@dataclass(frozen=True, eq=False)
class BankDistances:
    """What a scan's patches are away from the banks."""

    patches: Tensor  # (h, w, 3), 0 where a bank does not apply
    images: Tensor  # (3,), PatchCore's image scores
    image_share: Tensor  # (h, w) of the image in the squared distance to the fused bank


@dataclass(frozen=True, eq=False)
class FittedCategory:
    """What is fitted for one category: its banks, and the SVMs of map and image score."""

    banks: Banks
    map: DecisionFusion
    image: DecisionFusion

    def state(self) -> dict[str, Tensor]:
        """Each bank under `bank.KIND.…`, the SVMs under `map.…` and `image.…`."""
        parts = [add_prefix(bank.state(), f"bank.{kind}") for kind, bank in self.banks.items()]
        parts += [add_prefix(self.map.state(), "map"), add_prefix(self.image.state(), "image")]
        return {key: tensor for part in parts for key, tensor in part.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        banks = {kind: MemoryBank.from_state(strip_prefix(state, f"bank.{kind}")) for kind in BANKS}
        return cls(banks, *(DecisionFusion.from_state(strip_prefix(state, kind)) for kind in ("map", "image")))


@dataclass
class _TrainingDistances:
    """Distances of one category's normal scans, each to the banks without it."""

    patches: list[Tensor] = field(default_factory=list)  # (n, 3) each, of the patches with points
    images: list[Tensor] = field(default_factory=list)  # (3,) each


@dataclass(kw_only=True, eq=False, repr=False)
class M3DM(TrainedDetector[FeatureFusion]):
    """M3DM (`m3dm`): a learned weighing of the distances to the nearest image, points and fused features in memory.

    One fusion network for all categories; banks and SVMs are a category's own. Patches without points have a distance
    to the image bank alone; scans of one modality are scored by its bank, in units that give normal patches the mean
    score of whole scans.

    `temperature` τ of the contrastive loss; `patches_per_step`: patch pairs it compares, evenly over categories.
    `image_score`: that of the second SVM, as published, or "pooling" of the map. `reweighting_neighbours`: b of
    PatchCore's image score (0: the largest distance). `coreset_ratio`, `min_patches`, `max_patches`, `reservoir_size`
    (by which training is bounded, too): as in `PatchCore`, of each category and bank. `layers`, `pooling`,
    `image_size`: see `Needs`. Training: see `TrainedDetector`; the learning rate is
    the authors'.
    """

    temperature: Positive = 1.0
    patches_per_step: Count = 512
    image_score: Literal["svm", "pooling"] = "svm"
    reweighting_neighbours: CountOrZero = 3
    coreset_ratio: FractionAboveZero = 0.1
    min_patches: Count = 4096
    max_patches: Count = 16384
    reservoir_size: Count = 32768
    steps: Count = 750
    learning_rate: Positive = 3e-3
    warmup_steps: CountOrZero = 250
    layers: LayerRole = "deep"
    pooling: Pooling = SCAN_POOLING
    image_size: Count = 224

    @property
    def needs(self) -> Needs:
        return Needs(
            layers=self.layers,
            modalities=(RGB, POINTS),
            image_size=self.image_size,
            square=True,
            framing=SCAN_FRAMING,
            slow_fit=True,
            pooling=self.pooling,
        )

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """Weighed distances `(B, h, w)`, and of whole scans `(B,)` unless these are pooled."""
        maps, images = [], []
        for scan, ignored in self._scans(features):
            own = self.categories_[self.category_for(scan)]
            found, only = self._distances(scan, own.banks, ignored), _only_bank(scan)
            maps.append(own.map.terms(found.patches, only).sum(-1))
            images.append(own.image.terms(found.images, only).sum(-1))
        return PatchScores(torch.stack(maps), torch.stack(images) if self.image_score == "svm" else None)

    @torch.no_grad()
    def explain(self, features: Features) -> dict[str, Tensor]:
        """The patch scores, split among "rgb" and "points": `(B, h, w)` by modality, whose sum they are.

        In proportion to how far each bank's weighed distance exceeds its mean over normal patches; that to the fused
        bank is split as its square is among the channels of both.
        """
        parts: dict[str, list[Tensor]] = {modality: [] for modality in MODALITIES}
        for scan, ignored in self._scans(features):
            own = self.categories_[self.category_for(scan)]
            found = self._distances(scan, own.banks, ignored)
            terms = own.map.terms(found.patches, _only_bank(scan))  # (h, w, 3)
            claims = own.map.excess(found.patches) + _PLAIN_SHARE * terms  # (h, w, 3)
            image = claims[..., 0] + found.image_share * claims[..., 2]  # (h, w)
            share = image / claims.sum(-1).clamp_min(1e-20)  # (h, w), 0 where nothing is claimed
            parts[RGB].append(terms.sum(-1) * share)
            parts[POINTS].append(terms.sum(-1) * (1 - share))
        return {modality: torch.stack(maps) for modality, maps in parts.items()}

    def category_for(self, scan: ScanPatches) -> str:
        """The category whose banks are used: the scan's own or, where unlabelled, the one it is nearest to.

        Distances are compared relative to those of a category's normal patches.
        """
        names = self.categories_
        if scan.category != UNNAMED or UNNAMED in names or len(names) == 1:
            return matching_category(scan.category, names)
        modality, rows = (RGB, scan.image.flatten(0, 1)) if scan.has_image else (POINTS, scan.points[scan.valid])
        some = rows[:: max(1, len(rows) // _RECOGNISED_BY)]  # (n, D)
        if not len(some):
            return next(iter(names))

        def relative_distance(name: str) -> float:
            bank, index = names[name].banks[modality], BANKS.index(modality)
            usual = names[name].map.unit[index] * names[name].map.level[index]
            return float(bank.nearest(bank.scaled(some))[0].mean() / usual.clamp_min(1e-12))

        return min(names, key=relative_distance)

    def _scans(self, features: Features) -> Iterator[tuple[ScanPatches, Tensor | None]]:
        """The scans of a batch, each with the patches `(h, w)` bool that are not judged (None: all are)."""
        dims = self.trained.dims  # raises NotFittedError
        for index, scan in enumerate(scan_patches(features, dims)):
            ignored = features.take(slice(index, index + 1)).ignored_on(scan.valid.shape)  # (1, h, w)
            yield scan, None if ignored is None else ignored[0].to(scan.valid.device)

    def _distances(self, scan: ScanPatches, banks: Banks, ignored: Tensor | None) -> BankDistances:
        """Distances of a scan to `banks`; `ignored` patches `(h, w)` bool never are the largest."""
        everywhere = torch.ones_like(scan.valid)
        where = {RGB: everywhere & scan.has_image, POINTS: scan.valid, FUSED: scan.valid & scan.has_image}
        patches = torch.zeros(*scan.valid.shape, len(BANKS), device=scan.image.device)  # (h, w, 3)
        images, share = patches.new_zeros(len(BANKS)), torch.zeros_like(patches[..., 0])
        for number, (kind, bank) in enumerate((kind, banks[kind]) for kind in BANKS):
            if not where[kind].any():
                continue
            rows = bank.scaled(self._features(kind, scan.image[where[kind]], scan.points[where[kind]]))  # (N, D)
            distance, index = bank.nearest(rows)  # (N,) each
            patches[..., number][where[kind]] = distance
            if kind == FUSED:
                squared = (rows - bank.on(rows.device).rows[index]).square()  # (N, D1 + D2)
                own = squared[:, : scan.image.shape[-1]].sum(1) / squared.sum(1).clamp_min(1e-20)  # (N,)
                share[where[kind]] = own
            judged = distance if ignored is None else distance.masked_fill(ignored[where[kind]], 0)
            images[number] = reweighted_score(bank.on(rows.device), rows, judged, index, self.reweighting_neighbours)
        return BankDistances(patches, images, share)

    def _features(self, kind: str, image: Tensor, points: Tensor) -> Tensor:
        """What a bank of that kind holds of N patches, `(N, D1)` and `(N, D2)`: `(N, D)`."""
        if kind != FUSED:
            return image if kind == RGB else points
        network = self.trained.on(image.device)
        chunks = zip(image.split(_PATCHES_AT_ONCE), points.split(_PATCHES_AT_ONCE), strict=True)
        return torch.cat([network.fused(*chunk) for chunk in chunks])

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Train the fusion, fill the banks, fit the SVMs; two passes over `batches`. `loss_` keeps every step's loss.

        Raises MissingPackageError without scikit-learn, SettingsError where no scan has both modalities or
        `reservoir_size` is so small that no patch of a category with points is drawn.
        """
        linear_models()  # raises before anything is learned
        patches = self._sample(batches)
        training = progress and progress_within(progress, 0, 2)
        self.trained_ = self._train_fusion(list(patches.values()), training)
        with torch.no_grad():
            banks: dict[str, Banks] = {}
            for done, (name, own) in enumerate(patches.items(), start=1):
                banks[name] = self._fill_banks(own)
                if progress:
                    progress_within(progress, 1, 2)(done, len(patches), {})
            scans = {name: own.decision_scans for name, own in patches.items()}
            self.categories_ = self._fit_decisions(batches, banks, scans)
        return self

    def build_network(self, dims: Sequence[int]) -> FeatureFusion:
        image_dim, points_dim = dims
        return FeatureFusion((image_dim, points_dim), self.temperature)

    def _sample(self, batches: Iterable[Batch]) -> dict[str, CategoryPatches]:
        """A sample of the normal patches of each category, from scans with both modalities.

        Raises SettingsError where there are none, or the sample of a category holds no patch with points.
        """
        samples: dict[str, ReservoirSample] = {}  # rows (D1 + D2 + 2): image, points, is valid, number of the scan
        numbers: dict[str, list[int]] = {}
        dims = 0, 0
        for name, number, scan in _numbered_scans(batches):
            dims = scan.image.shape[-1], scan.points.shape[-1]
            facts = torch.stack([scan.valid.float(), torch.full_like(scan.valid, number, dtype=torch.float32)], dim=-1)
            rows = torch.cat([scan.image, scan.points * scan.valid[..., None], facts], dim=-1)  # (h, w, D1 + D2 + 2)
            samples.setdefault(name, ReservoirSample(self.reservoir_size, self.seed)).add(rows.flatten(0, 1))
            numbers.setdefault(name, []).append(number)
        if not samples:
            raise SettingsError(
                "at least one good scan with a picture and points", "none", "give good scans to learn from"
            )
        found = {}
        for name in list(samples):
            image, points, facts = samples.pop(name).rows().split((*dims, 2), dim=1)
            valid, scans = facts[:, 0] > 0, facts[:, 1].round().long()
            if not valid.any():
                raise SettingsError(
                    "a patch with points in the sample that memory banks are filled from",
                    f"none among {len(valid)} patches" + (f" of '{name}'" if name != UNNAMED else ""),
                    f"raise reservoir_size, which is {self.reservoir_size}",
                )
            found[name] = CategoryPatches(image, points, valid, scans, tuple(dict.fromkeys(numbers[name])))
        return found

    def _train_fusion(
        self, patches: Sequence[CategoryPatches], progress: Progress | None
    ) -> TrainedNetwork[FeatureFusion]:
        """Train the network on pairs of image and points, as many of each category in every step."""
        valid = [own.valid.nonzero()[:, 0] for own in patches]  # (n,) indices each
        dims, device = (patches[0].image.shape[1], patches[0].points.shape[1]), patches[0].image.device
        each = -(-self.patches_per_step // len(patches))
        with seeded(self.seed):
            network = self.build_network(dims).to(device)
            image, points = _drawn_pairs(patches, valid, _STANDARDISED_BY)
            network.image_standard.fit(image)
            network.points_standard.fit(points)

            def loss_of(step: int) -> Tensor:
                return network.loss(*_drawn_pairs(patches, valid, each))

            loss = self.training.run(network, loss_of, progress)
        return TrainedNetwork(network, dims, loss)

    def _fill_banks(self, patches: CategoryPatches) -> Banks:
        """The three banks of a category: of image features all patches, of the others those with points."""
        coreset = Coreset(self.coreset_ratio, self.min_patches, self.max_patches, False, self.seed)
        every = torch.arange(len(patches.valid), device=patches.valid.device)
        valid = every[patches.valid]
        banks = {}
        for kind in BANKS:
            among = every if kind == RGB else valid
            foreground = self._features(kind, *patches.pairs(valid))  # (n, D)
            rows = patches.image if kind == RGB else foreground
            widths = self.trained.dims if kind == FUSED else (rows.shape[1],)
            banks[kind] = MemoryBank.fit(rows, patches.scans[among], foreground, widths, coreset)
        return banks

    def _fit_decisions(
        self, batches: Iterable[Batch], banks: Mapping[str, Banks], scans: Mapping[str, frozenset[int]]
    ) -> dict[str, FittedCategory]:
        """Fit both SVMs of each category to the distances of its normal `scans`, by banks without the scan itself."""
        found = {name: _TrainingDistances() for name in banks}
        for name, number, scan in _numbered_scans(batches):
            if number not in scans[name]:
                continue
            left = {kind: bank.without(number) for kind, bank in banks[name].items()}
            distances = self._distances(scan, left, None)
            found[name].patches.append(distances.patches[scan.valid].cpu())
            found[name].images.append(distances.images.cpu())
        fitted = {}
        for name, own in found.items():
            patches, images = torch.cat(own.patches), torch.stack(own.images)  # (n, 3), (scans, 3)
            unit = patches.std(0, correction=0)  # (3,)
            decisions = DecisionFusion.fit(patches, unit), DecisionFusion.fit(images, unit)
            fitted[name] = FittedCategory(banks[name], *decisions)
        return fitted

    def state(self) -> dict[str, Tensor]:
        """The network (see trained.py), and what is fitted for each category, see `FittedCategory`."""
        state = super().state()
        for name, fitted in self.categories_.items():
            state |= {state_key(kind, name): tensor for kind, tensor in fitted.state().items()}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        super().load_state(state)
        self.categories_ = {}
        for name in by_category(state, "map.unit"):
            parts = (key.partition("/") for key in state)
            own = {kind: state[state_key(kind, name)] for kind, _, category in parts if category == name}
            self.categories_[name] = FittedCategory.from_state(own)
        return self


def _numbered_scans(batches: Iterable[Batch]) -> Iterator[tuple[str, int, ScanPatches]]:
    """The category, number and patches of every normal scan with both modalities."""
    for batch, numbers, _ in numbered(batches):
        for number, scan in zip(numbers, scan_patches(batch.features), strict=True):
            if scan.has_both:
                yield scan.category, number, scan


def _drawn_pairs(patches: Sequence[CategoryPatches], valid: Sequence[Tensor], each: int) -> tuple[Tensor, Tensor]:
    """`each` patch pairs of every category, drawn with replacement by torch's global generator: `(N, D1)`, `(N, D2)`.

    `valid` holds the indices `(n,)` of each category's patches with points.
    """
    drawn = [
        own.pairs(index[torch.randint(len(index), (each,)).to(index.device)])
        for own, index in zip(patches, valid, strict=True)
    ]
    return torch.cat([image for image, _ in drawn]), torch.cat([points for _, points in drawn])


def _only_bank(scan: ScanPatches) -> int | None:
    """The number in BANKS of the one bank that a scan without the other modality is compared with."""
    if scan.has_both:
        return None
    return BANKS.index(RGB if scan.has_image else POINTS)
