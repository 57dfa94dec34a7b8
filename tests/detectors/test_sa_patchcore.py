"""Patches in their context: what attention gathers, what it makes visible, and that it is the plain bank without it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blemish.detectors.patchcore import PatchCore
from blemish.detectors.sa_patchcore import SAPatchCore, contexts
from blemish.errors import NotFittedError, SettingsError
from blemish.numeric.standardise import channel_scale
from blemish.types import RGB, Batch, Features

DIM, SIDE = 6, 6
ONE_LAYER = {"layers": "deep", "neighbourhood_size": 1}
_PARTS = torch.eye(DIM)


def image(kinds: tuple[int, ...], seed: int) -> torch.Tensor:
    """Features `(1, SIDE, SIDE, DIM)`: ground (channel 0) and, at random places, one patch of each of these kinds."""
    generator = torch.Generator().manual_seed(seed)
    patches = _PARTS[0] + 0.02 * torch.randn(SIDE * SIDE, DIM, generator=generator)
    places = torch.randperm(SIDE * SIDE, generator=generator)[: len(kinds)]
    for place, kind in zip(places, kinds, strict=True):
        patches[place] += 3 * _PARTS[kind] - _PARTS[0]
    return patches.view(1, SIDE, SIDE, DIM)


def features(patches: torch.Tensor, categories: list[str] | None = None) -> Features:
    return Features({RGB: (patches,)}).with_categories(categories)


def good() -> list[Batch]:
    return [Batch(features(image((kind, kind), seed))) for seed in range(12) for kind in (1, 2)]


def score(detector: SAPatchCore | PatchCore, kinds: tuple[int, ...], seed: int) -> float:
    patches = detector.score(features(image(kinds, seed))).patches
    return float(patches.flatten().topk(4).values.mean())


@pytest.mark.parametrize("kinds", [(1, 2), (1,), (1, 1, 1)])
def test_a_wrong_pair_or_number_is_seen_with_context_alone(kinds):
    seeing, blind = SAPatchCore(**ONE_LAYER).fit(good()), SAPatchCore(**ONE_LAYER, context=0.0).fit(good())
    assert min(score(seeing, kinds, s) for s in range(50, 55)) > 2 * max(score(seeing, (2, 2), s) for s in range(5, 9))
    limit = max(score(blind, (kind, kind), seed) for kind in (1, 2) for seed in range(60, 80))
    assert np.mean([score(blind, kinds, seed) > limit for seed in range(50, 60)]) < 0.5


def test_without_context_it_is_the_memory_bank():
    plain = PatchCore(
        layers="deep", neighbourhood_size=1, standardise=True, reweighting_neighbours=0, coreset_ratio=1.0
    ).fit(good())
    bank = SAPatchCore(**ONE_LAYER, context=0.0, coreset_ratio=1.0).fit(good())
    tested = features(image((1, 3), 99))
    torch.testing.assert_close(bank.score(tested).patches, plain.score(tested).patches, rtol=1e-4, atol=1e-5)


def test_contexts_are_those_of_a_loop():
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    array = rows.double().numpy()
    unit = array / np.linalg.norm(array, axis=1, keepdims=True)
    for temperature, found in zip((0.1, 2.0), contexts(rows, (0.1, 2.0)), strict=True):
        for i in range(5):
            weights = np.array([np.exp(unit[i] @ unit[j] / temperature) for j in range(5)])
            expected = sum(w * row for w, row in zip(weights / weights.sum(), array, strict=True))
            np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-5)


def test_the_ends_of_the_temperature():
    """A very low one looks at itself alone, a very high one is the image's mean."""
    rows = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    near, far = contexts(rows, (1e-3, 1e6))
    torch.testing.assert_close(near, rows)
    torch.testing.assert_close(far, rows.mean(0).expand_as(rows), rtol=1e-4, atol=1e-4)


def test_context_knows_no_places():
    """Patches in another order gather the same: only what there is counts, and how often."""
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(2))
    order = torch.randperm(9)
    torch.testing.assert_close(contexts(rows[order], (0.5,))[0], contexts(rows, (0.5,))[0][order])


def test_several_temperatures_stand_side_by_side():
    detector = SAPatchCore(**ONE_LAYER, temperatures=(0.2, 5.0)).fit(good())
    assert detector.state()["bank.bank"].shape[1] == 3 * DIM
    assert detector.settings["temperatures"] == [0.2, 5.0]


def test_each_category_has_its_own_scale():
    batches = [Batch(features(torch.cat([image((1, 1), s), 9 * image((2, 2), s)]), ["a", "b"])) for s in range(6)]
    state = SAPatchCore(**ONE_LAYER).fit(batches).state()
    torch.testing.assert_close(state["scale/b"][2], 9 * state["scale/a"][1], rtol=0.3, atol=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperatures", []), ("temperatures", [0.0]), ("temperatures", [-1.0]), ("temperatures", ["warm"]),
        ("temperatures", 0.5), ("temperatures", [float("inf")]), ("context", -1.0), ("context", float("nan")),
        ("context", "much"), ("coreset_ratio", 0.0), ("rotations", 0), ("grid", "middle"), ("neighbourhood_size", 2),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(name, value):
    with pytest.raises(SettingsError, match=name):
        SAPatchCore(**{name: value})


def test_wrong_use_is_explained():
    with pytest.raises(NotFittedError):
        SAPatchCore().score(features(image((1, 1), 0)))
    with pytest.raises(SettingsError, match="good picture"):
        SAPatchCore().fit([])


def test_what_fills_an_ignored_area_changes_no_scale():
    pixels = np.zeros((SIDE, SIDE), bool)
    pixels[:2] = True
    scales = []
    for size in (1.0, 50.0):
        batches = []
        for batch in good():
            patches = batch.features[RGB].clone()
            patches[:, :2] *= size
            batches.append(Batch(features(patches).with_ignored(pixels)))
        scales.append(SAPatchCore(**ONE_LAYER).fit(batches).state()["scale"])
    judged = torch.cat([batch.features[RGB][:, 3:].flatten(0, 2) for batch in good()])  # without the neighbours, too
    torch.testing.assert_close(scales[0], scales[1])
    torch.testing.assert_close(scales[0], channel_scale(judged.std(0, correction=0)), rtol=1e-4, atol=1e-6)
