"""Good images that are probably none: mutual scoring of the images themselves (MuSc; Li et al., ICLR 2024).

A patch of a good part has its like in most other images, a patch of a defect in few. So every image is scored by
the others, never by itself: a patch is as strange as it is far from the nearest patch in each of the others, averaged
over those `NEAR` of them that come closest, which a few images with the same defect cannot bring down. Scores whose
logarithm stands far above the rest, measured by median and median absolute deviation, are set aside; then everything
is scored again without what was set aside. Knows no detector: features alone decide, so that what is found does not
depend on what will learn from the rest.
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
from blemish.errors import DatasetError
from blemish.model.category_recognition import positions, spread
from blemish.model.feature_loader import FeatureLoader
from blemish.model.held_out_scores import plain_features
from blemish.types import Features, Sample

LEAST = 6  # good images of a category; among fewer nothing stands out reliably
MOST_ASIDE = 0.2  # of a category's images that are set aside; what is more common is how the parts are
GRID = 24  # patches a side that images are compared on, at most
OTHERS = 32  # images that each one is compared with, at most
NEAR = 0.3  # of the others that a patch is measured by, the nearest (MuSc)
TOP, LEAST_TOP = 0.01, 3  # share of an image's patches that make its score, the strangest; how many at least
# How many deviations above the median a log score is set aside, and the deviation at least. 3.5 is usual (Iglewicz and
# Hoaglin, 1993); of 205 good training images of bottles, screws, plates and cookies the strangest reached 3.6.
DEVIATIONS, LEAST_DEVIATION = 4.0, 0.04
PASSES = 2


@dataclass(frozen=True)
class SetAside:
    """An image that was not learned from. `score` is how many times as strange as its category's median image it
    is, `limit` the same for the score at which images were set aside; `mark` the image's fingerprint."""

    file: str
    category: str | None
    score: float
    limit: float
    mark: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; of the file its name alone, for a saved model holds no places of the machine."""
        return asdict(self) | {"file": Path(self.file).name}


def set_aside(
    good: FeatureLoader, samples: Sequence[Sample], marks: Sequence[str], progress: Progress | None = None
) -> tuple[SetAside, ...]:
    """Which of the good images are probably none, the strangest first; `marks` are the samples' fingerprints."""
    aside = [
        SetAside(samples[i].name, samples[i].category, score, limit, marks[i])
        for i, (score, limit) in suspects(good, progress).items()
    ]
    return tuple(sorted(aside, key=lambda one: -one.score))


def suspects(good: FeatureLoader, progress: Progress | None = None) -> dict[int, tuple[float, float]]:
    """Index → (score, limit) of the images to set aside, both in times their category's median score.

    Judged category by category. Raises DatasetError when a category has fewer than `LEAST` images.
    """
    names = good.categories or ("",) * len(good)
    found: dict[int, tuple[float, float]] = {}
    for name, members in positions(names).items():
        if len(members) < LEAST:
            raise DatasetError(
                f"at least {LEAST} pictures{f' of {name}' if name else ''} to tell which do not belong",
                str(len(members)),
                "give more pictures, or look through them yourself and fit without cleaning",
            )
        described = []
        for done, features in enumerate(plain_features(good, members), start=1):
            described.append(patches_of(features).flatten(0, 1))
            if progress:
                progress(done, len(members), {})
        found |= {members[i]: facts for i, facts in stand_out(compared(described)).items()}
    return found


def patches_of(features: Features) -> Tensor:
    """One image's patches `(h, w, D)` of all its layers, averaged onto one grid of at most `GRID` a side."""
    layers = [layer[0].float().cpu() for layers in features.layers.values() for layer in layers]  # (h, w, D) each
    finest = max((layer.shape[:2] for layer in layers), key=lambda grid: grid[0] * grid[1])
    grid = (min(finest[0], GRID), min(finest[1], GRID))
    planes = [adaptive_avg_pool2d(layer.permute(2, 0, 1), grid) / layer.shape[2] ** 0.5 for layer in layers]
    return torch.cat(planes).permute(1, 2, 0)


@dataclass(frozen=True)
class Compared:
    """One image seen by others: `others` `(m,)` are their places, `distances` `(P, m)` those of each patch to the
    nearest patch in each of them."""

    others: np.ndarray
    distances: np.ndarray


def compared(images: Sequence[Tensor]) -> list[Compared]:
    """Each of the images' patches, n tensors `(P, D)`, compared with `OTHERS` other images, evenly spread.

    Channels are divided by their standard deviation over all images, so that none outweighs the others.
    """
    every = torch.cat(list(images))
    scale = every.std(0, correction=0) + 1e-3 * every.std() + 1e-12  # (D,)
    rows = [image / scale for image in images]
    squares = [(row**2).sum(1) for row in rows]
    found = []
    for i, row in enumerate(rows):
        others = np.array([(i + 1 + step) % len(rows) for step in spread(len(rows) - 1, OTHERS)])
        nearest = [(squares[j] - 2 * row @ rows[j].T).amin(1) + squares[i] for j in others]  # (P,) each
        found.append(Compared(others, torch.stack(nearest, dim=1).clamp_min(0).sqrt().numpy()))
    return found


def stand_out(images: Sequence[Compared]) -> dict[int, tuple[float, float]]:
    """Index → (score, limit) of the images that stand out, both in times the median score."""
    count = len(images)
    aside: list[int] = []
    for _ in range(PASSES):
        logs = np.log([max(mutual_score(one.distances[:, ~np.isin(one.others, aside)]), 1e-12) for one in images])
        believed = np.delete(logs, aside)
        middle = float(np.median(believed))
        deviation = 1.4826 * float(np.median(np.abs(believed - middle)))
        limit = middle + DEVIATIONS * max(deviation, LEAST_DEVIATION)
        strangest = np.argsort(-logs, kind="stable")[: math.floor(MOST_ASIDE * count)]
        aside = [int(i) for i in strangest if logs[i] > limit]
    return {i: (math.exp(logs[i] - middle), math.exp(limit - middle)) for i in aside}


def mutual_score(distances: np.ndarray) -> float:
    """An image's score from the distances `(P, m)` of its patches to m others."""
    near = max(1, math.ceil(NEAR * distances.shape[1]))
    patches = np.partition(distances, near - 1, axis=1)[:, :near].mean(axis=1)  # (P,)
    top = min(len(patches), max(LEAST_TOP, round(TOP * len(patches))))
    return float(np.partition(patches, len(patches) - top)[-top:].mean())
