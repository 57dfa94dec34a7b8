"""UFF: the loss is InfoNCE by hand, and training pulls the pairs of a patch together."""

from __future__ import annotations

import math

import torch

from blemish.detectors.rgb3d.feature_fusion import FeatureFusion, info_nce
from blemish.numeric.training import Training, seeded


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.hypot(*a) / math.hypot(*b)


def test_the_loss_is_infonce_by_hand() -> None:
    queries, keys = [[1.0, 0], [3, 4], [0, -2]], [[2.0, 1], [0, 1], [5, -5]]
    terms = []
    for j, query in enumerate(queries):
        every = [math.exp(cosine(query, key) / 0.5) for key in keys]
        terms.append(-math.log(every[j] / sum(every)))
    found = info_nce(torch.tensor(queries), torch.tensor(keys), temperature=0.5)
    assert math.isclose(float(found), sum(terms) / 3, rel_tol=1e-6)


def pairs(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Image `(count, 8)` and points `(count, 5)` of patches, both driven by three numbers of each."""
    fixed, random = torch.Generator().manual_seed(1), torch.Generator().manual_seed(seed)
    shared = torch.randn(count, 3, generator=random)
    return tuple(torch.tanh(shared @ torch.randn(3, width, generator=fixed)) for width in (8, 5))  # type: ignore[return-value]


def test_training_makes_a_patch_known_by_its_other_modality() -> None:
    with seeded(0):
        network = FeatureFusion((8, 5), temperature=0.1)
        network.image_standard.fit(pairs(2000, 0)[0])
        network.points_standard.fit(pairs(2000, 0)[1])
        before = float(network.loss(*pairs(64, 9)).detach())
        Training(steps=150, learning_rate=3e-3, precision="fp32").run(
            network, lambda step: network.loss(*pairs(64, 100 + step))
        )
    assert before > 0.9 * math.log(64)  # as by chance
    assert float(network.loss(*pairs(64, 9)).detach()) < 0.5 * math.log(64)


def test_fused_features_are_both_side_by_side() -> None:
    network, (image, points) = FeatureFusion((8, 5), temperature=1.0), pairs(7, 0)
    fused = network.fused(image, points)
    assert fused.shape == (7, 13)
    moved = network.fused(image, points + 1)
    assert torch.equal(moved[:, :8], fused[:, :8])
    assert not torch.equal(moved[:, 8:], fused[:, 8:])
