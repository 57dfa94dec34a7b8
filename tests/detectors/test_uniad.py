"""UniAD's network: what a patch can see, jitter, places on any grid, and that defects in any category stand out."""

from __future__ import annotations

import pytest
import torch
from dead_channel import scores_with_and_without

from blemish.detectors.uniad import QueryBlock, QueryDecoder, UniAD, jittered
from blemish.errors import NotFittedError, SettingsError
from blemish.metrics import auroc
from blemish.numeric.attention import all_but_neighbours
from blemish.numeric.positions import sine_positions
from blemish.types import RGB, Batch, Features

DIM, GRID = 12, (6, 6)
SMALL = {"width": 32, "depth": 1, "heads": 4, "radius": 1, "jitter": 1.0, "learning_rate": 5e-3, "precision": "fp32"}
BRIEF = SMALL | {"steps": 3}


def normal_samples(category: int, count: int, seed: int, grid: tuple[int, int] = GRID) -> torch.Tensor:
    """Patches `(count, h, w, DIM)` that depend on the place in a way of their category, a little noisy."""
    place = sine_positions(grid, 16)
    pattern = place @ torch.randn(16, DIM, generator=torch.Generator().manual_seed(50 + category))
    noise = torch.randn(count, *grid, DIM, generator=torch.Generator().manual_seed(seed))
    return pattern + 0.1 * noise


def features(patches: torch.Tensor) -> Features:
    return Features({RGB: (patches,)})


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    both = [torch.cat([normal_samples(c, 4, 10 * seed + c) for c in (0, 1)]) for seed in range(6)]
    return [Batch(features(patches)) for patches in both]


@pytest.fixture(scope="module")
def learned(batches) -> UniAD:
    return UniAD(**SMALL, steps=120).fit(batches)


def gradient_at(centre: tuple[int, int], output: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Which of the given tokens `(1, N, width)` the output at `centre` depends on, `(h, w)` bool."""
    answer = output[0, centre[0] * GRID[1] + centre[1]]
    (answer * torch.arange(len(answer))).sum().backward()  # a plain sum of normalised channels never changes
    return (given.grad.abs().sum(-1)[0] > 0).unflatten(0, GRID)


@pytest.mark.parametrize("radius", [0, 1])
def test_in_one_layer_a_query_does_not_see_the_neighbourhood_it_rebuilds(radius):
    torch.manual_seed(0)
    block, query = QueryBlock(8, 2), torch.randn(1, 36, 8)
    memory = torch.randn(1, 36, 8, requires_grad=True)
    seen = gradient_at((2, 3), block(query, memory, memory, all_but_neighbours(GRID, radius)), memory)
    expected = torch.ones(GRID, dtype=torch.bool)
    expected[2 - radius : 3 + radius, 3 - radius : 4 + radius] = False
    assert torch.equal(seen, expected)


def test_without_a_mask_a_query_sees_everything():
    torch.manual_seed(0)
    memory = torch.randn(1, 36, 8, requires_grad=True)
    assert gradient_at((2, 3), QueryBlock(8, 2)(torch.randn(1, 36, 8), memory, memory, None), memory).all()


def test_every_layer_has_queries_of_its_own():
    network = QueryDecoder(DIM, 8, 3, 2, None)
    assert network.queries.shape[:2] == (3, 8)
    network(torch.randn(1, 4, 5, DIM)).sum().backward()
    assert all(one.abs().sum() > 0 for one in network.queries.grad)


def test_noise_is_as_large_as_the_patch_says():
    torch.manual_seed(0)
    patches = torch.randn(1, 1, 5, DIM).expand(2000, 1, 5, DIM)
    noise = jittered(patches, 20.0, 1.0) - patches
    expected = 20 * patches[0, 0].norm(dim=-1) / DIM  # (5,)
    torch.testing.assert_close(noise.std(dim=(0, 3))[0], expected, rtol=0.05, atol=0)
    assert noise.mean(dim=(0, 3)).abs().max() < 0.05 * expected.max()


def test_noise_meets_whole_patches_by_chance():
    torch.manual_seed(0)
    patches = torch.ones(100, 4, 5, DIM)
    met = (jittered(patches, 1.0, 0.3) != patches).float().mean(-1)
    assert set(met.unique().tolist()) == {0.0, 1.0}
    assert float(met.mean()) == pytest.approx(0.3, abs=0.04)
    assert torch.equal(jittered(patches, 1.0, 0.0), patches)


def test_there_is_no_noise_when_scoring(learned, batches):
    one, two = (learned.score(batches[0].features).patches for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("category", [0, 1])
def test_defects_stand_out_in_both_categories_of_one_model(learned, category):
    patches = normal_samples(category, 12, 900)
    pushed = torch.zeros(12, *GRID, dtype=torch.bool)
    pushed[:, 2:4, 1:3] = True
    bad = patches + 0.5 * pushed[..., None] * torch.randn(12, 1, 1, DIM, generator=torch.Generator().manual_seed(3))
    scores = learned.score(features(bad)).patches
    assert scores.shape == pushed.shape
    assert auroc(scores.flatten().tolist(), pushed.flatten().int().tolist()) > 0.95


def test_what_is_right_in_one_category_is_wrong_at_another_place(learned):
    """Patches in the mirrored order are all known, but not there."""
    patches = normal_samples(0, 4, 901)
    assert learned.score(features(patches.flip(2))).patches.mean() > 2 * learned.score(features(patches)).patches.mean()


def test_another_grid_of_the_same_image_is_still_known(learned):
    """Half as many patches again a side: stranger than what was learned, but less so than the same ones misplaced."""
    fine = normal_samples(0, 4, 902, (9, 9))
    misplaced = learned.score(features(fine.flip(2))).patches.mean()
    assert learned.score(features(fine)).patches.mean() < 0.8 * misplaced


def test_the_score_is_the_length_of_the_residual(learned, batches):
    for detector in (learned, UniAD(**BRIEF, whiten=False).fit(batches)):
        target = detector.trained.network.standard(batches[0].features[RGB])
        with torch.no_grad():
            residual = detector.trained.network.whiten(detector.trained.network(target) - target)
        expected = residual.norm(dim=-1) / DIM**0.5
        torch.testing.assert_close(detector.score(batches[0].features).patches, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(detector.trained.network.whiten.matrix, torch.eye(DIM))


def test_whitened_residuals_of_good_patches_have_length_one(learned, batches):
    scores = torch.cat([learned.score(batch.features).patches for batch in batches])
    assert float(scores.square().mean().sqrt()) == pytest.approx(1, abs=0.1)


def test_layers_meet_on_the_coarsest_grid():
    layers = (torch.randn(2, 8, 8, 3), torch.randn(2, 4, 4, 5))
    detector = UniAD(**BRIEF).fit([Batch(Features({RGB: layers}))])
    assert detector.trained.network.enter.in_features == 8
    assert detector.score(Features({RGB: layers})).patches.shape == (2, 4, 4)


def test_the_loss_falls_and_is_kept(learned):
    assert learned.loss_.shape == (120,)
    assert learned.loss_[-20:].mean() < 0.5 * learned.loss_[:5].mean()


@pytest.mark.parametrize("settings", [{"radius": None}, {"jitter": 0.0}, {"standardise": False}, {"ema_decay": 0.9}])
def test_settings_change_the_outcome(batches, settings):
    plain, other = UniAD(**BRIEF).fit(batches), UniAD(**{**BRIEF, **settings}).fit(batches)
    assert not torch.equal(other.state()["network.leave.weight"], plain.state()["network.leave.weight"])


@pytest.mark.parametrize(
    "settings",
    [
        {"width": -8},
        {"width": 0},
        {"width": 30, "heads": 8},
        {"depth": 0},
        {"heads": 0},
        {"radius": -1},
        {"radius": 1.5},
        {"jitter": -1.0},
        {"jitter_chance": 1.5},
        {"rotations": 0},
        {"image_size": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        UniAD(**settings)


def test_wrong_use_is_explained(batches):
    for use in (lambda d: d.score(batches[0].features), lambda d: d.state()):
        with pytest.raises(NotFittedError):
            use(UniAD())
    with pytest.raises(SettingsError, match="steps"):
        UniAD(**{**BRIEF, "steps": 0}).fit(batches)


def test_a_channel_that_never_varied_does_not_outweigh_all_others():
    good = [normal_samples(0, 8, 1)]
    after, before = scores_with_and_without(UniAD(**BRIEF), good, lambda layers: features(layers[0]))
    torch.testing.assert_close(after, before, rtol=0.3, atol=0.1)
