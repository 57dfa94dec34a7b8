"""BTF: distances are those of brute force over joint features, and a missing modality is left out of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from synthetic_features import IMAGE, changed, normal_batches, scans, with_stray_points, without

from blemish.detectors.patchcore import PatchCore
from blemish.detectors.rgb3d.btf import BTF
from blemish.errors import NotFittedError, SettingsError
from blemish.numeric.neighbours import Neighbours
from blemish.types import POINTS, RGB, Batch, Features


def fitted(**settings: float) -> BTF:
    return BTF(layers="deep", neighbourhood_size=1, **settings).fit(normal_batches())  # type: ignore[arg-type]


def with_masks(features: Features) -> Features:
    """The same, with a mask for either modality."""
    return replace(
        features, valid={m: features.valid.get(m, torch.ones(len(features), 12, 12) > 0) for m in features.layers}
    )


def test_distances_are_those_of_brute_force() -> None:
    """√(‖a − a'‖²/D1 + weight ‖b − b'‖²/D2) in standard deviations of normal patches, to the nearest of them."""
    train = normal_batches()[0].features
    detector, test = fitted(weight=3.0, coreset_ratio=1.0), scans(1, 8)
    part = train.valid[POINTS]
    scales = train[RGB].flatten(0, 2).std(0, correction=0), train[POINTS][part].std(0, correction=0)
    squared = torch.zeros(144, 12 * 144)
    for modality, scale, weight in zip((RGB, POINTS), scales, (1.0, 3.0), strict=True):
        a, b = test[modality].flatten(0, 2) / scale, train[modality].flatten(0, 2) / scale
        squared += weight * torch.cdist(a, b).square() / a.shape[1]
    expected = squared.sqrt().amin(1).view(12, 12)
    torch.testing.assert_close(detector.score(test).patches[0], expected, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("modality", [RGB, POINTS])
def test_a_defect_in_one_modality_is_found_where_it_is(modality: str) -> None:
    detector, before = fitted(), scans(1, 8)
    layer = before.layers[modality][0].clone()
    layer[:, 5, 6] += 8 * layer.std()
    after = detector.score(Features({**before.layers, modality: (layer,)}, before.valid, before.categories)).patches
    assert int(after.argmax()) == 5 * 12 + 6
    assert float(after.max()) > 1.5 * float(detector.score(before).patches.max())


def test_outliers_of_a_channel_are_clipped() -> None:
    """A count in a histogram bin that is all but empty on normal patches is clipped, however large it is."""
    (batch,) = normal_batches()
    points = batch.features.layers[POINTS][0].clone()
    points[..., 0] = 0
    points[0, 5, 5, 0] = 1e-2
    features = replace(batch.features, layers={**batch.features.layers, POINTS: (points,)})
    detector = BTF(layers="deep", neighbourhood_size=1).fit([Batch(features)])
    first, scores = features.take(slice(0, 1)), []
    for count in (1.0, 1000.0):
        outlier = points[:1].clone()
        outlier[0, 6, 6, 0] = count
        scores.append(detector.score(replace(first, layers={**first.layers, POINTS: (outlier,)})).patches)
    assert float(scores[0][0, 6, 6]) > 0
    torch.testing.assert_close(scores[0], scores[1])


@pytest.mark.parametrize(("lost", "left"), [(POINTS, RGB), (RGB, POINTS)])
def test_the_available_modality_is_compared_alone(lost: str, left: str) -> None:
    detector, whole = fitted(), scans(2, 8)
    unimodal = detector.score(without(whole, lost)).patches
    assert torch.isfinite(unimodal).all()
    assert float(unimodal.max()) > 0
    part = whole.valid[POINTS]
    assert 0.3 < float(unimodal[part].median() / detector.score(whole).patches[part].median()) < 3
    moved, where = changed(without(whole, lost), lost)
    moved = without(moved, lost)
    assert torch.equal(detector.score(moved).patches, unimodal)  # features of a missing modality do not matter
    layer = whole.layers[left][0].clone()
    layer[:, where] += 8 * layer.std()
    bad = without(Features({**whole.layers, left: (layer,)}, whole.valid, whole.categories), lost)
    assert float(detector.score(bad).patches[:, where].min()) > float(unimodal[:, where].max())


def test_a_few_stray_points_count_as_none() -> None:
    detector, whole = fitted(), scans(2, 8)
    expected, stray = without(whole, POINTS), with_stray_points(whole)
    assert torch.equal(detector.score(stray).patches, detector.score(expected).patches)
    assert stray.available == (RGB,)


def test_normal_scans_that_lack_a_modality_are_not_learned_from() -> None:
    (whole,) = normal_batches()
    expected = fitted().state()
    for lost in (RGB, POINTS):
        lacking = without(scans(3, 2), lost)
        mixed = Batch(Features.cat([with_masks(lacking), with_masks(whole.features)]))
        found = BTF(layers="deep", neighbourhood_size=1).fit([Batch(lacking), mixed]).state()
        assert expected.keys() == found.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        with pytest.raises(SettingsError, match="a picture and points"):
            BTF().fit([Batch(lacking)])


def test_a_category_without_a_scan_of_both_modalities_is_not_learned() -> None:
    images = Batch(without(scans(2, 3, ("bolt",)), POINTS))
    detector = BTF(layers="deep", neighbourhood_size=1).fit([images, *normal_batches()])
    with pytest.raises(SettingsError, match="bolt"):
        detector.score(images.features)


def test_unlabelled_scans_are_compared_with_the_category_they_are_like() -> None:
    names = ("nut", "bolt")
    detector = BTF(layers="deep", neighbourhood_size=1).fit(normal_batches(names=names))
    whole = scans(3, 8, names)
    for features in (whole, without(whole, RGB), without(whole, POINTS)):
        expected = detector.score(features).patches
        assert torch.equal(detector.score(features.with_categories(None)).patches, expected)
    nothing = without(without(whole, RGB), POINTS).with_categories(None)
    assert not bool(detector.score(nothing).patches.any())
    with pytest.raises(SettingsError, match="screw"):
        detector.score(whole.with_categories(["screw"] * 6))


def test_an_image_encoder_suffices_at_inspection() -> None:
    detector, whole = fitted(), scans(1, 8)
    images = Features({RGB: whole.layers[RGB]}, categories=whole.categories)
    assert torch.equal(detector.score(images).patches, detector.score(without(whole, POINTS)).patches)


def test_banks_move_to_where_the_features_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded bank is on the CPU; features may be elsewhere. The "meta" device stands for a GPU."""
    monkeypatch.setattr(Neighbours, "median_nn_distance", lambda self: 1.0)  # needs values, which meta tensors have not
    detector = BTF(layers="deep", neighbourhood_size=1).load_state(fitted().state())
    for device in (torch.device("cpu"), torch.device("meta"), torch.device("cpu")):
        assert detector._unimodal_bank("nut", RGB, device)[0].rows.device == device
        assert detector._patchcore.bank_for("nut", device).rows.device == device


def test_every_scan_is_searched_in_a_bank_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    bank_for = PatchCore.bank_for

    def spy(self: PatchCore, category: str, device: torch.device) -> Neighbours:
        asked.append(device)
        return bank_for(self, category, device)

    monkeypatch.setattr(PatchCore, "bank_for", spy)
    state, whole = fitted().state(), scans(1, 8)
    for features in (whole, without(whole, POINTS), without(whole, RGB)):
        asked.clear()
        BTF(layers="deep", neighbourhood_size=1).load_state(state).score(features)
        assert asked == [whole[RGB].device]


def test_patches_without_points_hold_zeros() -> None:
    detector = fitted()
    rows = detector.state()["bank.bank/nut"]
    assert bool((rows[:, IMAGE:] == 0).all(1).any())


@pytest.mark.parametrize(
    "wrong", [{"weight": 0}, {"weight": "much"}, {"neighbourhood_size": 2}, {"coreset_ratio": 2.0}]
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        BTF(**wrong)  # type: ignore[arg-type]


def test_it_scores_only_once_fitted() -> None:
    for ask in (lambda: BTF().score(scans(1, 0)), lambda: BTF().state()):
        with pytest.raises(NotFittedError):
            ask()
    with pytest.raises(SettingsError):
        BTF().fit([])
