"""Close-up: PatchCore of standardised channels on the coarsest grid, of parts that are framed close up."""

from __future__ import annotations

import torch

from blemish.detectors.base import Needs
from blemish.detectors.closeup import CloseUp
from blemish.types import RGB, Batch, Features

STD_OFFSET = 1e-3


def two_layers(count: int, seed: int) -> Features:
    """A fine layer of small numbers and a coarse layer of large ones."""
    generator = torch.Generator().manual_seed(seed)
    fine, coarse = torch.randn(count, 8, 8, 4, generator=generator), torch.randn(count, 4, 4, 3, generator=generator)
    return Features({RGB: (0.01 * fine, 100 * coarse + 7)})


def test_it_frames_the_part_at_its_aspect_ratio_and_turns_it() -> None:
    assert CloseUp().needs == Needs(
        layers="pair", rotations=8, max_copies=128, image_size=512, framing="part",
        pooling="top:0.001,0.003,0.01,0.03",
    )  # fmt: skip


def test_a_score_is_the_distance_in_standard_deviations_over_root_d_by_a_loop() -> None:
    normal, other = two_layers(5, seed=0), two_layers(2, seed=1)
    detector = CloseUp().fit([Batch(normal)])
    scores = detector.score(other)
    assert scores.patches.shape == (2, 4, 4)
    bank, patches = detector.patches(normal).flatten(0, 2).double(), detector.patches(other).flatten(0, 2).double()
    scale = (bank.std(0, correction=0) + STD_OFFSET) * bank.shape[1] ** 0.5  # (D,)
    expected = torch.stack([((bank - patch) / scale).norm(dim=1).min() for patch in patches])
    torch.testing.assert_close(scores.patches.flatten().double(), expected, rtol=1e-5, atol=1e-6)
    assert scores.images is None


def test_the_scale_of_a_layer_says_nothing() -> None:
    """Layers a thousand times larger give the same scores; without standardisation they would drown the other."""

    def scores(factor: float, **settings: bool) -> torch.Tensor:
        normal, other = (
            Features({RGB: (features.layers[RGB][0] * 100, features.layers[RGB][1] * factor)})
            for features in (two_layers(6, seed=0), two_layers(2, seed=1))
        )
        return CloseUp(**settings).fit([Batch(normal)]).score(other).patches  # type: ignore[arg-type]

    torch.testing.assert_close(scores(1000.0), scores(1.0), rtol=0.02, atol=0)
    assert (scores(1000.0, standardise=False) > 100 * scores(1.0, standardise=False)).all()
