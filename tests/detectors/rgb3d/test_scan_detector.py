"""What detectors that train a network on scans share: they do without a modality, and restore all that was fitted."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from synthetic_features import SIDE, normal_batches, scans, with_stray_points, without

from blemish.detectors.rgb3d.asymmetric_student_teacher import AST
from blemish.detectors.rgb3d.cfm import CFM
from blemish.detectors.rgb3d.patches import on_grid, scan_patches
from blemish.detectors.rgb3d.scan_detector import ScanDetector
from blemish.errors import SettingsError
from blemish.types import POINTS, RGB, Batch, Features

NAMES = ("nut", "bolt")
QUICK: dict[type[ScanDetector[Any]], dict[str, Any]] = {
    CFM: {"width": 32, "steps": 120, "patches_per_step": 128},
    AST: {
        "width": 16, "teacher_width": 16, "image_width": 8, "points_width": 8, "steps": 60, "batch_size": 4,
    },
}  # fmt: skip
# Least median over the part of a scan of one modality: those of scans with both are much smaller of AST.
LEAST = {CFM: 0.2, AST: 0.02}

each = pytest.mark.parametrize("kind", [CFM, AST])


@lru_cache
def fitted(kind: type[ScanDetector[Any]], names: tuple[str, ...] = ("nut",), **settings: object) -> ScanDetector[Any]:
    return kind(**QUICK[kind], prototypes=64, precision="fp32", **settings).fit(normal_batches(names=names))


@each
@pytest.mark.parametrize(("lost", "left"), [(POINTS, RGB), (RGB, POINTS)])
def test_the_available_modality_is_scored_alone(kind: type[ScanDetector[Any]], lost: str, left: str) -> None:
    detector, whole = fitted(kind), scans(3, 8)
    unimodal = detector.score(without(whole, lost)).patches
    assert torch.isfinite(unimodal).all()
    part = whole.valid[POINTS]
    assert LEAST[kind] < float(unimodal[part].median()) < 5  # of the size of scores of scans with both
    layer = whole.layers[left][0].clone()
    layer[:, 5, 6] += 6 * layer.std()
    bad = without(Features({**whole.layers, left: (layer,)}, whole.valid, whole.categories), lost)
    assert int(detector.score(bad).patches[0].argmax()) == 5 * SIDE + 6
    parts = detector.explain(bad)  # type: ignore[attr-defined]
    assert not bool(parts[lost].any())
    assert float(parts[left][:, 5, 6].min()) > float(parts[left].median())


@each
def test_a_few_stray_points_count_as_none(kind: type[ScanDetector[Any]]) -> None:
    detector, whole = fitted(kind), scans(2, 8)
    stray = with_stray_points(whole)
    assert torch.equal(detector.score(stray).patches, detector.score(without(whole, POINTS)).patches)
    assert not bool(detector.explain(stray)[POINTS].any())  # type: ignore[attr-defined]
    assert stray.available == (RGB,)


def scoring(detector: ScanDetector[Any], **settings: object) -> ScanDetector[Any]:
    """What was fitted, scoring by other settings."""
    return type(detector)(**detector.settings | settings).load_state(detector.state())


def seen_in_part() -> Features:
    """Scans: whole; with a hole; without points; with points here and there; without an image; with neither."""
    features = scans(6, 8)
    valid, seen = features.valid[POINTS].clone(), torch.ones(6, SIDE, SIDE, dtype=torch.bool)
    valid[1, 5, 5:7], valid[2], valid[5], seen[4:] = False, False, False, False
    valid[3] &= torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(3)) < 0.5
    return replace(features, valid={RGB: seen, POINTS: valid})


@each
@pytest.mark.parametrize("holes", ["fill", "image", "zero"])
@pytest.mark.parametrize("normalise", [True, False])
def test_the_parts_of_the_modalities_add_up_to_the_score(
    kind: type[ScanDetector[Any]], holes: str, normalise: bool
) -> None:
    detector, features = scoring(fitted(kind), holes=holes, normalise=normalise), seen_in_part()
    parts, scores = detector.explain(features), detector.score(features).patches  # type: ignore[attr-defined]
    torch.testing.assert_close(parts[RGB] + parts[POINTS], scores, rtol=1e-4, atol=1e-7)
    assert all(bool((part >= 0).all()) for part in parts.values())
    assert bool((scores.flatten(1).amax(1) > 0)[:5].all())
    assert not bool(scores[5].any())
    assert not bool(parts[POINTS][2].any())
    assert not bool(parts[RGB][4].any())
    if holes == "image":
        assert torch.equal(parts[RGB][1, 5, 5:7], scores[1, 5, 5:7])


def test_parts_of_a_smoothed_map_add_up_to_it() -> None:
    layers = {m: (on_grid(layer, (112, 112)),) for m, (layer,) in scans(1, 8).layers.items()}
    features = Features(layers, categories=("nut",))
    parts, scores = fitted(CFM).explain(features), fitted(CFM).score(features).patches  # type: ignore[attr-defined]
    assert not torch.equal(scores, scoring(fitted(CFM), smooth=False).score(features).patches)
    torch.testing.assert_close(parts[RGB] + parts[POINTS], scores, rtol=1e-4, atol=1e-7)


@each
def test_of_normal_scans_that_lack_a_modality_prototypes_alone_learn(kind: type[ScanDetector[Any]]) -> None:
    """Networks and scales are those of the others, in whatever batches they come."""
    whole, further = normal_batches(4)[0], scans(2, 3)
    lacking = [Batch(without(further, lost)) for lost in (RGB, POINTS)]
    settings = QUICK[kind] | {"steps": 5, "prototypes": 64, "precision": "fp32"}
    expected, found = (
        kind(**settings).fit([whole]).state(),
        kind(**settings).fit([lacking[0], whole, lacking[1]]).state(),
    )
    assert expected.keys() == found.keys()
    for key in expected:
        if "prototypes" not in key:
            assert torch.equal(found[key], expected[key]), key
    for modality in (RGB, POINTS):
        assert not torch.equal(*(one[f"normalisation.prototypes.{modality}.mean/nut"] for one in (expected, found)))


@each
def test_a_category_without_a_scan_of_both_modalities_is_not_learned(kind: type[ScanDetector[Any]]) -> None:
    images = Batch(without(scans(2, 3, ("bolt",)), POINTS))
    detector = kind(**QUICK[kind] | {"steps": 5, "precision": "fp32"}).fit([images, *normal_batches(4)])
    assert detector.normalisation_.names_ == ("nut",)
    with pytest.raises(SettingsError, match="bolt"):
        detector.score(images.features)


@each
def test_scans_with_and_without_points_share_a_batch(kind: type[ScanDetector[Any]]) -> None:
    detector, whole = fitted(kind), scans(2, 8)
    valid = whole.valid[POINTS].clone()
    valid[1] = False
    mixed = detector.score(replace(whole, valid={POINTS: valid})).patches
    assert torch.equal(mixed[0], detector.score(whole).patches[0])
    assert torch.equal(mixed[1], detector.score(without(whole, POINTS)).patches[1])


@each
def test_an_unlabelled_scan_takes_the_nearest_category(kind: type[ScanDetector[Any]]) -> None:
    detector, features = fitted(kind, NAMES), scans(4, 8, NAMES)
    for one in (features, without(features, POINTS), without(features, RGB)):
        unlabelled = scan_patches(one.with_categories(None))
        found = [detector.normalisation_.category_for(scan) for scan in unlabelled]
        assert sum(a == b for a, b in zip(found, one.categories or (), strict=True)) >= 7
    with pytest.raises(SettingsError, match="screw"):
        detector.score(features.with_categories(["screw"] * len(features)))


@pytest.mark.parametrize(("kind", "settings"), [(CFM, {"whiten": True}), (AST, {})])
def test_all_that_was_fitted_is_restored(kind: type[ScanDetector[Any]], settings: dict[str, Any]) -> None:
    detector = fitted(kind, NAMES, **settings)
    again = kind(**detector.settings).load_state({k: t.clone() for k, t in detector.state().items()})
    features = scans(2, 8, NAMES)
    for one in (features, without(features, POINTS), without(features, RGB)):
        assert torch.equal(again.score(one).patches, detector.score(one).patches)
        for name, part in detector.explain(one).items():  # type: ignore[attr-defined]
            assert torch.equal(again.explain(one)[name], part)  # type: ignore[attr-defined]
    assert again.trained.skipped == detector.trained.skipped == 0
