"""Dinomaly's parts: the loose loss, the groups, the noise, and that defects in any category stand out."""

from __future__ import annotations

import weakref

import pytest
import torch
from dead_channel import scores_with_and_without

from blemish.detectors.dinomaly import Dinomaly, NoisyDecoder, fused, in_groups, loose_loss
from blemish.errors import NotFittedError, SettingsError
from blemish.metrics import auroc
from blemish.types import RGB, Batch, Features

DIM, LAYERS, GRID = 16, 4, (6, 6)
SMALL = {"depth": 4, "heads": 4, "crop": 4, "precision": "fp32"}
BRIEF = SMALL | {"steps": 3}


def normal_samples(category: int, count: int, seed: int) -> list[torch.Tensor]:
    """Layers `(count, 6, 6, DIM)` of one hidden state that lies on a plane of its category."""
    fixed, drawn = torch.Generator().manual_seed(70 + category), torch.Generator().manual_seed(seed)
    plane, start = torch.randn(2, 8, generator=fixed), torch.randn(8, generator=fixed)
    hidden = torch.randn(count, *GRID, 2, generator=drawn) @ plane + 2 * start
    return seen_by_layers(hidden)


def seen_by_layers(hidden: torch.Tensor) -> list[torch.Tensor]:
    shared = torch.Generator().manual_seed(5)
    return [(hidden @ torch.randn(8, DIM, generator=shared)).tanh() for _ in range(LAYERS)]


def features(layers: list[torch.Tensor]) -> Features:
    return Features({RGB: tuple(layers)})


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    return [
        Batch(
            features(
                [torch.cat(pair) for pair in zip(*(normal_samples(c, 4, 10 * s + c) for c in (0, 1)), strict=True)]
            )
        )
        for s in range(6)
    ]


@pytest.fixture(scope="module")
def learned(batches) -> Dinomaly:
    return Dinomaly(**SMALL, steps=80).fit(batches)


def gradient_of(answer: torch.Tensor, target: torch.Tensor, easiest: float, factor: float) -> torch.Tensor:
    answer = answer.clone().requires_grad_()
    loose_loss([answer], [target], easiest, factor).backward()
    return answer.grad


@pytest.mark.parametrize(("easiest", "factor"), [(0.5, 0.1), (0.9, 0.1), (0.9, 0.0), (0.25, 0.7)])
def test_the_loose_loss_shrinks_the_gradients_of_the_easiest_patches_alone(easiest, factor):
    torch.manual_seed(0)
    target = torch.randn(2, 10, 4)
    answer = target + torch.linspace(0.01, 2, 20).view(2, 10, 1) * torch.randn(2, 10, 4)
    distance = 1 - torch.cosine_similarity(answer, target, dim=-1)
    easy = torch.zeros(20, dtype=torch.bool)
    easy[distance.flatten().argsort()[: round(easiest * 20)]] = True
    by_hand = answer.clone().requires_grad_()
    (1 - torch.cosine_similarity(by_hand.flatten(1), target.flatten(1))).mean().backward()
    expected = torch.where(easy.view(2, 10, 1), factor, 1.0) * by_hand.grad
    torch.testing.assert_close(gradient_of(answer, target, easiest, factor), expected)


def test_the_loss_itself_is_the_global_cosine_whatever_is_loosened():
    torch.manual_seed(0)
    answers, targets = ([torch.randn(3, 5, width) for width in (4, 6)] for _ in range(2))
    pairs = zip(answers, targets, strict=True)
    expected = torch.stack([1 - torch.cosine_similarity(a.flatten(1), t.flatten(1)) for a, t in pairs]).mean()
    for easiest in (0.0, 0.9):
        torch.testing.assert_close(loose_loss(answers, targets, easiest, 0.1), expected)


def test_the_share_of_loosened_patches_ramps_up():
    detector = Dinomaly(steps=100, easiest=0.9, ramp=0.2)
    assert [detector._easiest_at(step) for step in (0, 10, 20, 99)] == pytest.approx([0, 0.45, 0.9, 0.9])
    assert Dinomaly(steps=100, easiest=0.9, ramp=0.0)._easiest_at(0) == 0.9


def test_eight_layers_and_blocks_in_two_groups():
    assert in_groups(range(8), 2) == [range(4), range(4, 8)]
    assert [len(part) for part in in_groups(range(3), 2)] == [2, 1]


def test_equal_layers_are_averaged_and_others_put_fused():
    one, two, wide = torch.randn(2, 5, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 6)
    torch.testing.assert_close(fused([one, two]), (one + two) / 2)
    assert torch.equal(fused([one, wide]), torch.cat([one, wide], -1))


def test_the_last_blocks_rebuild_the_first_group():
    """A change of the last block changes the first group's answer alone."""
    torch.manual_seed(0)
    network = NoisyDecoder([DIM] * 4, DIM, 4, 4, 2, 0.0).eval()
    layers = [torch.randn(1, 9, DIM) for _ in range(4)]
    before = network(layers)
    with torch.no_grad():
        network.blocks[-1].mlp.narrow.bias += 1
    after = network(layers)
    assert not torch.allclose(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_the_networks_shape_is_dinomalys():
    network = NoisyDecoder([96] * 8, 96, 8, 12, 2, 0.2)
    assert isinstance(network.enter, torch.nn.Identity)
    assert all(isinstance(leave, torch.nn.Identity) for leave in network.leave)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx((8 + 8 * 12) * 96**2, rel=0.02)


def test_linear_attention_is_used():
    assert all(block.attention.kind == "linear" for block in NoisyDecoder([8], 8, 2, 2, 2, 0.0).blocks)


def test_there_is_noise_only_while_learning(learned):
    layers = [layer.flatten(1, 2) for layer in normal_samples(0, 1, 3)]
    network = learned.trained.network
    assert torch.equal(network(layers)[0], network(layers)[0])
    network.train()
    assert not torch.equal(network(layers)[0], network(layers)[0])
    network.eval()


@pytest.mark.parametrize("category", [0, 1])
def test_defects_stand_out_in_both_categories_of_one_model(learned, category):
    pushed = torch.zeros(12, *GRID, dtype=torch.bool)
    pushed[:, 2:4, 1:3] = True
    strange = seen_by_layers(2 * torch.randn(12, *GRID, 8, generator=torch.Generator().manual_seed(4)))
    good = normal_samples(category, 12, 900)
    bad = [torch.where(pushed[..., None], s, g) for s, g in zip(strange, good, strict=True)]
    scores = learned.score(features(bad)).patches
    assert scores.shape == pushed.shape
    assert auroc(scores.flatten().tolist(), pushed.flatten().int().tolist()) > 0.95


def answers_and_targets(detector, layers):
    with torch.no_grad():
        tokens = [layer.flatten(1, 2) for layer in layers]
        return zip(detector.trained.network(tokens), detector.trained.network.targets(tokens), strict=True)


def test_without_whitening_the_score_is_the_mean_of_one_minus_cosine(batches):
    detector = Dinomaly(**BRIEF, whiten=False).fit(batches)
    layers = normal_samples(0, 2, 3)
    distances = [1 - torch.cosine_similarity(a, t, dim=-1) for a, t in answers_and_targets(detector, layers)]
    expected = torch.stack(distances).mean(0).view(2, *GRID)
    torch.testing.assert_close(detector.score(features(layers)).patches, expected, rtol=1e-4, atol=1e-5)


def test_whitened_residuals_are_those_of_unit_vectors(learned):
    layers = normal_samples(0, 2, 3)
    expected = torch.zeros(2, 36)
    for whiten, (a, t) in zip(learned.trained.network.whiten, answers_and_targets(learned, layers), strict=True):
        off = a / a.norm(dim=-1, keepdim=True) - t / t.norm(dim=-1, keepdim=True)
        expected += (off @ whiten.matrix).square().mean(-1) / 2
    torch.testing.assert_close(learned.score(features(layers)).patches.flatten(1), expected, rtol=1e-3, atol=1e-4)


def test_layers_of_different_grids_and_widths_are_joined():
    layers = [torch.randn(2, 8, 8, 3), torch.randn(2, 4, 4, 5), torch.randn(2, 4, 4, 9)]
    detector = Dinomaly(**BRIEF).fit([Batch(features(layers))])
    assert detector.trained.network.bottleneck[0].in_features == 20  # 3 + 5 + 9, rounded up to a multiple of the heads
    assert detector.score(features(layers)).patches.shape == (2, 4, 4)
    again = Dinomaly(**detector.settings).load_state(detector.state())
    assert torch.equal(again.score(features(layers)).patches, detector.score(features(layers)).patches)


def test_squares_of_all_layers_are_learned_at_the_same_place():
    detector = Dinomaly(crop=3)
    grid = torch.arange(36.0).view(1, 6, 6, 1).expand(2, 6, 6, 3)
    one, two = detector._tokens([grid, grid + 100])
    assert one.shape == (2, 9, 3)
    assert torch.equal(two, one + 100)
    assert Dinomaly(crop=0)._tokens([grid])[0].shape == (2, 36, 3)


def test_the_loss_falls_and_is_kept(learned):
    assert learned.loss_.shape == (80,)
    assert learned.loss_[-20:].mean() < 0.5 * learned.loss_[:5].mean()


@pytest.mark.parametrize(
    "settings",
    [{"dropout": 0.0}, {"attention": "softmax"}, {"groups": 1}, {"factor": 1.0}, {"crop": 0}, {"standardise": False}],
)
def test_settings_change_the_outcome(batches, settings):
    plain, other = Dinomaly(**BRIEF).fit(batches), Dinomaly(**{**BRIEF, **settings}).fit(batches)
    name = "network.bottleneck.0.weight"
    assert not torch.equal(other.state()[name], plain.state()[name])


@pytest.mark.parametrize(
    "settings",
    [
        {"width": -8},
        {"depth": 0},
        {"heads": 0},
        {"groups": 0},
        {"dropout": 1.0},
        {"attention": "quick"},
        {"easiest": 1.0},
        {"factor": 2.0},
        {"ramp": -0.1},
        {"crop": -1},
        {"rotations": 0},
        {"image_size": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        Dinomaly(**settings)


def test_wrong_use_is_explained(batches):
    for use in (lambda d: d.score(batches[0].features), lambda d: d.state()):
        with pytest.raises(NotFittedError):
            use(Dinomaly())
    with pytest.raises(SettingsError, match="heads"):  # before anything is encoded
        Dinomaly(**{**BRIEF, "width": 10})
    with pytest.raises(SettingsError, match="max_grad_norm"):
        Dinomaly(**BRIEF, max_grad_norm=-1.0).fit(batches)


def test_a_channel_that_never_varied_does_not_outweigh_all_others():
    after, before = scores_with_and_without(Dinomaly(**BRIEF), normal_samples(0, 8, 1), features)
    torch.testing.assert_close(after, before, rtol=0.3, atol=0.1)


def test_the_scales_of_one_layer_are_taken_before_the_next_is_joined(batches):
    """Joined patches of all layers at once would be as large as the batches that they are from."""
    alive = []

    class Watched(NoisyDecoder):
        def fit_scales(self, layers):
            for rows in layers:
                assert not any(seen() is not None for seen in alive)
                alive.append(weakref.ref(rows))
                del rows

    detector = Dinomaly(**BRIEF)
    detector.fit_scales(Watched((DIM,) * LAYERS, 8, 1, 4, 2, 0.0), batches)
    assert len(alive) == LAYERS
