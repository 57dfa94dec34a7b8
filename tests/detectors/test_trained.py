"""What detectors with a network share: settings by name, a training made of them, a network kept and rebuilt."""

from __future__ import annotations

import pytest
import torch

from blemish.detectors.base import settings_of
from blemish.detectors.trained import Learned, learned_by, training_of
from blemish.errors import NotFittedError
from blemish.numeric.training import Training


class Toy:
    """A detector that keeps more than its settings."""

    learned_: Learned[torch.nn.Linear]

    def __init__(self, *, steps: int = 7, clip: float = 0.5, width: int = 3) -> None:
        self.steps, self.clip, self.width = steps, clip, width
        self.twice = self._half = 2 * width


def built(dims) -> torch.nn.Linear:
    return torch.nn.Linear(sum(dims), 2)


def test_settings_are_what_the_constructor_takes_and_nothing_else():
    toy = Toy(width=4)
    toy.trained_ = Learned(built((2,)), (2,), torch.zeros(1))
    assert settings_of(toy) == {"steps": 7, "clip": 0.5, "width": 4}
    assert vars(Toy(**settings_of(toy))).items() <= vars(toy).items()


def test_a_training_takes_the_settings_that_it_knows():
    assert training_of(Toy(steps=9)) == Training(steps=9, clip=0.5)


def test_a_network_comes_back_bit_identical_and_in_evaluation_mode():
    kept = Learned(built((2, 3)), (2, 3), torch.rand(4))
    again = Learned.from_state({name: tensor.clone() for name, tensor in kept.state().items()}, built)
    rows = torch.randn(6, 5)
    assert torch.equal(again.network(rows), kept.network(rows))
    assert not again.network.training
    assert again.dims == (2, 3)
    assert torch.equal(again.loss, kept.loss)


def test_nothing_is_given_before_something_was_learned():
    toy = Toy()
    with pytest.raises(NotFittedError):
        learned_by(toy)
    toy.trained_ = Learned(built((2,)), (2,), torch.zeros(1))
    assert learned_by(toy) is toy.trained_
