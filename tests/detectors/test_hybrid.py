"""Two banks joined in one map."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from blemish.detectors.hybrid import Hybrid, as_rgb_features
from blemish.errors import NotFittedError, SettingsError
from blemish.types import CONTEXT, RGB, Batch, Features

QUICK = {"local": {"layers": "deep", "neighbourhood_size": 1}}


def features(seed: int, count: int = 1) -> Features:
    """Noise around one kind of patch; the context is seen on a coarser grid."""
    generator = torch.Generator().manual_seed(seed)
    near = torch.randn(count, 16, 16, 8, generator=generator)
    far = 5 + torch.randn(count, 12, 12, 24, generator=generator)
    return Features({RGB: (near,), CONTEXT: (far,)})


def learned() -> Hybrid:
    return Hybrid(**QUICK).fit([Batch(features(1, 6))])  # type: ignore[arg-type]


@pytest.mark.parametrize("modality", [RGB, CONTEXT])
def test_a_defect_that_one_half_alone_sees_is_found_where_it_is(modality: str) -> None:
    detector, good = learned(), features(2)
    layer = good.layers[modality][0].clone()
    side = layer.shape[1]
    layer[:, : side // 4, : side // 4] = -40 * torch.sign(layer[:, : side // 4, : side // 4].mean())
    bad = replace(good, layers={**good.layers, modality: (layer,)})
    before, after = detector.score(good), detector.score(bad)
    assert before.images is not None
    assert after.images is not None
    assert after.images[0] > 1.2 * before.images[0]
    row, column = divmod(int(after.patches[0].argmax()), after.patches.shape[2])
    assert row < 4
    assert column < 4
    assert after.patches.shape == (1, 16, 16)


def test_the_unit_of_a_half_does_not_matter() -> None:
    """Features a thousand times as large give the same scores: each half is measured by its own good patches."""
    plain = {"local": {"layers": "deep", "neighbourhood_size": 1, "standardise": False}}

    def larger(one: Features) -> Features:
        return replace(one, layers={**one.layers, RGB: (1000 * one.layers[RGB][0],)})

    small = Hybrid(**plain).fit([Batch(features(1, 6))])  # type: ignore[arg-type]
    large = Hybrid(**plain).fit([Batch(larger(features(1, 6)))])  # type: ignore[arg-type]
    expected, found = small.score(features(2)), large.score(larger(features(2)))
    torch.testing.assert_close(found.patches, expected.patches, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.images, expected.images, rtol=1e-4, atol=1e-5)


def test_scores_count_in_distances_between_good_patches() -> None:
    detector = learned()
    fresh = detector.score(features(3, 4)).patches
    assert 0.5 < float(fresh.median()) < 2
    bank = detector._banks["local"]
    rows = bank.patches_[""]
    apart = torch.cdist(rows, rows).fill_diagonal_(torch.inf).min(1).values.median()
    assert bank.banks_[""].median_nn_distance() == pytest.approx(float(apart), rel=0.05)


def test_an_encoder_of_one_part_is_refused() -> None:
    alone = Features({RGB: features(1).layers[RGB]})
    with pytest.raises(SettingsError, match="two parts"):
        Hybrid().fit([Batch(alone)])
    with pytest.raises(SettingsError, match="two parts"):
        as_rgb_features(alone, "context")


def test_it_scores_only_once_it_has_learned() -> None:
    with pytest.raises(NotFittedError):
        Hybrid().score(features(1))


def test_settings_of_a_half_are_checked() -> None:
    with pytest.raises(SettingsError):
        Hybrid(local={"coreset_ratio": 7})
    with pytest.raises((SettingsError, TypeError)):
        Hybrid(context={"colour": "red"})
