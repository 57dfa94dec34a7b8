"""M3DM: distances by brute force, each normal scan left out of its own banks, each modality's defects found."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from synthetic_features import IMAGE, changed, normal_batches, scans, with_stray_points, without

from blemish.detectors.rgb3d.m3dm import BANKS, DECISION_SCANS, FUSED, M3DM, CategoryPatches
from blemish.detectors.rgb3d.memory_bank import MemoryBank
from blemish.errors import MissingPackageError, NotFittedError, SettingsError
from blemish.types import POINTS, RGB, Batch, Features, PatchScores

SHORT: dict[str, Any] = {"steps": 40, "warmup_steps": 10, "patches_per_step": 128}
NAMES = ("nut", "washer")


@cache
def fitted(names: tuple[str, ...] = ("nut",), **settings: Any) -> M3DM:
    return M3DM(**(SHORT | settings)).fit(normal_batches(names=names))


def images_of(found: PatchScores) -> torch.Tensor:
    assert found.images is not None
    return found.images


def scaled_image(features: Features, train: Features) -> torch.Tensor:
    """Image features `(N, D1)` of all patches, in standard deviations of normal patches with points, over √D1."""
    std = train[RGB][train.valid[POINTS]].std(0, correction=0)
    return features[RGB].flatten(0, 2) / std / IMAGE**0.5


def test_distances_to_the_image_bank_are_those_of_brute_force() -> None:
    train, test = normal_batches()[0].features, scans(1, 8)
    detector = fitted(coreset_ratio=1.0)
    (found,) = [detector._distances(scan, detector.categories_["nut"].banks, None) for scan, _ in detector._scans(test)]
    expected = torch.cdist(scaled_image(test, train), scaled_image(train, train)).amin(1).view(12, 12)
    torch.testing.assert_close(found.patches[..., 0], expected, rtol=5e-3, atol=1e-3)


def test_normal_scans_are_left_out_of_the_banks_they_are_compared_with() -> None:
    """The mean distance that the SVM learns is that of each scan to all other scans, by brute force."""
    train = normal_batches()[0].features
    rows, part = scaled_image(train, train), train.valid[POINTS].flatten()
    scan = torch.arange(12).repeat_interleave(144)
    distance = torch.cdist(rows, rows).masked_fill(scan[:, None] == scan, torch.inf).amin(1)[part]
    decision = fitted(coreset_ratio=1.0).categories_["nut"].map
    torch.testing.assert_close(decision.unit[0], distance.std(correction=0), rtol=5e-3, atol=1e-4)
    torch.testing.assert_close(decision.level[0] * decision.unit[0], distance.mean(), rtol=5e-3, atol=1e-4)
    assert (decision.level > 0.1).all()  # of the other banks, too: each holds the scan itself


def test_a_bank_without_a_scan_holds_the_others_and_one_of_that_scan_alone_skips_each_patch() -> None:
    rows = torch.tensor([[0.0], [1.0], [5.0]])
    bank = MemoryBank(rows, torch.tensor([[-9.0], [9.0]]), torch.ones(1), torch.tensor([0, 0, 1]))
    assert bank.without(0).rows.tolist() == [[5]]
    assert bank.without(1).nearest(torch.tensor([[5.0]]))[0].tolist() == [4]
    alone = MemoryBank(rows[:2], bank.bounds, bank.scale, torch.tensor([0, 0])).without(0)
    assert [values.tolist() for values in alone.nearest(torch.tensor([[0.0], [0.75]]))] == [[1, 0.25], [1, 1]]


@pytest.mark.parametrize("modality", [RGB, POINTS])
def test_a_defect_in_one_modality_alone_is_found_where_it_is_and_named(modality: str) -> None:
    detector, before = fitted(), scans(1, 8)
    layer = before.layers[modality][0].clone()
    layer[:, 5, 6] += 8 * layer.std()
    bad = Features({**before.layers, modality: (layer,)}, before.valid, before.categories)
    normal, found = detector.score(before), detector.score(bad)
    assert int(found.patches.argmax()) == 5 * 12 + 6
    assert float(images_of(found)) > 1.2 * float(images_of(normal))
    other = POINTS if modality == RGB else RGB
    parts = detector.explain(bad)
    assert float(parts[modality][0, 5, 6]) > 2 * float(parts[other][0, 5, 6])
    (own,) = [detector._distances(scan, detector.categories_["nut"].banks, None) for scan, _ in detector._scans(bad)]
    (was,) = [detector._distances(scan, detector.categories_["nut"].banks, None) for scan, _ in detector._scans(before)]
    larger = own.patches[5, 6] > was.patches[5, 6]
    assert larger.tolist() == [kind in (modality, FUSED) for kind in BANKS]


def test_a_surface_that_belongs_to_another_picture_is_far_from_the_fused_bank() -> None:
    """Both are normal by themselves; the fused bank alone knows that they do not occur together."""
    detector, before = fitted(steps=300), scans(4, 8)
    after, where = changed(before, POINTS)
    distances = [
        torch.stack([detector._distances(s, detector.categories_["nut"].banks, None).patches[where] for s, _ in found])
        for found in (detector._scans(before), detector._scans(after))
    ]
    before_mean, after_mean = (found.flatten(0, 1).mean(0) for found in distances)  # (3,) each
    assert float(after_mean[2]) > 1.15 * float(before_mean[2])
    assert float(after_mean[1]) < 1.15 * float(before_mean[1])


def test_the_modalities_add_up_to_the_score() -> None:
    detector, whole = fitted(), scans(2, 8)
    for features in (whole, without(whole, RGB), without(whole, POINTS)):
        parts = detector.explain(features)
        torch.testing.assert_close(parts[RGB] + parts[POINTS], detector.score(features).patches)
        assert all((part >= 0).all() for part in parts.values())
    assert not detector.explain(without(whole, RGB))[RGB].any()
    assert not detector.explain(without(whole, POINTS))[POINTS].any()


@pytest.mark.parametrize(("lost", "left"), [(POINTS, RGB), (RGB, POINTS)])
def test_the_available_modality_is_compared_alone_in_comparable_units(lost: str, left: str) -> None:
    detector, whole = fitted(), scans(4, 8)
    expected, found = detector.score(whole), detector.score(without(whole, lost))
    part = whole.valid[POINTS]
    assert 0.7 < float(found.patches[part].median() / expected.patches[part].median()) < 1.4
    assert 0.7 < float(images_of(found).median() / images_of(expected).median()) < 1.4
    moved = without(changed(without(whole, lost), lost)[0], lost)
    assert torch.equal(detector.score(moved).patches, found.patches)  # features of a missing modality do not matter
    layer = whole.layers[left][0].clone()
    layer[:, 5, 6] += 8 * layer.std()
    bad = without(Features({**whole.layers, left: (layer,)}, whole.valid, whole.categories), lost)
    assert (detector.score(bad).patches.flatten(1).argmax(1) == 5 * 12 + 6).all()


def test_a_few_stray_points_count_as_none() -> None:
    detector, whole = fitted(), scans(2, 8)
    expected, stray = without(whole, POINTS), with_stray_points(whole)
    assert torch.equal(detector.score(stray).patches, detector.score(expected).patches)
    assert stray.available == (RGB,)


def test_an_image_encoder_suffices_at_inspection() -> None:
    detector, whole = fitted(), scans(1, 8)
    images = Features({RGB: whole.layers[RGB]}, categories=whole.categories)
    assert torch.equal(detector.score(images).patches, detector.score(without(whole, POINTS)).patches)


def test_patches_without_points_count_in_the_image_bank_alone() -> None:
    detector, whole = fitted(), scans(1, 8)
    outside = ~whole.valid[POINTS]
    (found,) = [
        detector._distances(scan, detector.categories_["nut"].banks, None) for scan, _ in detector._scans(whole)
    ]
    assert not found.patches[outside[0]][:, 1:].any()
    image = Features({RGB: whole.layers[RGB]}, categories=whole.categories)
    seen, alone = detector.score(whole).patches[outside], detector.score(image).patches[outside]
    assert (seen <= alone).all()


def test_unlabelled_scans_are_compared_with_the_category_they_are_like() -> None:
    detector, whole = fitted(NAMES), scans(3, 8, NAMES)
    for features in (whole, without(whole, RGB), without(whole, POINTS)):
        unnamed = replace(features, categories=None)
        assert torch.equal(detector.score(unnamed).patches, detector.score(features).patches)
    with pytest.raises(SettingsError, match="bolt"):
        detector.score(replace(whole, categories=("bolt",) * 6))


def test_the_image_score_is_pooled_where_that_is_set() -> None:
    assert fitted(image_score="pooling").score(scans(1, 8)).images is None
    assert images_of(fitted().score(scans(2, 8))).shape == (2,)


def test_one_normal_scan_suffices() -> None:
    detector = M3DM(**SHORT).fit(normal_batches(1))
    bad, where = changed(scans(1, 8), RGB)
    assert torch.isfinite(detector.score(bad).patches[:, where]).all()
    assert (detector.categories_["nut"].map.level > 0).all()


def test_a_loaded_model_scores_alike_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, whole = fitted(NAMES), scans(2, 8, NAMES)
    expected = detector.score(whole)
    for name in ("sklearn", "sklearn.linear_model"):
        monkeypatch.setitem(sys.modules, name, None)
    again = M3DM(**detector.settings).load_state(detector.state())
    found = again.score(whole)
    assert torch.equal(found.patches, expected.patches)
    assert torch.equal(images_of(found), images_of(expected))
    assert all(torch.equal(a, b) for a, b in zip(detector.state().values(), again.state().values(), strict=True))


def test_unnamed_categories_come_back_from_a_state() -> None:
    batch = Batch(replace(normal_batches()[0].features, categories=None))
    detector, whole = M3DM(**SHORT).fit([batch]), scans(1, 8)
    again = M3DM(**detector.settings).load_state(detector.state())
    assert torch.equal(again.score(whole).patches, detector.score(whole).patches)


def test_without_scikit_learn_nothing_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes before the first scan is read."""

    def never() -> Iterator[Batch]:
        raise AssertionError
        yield

    for name in ("sklearn", "sklearn.linear_model"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=r"pip install 'blemish\[m3dm\]'"):
        M3DM().fit(never())


def test_decisions_rest_on_at_most_so_many_evenly_spaced_scans() -> None:
    def chosen(count: int) -> frozenset[int]:
        nothing = torch.zeros(0, 1)
        return CategoryPatches(nothing, nothing, nothing[:, 0] > 0, nothing[:, 0], tuple(range(count))).decision_scans

    assert chosen(5) == set(range(5))
    assert chosen(4 * DECISION_SCANS) == set(range(0, 4 * DECISION_SCANS, 4))


def test_a_sample_without_points_is_refused_with_the_way_out() -> None:
    (batch,) = normal_batches()
    valid = torch.zeros_like(batch.features.valid[POINTS])
    valid[:, 5, 5:7] = True  # two of 144 patches
    seldom = Batch(Features(batch.features.layers, {POINTS: valid}, batch.features.categories))
    with pytest.raises(SettingsError, match=r"none among 1 patches of 'nut'.*raise reservoir_size, which is 1"):
        M3DM(reservoir_size=1).fit([seldom])


def test_memory_is_bounded_by_the_reservoir() -> None:
    detector = fitted(reservoir_size=200, min_patches=50)
    rows = {kind: len(bank.rows) for kind, bank in detector.categories_["nut"].banks.items()}
    assert rows[RGB] == 50
    assert rows[POINTS] == rows[FUSED] == 50


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"image_score": "mean"}, {"coreset_ratio": 2.0}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        M3DM(**wrong)


def test_it_scores_only_once_fitted_and_fits_only_scans_of_both_modalities() -> None:
    for ask in (lambda: M3DM().score(scans(1, 0)), lambda: M3DM().state()):
        with pytest.raises(NotFittedError):
            ask()
    for batches in ([], [Batch(without(scans(2, 0), POINTS))]):
        with pytest.raises(SettingsError, match="picture and points"):
            M3DM().fit(batches)
