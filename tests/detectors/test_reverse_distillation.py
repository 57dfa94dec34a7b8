"""Reverse distillation: shapes on any grid, learning, a bottleneck that is one, and defects that do not come back."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from dead_channel import scores_with_and_without

from blemish.detectors.reverse_distillation import Norm, Residual, ReverseDistillation, Student
from blemish.encoders.base import LayerRole
from blemish.errors import NotFittedError, SettingsError
from blemish.types import RGB, Batch, Features

DIMS = (6, 10)
SMALL = {"width": 8, "steps": 150, "warmup_steps": 5, "learning_rate": 5e-3, "precision": "fp32"}
BRIEF = SMALL | {"steps": 6}


def layers(count: int, seed: int, grids: tuple[tuple[int, int], ...] = ((8, 8), (4, 4))) -> list[torch.Tensor]:
    """Layers of good images: few hidden causes an image, mixed into all channels of both layers."""
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(99)
    cause = torch.randn(count, 1, 1, 2, generator=generator)
    made = []
    for dim, (height, width) in zip(DIMS, grids, strict=True):
        mixed = cause @ torch.randn(2, dim, generator=fixed)
        made.append(mixed + 0.05 * torch.randn(count, height, width, dim, generator=generator))
    return made


def features(made: list[torch.Tensor]) -> Features:
    return Features({RGB: tuple(made)})


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    return [Batch(features(layers(8, seed))) for seed in range(6)]


@pytest.fixture(scope="module")
def learned(batches) -> ReverseDistillation:
    return ReverseDistillation(**SMALL).fit(batches)


@pytest.fixture(scope="module")
def begun(batches) -> ReverseDistillation:
    return ReverseDistillation(**BRIEF).fit(batches)


@pytest.mark.parametrize(
    "grids",
    [((8, 8), (4, 4)), ((7, 9), (4, 5)), ((5, 5), (5, 5)), ((1, 1), (1, 1)), ((13, 3), (6, 1)), ((4, 4), (8, 8))],
)
def test_every_layer_is_answered_on_its_own_grid(grids):
    made = layers(2, 0, grids)
    answers = Student(DIMS, 8, 1)(made)
    assert [answer.shape for answer in answers] == [layer.shape for layer in made]


def test_the_embedding_is_half_the_coarsest_grid():
    student = Student(DIMS, 8, 1)
    assert student.embedding(layers(2, 0)).shape == (2, 16, 2, 2)
    assert student.embedding(layers(2, 0, ((9, 5), (5, 3)))).shape == (2, 16, 3, 2)


def test_all_that_is_answered_comes_through_the_embedding():
    """No way around the bottleneck: with an embedding of zeros, the answer is the same for any image."""
    student = Student(DIMS, 8, 1)
    torch.nn.init.zeros_(student.shrink.weight)
    one, other = student(layers(1, 0)), student(layers(1, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_norms_and_blocks_look_at_channels_and_neighbours_alone():
    planes = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(Norm(4)(planes).mean(1), torch.zeros(2, 5, 6), rtol=0, atol=1e-5)
    changed = planes.clone()
    changed[0, :, 0, 0] += 1
    block = Residual(4)
    assert torch.equal(block(changed)[1], block(planes)[1])
    torch.testing.assert_close(block(changed)[0, :, :, 3:], block(planes)[0, :, :, 3:])


def test_the_loss_falls_and_is_kept(learned):
    assert learned.loss_.shape == (SMALL["steps"],)
    assert learned.loss_[-20:].mean() < 0.2 * learned.loss_[:5].mean()


@pytest.mark.parametrize("layer", [0, 1])
def test_a_defect_in_any_layer_is_not_rebuilt(learned, layer):
    good, bad = layers(4, 77), layers(4, 77)
    push = torch.randn(DIMS[layer], generator=torch.Generator().manual_seed(3))
    bad[layer][:, 1, 2] = 2 * push * bad[layer][:, 1, 2].norm(dim=-1, keepdim=True) / push.norm()
    before, after = (learned.score(features(made)).patches for made in (good, bad))
    assert before.shape == (4, 8, 8)
    rise = (after - before).flatten(1)
    place = (1 * 8 + 2,) if layer == 0 else tuple(y * 8 + x for y in (2, 3) for x in (4, 5))
    assert all(int(one) in place for one in rise.argmax(dim=1))
    assert after.flatten(1).amax(1).min() > 3 * before.flatten(1).amax(1).max()


def test_the_map_is_the_sum_of_the_layers_gaps(begun):
    made = layers(1, 5, ((8, 8), (8, 8)))
    teacher = begun.trained.network.scaled(made)
    with torch.no_grad():
        answers = begun.trained.network(teacher)
    gaps = [1 - torch.cosine_similarity(a, t, dim=-1) for a, t in zip(answers, teacher, strict=True)]
    torch.testing.assert_close(begun.score(features(made)).patches, sum(gaps), rtol=1e-5, atol=1e-6)


def test_channels_are_scaled_to_good_images(begun, batches):
    spread = torch.cat([batch.features.layers[RGB][0].flatten(0, 2) for batch in batches]).std(0)
    torch.testing.assert_close(begun.trained.network.scale[: DIMS[0]], spread, rtol=0.2, atol=0)
    plain = ReverseDistillation(**BRIEF, standardise=False).fit(batches)
    assert torch.equal(plain.trained.network.scale, torch.ones(sum(DIMS)))


def test_same_seed_same_weights_and_the_callers_random_numbers_stay(batches, begun):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    again = ReverseDistillation(**BRIEF).fit(batches).state()
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, again[name]) for name, value in begun.state().items())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 0), ("width", -8), ("depth", 0), ("steps", 0), ("warmup_steps", -1), ("rotations", 0),
        ("layers", "all"),
        ("framing", "tight"), ("standardise", "yes"), ("image_size", 0), ("seed", -1),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(name, value):
    with pytest.raises(SettingsError, match=name):
        ReverseDistillation(**{name: value})


@pytest.mark.parametrize("role", get_args(LayerRole))
def test_every_role_of_layers_can_be_asked_for(role):
    assert ReverseDistillation(layers=role).needs.layers == role


def test_wrong_use_is_explained(batches):
    with pytest.raises(NotFittedError):
        ReverseDistillation().state()
    with pytest.raises(SettingsError, match="learning_rate"):
        ReverseDistillation(**BRIEF | {"learning_rate": 0.0}).fit(batches)


def test_a_channel_that_never_varied_does_not_outweigh_all_others():
    after, before = scores_with_and_without(ReverseDistillation(**BRIEF), layers(8, 0), features)
    torch.testing.assert_close(after, before, rtol=0.1, atol=0.02)
