"""AST: the map is its formula over the part alone, the teacher stays as it is, a modality may be missing."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from synthetic_features import IMAGE, SIDE, SURFACE, changed, normal_batches, scans, without

from blemish.detectors.rgb3d.asymmetric_student_teacher import (
    AST,
    DISCREPANCY,
    POSITION_WIDTH,
    ReducedFeatures,
    StudentTeacher,
    TrainingScan,
    mean_over,
    positions,
    window_of,
)
from blemish.detectors.rgb3d.prototypes import normalised
from blemish.detectors.rgb3d.sampling import sample_patches
from blemish.errors import NotFittedError, SettingsError
from blemish.numeric.positions import sine_positions
from blemish.numeric.standardise import RARE
from blemish.types import POINTS, RGB, Batch, Features

QUICK = {
    "width": 16, "teacher_width": 16, "image_width": 8, "points_width": 8, "steps": 60, "batch_size": 4,
    "prototypes": 64, "precision": "fp32", "learning_rate": 3e-3,
}  # fmt: skip


@lru_cache
def fitted(names: tuple[str, ...] = ("nut",)) -> AST:
    return AST(**QUICK).fit(normal_batches(names=names))  # type: ignore[arg-type]


def scoring(detector: AST, **settings: object) -> AST:
    """The same networks, scoring by other settings."""
    return AST(**detector.settings | settings).load_state(detector.state())


def inputs_of(detector: AST, features: Features) -> torch.Tensor:
    """Reduced features `(B, C, h, w)`, by hand."""
    network, valid = detector.trained_.network, features.valid[POINTS]
    with torch.no_grad():
        image, points = network.image(features[RGB]), network.points(features[POINTS]) * valid[..., None]
    return torch.cat([image, points], dim=-1).movedim(-1, 1)


def test_the_published_map_by_its_formula() -> None:
    detector, features = scoring(fitted(), normalise=False), scans(3, 8)
    x = inputs_of(detector, features)
    position = sine_positions((SIDE, SIDE), POSITION_WIDTH).movedim(-1, 0).expand(3, -1, -1, -1)
    network = detector.trained_.network
    with torch.no_grad():
        z, _ = network.teacher(x, position)
        away = network.student(torch.cat([x, position], dim=1)) - z
    expected = away.square().sum(1) / (8 + SURFACE) * features.valid[POINTS]
    torch.testing.assert_close(detector.score(features).patches, expected, rtol=1e-4, atol=1e-6)
    assert float(expected[features.valid[POINTS]].min()) > 0


def test_normalised_scores_are_the_raw_ones_by_the_categorys_scale() -> None:
    features, names = scans(2, 8, ("nut", "bolt")), ("nut", "bolt")
    raw = scoring(fitted(names), normalise=False).score(features).patches
    scores = fitted(names).score(features).patches
    for name, own, expected in zip(features.categories or (), scores, raw, strict=True):
        scale = fitted(names).normalisation_.scales_[name][DISCREPANCY]
        torch.testing.assert_close(own, normalised(expected, scale), rtol=1e-4, atol=1e-6)
    part = features.valid[POINTS]
    assert 0.1 < float(scores[part].median()) < 1
    assert float(scores[part].quantile(0.9)) < 3


@pytest.mark.parametrize("modality", [RGB, POINTS])
def test_a_defect_of_either_modality_is_scored_and_attributed_to_it(modality: str) -> None:
    detector, before = fitted(), scans(3, 8)
    after, where = changed(before, modality)
    old, new = detector.score(before).patches, detector.score(after).patches
    assert float(new[:, where].mean()) > 1.5 * float(old[:, where].mean())
    assert not bool(new[:, 0].any())  # the background
    normal, anomalous = detector.explain(before)[modality], detector.explain(after)[modality]
    assert float(anomalous[:, where].mean()) > 1.3 * float(normal[:, where].mean())


def test_contributions_add_up_to_the_score() -> None:
    parts = fitted().explain(scans(2, 8))
    torch.testing.assert_close(parts[RGB] + parts[POINTS], fitted().score(scans(2, 8)).patches)


def test_both_networks_learn_and_the_student_leaves_the_teacher_alone() -> None:
    teacher, student = fitted().loss_.chunk(2)
    assert len(teacher) == len(student) == QUICK["steps"]
    assert float(teacher[-10:].mean()) < float(teacher[:10].mean()) - 0.1  # nats per channel
    assert float(student[-10:].mean()) < 0.7 * float(student[:10].mean())

    network = fitted().trained_.network
    network.zero_grad()
    x = torch.randn(2, network.channels, 6, 6, generator=torch.Generator().manual_seed(0))
    position = positions((6, 6)).expand(2, -1, -1, -1)
    network.imitation_loss(x, position, torch.ones(2, 6, 6, dtype=torch.bool)).backward()
    assert all(weight.grad is None for weight in network.teacher.parameters())
    assert any(weight.grad is not None and bool(weight.grad.any()) for weight in network.student.parameters())
    network.zero_grad()


def test_the_losses_are_those_of_the_foreground() -> None:
    values = torch.tensor([[[1.0, 5.0], [3.0, 7.0]]])
    foreground = torch.tensor([[[True, False], [True, False]]])
    assert float(mean_over(values, foreground)) == 2
    assert float(mean_over(values, foreground & False)) == 0
    network, x = fitted().trained_.network, torch.randn(1, 8 + SURFACE, 6, 6)
    valid = torch.zeros(1, 6, 6, dtype=torch.bool)
    valid[:, 2:4, 2:4] = True
    position = positions((6, 6))[None]
    with torch.no_grad():
        z, log_det = network.teacher(x, position)
        expected = (z.square().sum(1) / 2 - log_det)[valid].mean() / network.channels
        torch.testing.assert_close(network.likelihood_loss(x, position, valid), expected)
        away = (network.student(torch.cat([x, position], dim=1)) - z).square().mean(1)
        torch.testing.assert_close(network.imitation_loss(x, position, valid), away[valid].mean())


@pytest.mark.parametrize(("dim", "width"), [(10, 4), (6, 8)])
def test_reduced_features_are_standardised_and_keep_lengths(dim: int, width: int) -> None:
    random = torch.Generator().manual_seed(0)
    patches = torch.randn(2000, dim, generator=random) * torch.linspace(0.1, 9, dim) + 3
    torch.manual_seed(0)  # of the projection
    reduced = ReducedFeatures(dim, width)
    reduced.fit(patches)
    found = reduced(patches)
    assert found.shape == (2000, min(dim, width))
    torch.testing.assert_close(found.mean(0), torch.zeros(min(dim, width)), atol=1e-3, rtol=0)  # clipped
    torch.testing.assert_close(found.std(0), torch.ones(min(dim, width)), atol=1e-3, rtol=0)
    torch.testing.assert_close(reduced.projection.T @ reduced.projection, torch.eye(min(dim, width)))
    if dim < width:
        expected = ((patches - patches.mean(0)) / patches.std(0)).clamp(-RARE, RARE)
        torch.testing.assert_close(found, expected, atol=0.01, rtol=0.01)


def test_windows_lie_on_the_grid_around_patches_with_points() -> None:
    inputs = torch.arange(2 * 9 * 11.0).view(2, 9, 11).half()
    foreground = torch.zeros(9, 11, dtype=torch.bool)
    foreground[0, 10] = foreground[4, 5] = True
    scan, places = TrainingScan(inputs, foreground, "nut"), positions((9, 11))
    found = set()
    for seed in range(20):
        torch.manual_seed(seed)
        window, position, inside = window_of(scan, places, 4)
        assert window.shape == (2, 4, 4)
        assert position.shape == (POSITION_WIDTH, 4, 4)
        assert bool(inside.any())
        top, left = divmod(int(window[0, 0, 0]), 11)
        found.add((top, left))
        assert torch.equal(window, inputs[:, top : top + 4, left : left + 4].float())
        assert torch.equal(position, places[:, top : top + 4, left : left + 4])
    assert found == {(0, 7), (2, 3)}
    whole, _, _ = window_of(scan, places, 9)
    assert whole.shape == (2, 9, 9)


def test_scans_are_kept_evenly_over_categories() -> None:
    detector = AST(**QUICK | {"max_scans": 6})  # type: ignore[arg-type]
    batches = [*normal_batches(12, ("nut",)), *normal_batches(3, ("bolt",)), *normal_batches(2, ("nut",), seed=2)]
    patches = sample_patches(batches, 64, "fill", seed=0)
    kept = detector._training_scans(batches, detector.build_network(patches.dims), patches)
    assert [scan.category for scan in kept] == ["bolt"] * 3 + ["nut"] * 3
    assert all(scan.grid == (SIDE, SIDE) for scan in kept)


@pytest.mark.parametrize(("holes", "scored"), [("fill", True), ("image", True), ("zero", False)])
def test_a_hole_is_scored_unless_set_otherwise(holes: str, scored: bool) -> None:
    features = scans(2, 8)
    valid = features.valid[POINTS].clone()
    valid[:, 5, 5:7] = False
    points = features.layers[POINTS][0] * valid[..., None]
    holed = replace(features, layers={**features.layers, POINTS: (points,)}, valid={POINTS: valid})
    patches = scoring(fitted(), holes=holes).score(holed).patches
    assert bool((patches[:, 5, 5:7] > 0).all()) == scored
    assert not bool(patches[:, 0].any())  # the background


def test_progress_covers_both_networks() -> None:
    calls: list[tuple[float, int, str]] = []
    quick = AST(**QUICK | {"steps": 2})  # type: ignore[arg-type]
    quick.fit(normal_batches(3), lambda done, total, facts: calls.append((done, total, facts["step"])))
    assert calls == [(0.5, 2, "teacher"), (1, 2, "teacher"), (1.5, 2, "student"), (2, 2, "student")]


@pytest.mark.parametrize("points_only", [True, False])
def test_scans_of_one_modality_alone_cannot_be_learned_from(points_only: bool) -> None:
    lost = without(scans(3, 1), RGB if points_only else POINTS)
    with pytest.raises(SettingsError, match="a picture and points"):
        AST(**QUICK).fit([Batch(lost)])  # type: ignore[arg-type]


def test_widths_are_those_of_the_settings() -> None:
    network = fitted().trained_.network
    assert isinstance(network, StudentTeacher)
    assert network.image.projection.shape == (IMAGE, 8)
    assert network.points.projection.shape == (SURFACE, SURFACE)
    assert network.student[0].in_channels == 8 + SURFACE + POSITION_WIDTH
    assert AST().needs.points_stride == 4


@pytest.mark.parametrize(
    "wrong",
    [{"width": 0}, {"teacher_width": 0}, {"image_width": 0}, {"window": 0}, {"batch_size": 0}, {"holes": "ignore"},
     {"max_scans": 0}, {"normalise": 1}, {"steps": 0}, {"seed": -1}],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        AST(**wrong)  # type: ignore[arg-type]


def test_it_scores_only_once_fitted() -> None:
    for ask in (lambda d: d.score(scans(1, 0)), lambda d: d.explain(scans(1, 0)), lambda d: d.state()):
        with pytest.raises(NotFittedError):
            ask(AST())
