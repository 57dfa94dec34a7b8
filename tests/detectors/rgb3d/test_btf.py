"""Image and surface side by side in one memory bank."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from synthetic_features import IMAGE, changed, good, scans, without

from blemish.detectors.rgb3d.btf import BTF
from blemish.errors import NotFittedError, SettingsError
from blemish.types import POINTS, RGB, Batch, Features


def learned(**settings: float) -> BTF:
    return BTF(layers="deep", aggregation=1, **settings).fit(good())  # type: ignore[arg-type]


def test_distances_are_those_of_brute_force() -> None:
    """√(‖a − a'‖²/D1 + weight ‖b − b'‖²/D2) in standard deviations of good cells, to the nearest of them all."""
    train = good()[0].features
    detector, seen = learned(weight=3.0, coreset=1.0), scans(1, 8)
    part = train.valid[POINTS]
    scales = train[RGB].flatten(0, 2).std(0, correction=0), train[POINTS][part].std(0, correction=0)
    squared = torch.zeros(144, 12 * 144)
    for modality, scale, weight in zip((RGB, POINTS), scales, (1.0, 3.0), strict=True):
        a, b = seen[modality].flatten(0, 2) / scale, train[modality].flatten(0, 2) / scale
        squared += weight * torch.cdist(a, b).square() / a.shape[1]
    expected = squared.sqrt().amin(1).view(12, 12)
    torch.testing.assert_close(detector.score(seen).patches[0], expected, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("modality", [RGB, POINTS])
def test_a_defect_in_one_modality_is_found_where_it_is(modality: str) -> None:
    detector, before = learned(), scans(1, 8)
    layer = before.layers[modality][0].clone()
    layer[:, 5, 6] += 8 * layer.std()
    after = detector.score(
        Features({**before.layers, modality: (layer,)}, None, before.valid, before.categories)
    ).patches
    assert int(after.argmax()) == 5 * 12 + 6
    assert float(after.max()) > 1.5 * float(detector.score(before).patches.max())


def test_a_channel_that_good_cells_hardly_use_does_not_decide_alone() -> None:
    """A count in a histogram bin that is all but empty on good cells counts as a rare one, however large it is."""
    (batch,) = good()
    points = batch.features.layers[POINTS][0].clone()
    points[..., 0] = 0
    points[0, 5, 5, 0] = 1e-2
    features = replace(batch.features, layers={**batch.features.layers, POINTS: (points,)})
    detector = BTF(layers="deep", aggregation=1).fit([Batch(features)])
    first, found = features.take(slice(0, 1)), []
    for count in (1.0, 1000.0):
        odd = points[:1].clone()
        odd[0, 6, 6, 0] = count
        found.append(detector.score(replace(first, layers={**first.layers, POINTS: (odd,)})).patches)
    assert float(found[0][0, 6, 6]) > 0
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize(("lost", "left"), [(POINTS, RGB), (RGB, POINTS)])
def test_what_is_left_is_still_compared(lost: str, left: str) -> None:
    detector, whole = learned(), scans(2, 8)
    lone = detector.score(without(whole, lost)).patches
    assert torch.isfinite(lone).all()
    assert float(lone.max()) > 0
    part = whole.valid[POINTS]
    assert 0.3 < float(lone[part].median() / detector.score(whole).patches[part].median()) < 3
    moved, where = changed(without(whole, lost), lost)
    moved = without(moved, lost)
    assert torch.equal(detector.score(moved).patches, lone)  # what is not there does not matter
    layer = whole.layers[left][0].clone()
    layer[:, where] += 8 * layer.std()
    bad = without(Features({**whole.layers, left: (layer,)}, None, whole.valid, whole.categories), lost)
    assert float(detector.score(bad).patches[:, where].min()) > float(lone[:, where].max())


def test_an_image_encoder_alone_will_do_at_inspection() -> None:
    detector, whole = learned(), scans(1, 8)
    alone = Features({RGB: whole.layers[RGB]}, categories=whole.categories)
    assert torch.equal(detector.score(alone).patches, detector.score(without(whole, POINTS)).patches)


def test_cells_without_points_hold_zeros() -> None:
    detector = learned()
    rows = detector.state()["bank.bank/nut"]
    assert bool((rows[:, IMAGE:] == 0).all(1).any())


@pytest.mark.parametrize("wrong", [{"weight": 0}, {"weight": "much"}, {"aggregation": 2}, {"coreset": 2.0}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        BTF(**wrong)  # type: ignore[arg-type]


def test_it_scores_only_once_it_has_learned() -> None:
    for ask in (lambda: BTF().score(scans(1, 0)), lambda: BTF().state()):
        with pytest.raises(NotFittedError):
            ask()
    with pytest.raises(SettingsError):
        BTF().fit([])
