"""Close-up for transformers: cosine distance of one deep layer, all else as close-up."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from blemish.detectors.closeup import CloseUp
from blemish.detectors.closeup_vit import CloseUpViT
from blemish.types import RGB, Batch, Features

OWN = {"layers", "neighbourhood_size", "standardise", "grid", "metric", "image_size"}


def deep(count: int, seed: int) -> Features:
    return Features({RGB: (torch.randn(count, 5, 6, 8, generator=torch.Generator().manual_seed(seed)),)})


def test_it_differs_from_close_up_in_layer_distance_and_size_only() -> None:
    one, other = CloseUp().settings, CloseUpViT().settings
    assert {name for name in one if one[name] != other[name]} == OWN
    assert CloseUpViT().needs.layers == "deep"
    assert CloseUpViT().needs.score_exponent == 2  # cosine distances grow like squared ones


def test_a_score_is_one_minus_the_cosine_to_the_nearest() -> None:
    normal, other = deep(4, seed=0), deep(2, seed=1)
    scores = CloseUpViT().fit([Batch(normal)]).score(other).patches
    bank, patches = (normalize(f[RGB].flatten(0, 2).double(), dim=-1) for f in (normal, other))
    torch.testing.assert_close(scores.flatten().double(), 1 - (patches @ bank.T).amax(1), rtol=0, atol=1e-6)


def test_the_length_of_a_feature_says_nothing() -> None:
    detector, other = CloseUpViT().fit([Batch(deep(4, seed=0))]), deep(2, seed=1)
    longer = Features({RGB: (7 * other[RGB],)})
    torch.testing.assert_close(detector.score(longer).patches, detector.score(other).patches, rtol=0, atol=1e-6)
