"""AST, asymmetric student-teacher: a convolutional student imitates a normalising flow; where it fails is a defect.

Rudolph, Wehrbein, Rosenhahn & Wandt, "Asymmetric Student-Teacher Networks for Industrial Anomaly Detection", WACV 2023
(https://arxiv.org/abs/2210.07829). The teacher learns the density of normal image and point features of every position;
the student learns to give the same output. Being invertible, the teacher maps anomalies away from what it gives for
normal features; the student, an ordinary network, does not follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from blemish.detectors.base import Progress
from blemish.detectors.rgb3d.normalisation import MODALITIES, UNIMODAL, DistanceNormalisation, Distances
from blemish.detectors.rgb3d.patches import ScanPatches, scan_patches
from blemish.detectors.rgb3d.prototypes import fit_scale, normalised
from blemish.detectors.rgb3d.sampling import TrainingPatches, sample_patches
from blemish.detectors.rgb3d.scan_detector import ScanDetector
from blemish.detectors.settings import Count, Positive
from blemish.detectors.trained import TrainedNetwork
from blemish.numeric.coupling_flow import CouplingFlow, negative_log_likelihood
from blemish.numeric.positions import sine_positions
from blemish.numeric.standardise import RARE, Standardise
from blemish.numeric.training import seeded
from blemish.types import POINTS, RGB, Batch, Features, PatchScores
from blemish.utils.progress import progress_within

COUPLING_BLOCKS = 4  # published
RESIDUAL_BLOCKS = 4  # published
POSITION_WIDTH = 32  # published: channels of the sines and cosines that both networks see beside the features
DISCREPANCY = "discrepancy"  # the kind of distance that is normalised (normalisation.py)
# Inputs `(B, C, h, w)`, positions `(B, P, h, w)` and foreground `(B, h, w)` → a scalar.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
_SAMPLE = 32768  # normal patch pairs, evenly over categories, that channels are standardised by
_SCALE_SCANS = 16  # normal scans of each category that its discrepancies are normalised by


class ReducedFeatures(nn.Module):
    """Features `(…, dim)` → `(…, width)`, standardised over normal patches, and clipped, before and after.

    Where there are more channels than `width`, a fixed random orthogonal projection mixes them. Principal components
    would drop the directions in which normal patches hardly vary, which anomalies show in; PaDiM (Defard et al., ICPR
    2021) found random channels better than those, too.
    """

    projection: Tensor

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        width = min(dim, width)
        self.before, self.after = Standardise(dim, RARE), Standardise(width, RARE)
        random = torch.linalg.qr(torch.randn(dim, width))[0]
        self.register_buffer("projection", random if width < dim else torch.eye(dim))  # (dim, width)

    def fit(self, patches: Tensor) -> None:
        """Take means and standard deviations from normal patches `(N, dim)`."""
        self.before.fit(patches)
        self.after.fit(self.before(patches) @ self.projection)

    def forward(self, patches: Tensor) -> Tensor:
        reduced: Tensor = self.after(self.before(patches) @ self.projection)
        return reduced


class ResidualBlock(nn.Module):
    """`(B, width, h, w)` → the same shape: two 3 × 3 convolutions, each with batch norm and leaky ReLU, plus its input.

    No activation follows the sum, so that a narrow student passes negative values on, too.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU()]
        self.body = nn.Sequential(*layers)

    def forward(self, planes: Tensor) -> Tensor:
        summed: Tensor = planes + self.body(planes)
        return summed


class StudentTeacher(nn.Module):
    """The flow, the network that imitates it, and what makes their input of a scan's patches."""

    def __init__(self, dims: tuple[int, int], widths: tuple[int, int], student: int, teacher: int) -> None:
        super().__init__()
        self.image, self.points = (ReducedFeatures(dim, width) for dim, width in zip(dims, widths, strict=True))
        self.channels = sum(min(dim, width) for dim, width in zip(dims, widths, strict=True))
        self.teacher = CouplingFlow(self.channels, POSITION_WIDTH, teacher, COUPLING_BLOCKS)
        self.student = nn.Sequential(
            nn.Conv2d(self.channels + POSITION_WIDTH, student, 3, padding=1),
            *(ResidualBlock(student) for _ in range(RESIDUAL_BLOCKS)),
            nn.Conv2d(student, self.channels, 1),
        )

    def fit_inputs(self, patches: TrainingPatches) -> None:
        """Standardise by normal patches."""
        self.image.fit(patches.image)
        self.points.fit(patches.points)

    def inputs(self, scan: ScanPatches) -> Tensor:
        """The reduced features of a scan `(C, h, w)`; those of points are 0, their mean, where there are none."""
        points = self.points(scan.points) * scan.valid[..., None]
        return torch.cat([self.image(scan.image), points], dim=-1).permute(2, 0, 1)  # (C, h, w)

    def likelihood_loss(self, x: Tensor, position: Tensor, foreground: Tensor) -> Tensor:
        """− ln p of the features, but for a constant: mean over foreground positions and channels; a scalar."""
        nats = negative_log_likelihood(*self.teacher(x, position))  # (B, h, w)
        return mean_over(nats, foreground) / self.channels

    def imitation_loss(self, x: Tensor, position: Tensor, foreground: Tensor) -> Tensor:
        """‖student − teacher‖² / C: mean over foreground positions; a scalar."""
        return mean_over(self.discrepancies(x, position), foreground)

    def discrepancies(self, x: Tensor, position: Tensor) -> Tensor:
        """‖student − teacher‖² / C of every position `(B, h, w)`; no gradient reaches the teacher."""
        with torch.no_grad():
            expected, _ = self.teacher(x, position)  # (B, C, h, w)
        imitated = self.student(torch.cat([x, position], dim=1)).float()  # (B, C, h, w)
        return (imitated - expected).square().mean(1)

    @torch.no_grad()
    def discrepancy(self, x: Tensor) -> Tensor:
        """‖student − teacher‖² / C of a whole scan's inputs `(C, h, w)`: `(h, w)`."""
        position = positions((x.shape[1], x.shape[2])).to(x.device)  # (P, h, w)
        return self.discrepancies(x[None], position[None])[0]


@dataclass(frozen=True, eq=False)
class TrainingScan:
    """A normal scan as the networks see it."""

    inputs: Tensor  # (C, h, w) float16, to bound memory
    foreground: Tensor  # (h, w) bool
    category: str

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.foreground.shape[0], self.foreground.shape[1]


@dataclass(kw_only=True, eq=False, repr=False)
class AST(ScanDetector[StudentTeacher]):
    """AST (`ast`): ‖student − teacher‖² on every patch, of one pair of networks for all categories.

    The score of a patch is normalised over the category's normal ones (`normalise`; see `fit_scale`), and 0 where there
    are no points. Scans and holes with one modality score the square of its distance to prototypes.

    `image_width` and `points_width`: channels that each modality is reduced to (published: 304 image features beside 64
    depth pixels a position). `width`: of the student (published: 1024); `teacher_width`: of the hidden layers of the
    flow's subnetworks (published: 64). Each network takes `steps` steps on `batch_size` squares of `window` patches a
    side, each around a foreground patch of a random normal scan (published: 240 epochs of each over whole maps of
    24 × 24, 8 a batch, at 2e-4). Of all categories together at most `max_scans` scans are learned from. All
    others: see `ScanDetector`; the paper's `pooling` is "max", its training Adam.
    """

    image_width: Count = 40
    points_width: Count = 24
    width: Count = 64
    teacher_width: Count = 32
    steps: Count = 200
    batch_size: Count = 8
    window: Count = 28
    max_scans: Count = 512
    learning_rate: Positive = 3e-3

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Fit the teacher, then the student, in two passes over `batches`; `loss_` keeps the steps of both in turn."""
        patches = sample_patches(batches, _SAMPLE, self.holes, self.seed)
        with seeded(self.seed):
            network = self.build_network(patches.dims).to(patches.image.device)
            network.fit_inputs(patches)
            scans = self._training_scans(batches, network, patches)
            teacher = self._train(network.teacher, network.likelihood_loss, scans, _part(progress, 0, "teacher"))
            student = self._train(network.student, network.imitation_loss, scans, _part(progress, 1, "student"))
        self.trained_ = TrainedNetwork(network.eval(), patches.dims, torch.cat([teacher, student]))
        self.normalisation_ = self._fit_normalisation(patches, scans)
        return self

    def build_network(self, dims: Sequence[int]) -> StudentTeacher:
        image_dim, point_dim = dims
        widths = self.image_width, self.points_width
        return StudentTeacher((image_dim, point_dim), widths, self.width, self.teacher_width)

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """The discrepancy of student and teacher on every patch `(B, h, w)`; scans go through one at a time."""
        maps = []
        for scan in scan_patches(features, self.trained.dims):
            category, found = self._distances(scan)
            joint, image, points = self._terms(found, category)
            maps.append(joint + image + points)
        return PatchScores(torch.stack(maps))

    @torch.no_grad()
    def explain(self, features: Features) -> dict[str, Tensor]:
        """The patch scores, split among "rgb" and "points": `(B, h, w)` by modality, whose sum they are.

        A defect of either modality changes all channels of student and teacher. The split is therefore by each
        modality's distance to prototypes of normal patches; see `DistanceNormalisation.image_share`.
        """
        parts: dict[str, list[Tensor]] = {modality: [] for modality in MODALITIES}
        for scan in scan_patches(features, self.trained.dims):
            category, found = self._distances(scan)
            joint, image, points = self._terms(found, category)
            share = self.normalisation_.image_share(found, scan, category)
            parts[RGB].append(joint * share + image)
            parts[POINTS].append(joint * (1 - share) + points)
        return {modality: torch.stack(maps) for modality, maps in parts.items()}

    def _terms(self, found: Distances, category: str) -> tuple[Tensor, Tensor, Tensor]:
        """The terms of the map `(h, w)`: the discrepancy, and what an image and points score alone."""
        joint, image, points = found[DISCREPANCY], found[UNIMODAL[RGB]].square(), found[UNIMODAL[POINTS]].square()
        if self.normalise:
            return joint, image, points
        unit, power = self.normalisation_.scales_[category][DISCREPANCY].to(joint.device)
        return unit * joint.pow(1 / power), unit * image, unit * points

    def _distances(self, scan: ScanPatches) -> tuple[str, Distances]:
        """The category whose statistics are used, and the normalised `DISCREPANCY` and unimodal distances `(h, w)`."""
        network, normalisation = self.trained.on(scan.image.device), self.normalisation_
        category = normalisation.category_for(scan)
        found = normalisation.distances(scan, category, _nothing)
        if scan.has_both:
            usable = scan.usable(self.holes)
            discrepancy = network.discrepancy(network.inputs(usable)) * usable.valid  # (h, w)
            found[DISCREPANCY] = normalised(discrepancy, normalisation.scales_[category][DISCREPANCY])
        return category, found

    @torch.no_grad()
    def _training_scans(
        self, batches: Iterable[Batch], network: StudentTeacher, patches: TrainingPatches
    ) -> list[TrainingScan]:
        """Normal scans with both modalities, of each category a reservoir sample of its share of `max_scans`."""
        most = max(1, self.max_scans // len(patches.names))
        kept: dict[str, list[TrainingScan]] = {name: [] for name in patches.names}
        met = dict.fromkeys(patches.names, 0)
        for batch in batches:
            for scan in scan_patches(batch.features):
                if not scan.has_both:
                    continue
                met[scan.category] += 1
                place = len(kept[scan.category])
                if place >= most:
                    place = int(torch.randint(met[scan.category], ()))
                if place < most:
                    usable = scan.usable(self.holes)
                    made = TrainingScan(network.inputs(usable).half(), usable.valid, scan.category)
                    kept[scan.category][place : place + 1] = [made]
        return [scan for name in patches.names for scan in kept[name]]

    def _train(self, part: nn.Module, loss: Loss, scans: Sequence[TrainingScan], progress: Progress | None) -> Tensor:
        """Train one of the networks; the losses `(steps,)`."""
        side = min(self.window, *(length for scan in scans for length in scan.grid))
        positions_of = {scan.grid: positions(scan.grid).to(scan.inputs.device) for scan in scans}

        def loss_of(step: int) -> Tensor:
            chosen = [scans[index] for index in torch.randint(len(scans), (self.batch_size,)).tolist()]
            drawn = [window_of(scan, positions_of[scan.grid], side) for scan in chosen]
            return loss(*(torch.stack(tensors) for tensors in zip(*drawn, strict=True)))

        return self.training.run(part, loss_of, progress)

    @torch.no_grad()
    def _fit_normalisation(self, patches: TrainingPatches, scans: Sequence[TrainingScan]) -> DistanceNormalisation:
        """Choose prototypes, and fit the scale of each category's discrepancies to those of its normal scans."""
        normalisation = self.new_normalisation().fit(patches, _nothing)
        network = self.trained.network
        for name in patches.names:
            own = [scan for scan in scans if scan.category == name][:_SCALE_SCANS]
            found = [network.discrepancy(scan.inputs.float())[scan.foreground] for scan in own]  # (n,) each
            normalisation.scales_[name] = {DISCREPANCY: fit_scale(torch.cat(found))}
        return normalisation


def positions(grid: tuple[int, int]) -> Tensor:
    """The places of a grid as sines and cosines, `(POSITION_WIDTH, h, w)`."""
    return sine_positions(grid, POSITION_WIDTH).permute(2, 0, 1)


def mean_over(values: Tensor, foreground: Tensor) -> Tensor:
    """The mean of `values` `(B, h, w)` over the `foreground` `(B, h, w)` bool; 0 without any."""
    return (values * foreground).sum() / foreground.sum().clamp_min(1)


def window_of(scan: TrainingScan, position: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, positions and foreground of a square of `side` patches of a scan, around a random patch with points.

    `position`: of the whole grid `(POSITION_WIDTH, h, w)`.
    """
    centres = scan.foreground.nonzero()  # (n, 2)
    centre = centres[int(torch.randint(len(centres), ()))].tolist()
    starts = [min(max(at - side // 2, 0), length - side) for at, length in zip(centre, scan.grid, strict=True)]
    rows, columns = (slice(start, start + side) for start in starts)
    inputs = scan.inputs[:, rows, columns].float()  # (C, side, side)
    return inputs, position[:, rows, columns], scan.foreground[rows, columns]


def _nothing(image: Tensor, points: Tensor, category: str) -> Distances:
    """Of single patches nothing is measured: both networks see whole scans."""
    return {DISCREPANCY: torch.zeros(len(image), device=image.device)}


def _part(progress: Progress | None, index: int, name: str) -> Progress | None:
    """The progress of the first or second network's training within that of both."""
    return progress and progress_within(progress, index, 2, name)
