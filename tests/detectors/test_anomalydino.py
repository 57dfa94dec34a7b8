"""AnomalyDINO's defaults are the paper's, and its scores those of a loop over rotated references' patches."""

from __future__ import annotations

import torch
from torch.nn.functional import cosine_similarity

from blemish.detectors.anomalydino import AnomalyDINO
from blemish.detectors.base import Needs
from blemish.numeric.pooling import image_score
from blemish.types import RGB, Batch, Features


def deep(count: int, seed: int) -> Features:
    return Features({RGB: (torch.randn(count, 6, 7, 12, generator=torch.Generator().manual_seed(seed)),)})


def test_the_defaults_are_the_papers() -> None:
    assert AnomalyDINO().needs == Needs(
        layers="deep",
        rotations=8,
        max_copies=128,
        image_size=448,
        square=False,
        pooling="top:0.01",
        score_exponent=2,
    )


def test_a_score_is_the_cosine_distance_to_the_nearest_of_all_normal_patches() -> None:
    normal, other = deep(3, seed=0), deep(2, seed=1)
    scores = AnomalyDINO().fit([Batch(normal)]).score(other)
    bank = normal[RGB].flatten(0, 2)  # (M, D)
    for patches, got in zip(other[RGB].flatten(1, 2), scores.patches.flatten(1), strict=True):
        expected = torch.stack([(1 - cosine_similarity(patch[None], bank)).min() for patch in patches])
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    assert scores.images is None  # the image score is the mean of the largest 1 %


def test_every_patch_is_kept_however_many_there_are() -> None:
    """No coreset: the paper's few references are not thinned."""
    assert len(AnomalyDINO().fit([Batch(deep(70, seed=2))]).state()["bank"]) == 70 * 42


def test_the_image_score_is_the_mean_of_the_largest_hundredth() -> None:
    patches = torch.rand(20, 20, generator=torch.Generator().manual_seed(3))
    largest = patches.flatten().sort(descending=True).values[:4]
    assert abs(image_score(patches.numpy(), AnomalyDINO().pooling) - float(largest.mean())) < 1e-6
