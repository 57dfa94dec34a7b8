"""Text-guided: the map is its formula, anchors come from text, each module can be switched off."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from synthetic_features import changed, normal_batches, prompts, scans, with_stray_points, without
from torch import nn
from torch.nn.functional import cosine_similarity, normalize

from blemish.detectors.rgb3d.gacm import GACM
from blemish.detectors.rgb3d.patches import scan_patches
from blemish.detectors.rgb3d.text_guided import TO_ANCHOR, TextGuided
from blemish.errors import NotFittedError, SettingsError
from blemish.numeric.pooling import image_score
from blemish.types import POINTS, RGB, Batch, Features, Prompts

QUICK = {"width": 32, "steps": 120, "patches_per_step": 128, "prototypes": 64, "precision": "fp32"}
NAMES = ("nut", "bolt")


@lru_cache
def fitted(names: tuple[str, ...] = NAMES, **settings: Any) -> TextGuided:
    return quick(**settings).fit(normal_batches(names=names))


def quick(**settings: Any) -> TextGuided:
    return TextGuided(**QUICK | settings)


def with_anomalies(features: Features) -> Batch:
    altered, where = changed(features, RGB)
    layer = altered.layers[RGB][0].clone()
    layer[:, where] += 4
    altered = replace(altered, layers={**altered.layers, RGB: (layer,)})
    return Batch(features, altered, where.expand(len(features), -1, -1), prompts(NAMES))


def test_a_few_stray_points_count_as_none() -> None:
    detector, whole = fitted(), scans(1, 8, NAMES)
    stray = with_stray_points(whole)
    assert torch.equal(detector.score(stray).patches, detector.score(without(whole, POINTS)).patches)
    assert stray.available == (RGB,)


def test_the_map_by_its_formula() -> None:
    """Ψ = α Ψ_rgb ⊙ Ψ_3d + β Ψ_text of unit vectors, as published."""
    weights = {"crossmodal_weight": 0.3, "text_weight": 0.6, "prototype_weight": 0.0, "missing_weight": 0.0}
    detector = fitted(whiten=False, standardise=False, normalise=False, holes="zero", **weights)
    features = scans(1, 8, NAMES)
    image, points = features[RGB], features[POINTS]
    network = detector.trained_.network
    with torch.no_grad():
        psi_rgb = (normalize(image, dim=-1) - normalize(network.mapping.to_image(points), dim=-1)).norm(dim=-1)
        psi_3d = (normalize(points, dim=-1) - normalize(network.mapping.to_points(image), dim=-1)).norm(dim=-1)
        anchor = torch.stack([normalize(detector.anchors_[name], dim=-1) for name in NAMES])[:, None]  # (2, 1, 1, Dt)
        image_text = (normalize(network.image_to_text(image), dim=-1) - anchor).norm(dim=-1)
        points_text = (normalize(network.points_to_text(points), dim=-1) - anchor).norm(dim=-1)
    expected = (0.3 * psi_rgb * psi_3d + 0.6 * image_text * points_text) * features.valid[POINTS]
    torch.testing.assert_close(detector.score(features).patches, expected, rtol=1e-4, atol=1e-5)


def test_the_prototype_term_is_linear_in_its_weight_and_grows_with_distance() -> None:
    features = scans(1, 8, NAMES)
    without, half, whole = (fitted(prototype_weight=weight).score(features).patches for weight in (0.0, 0.5, 1.0))
    torch.testing.assert_close(whole - half, half - without, rtol=1e-3, atol=1e-4)
    assert bool((whole >= without).all())
    assert bool((whole > without).any())
    shifted = replace(features, layers={**features.layers, RGB: (features[RGB] + 9,)})
    valid, normalisation = features.valid[POINTS], fitted().normalisation_
    near, far = (
        torch.stack([normalisation.prototype_distance(RGB, scan, scan.category) for scan in scan_patches(one)])
        for one in (features, shifted)
    )
    assert float(far[valid].min()) > float(near[valid].max())


def test_held_out_scans_bring_both_parts_of_the_map_to_one_scale() -> None:
    """√((Ψ / u)² + (ε Ψ_proto² / v)²), u and v being what held-out normal scans reach on average."""
    features, unseen = scans(1, 8, NAMES), scans(4, 12, NAMES)
    joint = {seed: fitted(image_weight=0.5).score(one).patches for seed, one in ((1, features), (4, unseen))}
    detector = quick(image_weight=0.5).fit(normal_batches(names=NAMES))
    torch.testing.assert_close(detector.score(features).patches, joint[1])  # without them there is no second part
    detector.fit_held_out([unseen])

    def alone(batch: Features) -> torch.Tensor:
        near = detector.normalisation_.prototype_distance
        return torch.stack([near(RGB, scan, scan.category) ** 2 for scan in scan_patches(batch)])

    image = {1: alone(features), 4: alone(unseen)}
    expected = []
    for index, name in enumerate(features.categories or ()):
        own = [i for i, other in enumerate(unseen.categories or ()) if other == name]
        units = [np.mean([image_score(maps[4][i].numpy(), detector.pooling) for i in own]) for maps in (joint, image)]
        np.testing.assert_allclose(detector.units_[name].numpy(), units, rtol=1e-4)
        expected.append(torch.hypot(joint[1][index] / units[0], 0.5 * image[1][index] / units[1]))
    torch.testing.assert_close(detector.score(features).patches, torch.stack(expected).float(), rtol=1e-4, atol=1e-5)
    again = quick(image_weight=0.5).load_state(detector.state())
    assert torch.equal(again.score(features).patches, detector.score(features).patches)


def test_what_the_image_alone_shows_is_not_hidden_by_a_mapping_that_varies() -> None:
    """However large the mapping's distances are on unseen normal scans, the image keeps its say."""
    unseen, (image_only, where) = scans(4, 12, NAMES[:1]), changed(scans(1, 8, NAMES[:1]), RGB)
    layer = image_only.layers[RGB][0].clone()
    layer[:, where] += 9
    image_only = replace(image_only, layers={**image_only.layers, RGB: (layer,)})
    loud = {"crossmodal_weight": 80.0}
    for held_out in (False, True):
        detector = quick(image_weight=1.0, prototype_weight=0.0, **loud).fit(normal_batches(names=NAMES[:1]))
        quiet = quick(image_weight=1.0, prototype_weight=0.0).fit(normal_batches(names=NAMES[:1]))
        if held_out:
            detector.fit_held_out([unseen])
            quiet.fit_held_out([unseen])
        ratio = float(detector.score(image_only).patches.max() / quiet.score(image_only).patches.max())
        assert (ratio < 1.5) == held_out


def test_units_are_of_what_is_scored_and_none_is_zero() -> None:
    unseen = scans(4, 12, NAMES)
    for settings in ({"normalise": False}, {}):
        detector = quick(**settings).fit(normal_batches(names=NAMES))
        before = detector.score(unseen).patches
        detector.fit_held_out([unseen])
        own = [image_score(one.numpy(), detector.pooling) for one in before[::2]]  # categories take turns
        assert float(detector.units_[NAMES[0]][0]) == pytest.approx(np.mean(own), rel=1e-4)
    flat = replace(unseen, valid={POINTS: torch.zeros_like(unseen.valid[POINTS])})
    assert quick().fit(normal_batches(names=NAMES)).fit_held_out([flat]).units_ == {}


def test_without_its_weight_nothing_is_fitted_to_held_out_scans() -> None:
    detector = quick(image_weight=0.0).fit(normal_batches(names=NAMES)).fit_held_out([scans(4, 12, NAMES)])
    assert detector.units_ == {}


def test_missing_points_score_where_the_image_shows_the_part() -> None:
    """A bite out of the rim leaves patches that no other term scores; the background never has points."""
    whole = scans(2, 8, NAMES)
    kept = whole.valid[POINTS].clone()
    kept[:, :4] = False
    bitten, missing = replace(whole, valid={POINTS: kept}), whole.valid[POINTS] & ~kept
    with_term, without_term = (fitted(missing_weight=weight, steps=500).score(bitten).patches for weight in (1.0, 0.0))
    assert float(with_term[missing].median()) > 1
    assert float(with_term[~whole.valid[POINTS]].max()) < 0.1
    assert not without_term[missing].any()
    assert fitted(missing_weight=0.0, steps=500).trained_.network.presence is None
    parts = fitted(missing_weight=1.0, steps=500).explain(bitten)
    assert bool((parts[POINTS][missing] > parts[RGB][missing]).all())


def test_every_category_needs_as_many_sentences() -> None:
    unlike = prompts(NAMES)
    unlike[NAMES[0]] = Prompts(unlike[NAMES[0]].normal[:2])
    with pytest.raises(SettingsError, match="as many sentences about every category"):
        quick().fit([Batch(scans(2, 1, NAMES), prompts=unlike)])


@pytest.mark.parametrize("modality", [RGB, POINTS])
def test_the_split_names_the_modality_that_a_defect_changed(modality: str) -> None:
    """Both distances of the mapping grow, whichever is defective; the split says which."""
    after, where = changed(scans(3, 8), modality)
    layer = after.layers[modality][0].clone()
    layer[:, where] += 4  # unlike any normal patch; of a pair of two normal patches neither is the defective one
    other = POINTS if modality == RGB else RGB
    parts = fitted(("nut",)).explain(replace(after, layers={**after.layers, modality: (layer,)}))
    right = parts[modality][:, where] > parts[other][:, where]
    assert float(right.float().mean()) > 0.8


@pytest.mark.parametrize("modality", [RGB, POINTS])
def test_a_defect_in_one_modality_raises_its_part_there(modality: str) -> None:
    detector, before = fitted(("nut",)), scans(3, 8)
    after, where = changed(before, modality)
    old, new = detector.explain(before), detector.explain(after)
    assert set(old) == {RGB, POINTS, "text"}
    assert float(new[modality][:, where].mean()) > 1.3 * float(old[modality][:, where].mean())
    for name in old:
        assert torch.equal(new[name][:, ~where], old[name][:, ~where])
    normal, anomalous = detector.score(before).patches, detector.score(after).patches
    assert float(anomalous[:, where].mean()) > 2 * float(normal[:, where].mean())


def scoring(detector: TextGuided, **settings: Any) -> TextGuided:
    """What was fitted, scoring by other settings."""
    return TextGuided(**detector.settings | settings).load_state(detector.state())


def seen_in_part() -> Features:
    """Scans: whole; with a hole; without points; with a bite; without an image; with neither."""
    features = scans(3, 8, NAMES)
    valid, seen = features.valid[POINTS].clone(), torch.ones_like(features.valid[POINTS])
    valid[1, 5, 5:7], valid[2], valid[3, :4], valid[5], seen[4:] = False, False, False, False, False
    return replace(features, valid={RGB: seen, POINTS: valid})


@lru_cache
def with_units() -> TextGuided:
    return quick().fit(normal_batches(names=NAMES)).fit_held_out([scans(4, 12, NAMES)])


@pytest.mark.parametrize("holes", ["fill", "image", "zero"])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(
    "weights", [{}, {"prototype_weight": 0.0}, {"image_weight": 0.0}, {"unimodal": "text"}], ids=str
)
def test_parts_add_up_to_the_score(holes: str, normalise: bool, weights: dict[str, Any]) -> None:
    features = seen_in_part()
    for base in (fitted(), with_units(), fitted(text=False)):
        if not base.text and "unimodal" in weights:
            continue
        detector = scoring(base, holes=holes, normalise=normalise, **weights)
        parts, scores = detector.explain(features), detector.score(features).patches
        torch.testing.assert_close(torch.stack(list(parts.values())).sum(0), scores, rtol=1e-4, atol=1e-7)
        assert all(bool((part >= 0).all()) for part in parts.values())
        assert set(parts) == {RGB, POINTS} | ({"text"} if base.text else set())
        assert bool((scores.flatten(1).amax(1) > 0)[:5].all())
        if holes == "image":  # once, and nothing but its image and that points are missing
            hole = (parts[RGB] + parts[POINTS])[1, 5, 5:7]
            torch.testing.assert_close(hole, scores[1, 5, 5:7])
            assert bool((parts[RGB][1, 5, 5:7] > 0).all())


def test_each_weight_belongs_to_one_part_but_for_that_of_both_modalities() -> None:
    """Without units a part is linear in the weights of its terms, and the others do not know them."""
    features = seen_in_part()
    without_terms = {"text_weight": 0.0, "prototype_weight": 0.0, "missing_weight": 1e-9}
    plain = scoring(fitted(), **without_terms).explain(features)
    for weight, owner in (("text_weight", "text"), ("prototype_weight", RGB), ("missing_weight", POINTS)):
        once, twice = (scoring(fitted(), **without_terms | {weight: w}).explain(features) for w in (0.5, 1.0))
        torch.testing.assert_close(twice[owner] - once[owner], once[owner] - plain[owner], rtol=1e-3, atol=1e-5)
        assert bool((once[owner] > plain[owner]).any())
        for other in set(plain) - {owner}:
            assert torch.equal(once[other], plain[other])
    crossmodal = scoring(fitted(), **without_terms | {"crossmodal_weight": 0.4}).explain(features)
    both = features.valid[POINTS] & features.valid[RGB]
    for modality in (RGB, POINTS):
        torch.testing.assert_close(2 * crossmodal[modality][both], plain[modality][both], rtol=1e-4, atol=1e-6)


def test_patches_that_equal_prototypes_in_both_modalities_are_split_in_halves() -> None:
    detector, features = fitted(), scans(1, 8, NAMES)
    (scan, _) = scan_patches(features)
    none = torch.zeros(scan.valid.shape)
    share = detector.normalisation_.image_share(dict.fromkeys(TO_ANCHOR.values(), none), scan, NAMES[0], TO_ANCHOR)
    assert bool((share == 0.5).all())


def test_switches_leave_cfm() -> None:
    plain = fitted(mapper="mlp", text=False)
    assert plain.needs.prompts is None
    assert isinstance(plain.trained_.network.mapping.to_points, nn.Sequential)
    for mapper, kind in (("gacm", nn.Linear), ("deep-gacm", nn.Sequential)):
        to_points = fitted(mapper=mapper).trained_.network.mapping.to_points
        assert isinstance(to_points, GACM)
        assert isinstance(to_points.semantic, kind)
        assert isinstance(to_points.geometric, kind)
    assert not [key for key in plain.state() if "text" in key or "anchor" in key]
    assert set(plain.explain(scans(1, 8, NAMES))) == {RGB, POINTS}
    unprompted = [replace(batch, prompts=None) for batch in normal_batches(names=NAMES)]
    assert quick(text=False, steps=2).fit(unprompted).loss_.shape == (2,)


def test_needs_name_the_prompts_and_fit_refuses_others() -> None:
    assert TextGuided().needs.prompts == "object"
    assert TextGuided(prompts="ensemble").needs.prompts == "ensemble"
    assert not TextGuided(prompts="ensemble").needs.synthetic_anomalies
    assert TextGuided(prompts="contrastive").needs.synthetic_anomalies
    assert not TextGuided(prompts="contrastive", text=False).needs.synthetic_anomalies
    for given in (None, prompts(("nut",))):
        batches = [replace(batch, prompts=given) for batch in normal_batches(2, NAMES)]
        with pytest.raises(SettingsError, match="sentences"):
            quick().fit(batches)
    with pytest.raises(SettingsError, match="made-up defects"):
        quick(prompts="contrastive", separation_weight=0.0).fit(normal_batches(2, NAMES))


def test_patches_are_pulled_to_the_anchor_of_their_category() -> None:
    """With separated anchors most patches are nearest to their own; all are near one of them."""
    detector, features = fitted(separation_weight=1.0), scans(4, 8, NAMES)
    network = detector.trained_.network
    with torch.no_grad():
        mapped = network.to_text(RGB, network.mapping.image_standard(features[RGB]))[features.valid[POINTS]]
    own = features.valid[POINTS].nonzero()[:, 0] % 2
    cosines = torch.stack([cosine_similarity(mapped, detector.anchors_[name], dim=-1) for name in NAMES], 1)
    assert float((cosines.argmax(1) == own).float().mean()) > 0.8
    assert float(cosines.max(1).values.mean()) > 0.7


def test_anchors_can_be_separated() -> None:
    near, far = (
        cosine_similarity(*fitted(separation_weight=weight).anchors_.values(), dim=-1) for weight in (0.0, 1.0)
    )
    assert float(far) < float(near) - 0.2


def test_the_category_of_an_unlabelled_scan_is_inferred() -> None:
    detector, features = fitted(), scans(4, 8, NAMES)
    assert torch.equal(detector.score(features.with_categories(None)).patches, detector.score(features).patches)


def test_a_contrast_separates_synthetic_anomalies_from_normal_patches() -> None:
    detector = quick(prompts="contrastive", separation_weight=0.0).fit([with_anomalies(scans(12, 1, NAMES))])
    batch = with_anomalies(scans(3, 8, NAMES))
    assert batch.altered is not None
    assert detector.anchors_["nut"].shape[0] == 2
    network, where = detector.trained_.network, changed(batch.features, RGB)[1]
    distances = []
    with torch.no_grad():
        for features in (batch.features, batch.altered):
            patches = network.mapping.image_standard(features[RGB][0][where])
            distances.append(detector._to_anchor(RGB, patches, "nut"))
    normal, anomalous = distances
    assert float(normal.mean()) < 0.4
    assert float(anomalous.mean()) > 0.6
    assert float(detector.score(batch.altered).patches[:, where].mean()) > 2 * float(
        detector.score(batch.features).patches[:, where].mean()
    )


@pytest.mark.parametrize("unimodal", ["prototypes", "text"])
@pytest.mark.parametrize(("lost", "left"), [(POINTS, RGB), (RGB, POINTS)])
def test_the_available_modality_is_scored_alone(lost: str, left: str, unimodal: str) -> None:
    detector, whole = fitted(unimodal=unimodal), scans(2, 8, NAMES)
    scores = detector.score(without(whole, lost)).patches
    assert torch.isfinite(scores).all()
    assert float(scores.min()) >= 0
    assert 0.1 < float(scores[whole.valid[POINTS]].median()) < 10
    parts = detector.explain(without(whole, lost))
    assert not bool(parts[lost].any())
    assert bool(parts[left].any())
    assert torch.isfinite(detector.score(without(whole, lost).with_categories(None)).patches).all()


@pytest.mark.parametrize("settings", [{}, {"text": False}, {"mapper": "mlp"}, {"mapper": "gacm"}, {"unimodal": "text"}])
def test_all_that_was_fitted_is_restored(settings: dict[str, Any]) -> None:
    detector = fitted(**settings)
    state = {key: tensor.clone() for key, tensor in detector.state().items()}
    again = TextGuided(**detector.settings).load_state(state)
    features = scans(2, 8, NAMES)
    for one in (features, without(features, POINTS), without(features, RGB), features.with_categories(None)):
        assert torch.equal(again.score(one).patches, detector.score(one).patches)
        for name, part in detector.explain(one).items():
            assert torch.equal(again.explain(one)[name], part)


def test_octa_is_not_part_of_the_state() -> None:
    """Scoring needs only the anchors that it made."""
    own = {"anchor", "network", "normalisation", "dims", "loss"}
    parts = {"mapping", "presence", "image_to_text", "points_to_text"}
    keys = [key.partition("/")[0].split(".") for key in fitted().state()]
    assert {key[0] for key in keys} == own
    assert {key[1] for key in keys if key[0] == "network"} == parts


@pytest.mark.parametrize(
    "wrong",
    [
        {"mapper": "linear"}, {"prompts": "none"}, {"unimodal": "guess"}, {"text": "yes"}, {"crossmodal_weight": -1},
        {"text_weight": "a"}, {"experts": 0}, {"top_k": 5}, {"top_k": 0}, {"dropout": 1.0}, {"width": -3},
        {"crossmodal_weight": 0, "text_weight": 0}, {"crossmodal_weight": 0, "text": False}, {"holes": "ignore"},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        TextGuided(**wrong)


def test_it_scores_only_once_fitted() -> None:
    for ask in (lambda d: d.score(scans(1, 0)), lambda d: d.explain(scans(1, 0)), lambda d: d.state()):
        with pytest.raises(NotFittedError):
            ask(TextGuided())
