"""The text-guided detector: its map by its formula, words that matter, switches that leave CFM, a contrast."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from synthetic_features import changed, good, prompts, scans, without
from torch import nn
from torch.nn.functional import cosine_similarity, normalize

from blemish.detectors.rgb3d.gacm import GACM
from blemish.detectors.rgb3d.patches import scan_patches
from blemish.detectors.rgb3d.text_guided import TextGuided
from blemish.errors import NotFittedError, SettingsError
from blemish.types import POINTS, RGB, Batch, Features, Prompts

QUICK = {"width": 32, "steps": 120, "patches_per_step": 128, "prototypes": 64, "precision": "fp32"}
NAMES = ("nut", "bolt")


@lru_cache
def learned(names: tuple[str, ...] = NAMES, **settings: Any) -> TextGuided:
    return TextGuided(**QUICK | settings).fit(good(names=names))


def contrasting() -> TextGuided:
    return TextGuided(**QUICK | {"prompts": "contrastive", "separation_weight": 0.0}).fit([with_defects(scans(12, 1, NAMES))])  # type: ignore[arg-type]


def with_defects(features: Features) -> Batch:
    altered, where = changed(features, RGB)
    layer = altered.layers[RGB][0].clone()
    layer[:, where] += 4
    altered = replace(altered, layers={**altered.layers, RGB: (layer,)})
    return Batch(features, altered, where.expand(len(features), -1, -1), prompts(NAMES))


def test_the_map_by_its_formula() -> None:
    """Ψ = α Ψ_rgb ⊙ Ψ_3d + β Ψ_text, all of unit vectors, as published."""
    detector = learned(
        whiten=False, standardise=False, normalise=False, holes="zero", crossmodal_weight=0.3, text_weight=0.6, prototype_weight=0.0, missing_weight=0.0
    )
    features = scans(1, 8, NAMES)
    image, points = features[RGB], features[POINTS]
    network = detector.trained_.network
    with torch.no_grad():
        rgb = (normalize(image, dim=-1) - normalize(network.mapping.to_image(points), dim=-1)).norm(dim=-1)
        depth = (normalize(points, dim=-1) - normalize(network.mapping.to_points(image), dim=-1)).norm(dim=-1)
        anchor = torch.stack([normalize(detector.anchors_[name], dim=-1) for name in NAMES])[:, None]  # (2, 1, 1, Dt)
        seen = (normalize(network.image_to_text(image), dim=-1) - anchor).norm(dim=-1)
        felt = (normalize(network.points_to_text(points), dim=-1) - anchor).norm(dim=-1)
    expected = (0.3 * rgb * depth + 0.6 * seen * felt) * features.valid[POINTS]
    torch.testing.assert_close(detector.score(features).patches, expected, rtol=1e-4, atol=1e-5)


def test_what_no_good_image_shows_counts_as_much_as_gamma() -> None:
    features = scans(1, 8, NAMES)
    without, half, whole = (learned(prototype_weight=gamma).score(features).patches for gamma in (0.0, 0.5, 1.0))
    torch.testing.assert_close(whole - half, half - without, rtol=1e-3, atol=1e-4)
    assert bool((whole >= without).all())
    alien = replace(features, layers={**features.layers, RGB: (features[RGB] + 9,)})
    where = features.valid[POINTS]
    seen = [
        learned().normalisation_.strange(RGB, cells, cells.category) for one in (features, alien) for cells in scan_patches(one)
    ]
    good, strange = torch.stack(seen[:2])[where], torch.stack(seen[2:])[where]
    assert float(strange.min()) > float(good.max())


def test_points_are_missed_where_the_image_shows_the_part() -> None:
    """A bite out of the rim leaves cells that nothing else looks at; the ground never has points."""
    whole = scans(2, 8, NAMES)
    kept = whole.valid[POINTS].clone()
    kept[:, :4] = False
    bitten, gone = replace(whole, valid={POINTS: kept}), whole.valid[POINTS] & ~kept
    found, blind = (learned(missing_weight=delta, steps=500).score(bitten).patches for delta in (1.0, 0.0))
    assert float(found[gone].median()) > 1
    assert float(found[~whole.valid[POINTS]].max()) < 0.1
    assert not blind[gone].any()
    assert learned(missing_weight=0.0, steps=500).trained_.network.presence is None
    shares = learned(missing_weight=1.0, steps=500).explain(bitten)
    assert bool((shares[POINTS][gone] > shares[RGB][gone]).all())


def test_every_category_needs_as_many_sentences() -> None:
    told = prompts(NAMES)
    told[NAMES[0]] = Prompts(told[NAMES[0]].normal[:2])
    with pytest.raises(SettingsError, match="as many sentences about every category"):
        TextGuided(**QUICK).fit([Batch(scans(2, 1, NAMES), prompts=told)])  # type: ignore[arg-type]


@pytest.mark.parametrize("modality", [RGB, POINTS])
def test_the_modality_that_a_defect_changed_is_blamed(modality: str) -> None:
    """Both distances of the mapping grow, whichever is wrong; the shares say which."""
    after, where = changed(scans(3, 8), modality)
    layer = after.layers[modality][0].clone()
    layer[:, where] += 4  # what no good part looks like: of a pair of good cells, neither can be blamed
    other = POINTS if modality == RGB else RGB
    shares = learned(("nut",)).explain(replace(after, layers={**after.layers, modality: (layer,)}))
    right = shares[modality][:, where] > shares[other][:, where]
    assert float(right.float().mean()) > 0.8


@pytest.mark.parametrize("modality", [RGB, POINTS])
def test_a_defect_in_one_modality_raises_its_share_there(modality: str) -> None:
    detector, before = learned(("nut",)), scans(3, 8)
    after, where = changed(before, modality)
    old, new = detector.explain(before), detector.explain(after)
    assert set(old) == {RGB, POINTS, "text"}
    assert float(new[modality][:, where].mean()) > 1.3 * float(old[modality][:, where].mean())
    for kind in old:
        assert torch.equal(new[kind][:, ~where], old[kind][:, ~where])
    better, worse = detector.score(before).patches, detector.score(after).patches
    assert float(worse[:, where].mean()) > 2 * float(better[:, where].mean())


def test_shares_of_good_cells_hardly_pass_one() -> None:
    features = scans(3, 8, NAMES)
    for share in learned().explain(features).values():
        good = share[features.valid[POINTS]]
        assert 0.1 < float(good.median()) < 1
        assert float(good.quantile(0.9)) < 2


def test_switches_leave_cfm() -> None:
    plain = learned(mapper="mlp", text=False)
    assert plain.needs.text is None
    assert isinstance(plain.trained_.network.mapping.to_points, nn.Sequential)
    for mapper, kind in (("gacm", nn.Linear), ("deep-gacm", nn.Sequential)):
        forth = learned(mapper=mapper).trained_.network.mapping.to_points
        assert isinstance(forth, GACM)
        assert isinstance(forth.semantic, kind)
        assert isinstance(forth.geometric, kind)
    assert not [key for key in plain.state() if "text" in key or "anchor" in key]
    assert set(plain.explain(scans(1, 8, NAMES))) == {RGB, POINTS}
    unprompted = [replace(batch, prompts=None) for batch in good(names=NAMES)]
    assert TextGuided(**QUICK | {"text": False, "steps": 2}).fit(unprompted).loss_.shape == (2,)  # type: ignore[arg-type]


def test_words_are_asked_for_and_missed() -> None:
    assert TextGuided().needs.text == "object"
    assert TextGuided(prompts="ensemble").needs.text == "ensemble"
    assert not TextGuided(prompts="ensemble").needs.synthetic_anomalies
    assert TextGuided(prompts="contrastive").needs.synthetic_anomalies
    assert not TextGuided(prompts="contrastive", text=False).needs.synthetic_anomalies
    for told in (None, prompts(("nut",))):
        batches = [replace(batch, prompts=told) for batch in good(2, NAMES)]
        with pytest.raises(SettingsError, match="sentences"):
            TextGuided(**QUICK).fit(batches)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="made-up defects"):
        TextGuided(**QUICK | {"prompts": "contrastive", "separation_weight": 0.0}).fit(good(2, NAMES))  # type: ignore[arg-type]


def test_cells_are_pulled_to_the_anchor_of_their_category() -> None:
    """Where anchors are kept apart, most cells find their own; all lie near one of them."""
    detector, features = learned(separation_weight=1.0), scans(4, 8, NAMES)
    network = detector.trained_.network
    with torch.no_grad():
        mapped = network.to_text(RGB, network.mapping.image_standard(features[RGB]))[features.valid[POINTS]]
    own = features.valid[POINTS].nonzero()[:, 0] % 2
    likeness = torch.stack([cosine_similarity(mapped, detector.anchors_[name], dim=-1) for name in NAMES], 1)
    assert float((likeness.argmax(1) == own).float().mean()) > 0.8
    assert float(likeness.max(1).values.mean()) > 0.7


def test_anchors_can_be_kept_apart() -> None:
    near, far = (cosine_similarity(*learned(separation_weight=apart).anchors_.values(), dim=-1) for apart in (0.0, 1.0))
    assert float(far) < float(near) - 0.2


def test_an_unnamed_scan_is_judged_by_its_category_all_the_same() -> None:
    detector, features = learned(), scans(4, 8, NAMES)
    assert torch.equal(detector.score(features.with_categories(None)).patches, detector.score(features).patches)


def test_a_contrast_tells_synthetic_anomalys_from_good_cells() -> None:
    detector = contrasting()
    batch = with_defects(scans(3, 8, NAMES))
    assert batch.anomalous is not None
    assert detector.anchors_["nut"].shape[0] == 2
    network, where = detector.trained_.network, changed(batch.features, RGB)[1]
    away = []
    with torch.no_grad():
        for features in (batch.features, batch.anomalous):
            cells = network.mapping.image_standard(features[RGB][0][where])
            away.append(detector._to_anchor(RGB, cells, "nut"))
    good_side, bad_side = away
    assert float(good_side.mean()) < 0.4
    assert float(bad_side.mean()) > 0.6
    assert float(detector.score(batch.anomalous).patches[:, where].mean()) > 2 * float(
        detector.score(batch.features).patches[:, where].mean()
    )


@pytest.mark.parametrize("alone", ["prototypes", "text"])
@pytest.mark.parametrize(("lost", "left"), [(POINTS, RGB), (RGB, POINTS)])
def test_a_missing_modality_is_made_up_for(lost: str, left: str, alone: str) -> None:
    detector, whole = learned(unimodal=alone), scans(2, 8, NAMES)
    lone = detector.score(without(whole, lost)).patches
    assert torch.isfinite(lone).all()
    assert float(lone.min()) >= 0
    assert 0.1 < float(lone[whole.valid[POINTS]].median()) < 10
    shares = detector.explain(without(whole, lost))
    assert not bool(shares[lost].any())
    assert bool(shares[left].any())
    assert torch.isfinite(detector.score(without(whole, lost).with_categories(None)).patches).all()


@pytest.mark.parametrize("settings", [{}, {"text": False}, {"mapper": "mlp"}, {"mapper": "gacm"}, {"unimodal": "text"}])
def test_all_that_was_learned_comes_back(settings: dict[str, Any]) -> None:
    detector = learned(**settings)
    state = {key: tensor.clone() for key, tensor in detector.state().items()}
    again = TextGuided(**detector.settings).load_state(state)
    features = scans(2, 8, NAMES)
    for one in (features, without(features, POINTS), without(features, RGB), features.with_categories(None)):
        assert torch.equal(again.score(one).patches, detector.score(one).patches)
        for kind, share in detector.explain(one).items():
            assert torch.equal(again.explain(one)[kind], share)


def test_the_adaptor_stays_behind() -> None:
    """Inspection needs the anchors alone, neither the sentences nor what read them."""
    assert not [key for key in learned().state() if "expert" in key or "prototype" in key]


@pytest.mark.parametrize(
    "wrong",
    [
        {"mapper": "linear"}, {"prompts": "none"}, {"unimodal": "guess"}, {"text": "yes"}, {"crossmodal_weight": -1}, {"text_weight": "a"},
        {"experts": 0}, {"top_k": 5}, {"top_k": 0}, {"dropout": 1.0}, {"crossmodal_weight": 0, "text_weight": 0}, {"width": -3},
        {"crossmodal_weight": 0, "text": False}, {"holes": "ignore"},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        TextGuided(**wrong)


def test_it_scores_only_once_it_has_learned() -> None:
    for ask in (lambda d: d.score(scans(1, 0)), lambda d: d.explain(scans(1, 0)), lambda d: d.state()):
        with pytest.raises(NotFittedError):
            ask(TextGuided())
