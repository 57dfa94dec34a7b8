"""CFM: the map is its formula, is attributed to the defective modality, and does without a missing one."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from synthetic_features import IMAGE, SURFACE, changed, normal_batches, scans, without
from torch.nn.functional import avg_pool2d, normalize

from blemish.detectors.rgb3d.cfm import CFM, CrossmodalMapping
from blemish.detectors.rgb3d.normalisation import box_filtered
from blemish.detectors.rgb3d.prototypes import normalised
from blemish.errors import NotFittedError, SettingsError
from blemish.types import POINTS, RGB, Features

QUICK = {"width": 32, "steps": 120, "patches_per_step": 128, "prototypes": 64, "precision": "fp32"}


@lru_cache
def fitted(names: tuple[str, ...] = ("nut",), **settings: object) -> CFM:
    return CFM(**QUICK | settings).fit(normal_batches(names=names))  # type: ignore[arg-type]


def test_the_published_map_by_its_formula() -> None:
    published = fitted(standardise=False, normalise=False, holes="zero", smooth=False)
    features = scans(1, 8)
    image, points = features[RGB], features[POINTS]
    network = published.trained_.network
    with torch.no_grad():
        away = normalize(image, dim=-1) - normalize(network.to_image(points), dim=-1)
        other = normalize(points, dim=-1) - normalize(network.to_points(image), dim=-1)
    expected = away.square().sum(-1).sqrt() * other.square().sum(-1).sqrt() * features.valid[POINTS]
    torch.testing.assert_close(published.score(features).patches, expected, rtol=1e-4, atol=1e-5)


def test_normalised_scores_are_the_raw_ones_by_their_scales() -> None:
    features = scans(2, 8)
    valid, scales = features.valid[POINTS], fitted().normalisation_.scales_["nut"]
    with torch.no_grad():
        psi_rgb, psi_3d = fitted().trained_.network.distances(features[RGB][valid], features[POINTS][valid])
    raw, scaled = fitted(normalise=False).score(features).patches, fitted().score(features).patches
    torch.testing.assert_close(raw[valid], psi_rgb * psi_3d, rtol=1e-4, atol=1e-6)
    expected = normalised(psi_rgb, scales[RGB]) * normalised(psi_3d, scales[POINTS])
    torch.testing.assert_close(scaled[valid], expected, rtol=1e-4, atol=1e-6)
    assert 0.01 < float(scaled[valid].median()) < 1
    assert float(scaled[valid].quantile(0.9)) < 3


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("modality", [RGB, POINTS])
def test_a_defect_is_attributed_to_its_modality(modality: str, whiten: bool) -> None:
    detector, before = fitted(whiten=whiten), scans(3, 8)
    after, where = changed(before, modality)
    normal, anomalous = detector.explain(before)[modality], detector.explain(after)[modality]
    assert float(anomalous[:, where].mean()) > 1.3 * float(normal[:, where].mean())
    assert torch.equal(anomalous[:, ~where], normal[:, ~where])
    old, new = detector.score(before).patches, detector.score(after).patches
    assert float(new[:, where].mean()) > 2 * float(old[:, where].mean())


def with_hole(features: Features) -> Features:
    """Points are missing in two patches of the middle, whose image is that of another surface."""
    moved, _ = changed(features, RGB)
    valid = features.valid[POINTS].clone()
    valid[:, 5, 5:7] = False
    points = features.layers[POINTS][0] * valid[..., None]
    return replace(moved, layers={**moved.layers, POINTS: (points,)}, valid={POINTS: valid})


def test_a_hole_is_scored_by_its_image_unless_set_otherwise() -> None:
    features = with_hole(scans(3, 8))
    for holes, scored in (("fill", True), ("image", True), ("zero", False)):
        patches = fitted(holes=holes).score(features).patches
        assert bool((patches[:, 5, 5:7] > 0).all()) == scored
        assert not bool(patches[:, 0].any())  # the background


def test_features_without_points_at_all_are_scored_by_the_image() -> None:
    detector, whole = fitted(), scans(1, 8)
    images = Features({RGB: whole.layers[RGB]}, categories=whole.categories)
    assert torch.equal(detector.score(images).patches, detector.score(without(whole, POINTS)).patches)


def test_a_scan_of_neither_modality_scores_0() -> None:
    detector = fitted(("nut", "bolt"))
    nothing = without(without(scans(1, 8), RGB), POINTS).with_categories(None)
    assert not bool(detector.score(nothing).patches.any())


def test_box_filters_are_the_published_ones_on_pixels_and_none_on_patches() -> None:
    scores = torch.rand(224, 224, generator=torch.Generator().manual_seed(0))
    expected = scores[None, None]
    for side in (5, 5, 5, 5, 5, 7, 7, 7):
        expected = avg_pool2d(expected, side, 1, side // 2, count_include_pad=False)
    torch.testing.assert_close(box_filtered(scores), expected[0, 0])
    assert torch.equal(box_filtered(scores[:28, :28]), scores[:28, :28])


def test_steps_that_are_not_finite_are_skipped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    loss_of, calls = CrossmodalMapping.loss, []

    def sometimes_infinite(self: CrossmodalMapping, image: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return loss_of(self, image, points) * (torch.inf if len(calls) in (3, 7) else 1)

    monkeypatch.setattr(CrossmodalMapping, "loss", sometimes_infinite)
    detector = CFM(**QUICK | {"steps": 10}).fit(normal_batches(4))  # type: ignore[arg-type]
    assert detector.trained_.skipped == 2
    assert detector.loss_.isnan().nonzero()[:, 0].tolist() == [2, 6]
    assert torch.isfinite(detector.score(scans(2, 8)).patches).all()


def test_pixels_ask_for_points_of_stride_1() -> None:
    assert CFM(resolution="pixel").needs.points_stride == 1
    assert CFM().needs.points_stride == 4
    assert fitted().trained_.network.to_points[0].in_features == IMAGE
    assert fitted().trained_.network.to_points[-1].out_features == SURFACE


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0}, {"steps": 0}, {"patches_per_step": 0}, {"reservoir_size": -1}, {"prototypes": 0},
        {"learning_rate": 0},
        {"resolution": "voxel"}, {"holes": "ignore"}, {"normalise": 1}, {"whiten": "yes"}, {"seed": -1},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        CFM(**wrong)  # type: ignore[arg-type]


def test_it_scores_only_once_fitted() -> None:
    for ask in (lambda d: d.score(scans(1, 0)), lambda d: d.explain(scans(1, 0)), lambda d: d.state()):
        with pytest.raises(NotFittedError):
            ask(CFM())
