"""Normal images that are probably anomalous: mutual scoring of unlabelled images (MuSc, numeric/mutual_scoring.py).

Every image is scored by some of the others, never by itself, on layers that are concatenated on a coarse grid, so that
the cost stays low. Images whose log score lies far above the rest, by median and median absolute deviation, are
outliers; then everything is scored again without them. Features alone decide, no detector: what is found does not
depend on what will be fitted on the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from blemish.detectors.base import Progress
from blemish.detectors.patches import judged_patches
from blemish.errors import DatasetError
from blemish.model.feature_loader import FeatureLoader
from blemish.numeric.moments import Moments
from blemish.numeric.mutual_scoring import distances_to_nearest, near_count
from blemish.types import Features, Sample
from blemish.utils.array_store import ArrayStore
from blemish.utils.indices import evenly_spaced, group_indices

MEMORY = 512 << 20  # bytes of patches that are kept in memory; the rest goes to a temporary file
MIN_IMAGES = 6  # normal images of a category; chosen by eye: median and deviation of fewer mean little
MAX_SHARE = 0.2  # of a category's images that are left out; what is more common is how the parts are
GRID = 24  # patches a side that images are compared on, at most: bounds the cost of a comparison
OTHERS = 32  # images that each one is compared with, at most: cost grows with it, results hardly (see contamination.py)
TOP, MIN_TOP = 0.01, 3  # share of an image's patches that make its score, the highest ones; how many at least
# Robust standard deviations above the median from which a log score is an outlier, and the deviation at least. 3.5 is
# usual (Iglewicz and Hoaglin, 1993); the largest of 205 normal training images of bottles, screws, plates and cookies
# was 3.6.
DEVIATIONS, MIN_DEVIATION = 4.0, 0.04
PASSES = 2


@dataclass(frozen=True)
class ComparedImage:
    """A normal image that scores unlike the others; `score` is in units of its category's median."""

    file: str
    category: str | None
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; of the file its name alone, for a saved model holds no places of the machine."""
        return asdict(self) | {"file": Path(self.file).name}


@dataclass(frozen=True)
class Outlier(ComparedImage):
    """An image that was not fitted on. `score` is a mutual one, `threshold`, in the same unit, that from which images
    were left out; `fingerprint` is that of the image."""

    threshold: float
    fingerprint: str = ""


def find_outliers(
    loader: FeatureLoader,
    samples: Sequence[Sample],
    fingerprints: Sequence[str],
    progress: Progress | None = None,
) -> tuple[Outlier, ...]:
    """Which of the normal images are probably anomalous, highest score first; `samples` are those of the loader.

    Judged category by category. Raises DatasetError when a category has fewer than `MIN_IMAGES` images.
    """
    found: dict[int, tuple[float, float]] = {}
    names = loader.categories or ("",) * len(loader)
    for name, members in group_indices(names).items():
        if len(members) < MIN_IMAGES:
            raise DatasetError(
                f"at least {MIN_IMAGES} pictures{f' of {name}' if name else ''} to tell which do not belong",
                str(len(members)),
                "give more pictures, or look through them yourself and fit without cleaning",
            )
        found |= {members[i]: facts for i, facts in outlying_images(compared(loader, members, progress)).items()}
    outliers = [
        Outlier(samples[i].name, samples[i].category, score, threshold, fingerprints[i])
        for i, (score, threshold) in found.items()
    ]
    return tuple(sorted(outliers, key=lambda one: -one.score))


def mutual_scores(loader: FeatureLoader, members: Sequence[int], progress: Progress | None = None) -> dict[int, float]:
    """The mutual score of each of the images at `members`, one category's, by its index."""
    comparisons = compared(loader, members, progress)
    return {index: mutual_score(one.distances) for index, one in zip(members, comparisons, strict=True)}


def compared(loader: FeatureLoader, members: Sequence[int], progress: Progress | None = None) -> list[Comparison]:
    """The images at `members` compared with one another. Raises OutputError where no temporary file can be written."""
    with ArrayStore(MEMORY) as store:
        for done, features in enumerate(loader.plain_features(members), start=1):
            for patches in judged_patches(patches_of(features)[None], features):  # (P, D)
                store.add(np.ascontiguousarray(patches.numpy()))
            if progress:
                progress(done, len(members), {})
        return compare(store)


def patches_of(features: Features) -> Tensor:
    """One image's patches `(h, w, D)` of all its layers, averaged onto one grid of at most `GRID` a side."""
    layers = [layer[0].float().cpu() for layers in features.layers.values() for layer in layers]  # (h, w, D) each
    finest = max((layer.shape[:2] for layer in layers), key=lambda grid: grid[0] * grid[1])
    grid = (min(finest[0], GRID), min(finest[1], GRID))
    planes = [adaptive_avg_pool2d(layer.permute(2, 0, 1), grid) / layer.shape[2] ** 0.5 for layer in layers]
    return torch.cat(planes).permute(1, 2, 0)


@dataclass(frozen=True)
class Comparison:
    """One image compared with others: `others` `(m,)` are their indices, `distances` `(P, m)` those of each patch to
    the nearest patch in each of them."""

    others: np.ndarray
    distances: np.ndarray


def compare(images: ArrayStore) -> list[Comparison]:
    """Each of the images' patches, n arrays `(P, D)` float32, compared with `OTHERS` other images, evenly spaced.

    Channels are divided by their standard deviation over all images, so that none dominates. A pair of images at a time
    is in memory, beside what the store keeps there.
    """
    count, scale = len(images), scale_of(images)  # (D,)

    def scaled(number: int) -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(images[number]) / scale
        return rows, (rows**2).sum(1)  # (P, D), (P,)

    found = []
    for i in range(count):
        rows, squares = scaled(i)
        others = np.array([(i + 1 + step) % count for step in evenly_spaced(count - 1, OTHERS)])
        nearest = []  # (P,) each
        for j in others.tolist():
            other, own = scaled(j)
            nearest.append(distances_to_nearest(rows, other, squares, own))
        found.append(Comparison(others, torch.stack(nearest, dim=1).numpy()))
    return found


def scale_of(images: ArrayStore) -> Tensor:
    """What channels are divided by, `(D,)`: their standard deviation, and a little of that of all values."""
    moments = Moments()
    for number in range(len(images)):
        moments.add(torch.from_numpy(images[number]))
    of_all = (moments.std.square().mean() + moments.mean.var(correction=0)).sqrt()
    return (moments.std + 1e-3 * of_all + 1e-12).float()


def outlying_images(images: Sequence[Comparison]) -> dict[int, tuple[float, float]]:
    """Index → (score, threshold) of the outliers, both in units of the median score."""
    count = len(images)
    outliers: list[int] = []
    for _ in range(PASSES):
        logs = np.log([max(mutual_score(one.distances[:, ~np.isin(one.others, outliers)]), 1e-12) for one in images])
        inliers = np.delete(logs, outliers)
        median = float(np.median(inliers))
        deviation = 1.4826 * float(np.median(np.abs(inliers - median)))  # of a normal distribution, the standard one
        threshold = median + DEVIATIONS * max(deviation, MIN_DEVIATION)
        highest = np.argsort(-logs, kind="stable")[: math.floor(MAX_SHARE * count)]
        outliers = [int(i) for i in highest if logs[i] > threshold]
    return {i: (math.exp(logs[i] - median), math.exp(threshold - median)) for i in outliers}


def mutual_score(distances: np.ndarray) -> float:
    """An image's score from the distances `(P, m)` of its patches to m others: the mean of its highest patch scores."""
    near = near_count(distances.shape[1])
    patches = np.partition(distances, near - 1, axis=1)[:, :near].mean(axis=1)  # (P,)
    top = min(len(patches), max(MIN_TOP, round(TOP * len(patches))))
    return float(np.partition(patches, len(patches) - top)[-top:].mean())
