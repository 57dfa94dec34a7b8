from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from blemish.augmentation.small_defects import SHARE, SMALL_DEFECTS, STAIN_SHARE, blob, place


def textured(height: int = 96, width: int = 128) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (height, width, 3))
    return ndimage.gaussian_filter(noise, (1.5, 1.5, 0)).astype(np.uint8)


@pytest.mark.parametrize("kind", SMALL_DEFECTS)
def test_a_small_defect_lies_on_the_part_and_is_small(kind: str) -> None:
    image, part = textured(), np.zeros((96, 128), bool)
    part[20:80, 30:110] = True
    shares = []
    for seed in range(40):
        made = SMALL_DEFECTS[kind](image, part, np.random.default_rng(seed))
        assert (made.shape, made.dtype) == (image.shape, np.uint8)
        changed = (np.abs(made.astype(int) - image) > 4).any(-1)
        shares.append(changed.sum() / part.sum())
        if changed.any():
            assert ndimage.binary_dilation(part, iterations=20)[changed].all()
    assert max(shares) < 0.2  # a scar is up to 400 pixels, whatever the part's size
    assert np.median(shares) > 0.0005
    assert np.array_equal(image, textured())


@pytest.mark.parametrize("kind", SMALL_DEFECTS)
def test_the_same_numbers_give_the_same_defect_and_others_another(kind: str) -> None:
    image, nowhere = textured(), np.zeros((96, 128), bool)  # no part: anywhere
    one, same, other = (SMALL_DEFECTS[kind](image, nowhere, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("share", [SHARE, STAIN_SHARE])
def test_sizes_are_shares_of_the_part(share: tuple[float, float]) -> None:
    part = np.zeros((100, 100), bool)
    part[10:60, 10:90] = True
    places = [place(part, np.random.default_rng(seed), share) for seed in range(200)]
    assert all(part[y, x] for y, x, _ in places)
    areas = np.array([area for _, _, area in places]) / part.sum()
    assert share[0] <= areas.min() < share[0] * 1.1
    assert share[1] * 0.9 < areas.max() <= share[1]
    assert np.median(areas) == pytest.approx(np.sqrt(share[0] * share[1]), rel=0.2)  # evenly on a log scale


def test_a_blob_is_one_to_two_areas_large() -> None:
    areas = [blob((200, 200), 900, (100, 100), np.random.default_rng(seed)).sum() for seed in range(20)]
    assert 900 < np.mean(areas) < 1800
