"""Two banks joined in one map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from blemish.detectors.hybrid import HALVES, HalfScores, Hybrid, as_rgb_features, joined_score
from blemish.errors import ModelError, NotFittedError, SettingsError
from blemish.numeric.pooling import image_score
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


def test_scores_count_in_what_unknown_normal_images_score() -> None:
    found = learned().score(features(3, 8))
    assert found.images is not None
    assert 0.9 < float(found.images.median()) < 1.1
    assert 0.5 < float(found.patches.median()) < 1.1


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
        assert detector.halves_[half][""].mean == pytest.approx(np.mean(logs), rel=1e-5)
        assert detector.halves_[half][""].std == pytest.approx(HalfScores.of(logs).std, rel=1e-5)


def test_the_joined_score_follows_the_half_that_is_surprised() -> None:
    calm, noisy = HalfScores(0.0, 0.05), HalfScores(1.0, 0.2)
    normal = joined_score([1.0, np.e], [calm, noisy])
    assert normal == pytest.approx(1.0)
    by_one, by_both = joined_score([1.5, np.e], [calm, noisy]), joined_score([1.5, 1.5 * np.e], [calm, noisy])
    assert normal < by_one < by_both
    assert by_one > joined_score([1.0, 1.5 * np.e], [calm, noisy])  # the same rise in a half that scatters more
    assert joined_score([2.0, 3 * np.e], [HalfScores(0, 0), HalfScores(1, 0)]) == pytest.approx(6**0.5)


def test_a_state_of_an_earlier_version_is_refused() -> None:
    state = {key: tensor for key, tensor in learned().state().items() if "half" not in key}
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
