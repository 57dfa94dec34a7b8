"""Masked auto-encoder: no patch takes part in its own reconstruction, all others do, and anomalies stand out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from blemish.detectors.vit_autoencoder import ViTAutoencoder
from blemish.detectors.vit_mae import ViTMAE
from blemish.errors import SettingsError
from blemish.numeric.masking import complementary_masks
from blemish.types import RGB, Batch, Features

DIM, GRID = 8, (6, 6)
QUICK: dict[str, Any] = {
    "width": 16, "heads": 2, "depth": 1, "decoder_depth": 1, "steps": 20, "crop": 0, "block": 1, "precision": "fp32",
}  # fmt: skip


def normal(count: int, seed: int) -> Features:
    """Every image is one vector of a plane everywhere `(count, 6, 6, DIM)`, a little noisy: each patch tells all."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(2, DIM, generator=torch.Generator().manual_seed(9))
    vectors = torch.randn(count, 1, 1, 2, generator=generator) @ basis
    return Features({RGB: (vectors + 0.05 * torch.randn(count, *GRID, DIM, generator=generator),)})


def fitted(**settings: Any) -> ViTMAE:
    return ViTMAE(**{**QUICK, **settings}).fit([Batch(normal(8, seed)) for seed in range(8)])


def test_it_differs_from_the_auto_encoder_in_masking_and_bottleneck_only() -> None:
    one, other = ViTAutoencoder().settings, ViTMAE().settings
    assert {name: other[name] for name in one if one[name] != other[name]} == {"bottleneck": 0, "masking": 0.5}


@pytest.mark.parametrize("masks", [2, 3])
def test_a_patch_takes_no_part_in_its_own_reconstruction(masks: int) -> None:
    """Nor do those hidden with it; all others do."""
    detector = fitted(masks=masks)
    network, patches = detector.trained.network, normal(1, 50)[RGB]
    before = detector._reconstruct(network, patches)[0]  # (N, D)
    for index in (0, 14, 35):
        changed = patches.clone()
        changed.view(-1, DIM)[index] += 100
        after = detector._reconstruct(network, changed)[0]
        (own,) = [mask for mask in complementary_masks(GRID, masks, 1) if mask[index]]
        assert torch.equal(after[own], before[own])
        assert not torch.isclose(after[~own], before[~own]).all(dim=-1).any()


def test_an_anomalous_patch_scores_highest() -> None:
    detector, patches = fitted(steps=150, learning_rate=5e-3), normal(4, 60)[RGB]
    for image, (row, column) in zip(patches, [(0, 0), (2, 3), (5, 1), (4, 4)], strict=True):
        image[row, column] += 3 * torch.randn(DIM, generator=torch.Generator().manual_seed(row))
    scores = detector.score(Features({RGB: (patches,)})).patches.flatten(1)  # (4, N)
    assert scores.argmax(1).tolist() == [0, 15, 31, 28]


def test_one_mask_would_hide_all_and_is_refused() -> None:
    with pytest.raises(SettingsError, match="masks to be a whole number ≥ 2"):
        ViTMAE(masks=1)
