"""What detectors that train a network on scans share: they do without a modality, and restore all that was fitted."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from synthetic_features import SIDE, normal_batches, scans, without

from blemish.detectors.rgb3d.asymmetric_student_teacher import AST
from blemish.detectors.rgb3d.cfm import CFM
from blemish.detectors.rgb3d.patches import scan_patches
from blemish.detectors.rgb3d.scan_detector import ScanDetector
from blemish.errors import SettingsError
from blemish.types import POINTS, RGB, Features

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
