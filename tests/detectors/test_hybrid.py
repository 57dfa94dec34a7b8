"""Two banks joined in one map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from blemish.detectors.hybrid import EXPONENT, HALVES, Hybrid, as_rgb_features
from blemish.errors import ModelError, NotFittedError, SettingsError
from blemish.numeric.pooling import image_score
from blemish.scoring.detector_scores import detector_scores
from blemish.types import CONTEXT, RGB, Batch, Features, resize_to_finest

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
    (before,), _ = detector_scores(detector, good)
    (after,), (patches,) = detector_scores(detector, bad)
    assert after > 1.2 * before
    row, column = divmod(int(patches.argmax()), patches.shape[1])
    assert row < 4
    assert column < 4
    assert patches.shape == (16, 16)


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


def test_scores_count_in_what_unknown_normal_images_score() -> None:
    scores, _ = detector_scores(learned(), features(3, 8))
    assert 0.8 < float(np.median(scores)) < 1.2


def test_a_patch_scores_the_power_mean_of_both_distances_in_units_of_normal_ones() -> None:
    detector, one = learned(), features(4)
    parts = []
    for half in HALVES:
        distances = detector._banks[half].score(as_rgb_features(one, half)).patches  # (B, h, w)
        parts.append((distances / detector.units_[half][""])[..., None])
    both = torch.cat(resize_to_finest(parts), dim=-1).numpy().astype(np.float64)  # (B, h, w, 2)
    expected = ((both**EXPONENT).sum(-1) / 2) ** (1 / EXPONENT)
    np.testing.assert_allclose(detector.score(one).patches.numpy(), expected, rtol=1e-4)
    assert (expected <= both.max(-1) + 1e-9).all()
    assert (expected >= both.mean(-1) - 1e-9).all()


def test_one_that_leaves_an_image_out_scores_as_one_that_never_knew_it() -> None:
    plain = {"local": {"layers": "deep", "neighbourhood_size": 1, "standardise": False}}
    normal = features(1, 5)
    whole = Hybrid(**plain).fit([Batch(normal)])  # type: ignore[arg-type]
    assert whole.can_leave_out("")
    rest = Hybrid(**plain).fit([Batch(normal.take(slice(1, 5)), images=(1, 2, 3, 4), originals=(True,) * 4)])  # type: ignore[arg-type]
    for half in HALVES:
        one = as_rgb_features(features(2), half)
        expected = rest._banks[half].score(one).patches
        torch.testing.assert_close(whole._banks[half].score_without(one, (0,)).patches, expected)
    loaded = Hybrid(**plain).load_state(whole.state())  # type: ignore[arg-type]
    assert not loaded.can_leave_out("")


def test_each_half_is_measured_by_images_it_does_not_know() -> None:
    normal = features(1, 6)
    detector = Hybrid(**QUICK).fit([Batch(normal)])  # type: ignore[arg-type]
    for half in HALVES:
        logs = []
        for image in range(6):
            one = as_rgb_features(normal.take(slice(image, image + 1)), half)
            patches = detector._banks[half].score_without(one, (image,)).patches[0].numpy()
            logs.append(np.log(image_score(patches, detector.pooling)))
        assert np.log(detector.units_[half][""]) == pytest.approx(np.mean(logs), rel=1e-5)


def test_of_a_single_image_each_half_is_measured_by_its_turned_copies() -> None:
    both = features(1, 3)  # the image, and two copies of it
    detector = Hybrid(**QUICK).fit([Batch(both, images=(0, 0, 0), originals=(True, False, False))])  # type: ignore[arg-type]
    apart = Hybrid(**QUICK).fit([Batch(both, images=(0, 1, 1), originals=(True, False, False))])  # type: ignore[arg-type]
    for half in HALVES:
        one = as_rgb_features(both.take(slice(0, 1)), half)
        patches = apart._banks[half].score_without(one, (0,)).patches[0].numpy()
        assert detector.units_[half][""] == pytest.approx(image_score(patches, detector.pooling), rel=1e-5)


def test_of_a_single_image_without_copies_each_half_is_measured_by_its_bank() -> None:
    detector = Hybrid(**QUICK).fit([Batch(features(1))])  # type: ignore[arg-type]
    for half, bank in detector._banks.items():
        assert detector.units_[half][""] == bank.banks_[""].median_nn_distance()


def test_a_state_of_an_earlier_version_is_refused() -> None:
    state = {key: tensor for key, tensor in learned().state().items() if "unit" not in key}
    with pytest.raises(ModelError, match="fit it again"):
        Hybrid(**QUICK).load_state(state)  # type: ignore[arg-type]


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


@pytest.mark.parametrize("half", HALVES)
def test_a_metric_of_squares_beside_one_of_distances_is_refused(half: str) -> None:
    with pytest.raises(SettingsError, match=rf"{half}.*cosine.*unit_layers"):
        Hybrid(**{half: {"metric": "cosine"}})  # type: ignore[arg-type]
    assert Hybrid(**{half: {"metric": "l2"}}).needs.score_exponent == 1  # type: ignore[arg-type]
