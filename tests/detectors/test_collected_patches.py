"""Banks of few images, kept apart by image, and of many."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from blemish.detectors.collected_patches import BankRows, Coreset, PatchesByImage, PooledPatches

CORESET = Coreset(ratio=0.25, min_patches=50, max_patches=400, is_cosine=False, seed=0)


def rows(number: int, count: int = 40) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(number))


def bank_of(images: list[int], copies: int = 3, coreset: Coreset = CORESET) -> BankRows:
    """Of images with these numbers, each as it is and in `copies` turned copies of other patches."""
    collected = PatchesByImage(size=10_000, seed=0)
    for image in images:
        for view in range(1 + copies):
            collected.add(rows(1000 * view + image), image, is_original=view == 0)
    return collected.bank(coreset, lambda patches: 2 * patches)


def test_few_images_stay_whole_and_their_copies_are_thinned() -> None:
    bank = bank_of([0, 1, 2, 3])
    assert bank.is_separable
    assert bank.count == 4
    assert bank.images is not None
    for image in range(4):
        own = bank.rows[bank.images == image]
        assert len(own) == 40 + 120 // 4
        assert torch.equal(own[:40], 2 * rows(image))


def test_a_bank_without_an_image_is_the_one_made_without_it() -> None:
    bank = bank_of([0, 1, 2, 3])
    assert bank.images is not None
    for image in range(4):
        others = bank_of([i for i in range(4) if i != image])
        assert torch.equal(bank.rows[bank.images != image], others.rows)


@pytest.mark.parametrize(("images", "is_separable"), [(5, True), (6, False)])
def test_originals_that_fill_more_than_half_of_the_bank_are_thinned_with_the_copies(
    images: int, is_separable: bool
) -> None:
    bank = bank_of(list(range(images)))
    assert bank.is_separable == is_separable
    assert bank.count == images
    assert len(bank.rows) <= CORESET.max_patches
    if not is_separable:
        assert len(bank.rows) == CORESET.count(images * 160)


def test_a_small_bank_is_kept_whole() -> None:
    small = Coreset(ratio=0.25, min_patches=1000, max_patches=1000, is_cosine=False, seed=0)
    assert len(bank_of([0, 1], coreset=small).rows) == 2 * 160


def test_max_patches_limits_a_bank_whose_originals_stay_whole() -> None:
    small = Coreset(ratio=0.25, min_patches=1000, max_patches=100, is_cosine=False, seed=0)
    bank = bank_of([0], coreset=small)
    assert bank.is_separable
    assert len(bank.rows) == 40 + 30  # the original, and a quarter of its copies
    assert len(bank_of([0], coreset=replace(small, ratio=1.0)).rows) == 100


def test_what_is_held_is_bounded_for_any_number_of_images() -> None:
    collected = PatchesByImage(size=500, seed=0)
    for image in range(60):
        collected.add(rows(image), image, is_original=True)
        collected.add(rows(100 + image), image, is_original=False)
        assert len(collected.rows()) <= 2 * 500
    assert not collected.bank(CORESET, lambda patches: patches).is_separable


def test_pooled_patches_know_no_images() -> None:
    collected = PooledPatches(size=1000, seed=0)
    for image in range(4):
        collected.add(rows(image), image, is_original=True)
    bank = collected.bank(CORESET, lambda patches: patches)
    assert (bank.images, bank.is_separable, bank.count) == (None, False, 0)
    assert len(bank.rows) == CORESET.count(160)
