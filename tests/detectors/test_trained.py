"""What detectors that train a network share: training made of settings, the frame of `fit`, a network that returns."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import pytest
import torch
from torch import Tensor, nn

from blemish.detectors.base import Needs
from blemish.detectors.settings import Count, NotNegative
from blemish.detectors.trained import FIRST_BATCHES, BatchTrainedDetector, TrainedNetwork
from blemish.errors import DatasetError, NotFittedError, SettingsError
from blemish.numeric.training import Training
from blemish.types import RGB, Batch, Features, PatchScores


@dataclass(kw_only=True, eq=False, repr=False)
class Mean(BatchTrainedDetector[nn.Linear]):
    """Learns the mean of all patches as the bias of a layer without input, and notes which batches it is given."""

    width: Count = 3
    steps: Count = 60
    learning_rate: NotNegative = 0.1

    @property
    def needs(self) -> Needs:
        return Needs()

    def build_network(self, dims: Sequence[int]) -> nn.Linear:
        self.calls_: list[tuple[str, list[int]]] = []
        return nn.Linear(1, sum(dims))

    def widths(self, batch: Batch) -> tuple[int, ...]:
        return (batch.features[RGB].shape[-1],)

    def fit_scales(self, network: nn.Linear, first: Sequence[Batch]) -> None:
        self.calls_.append(("scales", [number_of(batch) for batch in first]))

    def training_step(self, network: nn.Linear, batch: Batch, step: int) -> Tensor:
        self.calls_.append((f"step {step}", [number_of(batch)]))
        return (network(torch.zeros(1)) - batch.features[RGB]).square().mean()

    def fit_residuals(self, network: nn.Linear, kept: Sequence[Tensor], stream: Iterator[Batch]) -> None:
        assert not network.training
        assert not torch.is_grad_enabled()
        self.calls_.append(("residuals", [number_of(next(stream))]))

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        network = self.trained.on(features[RGB].device)
        return PatchScores((features[RGB] - network(torch.zeros(1))).norm(dim=-1))


def number_of(batch: Batch) -> int:
    return int(batch.features[RGB][0, 0, 0, 0])


def batches(count: int) -> list[Batch]:
    """Batch number n holds n everywhere."""
    return [Batch(Features({RGB: (torch.full((2, 3, 3, 2), float(number)),)})) for number in range(count)]


def test_a_training_is_made_of_the_settings_of_the_same_name() -> None:
    chosen = {
        "steps": 9, "learning_rate": 0.5, "weight_decay": 0.25, "schedule": "constant", "warmup_steps": 3,
        "ema_decay": 0.75,
        "max_grad_norm": 2.0, "precision": "fp32",
    }  # fmt: skip
    training = Mean(**chosen).training
    assert {field.name: getattr(training, field.name) for field in fields(Training) if field.name in chosen} == chosen


def test_scales_come_first_then_every_batch_in_turn_then_residuals() -> None:
    calls = Mean(steps=10).fit(batches(3)).calls_
    assert calls[0] == ("scales", [n % 3 for n in range(FIRST_BATCHES)])
    assert calls[1:-1] == [(f"step {step}", [step % 3]) for step in range(10)]
    assert calls[-1] == ("residuals", [10 % 3])  # the batch after the last step's


def test_the_first_batches_are_let_go_once_they_were_learned_from() -> None:
    """They hold layers of many images, which the loader makes anew, and no step looks at them again."""
    alive: list[weakref.ref[Tensor]] = []

    class Fresh(list[int]):
        def __iter__(self) -> Iterator[Batch]:
            for number in super().__iter__():
                yield batches(number + 1)[-1]

    class Watching(Mean):
        def training_step(self, network: nn.Linear, batch: Batch, step: int) -> Tensor:
            alive.append(weakref.ref(batch.features.layers[RGB][0]))
            if step == FIRST_BATCHES + 1:
                assert [seen() is None for seen in alive[:FIRST_BATCHES]] == [True] * FIRST_BATCHES
            return super().training_step(network, batch, step)

    Watching(steps=FIRST_BATCHES + 2).fit(Fresh(range(4)))
    assert len(alive) == FIRST_BATCHES + 2


def test_it_learns_keeps_its_losses_and_returns_bit_identical() -> None:
    detector = Mean().fit(batches(3))
    assert detector.trained.network.bias.detach() == pytest.approx([1.0, 1.0], abs=0.2)  # the mean of 0, 1, 2
    assert detector.loss_.shape == (60,)
    state = {name: tensor.clone() for name, tensor in detector.state().items()}
    again = Mean(**detector.settings).load_state(state)
    features = Features({RGB: (torch.randn(2, 3, 3, 2),)})
    assert torch.equal(again.score(features).patches, detector.score(features).patches)
    assert not again.trained.network.training
    assert again.trained.dims == (2,)
    assert torch.equal(again.loss_, detector.loss_)


def test_the_seed_decides_and_random_numbers_outside_go_on() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one, same, other = (Mean(steps=2, seed=seed).fit(batches(2)).state()["network.bias"] for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_loading_leaves_random_numbers_outside_as_they_are() -> None:
    state = Mean(steps=2).fit(batches(2)).state()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Mean(steps=2).load_state(state)
    assert torch.equal(torch.rand(3), expected)


def test_skipped_steps_are_counted() -> None:
    loss = torch.tensor([1.0, torch.nan, 0.5, torch.nan])
    assert TrainedNetwork(nn.Linear(1, 1), (1,), loss).skipped == 2


def test_nothing_is_given_before_fit_and_nothing_is_fitted_to_nothing() -> None:
    for use in (lambda d: d.trained, lambda d: d.loss_, lambda d: d.state()):
        with pytest.raises(NotFittedError):
            use(Mean())
    with pytest.raises(DatasetError, match="good picture"):
        Mean().fit([])
    with pytest.raises(SettingsError, match="steps to be a whole number ≥ 1"):
        Mean(steps=0)
