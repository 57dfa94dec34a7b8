"""CFM: the map is its formula, each modality's share answers for it, and what is missing is made up for."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from synthetic_features import IMAGE, SURFACE, changed, good, scans, without
from torch.nn.functional import avg_pool2d, normalize

from blemish.detectors.rgb3d.cfm import CFM, CrossmodalMapping
from blemish.detectors.rgb3d.normalisation import box_filtered
from blemish.detectors.rgb3d.patches import scan_patches
from blemish.detectors.rgb3d.prototypes import normalised
from blemish.errors import NotFittedError, SettingsError
from blemish.types import POINTS, RGB, Features

QUICK = {"width": 32, "steps": 120, "patches_per_step": 128, "prototypes": 64, "precision": "fp32"}


@lru_cache
def learned(names: tuple[str, ...] = ("nut",), **settings: object) -> CFM:
    return CFM(**QUICK | settings).fit(good(names=names))  # type: ignore[arg-type]


def test_the_published_map_by_its_formula() -> None:
    published = learned(standardise=False, normalise=False, holes="zero", smooth=False)
    features = scans(1, 8)
    image, points = features[RGB], features[POINTS]
    network = published.trained_.network
    with torch.no_grad():
        away = normalize(image, dim=-1) - normalize(network.to_image(points), dim=-1)
        other = normalize(points, dim=-1) - normalize(network.to_points(image), dim=-1)
    expected = away.square().sum(-1).sqrt() * other.square().sum(-1).sqrt() * features.valid[POINTS]
    torch.testing.assert_close(published.score(features).patches, expected, rtol=1e-4, atol=1e-5)


def test_scaled_scores_are_the_raw_ones_levelled_by_good_cells() -> None:
    features = scans(2, 8)
    measured, levels = features.valid[POINTS], learned().normalisation_.scales_["nut"]
    with torch.no_grad():
        rgb, depth = learned().trained_.network.distances(features[RGB][measured], features[POINTS][measured])
    raw, scaled = learned(normalise=False).score(features).patches, learned().score(features).patches
    torch.testing.assert_close(raw[measured], rgb * depth, rtol=1e-4, atol=1e-6)
    expected = normalised(rgb, levels[RGB]) * normalised(depth, levels[POINTS])
    torch.testing.assert_close(scaled[measured], expected, rtol=1e-4, atol=1e-6)
    good = scaled[measured]
    assert 0.01 < float(good.median()) < 1
    assert float(good.quantile(0.9)) < 3


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("modality", [RGB, POINTS])
def test_a_defect_in_one_modality_raises_its_share_there(modality: str, whiten: bool) -> None:
    detector, before = learned(whiten=whiten), scans(3, 8)
    after, where = changed(before, modality)
    good_share, bad_share = detector.explain(before)[modality], detector.explain(after)[modality]
    assert float(bad_share[:, where].mean()) > 1.3 * float(good_share[:, where].mean())
    assert torch.equal(bad_share[:, ~where], good_share[:, ~where])
    old, new = detector.score(before).patches, detector.score(after).patches
    assert float(new[:, where].mean()) > 2 * float(old[:, where].mean())


def with_hole(features: Features) -> Features:
    """Points are missing in two cells of the middle, which the image shows as another surface."""
    moved, _ = changed(features, RGB)
    valid = features.valid[POINTS].clone()
    valid[:, 5, 5:7] = False
    points = features.layers[POINTS][0] * valid[..., None]
    return replace(moved, layers={**moved.layers, POINTS: (points,)}, valid={POINTS: valid})


def test_a_hole_scores_by_what_the_image_shows_unless_told_otherwise() -> None:
    features = with_hole(scans(3, 8))
    for holes, strange in (("fill", True), ("image", True), ("zero", False)):
        patches = learned(holes=holes).score(features).patches
        assert bool((patches[:, 5, 5:7] > 0).all()) == strange
        assert not bool(patches[:, 0].any())  # the ground


@pytest.mark.parametrize(("lost", "left"), [(POINTS, RGB), (RGB, POINTS)])
def test_a_missing_modality_is_made_up_for(lost: str, left: str) -> None:
    detector, whole = learned(), scans(3, 8)
    lone = detector.score(without(whole, lost)).patches
    assert torch.isfinite(lone).all()
    part = whole.valid[POINTS]
    assert 0.2 < float(lone[part].median()) < 5  # in the unit of whole scans
    layer = whole.layers[left][0].clone()
    layer[:, 5, 6] += 6 * layer.std()
    bad = without(Features({**whole.layers, left: (layer,)}, None, whole.valid, whole.categories), lost)
    assert int(detector.score(bad).patches[0].argmax()) == 5 * 12 + 6
    shares = detector.explain(bad)
    assert not bool(shares[lost].any())
    assert float(shares[left][:, 5, 6].min()) > float(shares[left].median())


def test_scans_with_and_without_points_share_a_batch() -> None:
    detector, whole = learned(), scans(2, 8)
    valid = whole.valid[POINTS].clone()
    valid[1] = False
    mixed = detector.score(replace(whole, valid={POINTS: valid})).patches
    assert torch.equal(mixed[0], detector.score(whole).patches[0])
    assert torch.equal(mixed[1], detector.score(without(whole, POINTS)).patches[1])


def test_features_without_points_at_all_are_scored_by_the_image() -> None:
    detector, whole = learned(), scans(1, 8)
    alone = Features({RGB: whole.layers[RGB]}, categories=whole.categories)
    assert torch.equal(detector.score(alone).patches, detector.score(without(whole, POINTS)).patches)


def test_an_unnamed_scan_is_judged_by_the_category_it_is_nearest_to() -> None:
    names = ("nut", "bolt")
    detector, features = learned(names), scans(4, 8, ("nut", "bolt"))
    for one in (features, without(features, POINTS), without(features, RGB)):
        unnamed = list(scan_patches(one.with_categories(None)))
        found = [detector.normalisation_.category_for(cells) for cells in unnamed]
        assert sum(a == b for a, b in zip(found, one.categories or (), strict=True)) >= 7
    with pytest.raises(SettingsError, match="screw"):
        detector.score(features.with_categories(["screw"] * len(features)))


def test_nothing_at_all_is_not_strange() -> None:
    detector = learned(("nut", "bolt"))
    nothing = without(without(scans(1, 8), RGB), POINTS).with_categories(None)
    assert not bool(detector.score(nothing).patches.any())


def test_box_filters_are_the_published_ones_on_pixels_and_none_on_patches() -> None:
    scores = torch.rand(224, 224, generator=torch.Generator().manual_seed(0))
    expected = scores[None, None]
    for side in (5, 5, 5, 5, 5, 7, 7, 7):
        expected = avg_pool2d(expected, side, 1, side // 2, count_include_pad=False)
    torch.testing.assert_close(box_filtered(scores), expected[0, 0])
    assert torch.equal(box_filtered(scores[:28, :28]), scores[:28, :28])


def test_all_that_was_learned_comes_back() -> None:
    detector = learned(("nut", "bolt"), whiten=True)
    again = CFM(**detector.settings).load_state({k: t.clone() for k, t in detector.state().items()})
    features = scans(2, 8, ("nut", "bolt"))
    for one in (features, without(features, POINTS), without(features, RGB)):
        assert torch.equal(again.score(one).patches, detector.score(one).patches)
        for kind, share in detector.explain(one).items():
            assert torch.equal(again.explain(one)[kind], share)
    assert again.trained_.skipped == detector.trained_.skipped == 0


def test_steps_that_go_wrong_are_skipped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    loss_of, calls = CrossmodalMapping.loss, []

    def sometimes_infinite(self: CrossmodalMapping, image: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return loss_of(self, image, points) * (torch.inf if len(calls) in (3, 7) else 1)

    monkeypatch.setattr(CrossmodalMapping, "loss", sometimes_infinite)
    detector = CFM(**QUICK | {"steps": 10}).fit(good(4))  # type: ignore[arg-type]
    assert detector.trained_.skipped == 2
    assert detector.loss_.isnan().nonzero()[:, 0].tolist() == [2, 6]
    assert torch.isfinite(detector.score(scans(2, 8)).patches).all()


def test_pixels_ask_for_points_of_stride_1() -> None:
    assert CFM(resolution="pixel").needs.points_stride == 1
    assert CFM().needs.points_stride == 4
    assert learned().trained_.network.to_points[0].in_features == IMAGE
    assert learned().trained_.network.to_points[-1].out_features == SURFACE


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0}, {"steps": 0}, {"patches_per_step": 0}, {"sample": -1}, {"prototypes": 0}, {"learning_rate": 0},
        {"resolution": "voxel"}, {"holes": "ignore"}, {"normalise": 1}, {"whiten": "yes"}, {"seed": -1},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        CFM(**wrong)  # type: ignore[arg-type]


def test_it_scores_only_once_it_has_learned() -> None:
    for ask in (lambda d: d.score(scans(1, 0)), lambda d: d.explain(scans(1, 0)), lambda d: d.state()):
        with pytest.raises(NotFittedError):
            ask(CFM())
