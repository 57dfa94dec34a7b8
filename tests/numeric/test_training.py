"""Seeds stay inside, schedules have their stated shape, averaged weights follow."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from blemish.errors import DatasetError, SettingsError
from blemish.numeric.training import AveragedWeights, Training, forever, learning_rate, seeded


def test_seeded_gives_the_same_inside_and_changes_nothing_outside():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    draws = []
    for _ in range(2):
        with seeded(7):
            draws.append(torch.rand(4))
    assert torch.equal(*draws)
    assert torch.equal(torch.rand(2), expected)


def test_forever_repeats_epochs_and_rejects_empty_ones():
    assert list(islice(forever([1, 2, 3]), 7)) == [1, 2, 3, 1, 2, 3, 1]
    with pytest.raises(DatasetError):
        next(forever([]))


def test_schedules():
    rates = [learning_rate(step, 100, 2.0, "cosine", 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == pytest.approx(2.0)
    assert rates[-1] < 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert {learning_rate(step, 100, 2.0, "constant", 0) for step in range(100)} == {2.0}
    with pytest.raises(SettingsError):
        learning_rate(0, 1, 1.0, "steps", 0)


def line(training: Training) -> tuple[torch.nn.Linear, torch.Tensor]:
    """A line learned through y = 3x − 1, and the losses."""
    with seeded(0):
        model = torch.nn.Linear(1, 1)
        x = torch.linspace(-1, 1, 16)[:, None]
        losses = training.run(model, lambda _: (model(x) - (3 * x - 1)).square().mean())
    return model, losses


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_training_finds_the_line_and_leaves_evaluation_mode(ema_decay):
    model, losses = line(Training(400, 0.05, weight_decay=0.0, ema_decay=ema_decay, precision="fp32"))
    assert model.weight.item() == pytest.approx(3, abs=0.02)
    assert model.bias.item() == pytest.approx(-1, abs=0.02)
    assert losses.shape == (400,)
    assert losses[-1] < losses[0] / 1e3
    assert not model.training


def test_sgd_has_momentum_and_weight_decay() -> None:
    """v ← 0.9 v + (gradient + decay · w), w ← w − rate · v, written out."""
    model = torch.nn.Linear(1, 1, bias=False)
    expected, velocity = model.weight.item(), 0.0
    training = Training(
        3, 0.1, weight_decay=0.5, schedule="constant", warmup_steps=0, precision="fp32", optimiser="sgd"
    )
    training.run(model, lambda _: model.weight.square().sum())
    for _ in range(3):
        velocity = 0.9 * velocity + 2 * expected + 0.5 * expected
        expected -= 0.1 * velocity
    assert model.weight.item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(SettingsError, match="optimiser"):
        Training(1, optimiser="lion").run(model, lambda _: model.weight.sum())  # type: ignore[arg-type]


def test_a_clipped_gradient_moves_less():
    """AdamW does not care how long a gradient is, unless its length changes from step to step."""
    scales, weights = (100.0, 1.0), []
    for max_grad_norm in (0.0, 0.1):
        with seeded(0):
            model = torch.nn.Linear(1, 1, bias=False)
            Training(2, 0.1, warmup_steps=0, schedule="constant", max_grad_norm=max_grad_norm, precision="fp32").run(
                model, lambda step, weight=model.weight: scales[step] * weight.sum()
            )
        weights.append(model.weight.item())
    assert weights[0] != pytest.approx(weights[1], abs=1e-4)


def test_a_loss_that_is_not_finite_is_told():
    model = torch.nn.Linear(1, 1)
    with pytest.raises(SettingsError, match="learning_rate"):
        Training(3).run(model, lambda _: model.weight.sum() * torch.nan)


def test_a_last_step_that_ruins_the_weights_is_told() -> None:
    model = torch.nn.Linear(1, 1)
    with pytest.raises(SettingsError, match="finite weights"):
        Training(1, precision="fp32").run(model, lambda _: (model.weight * 0).sum().sqrt())


def test_steps_that_are_not_finite_can_be_skipped_and_are_told() -> None:
    """They change nothing: what is learned is what the other steps alone would have taught (without a schedule)."""

    def learned(bad: tuple[int, ...], steps: int) -> tuple[float, torch.Tensor]:
        with seeded(0):
            model = torch.nn.Linear(1, 1)
            training = Training(steps, 0.1, schedule="constant", warmup_steps=0, precision="fp32", skip_nonfinite=True)
            losses = training.run(model, lambda step: model.weight.square().sum() * (torch.inf if step in bad else 1.0))
        return model.weight.item(), losses

    weight, losses = learned((1, 3), 6)
    assert losses.isnan().tolist() == [False, True, False, True, False, False]
    assert weight == pytest.approx(learned((), 4)[0])
    with pytest.raises(SettingsError, match="some step"):
        learned((0, 1), 2)


def test_a_gradient_that_is_not_finite_is_skipped_though_its_loss_is() -> None:
    model = torch.nn.Linear(1, 1)
    training = Training(2, precision="fp32", skip_nonfinite=True)
    losses = training.run(model, lambda step: (model.weight * (0 if step else 1)).abs().sum().sqrt())
    assert losses.isnan().tolist() == [False, True]
    assert torch.isfinite(model.weight).all()


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"learning_rate": -1.0}, {"ema_decay": 1.0}, {"max_grad_norm": -1.0}])
def test_settings_that_cannot_be_are_refused(wrong):
    model = torch.nn.Linear(1, 1)
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        Training(**({"steps": 2} | wrong)).run(model, lambda _: model.weight.sum())


def test_averaged_weights_follow_and_whole_numbers_are_copied():
    model = torch.nn.BatchNorm1d(1, momentum=1.0)
    averaged = AveragedWeights(model, 0.5)
    means, expected = [1.0, 5.0, -3.0], 0.0
    for update, mean in enumerate(means, 1):
        model(torch.tensor([[mean - 1], [mean + 1]]))
        averaged.update(model)
        expected += (1 - min(0.5, (1 + update) / (10 + update))) * (mean - expected)
    assert averaged.weights["num_batches_tracked"] == len(means)
    assert float(averaged.weights["running_mean"]) == pytest.approx(expected)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_network_with_batch_norm_is_trained(ema_decay: float):
    with seeded(0):
        model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
        x = torch.randn(16, 2)
        losses = Training(30, 0.05, ema_decay=ema_decay, precision="fp32").run(
            model, lambda _: (model(x) - x[:, :1]).square().mean()
        )
    assert losses[-1] < 0.5 * losses[0]
    assert int(model[1].num_batches_tracked) == 30  # type: ignore[arg-type]
