"""The memory bank against loops written from the papers' equations, and its promises as a detector."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from blemish.detectors.base import Detector
from blemish.detectors.patchcore import BACKGROUND_IMAGES, PatchCore
from blemish.detectors.patches import concatenate_layers
from blemish.errors import NotFittedError, SettingsError
from blemish.numeric.background import fit_background
from blemish.types import RGB, Batch, Features

COSINE = {
    "layers": "deep",
    "neighbourhood_size": 1,
    "metric": "cosine",
    "coreset_ratio": 1.0,
    "reweighting_neighbours": 0,
}


def features(count: int, seed: int = 0, categories: tuple[str, ...] | None = None) -> Features:
    """Two layers on different grids, as a CNN gives them."""
    generator = torch.Generator().manual_seed(seed)
    fine = torch.randn(count, 8, 10, 6, generator=generator)
    coarse = torch.randn(count, 4, 5, 12, generator=generator) + 5
    return Features({RGB: (fine, coarse)}, categories=categories)


def deep(count: int, seed: int = 0, categories: tuple[str, ...] | None = None) -> Features:
    tensor = torch.randn(count, 8, 10, 16, generator=torch.Generator().manual_seed(seed))
    return Features({RGB: (tensor,)}, categories=categories)


def test_is_a_detector_whose_settings_rebuild_it() -> None:
    detector = PatchCore(**COSINE)
    assert isinstance(detector, Detector)
    assert PatchCore(**detector.settings).settings == detector.settings
    assert (detector.needs.layers, detector.needs.score_exponent) == ("deep", 2)
    assert (PatchCore().needs.layers, PatchCore().needs.score_exponent) == ("pair", 1)


def test_cosine_distances_equal_a_loop() -> None:
    good, other = deep(3), deep(2, seed=1)
    scores = PatchCore(**COSINE).fit([Batch(good)]).score(other)
    bank = good[RGB].reshape(-1, 16).double().numpy()
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    for score, patch in zip(scores.patches.reshape(-1), other[RGB].reshape(-1, 16).double().numpy(), strict=True):
        assert float(score) == pytest.approx(1 - (bank @ patch / np.linalg.norm(patch)).max(), abs=1e-6)
    assert scores.images is None
    assert scores.patches.shape == (2, 8, 10)


def test_aggregation_averages_what_lies_inside_the_grid() -> None:
    layer = features(1).layers[RGB][0]
    averaged = concatenate_layers([layer], neighbourhood_size=3)
    for y, x in ((0, 0), (0, 4), (3, 5), (7, 9)):
        around = layer[0, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].reshape(-1, 6)
        torch.testing.assert_close(averaged[0, y, x], around.mean(0))


def test_image_score_is_equation_7() -> None:
    detector = PatchCore(reweighting_neighbours=4).fit([Batch(features(4))])
    other = features(3, seed=1)
    scores = detector.score(other)
    bank = detector.patches_[""].double().numpy()
    for image, got in zip(detector.patches(other).double().numpy(), scores.images, strict=True):
        patches = image.reshape(-1, image.shape[-1])
        distances = np.array([[math.dist(p, m) for m in bank] for p in patches])
        test = int(distances.min(1).argmax())
        star = int(distances[test].argmin())
        neighbours = np.argsort([math.dist(bank[star], m) for m in bank])[:4]
        weight = 1 - math.exp(distances[test, star]) / sum(math.exp(distances[test, m]) for m in neighbours)
        assert float(got) == pytest.approx(weight * distances[test, star], rel=1e-5)


def test_a_bank_of_one_patch_is_not_weighed_away() -> None:
    one = Features({RGB: (torch.zeros(1, 1, 1, 3),)})
    detector = PatchCore(neighbourhood_size=1).fit([Batch(one)])
    images = detector.score(Features({RGB: (torch.ones(1, 1, 1, 3),)})).images
    assert images.tolist() == pytest.approx([math.sqrt(3)])


@pytest.mark.parametrize("settings", [{}, COSINE, {"unit_layers": True, "coreset_ratio": 0.2, "min_patches": 10}])
def test_an_image_does_not_depend_on_its_batch(settings: dict) -> None:
    make = deep if settings.get("layers") == "deep" else features
    detector = PatchCore(**settings).fit([Batch(make(3))])
    other = make(4, seed=1)
    together, alone = detector.score(other), [detector.score(other.take(slice(i, i + 1))) for i in range(4)]
    assert torch.equal(together.patches, torch.cat([a.patches for a in alone]))
    if together.images is not None:
        assert torch.equal(together.images, torch.cat([a.images for a in alone]))


@pytest.mark.parametrize("settings", [{}, COSINE])
def test_state_round_trip_is_bit_identical(settings: dict) -> None:
    names = ("größe/1", "", "größe/1")
    detector = PatchCore(**settings).fit([Batch(deep(3, categories=names))])
    again = PatchCore(**detector.settings).load_state({k: t.clone() for k, t in detector.state().items()})
    other = deep(2, seed=1, categories=("größe/1", ""))
    first, second = detector.score(other), again.score(other)
    assert torch.equal(first.patches, second.patches)
    assert (first.images is None) or torch.equal(first.images, second.images)


def test_each_category_has_its_own_bank() -> None:
    good = deep(2, categories=("nut", "bolt"))
    pooled = PatchCore(**COSINE).fit([Batch(good)])
    for index, name in enumerate(("nut", "bolt")):
        single = PatchCore(**COSINE).fit([Batch(good.take(slice(index, index + 1)).with_categories(None))])
        other = deep(1, seed=5)
        assert torch.equal(
            pooled.score(other.with_categories([name])).patches, single.score(other.with_categories([name])).patches
        )
    for wrong in (["cog"], None):
        with pytest.raises(SettingsError, match="nut"):
            pooled.score(deep(1).with_categories(wrong))


def test_banks_obey_their_limits() -> None:
    def size(**settings: int | float) -> int:
        return len(PatchCore(**settings).fit([Batch(features(4))]).state()["bank"])

    assert size() == 320  # few patches are all kept
    assert size(min_patches=1) == 32
    assert size(coreset_ratio=1.0, max_patches=50) == 50
    assert size(coreset_ratio=1.0, reservoir_size=100) == 100


def test_few_images_get_all_copies_and_many_get_none() -> None:
    detector = PatchCore(rotations=8, flips=True, max_copies=64)
    plans = [detector.needs.limited_to_max_copies(n) for n in (1, 4, 8, 64, 300)]
    assert [(p.rotations, p.flips) for p in plans] == [(8, True), (8, True), (4, True), (1, False), (1, False)]


def part_on_background(count: int, seed: int, defect: bool = False) -> Features:
    """A disc of one kind of patch on another kind, both noisy."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(20), torch.arange(20), indexing="ij")
    disc = (y - 10) ** 2 + (x - 10) ** 2 < 36
    tensor = torch.randn(count, 20, 20, 32, generator=generator)
    tensor[:, disc] += 4 * torch.ones(32)
    if defect:
        tensor[:, 9:11, 9:11] += 6 * torch.randn(32, generator=generator)
        tensor[:, 1, 1] += 3 * torch.eye(32)[0]
    return Features({RGB: (tensor,)})


def test_background_scores_nothing_and_the_part_as_before() -> None:
    good, other = Batch(part_on_background(3, 0)), part_on_background(2, 1, defect=True)
    plain = PatchCore(**COSINE).fit([good]).score(other).patches
    masked = PatchCore(**COSINE, background=True).fit([good]).score(other).patches
    assert (masked[:, 0] == 0).all()
    assert torch.equal(masked[:, 8:12, 8:12], plain[:, 8:12, 8:12])


def test_an_odd_patch_of_the_background_does_not_decide_a_reweighted_score() -> None:
    good, clean, odd = Batch(part_on_background(3, 0)), part_on_background(1, 1), part_on_background(1, 1)
    odd.layers[RGB][0][0, 2, 2] = -9 * torch.eye(32)[0]
    detector = PatchCore(**COSINE | {"reweighting_neighbours": 5}, background=True).fit([good])
    for score in (detector.score, lambda features: detector.graph_scores(features, "")):
        one, other = score(clean), score(odd)
        assert other.patches[0, 2, 2] == 0
        assert one.images is not None
        torch.testing.assert_close(one.images, other.images)


def test_a_texture_has_no_background() -> None:
    assert not PatchCore(**COSINE, background=True).fit([Batch(deep(3))]).backgrounds_


def test_the_background_is_learned_from_the_images_as_they_are() -> None:
    """Turned copies do not count among `BACKGROUND_IMAGES`, and what they show is not asked for."""
    images = part_on_background(BACKGROUND_IMAGES + 2, 0)
    noise = torch.randn(7, 20, 20, 32, generator=torch.Generator().manual_seed(4))
    batches = [
        Batch(
            Features({RGB: (torch.cat([images[RGB][i : i + 1], noise]),)}),
            images=(i,) * 8,
            originals=(True, *7 * [False]),
        )
        for i in range(len(images))
    ]
    learned = PatchCore(**COSINE, background=True).fit(batches).backgrounds_
    expected = fit_background(list(images[RGB][:BACKGROUND_IMAGES]))
    assert expected is not None
    assert torch.equal(learned[""], expected)


def test_before_learning_it_says_so() -> None:
    for use in (lambda d: d.score(deep(1)), lambda d: d.state(), lambda d: d.load_state({})):
        with pytest.raises(NotFittedError):
            use(PatchCore())
    with pytest.raises(SettingsError):
        PatchCore().fit([])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers", "all"),
        ("neighbourhood_size", 2),
        ("metric", "manhattan"),
        ("coreset_ratio", 0.0),
        ("coreset_ratio", True),
        ("min_patches", 0),
        ("max_patches", 1.5),
        ("reservoir_size", 0),
        ("reweighting_neighbours", -1),
        ("rotations", 0),
        ("flips", 1),
        ("image_size", 0),
        ("seed", -1),
    ],
)
def test_an_impossible_setting_is_named(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=name):
        PatchCore(**{name: value})


def test_a_bank_and_a_reweighted_score_leave_ignored_patches_out() -> None:
    """The bank is that of the other patches; the image score that of the largest distance among them."""
    learned, other = deep(2), deep(1, seed=1)
    height, width = learned[RGB].shape[1:3]
    pixels = np.zeros((8 * height, 8 * width), dtype=bool)
    pixels[: 8 * (height // 2 - 1)] = True
    judged = slice(height // 2, None)
    settings = COSINE | {"keep_originals": True, "min_patches": 10_000, "reweighting_neighbours": 3}
    detector = PatchCore(**settings).fit([Batch(learned.take(slice(i, i + 1)).with_ignored(pixels)) for i in range(2)])
    expected = learned[RGB][:, judged].flatten(0, 2)
    assert len(detector.patches_[""]) == len(expected)
    plain = PatchCore(**settings).fit([Batch(Features({RGB: (learned[RGB][:, judged],)}))])
    one = detector.score(other.with_ignored(pixels)).images
    two = plain.score(Features({RGB: (other[RGB][:, judged],)})).images
    assert one is not None
    assert two is not None
    torch.testing.assert_close(one, two)
