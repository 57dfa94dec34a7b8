"""Auto-encoders: a narrow one cannot copy, a masked patch has no influence, patches pushed off the plane score high."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dead_channel import scores_with_and_without

from blemish.detectors.vit_autoencoder import AutoEncoder, Prototypes, ViTAutoencoder, Window
from blemish.errors import NotFittedError, SettingsError
from blemish.metrics import auroc
from blemish.numeric.positions import sine_positions
from blemish.types import RGB, Batch, Features

DIM, GRID = 12, (6, 6)
SMALL: dict[str, Any] = {
    "width": 32,
    "heads": 2,
    "depth": 1,
    "decoder_depth": 1,
    "bottleneck": 3,
    "steps": 100,
    "learning_rate": 5e-3,
    "weight_decay": 0.0,
    "crop": 0,
    "block": 1,
    "precision": "fp32",
}
BRIEF = SMALL | {"steps": 6}
MASKED = {"masking": 0.5, "bottleneck": 0}
CURES = [{}, MASKED, {"queries": True}, {"prototypes": 8}, {"neighbourhood": 1}]


def good_and_pushed(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Smooth features near a plane `(count, 6, 6, DIM)`, the same with patches pushed off it, and which these are."""
    basis = torch.randn(3, DIM, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    place = sine_positions(GRID, 8).sum(-1, keepdim=True)  # (6, 6, 1)
    amount = torch.randn(count, 1, 1, 3, generator=generator)
    good = (amount + 0.5 * place) @ basis + 0.05 * torch.randn(count, *GRID, DIM, generator=generator)
    pushed = torch.rand(count, *GRID, generator=generator) < 0.1
    push = 2 * torch.randn(count, *GRID, DIM, generator=generator)
    return good, torch.where(pushed[..., None], good + push, good), pushed


def features(patches: torch.Tensor) -> Features:
    return Features({RGB: (patches,)})


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    return [Batch(features(good_and_pushed(8, seed)[0])) for seed in range(12)]


def fitted(batches: list[Batch], **settings: Any) -> ViTAutoencoder:
    return ViTAutoencoder(**{**SMALL, **settings}).fit(batches)


def quality(detector: ViTAutoencoder) -> float:
    """Patch AUROC on images that were not learned from."""
    _, bad, pushed = good_and_pushed(8, 1000)
    scores = detector.score(features(bad)).patches
    return auroc(scores.flatten().tolist(), pushed.flatten().long().tolist())


@pytest.mark.parametrize("cure", CURES, ids=str)
def test_pushed_patches_score_higher(batches, cure):
    detector = fitted(batches, **cure)
    assert detector.loss_.shape == (SMALL["steps"],)
    assert detector.loss_[-20:].mean() < 0.5 * detector.loss_[:3].mean()
    assert quality(detector) > 0.95


def test_a_plain_auto_encoder_does_see_the_patch_it_reconstructs(batches):
    detector = fitted(batches, steps=20)
    patches = good_and_pushed(1, 5)[0]
    changed = patches.clone()
    changed.view(-1, DIM)[14] += 100
    output, other = (detector._reconstruct(detector.trained.network, seen)[0, 14] for seen in (patches, changed))
    assert not torch.allclose(output, other)


def residual_of_a_push(batches: list[Batch], **settings: Any) -> float:
    """The residual of pushed patches as a fraction of the push, near 0 for a copy.

    It is trained on patches of all kinds, which teaches a network to copy if it can.
    """
    random = torch.Generator().manual_seed(3)
    mixed = [Batch(features(batch.features[RGB] + torch.randn(8, *GRID, DIM, generator=random))) for batch in batches]
    detector = fitted(mixed, steps=200, whiten=False, **settings)
    good, bad, pushed = good_and_pushed(8, 1000)
    push = ((bad - good) / detector.trained.network.standard.scale)[pushed].square().mean(-1)
    return float((detector.score(features(bad)).patches[pushed] / push).median())


def test_a_wide_open_auto_encoder_copies_a_defect_and_a_narrow_one_does_not(batches):
    wide = residual_of_a_push(batches, bottleneck=0)
    assert wide < 0.45
    assert residual_of_a_push(batches, bottleneck=2) > 2 * wide
    assert residual_of_a_push(batches, bottleneck=0, prototypes=4) > 2 * wide


@pytest.mark.parametrize("cure", [{}, MASKED], ids=str)
def test_good_patches_score_about_one_when_whitened(batches, cure):
    good = features(good_and_pushed(16, 2000)[0])
    assert float(fitted(batches, **cure).score(good).patches.mean()) == pytest.approx(1, abs=0.5)


def test_prototypes_return_mixtures_of_themselves():
    torch.manual_seed(0)
    memory = Prototypes(5, 3)
    mixed = memory(100 * torch.randn(2, 40, 3))
    assert (mixed <= memory.items.amax(0) + 1e-5).all()
    assert (mixed >= memory.items.amin(0) - 1e-5).all()
    torch.testing.assert_close(memory(memory.items[None]), memory.items[None], rtol=0.2, atol=0.3)


def test_with_queries_and_a_neighbourhood_a_patch_has_no_influence_on_its_own_output():
    """The learned queries look past the neighbours; without encoder blocks nobody carries the patch around them."""
    torch.manual_seed(0)
    network = AutoEncoder(DIM, 16, depth=0, decoder_depth=2, heads=2, queries=True, neighbourhood=1).eval()
    patches = torch.randn(1, *GRID, DIM)
    changed = patches.clone()
    changed[0, 2, 3] += 10
    with torch.no_grad():
        difference = (network(changed) - network(patches)).abs().amax(-1).view(GRID)
    assert (difference[1:4, 2:5] == 0).all()
    assert (difference > 0).sum() == 36 - 9


def test_a_window_knows_its_place():
    """Without decoder blocks a patch is answered from its query and its place: in a window as in the whole."""
    torch.manual_seed(0)
    network = AutoEncoder(DIM, 16, depth=0, decoder_depth=1, heads=2, queries=True).eval()
    network.decoder = torch.nn.ModuleList()
    patches, window = torch.randn(2, 6, 8, DIM), Window((6, 8), (1, 2), (3, 4))
    with torch.no_grad():
        inside = network(patches, window=window).view(2, 3, 4, DIM)
        torch.testing.assert_close(inside, network(patches).view(2, 6, 8, DIM)[:, 1:4, 2:6])


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (4, 3), (9, 13)])
@pytest.mark.parametrize("cure", CURES, ids=str)
def test_any_grid_can_be_scored(batches, cure, grid):
    detector = fitted(batches[:1], **{**BRIEF, **cure, "steps": 1})
    scores = detector.score(features(torch.randn(2, *grid, DIM))).patches
    assert scores.shape == (2, *grid)
    assert torch.isfinite(scores).all()
    assert (scores >= 0).all()


@pytest.mark.parametrize("cure", CURES, ids=str)
def test_state_comes_back_bit_identical_and_batches_do_not_matter(batches, cure):
    begun = fitted(batches, **{**BRIEF, **cure})
    copy = ViTAutoencoder(**begun.settings).load_state(begun.state())
    patches = good_and_pushed(3, 7)[1]
    together = begun.score(features(patches)).patches
    assert torch.equal(copy.score(features(patches)).patches, together)
    assert torch.equal(torch.cat([begun.score(features(one[None])).patches for one in patches]), together)


def test_same_seed_same_weights_and_the_callers_random_numbers_stay(batches):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    states = [fitted(batches, **{**BRIEF, **MASKED, "crop": 4}).state() for _ in range(2)]
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    other = fitted(batches, **{**BRIEF, **MASKED, "crop": 4, "seed": 1}).state()
    assert not torch.equal(other["network.enter.weight"], states[0]["network.enter.weight"])


@pytest.mark.parametrize(
    "settings",
    [{"distance": "cosine"}, {"masking": 0.5}, {"masking": 0.5, "block": 2}, {"crop": 3}, {"ema_decay": 0.9}],
)
def test_settings_change_the_outcome(batches, settings):
    plain, other = fitted(batches, **BRIEF), fitted(batches, **{**BRIEF, **settings})
    assert not torch.equal(plain.state()["network.leave.weight"], other.state()["network.leave.weight"])


def test_windows_are_squares_and_end_before_the_last_steps():
    detector = ViTAutoencoder(crop=4, crop_share=0.5, steps=10)
    cells = torch.arange(54.0).view(1, 6, 9, 1)
    assert detector._window((6, 9), step=4).of(cells).shape == (1, 4, 4, 1)
    assert detector._window((3, 9), step=4).of(cells[:, :3]).shape == (1, 3, 4, 1)
    assert torch.equal(detector._window((6, 9), step=5).of(cells), cells)


@pytest.mark.parametrize(
    "settings",
    [
        {"width": -8},
        {"width": 10, "heads": 4},
        {"heads": 0},
        {"depth": -1},
        {"decoder_depth": 0},
        {"bottleneck": -1},
        {"prototypes": 2.5},
        {"queries": "yes"},
        {"neighbourhood": -1},
        {"masking": 1.0},
        {"masking": "half"},
        {"block": 0},
        {"masks": 1},
        {"distance": "far"},
        {"crop": -1},
        {"crop_share": 2},
        {"whiten": 1},
        {"rotations": 0},
        {"layers": "all"},
        {"pooling": "top:none"},
        {"image_size": 0},
        {"framing": "close"},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        ViTAutoencoder(**settings)


@pytest.mark.parametrize(
    "settings", [{"steps": 0}, {"learning_rate": 0.0}, {"schedule": "linear"}, {"warmup_steps": -1}]
)
def test_training_that_cannot_be_is_refused(batches, settings):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        fitted(batches, **settings)


def test_nothing_is_scored_before_fit():
    with pytest.raises(NotFittedError):
        ViTAutoencoder().score(features(torch.zeros(1, 2, 2, DIM)))
    with pytest.raises(NotFittedError):
        ViTAutoencoder().state()


def test_a_channel_that_never_varied_does_not_outweigh_all_others():
    good, _, _ = good_and_pushed(8, 1)
    after, before = scores_with_and_without(ViTAutoencoder(**BRIEF), [good], lambda layers: features(layers[0]))
    torch.testing.assert_close(after, before, rtol=0.3, atol=0.1)
