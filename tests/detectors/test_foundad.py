"""FoundAD's projector: size, learning, repeatability, and that no image's scores depend on its batch."""

from __future__ import annotations

import pytest
import torch

from blemish.detectors.foundad import FoundAD, Projector
from blemish.errors import NotFittedError, SettingsError
from blemish.types import RGB, Batch, Features

DIM, SMALL = 24, {"heads": 4, "depth": 2, "steps": 150, "warmup_steps": 5, "precision": "fp32"}
BRIEF = SMALL | {"steps": 12}  # for what shows long before anything is learned well


def good_and_defective(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features near a plane `(count, 6, 6, DIM)`, the same with patches pushed off it, and which were pushed."""
    basis = torch.randn(3, DIM, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    good = torch.randn(count, 6, 6, 3, generator=generator) @ basis
    pushed = torch.rand(count, 6, 6, generator=generator) < 0.15
    push = 2 * torch.randn(count, 6, 6, DIM, generator=generator)
    return good, torch.where(pushed[..., None], good + push, good), pushed


def features(patches: torch.Tensor) -> Features:
    return Features({RGB: (patches,)})


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    made = [good_and_defective(8, seed) for seed in range(6)]
    return [Batch(features(good), features(bad), pushed) for good, bad, pushed in made]


@pytest.fixture(scope="module")
def learned(batches) -> FoundAD:
    return FoundAD(**SMALL).fit(batches)


@pytest.fixture(scope="module")
def begun(batches) -> FoundAD:
    return FoundAD(**BRIEF).fit(batches)


def test_full_size_has_about_eleven_million_weights():
    projector = Projector(768, 384, 6, 12)
    assert sum(p.numel() for p in projector.parameters()) == pytest.approx(11.2e6, rel=0.03)
    assert float(projector.enter.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert all((m.bias == 0).all() for m in projector.modules() if isinstance(m, torch.nn.Linear))


@pytest.mark.parametrize(("dim", "width"), [(384, 192), (768, 384), (1024, 516), (20, 12)])
def test_width_is_half_the_features_and_fits_the_heads(dim, width):
    assert FoundAD(depth=1).build_network([dim]).enter.out_features == width


def test_each_blocks_result_is_added_to_its_input():
    projector = Projector(DIM, 12, 2, 4)
    patches = torch.randn(1, 5, DIM)
    tokens = projector.enter(patches)
    for block in projector.blocks:
        tokens = tokens + block(tokens)
    torch.testing.assert_close(projector(patches), projector.leave(projector.norm(tokens)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "mlp"])
def test_defects_leave_a_larger_residual(batches, kind):
    detector = FoundAD(**SMALL, projector=kind).fit(batches)
    _, bad, pushed = good_and_defective(8, 1000)
    scores = detector.score(features(bad)).patches
    assert scores.shape == pushed.shape
    assert (scores >= 0).all()
    assert scores[pushed].mean() > 2 * scores[~pushed].mean()


@pytest.mark.slow
def test_the_loss_falls_and_is_kept(learned):
    assert learned.loss_.shape == (SMALL["steps"],)
    assert learned.loss_[-20:].mean() < 0.75 * learned.loss_[:5].mean()


def test_same_seed_same_weights_and_the_callers_random_numbers_stay(batches, begun):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    again = FoundAD(**BRIEF).fit(batches).state()
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, again[name]) for name, value in begun.state().items())
    other = FoundAD(**BRIEF, seed=1).fit(batches).state()
    assert not torch.equal(other["network.enter.weight"], again["network.enter.weight"])


def test_state_comes_back_bit_identical(begun):
    copy = FoundAD(**begun.settings).load_state(begun.state())
    patches = features(good_and_defective(3, 7)[1])
    assert torch.equal(copy.score(patches).patches, begun.score(patches).patches)
    assert copy.settings == begun.settings


def test_scores_do_not_depend_on_the_batch(begun):
    patches = good_and_defective(5, 8)[1]
    together = begun.score(features(patches)).patches
    alone = torch.cat([begun.score(features(one[None])).patches for one in patches])
    assert torch.equal(together, alone)


def test_progress_reports_every_step_with_its_loss(batches):
    calls = []
    FoundAD(**{**SMALL, "steps": 4}).fit(batches, lambda *facts: calls.append(facts))
    assert [(done, total) for done, total, _ in calls] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(facts["loss"] > 0 for *_, facts in calls)


@pytest.mark.parametrize(
    "settings",
    [{"ema_decay": 0.9}, {"schedule": "constant", "warmup_steps": 0}, {"dropout": 0.0}, {"gate": 0.0}],
)
def test_settings_change_the_outcome(batches, begun, settings):
    other = FoundAD(**{**BRIEF, **settings}).fit(batches)
    assert not torch.equal(other.state()["network.leave.weight"], begun.state()["network.leave.weight"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("depth", 0), ("depth", -1), ("depth", 1.5), ("width", 0), ("heads", 0), ("projector", "cnn"),
        ("dropout", 1.0), ("dropout", -0.1), ("gate", 1.5), ("gate", -0.5), ("gate", "half"), ("steps", 0),
        ("learning_rate", 0.0), ("learning_rate", float("nan")), ("learning_rate", "fast"), ("weight_decay", -1.0),
        ("schedule", "linear"), ("warmup_steps", -1), ("ema_decay", 1.0), ("crop", -1), ("crop_share", 1.5),
        ("rotations", 0),
        ("standardise", "yes"), ("top", 0), ("top", 0.5), ("image_size", 0), ("framing", "tight"),
        ("precision", "fp16"), ("seed", -1),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(name, value):
    with pytest.raises(SettingsError, match=name):
        FoundAD(**{name: value})


def test_wrong_use_is_explained(batches):
    with pytest.raises(NotFittedError):
        FoundAD().score(features(torch.zeros(1, 2, 2, DIM)))
    with pytest.raises(NotFittedError):
        FoundAD().state()
    with pytest.raises(SettingsError, match="made-up"):
        FoundAD(**SMALL).fit([Batch(batches[0].features)])
    with pytest.raises(SettingsError, match="heads"):  # before anything is encoded
        FoundAD(**{**SMALL, "width": 10})


def test_standardising_changes_the_start_and_not_the_functions():
    torch.manual_seed(0)
    plain, scaled = Projector(DIM, 12, 1, 4), Projector(DIM, 12, 1, 4)
    patches = torch.randn(4, 9, DIM) * torch.logspace(-1, 1, DIM) + 3
    scaled.standard.fit(patches)
    mean, scale = scaled.standard.mean, scaled.standard.scale
    torch.testing.assert_close(mean, patches.mean((0, 1)))
    scaled.load_state_dict({**plain.state_dict(), "standard.mean": mean, "standard.scale": scale})
    with torch.no_grad():  # the same function with the scaling folded into the weights
        plain.enter.bias -= plain.enter.weight @ (mean / scale)
        plain.enter.weight /= scale
        plain.leave.weight *= scale[:, None]
        plain.leave.bias.mul_(scale).add_(mean)
    torch.testing.assert_close(plain(patches), scaled(patches), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("crop", "patches"), [(0, 36), (4, 16), (9, 36)])
def test_crops_are_squares_and_end_before_the_last_steps(crop, patches):
    detector = FoundAD(crop=crop, crop_share=0.5, steps=10)
    grid = torch.arange(36.0).view(1, 6, 6, 1).expand(2, 6, 6, 3)
    target, context = detector._windows(grid, grid + 100, step=4)
    assert target.shape == (2, patches, 3)
    assert torch.equal(context, target + 100)
    assert detector._windows(grid, grid, step=5)[0].shape == (2, 36, 3)


def test_a_channel_that_never_varied_does_not_outweigh_all_others(batches):
    """As behind a ReLU: 0 on all good images, and next to nothing on another one."""
    good, bad = (one.clone() for one in good_and_defective(8, 0)[:2])
    good[..., 0], bad[..., 0] = 0, 0
    detector = FoundAD(**BRIEF).fit([Batch(features(good), features(bad))])
    shown = good[:1].clone()
    shown[:, 2, 3, 0] = 0.01 * float(good.std())
    before, after = (detector.score(features(one)).patches for one in (good[:1], shown))
    torch.testing.assert_close(after, before, rtol=0.1, atol=0.02)


def test_a_projector_without_attention_needs_no_heads():
    projector = FoundAD(projector="mlp", width=10).build_network([DIM])
    assert projector(torch.zeros(1, 4, DIM)).shape == (1, 4, DIM)
