"""Detectors that train a network by gradient descent: their settings, the training loop's frame, the network kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from blemish.detectors.base import Progress, strip_prefix, weights_of
from blemish.detectors.settings import Configurable, Count, CountOrZero, FractionBelowOne, NotNegative, Positive, Seed
from blemish.encoders.precision import Precision
from blemish.errors import NotFittedError
from blemish.numeric.training import Schedule, Training, forever, seeded
from blemish.types import RGB, Batch

Network = TypeVar("Network", bound=nn.Module)

_moving = Lock()

FIRST_BATCHES = 8  # batches that the scales of the channels are taken from before training
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class TrainedNetwork(Generic[Network]):
    """A `network` in evaluation mode, the widths `dims` of the layers it is for, and the `loss` `(steps,)` of it."""

    network: Network
    dims: tuple[int, ...]
    loss: Tensor

    def on(self, device: torch.device) -> Network:
        """The network, moved to where the features are; by one thread at a time, so that none meets half of it."""
        with _moving:
            return self.network.to(device)

    @property
    def skipped(self) -> int:
        """Steps that changed nothing, because their gradient was not finite."""
        return int(self.loss.isnan().sum())

    def state(self) -> dict[str, Tensor]:
        """The weights under `network.…`, `dims` `(layers,)` and `loss` `(steps,)`."""
        return {**weights_of(self.network, "network"), "dims": torch.tensor(self.dims), "loss": self.loss}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], build: Callable[[Sequence[int]], Network]) -> Self:
        """Take back what `state` gave; `build` makes a network for layers of given widths."""
        dims = tuple(state["dims"].tolist())
        with seeded(0):  # initial weights are drawn and overwritten: the caller's random numbers stay as they are
            network = build(dims)
        network.load_state_dict(strip_prefix(state, "network"))
        return cls(network.eval(), dims, state["loss"])


@dataclass(kw_only=True, eq=False, repr=False)
class TrainedDetector(Configurable, ABC, Generic[Network]):
    """Settings of training (see `Training`), and the network in `trained_` once `fit` has set it.

    AdamW takes `steps` steps at `learning_rate`, under a `schedule` after `warmup_steps` steps, with `weight_decay`;
    `max_grad_norm` is the largest norm of a gradient (0: any), `ema_decay` the decay of an exponential moving average
    of the weights (0: the last weights are kept). `precision` "auto" trains under bfloat16 autocast where the hardware
    has it; scores are always float32. `seed`: of the initial weights and all that is random in training.
    """

    steps: Count = 1000
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-4
    schedule: Schedule = "cosine"
    warmup_steps: CountOrZero = 20
    ema_decay: FractionBelowOne = 0.0
    max_grad_norm: NotNegative = 0.0
    precision: Precision = "auto"
    seed: Seed = 0

    @property
    def training(self) -> Training:
        """How the network is trained, by this detector's settings."""
        return Training(
            steps=self.steps,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            warmup_steps=self.warmup_steps,
            ema_decay=self.ema_decay,
            max_grad_norm=self.max_grad_norm,
            precision=self.precision,
        )

    @abstractmethod
    def build_network(self, dims: Sequence[int]) -> Network:
        """A network with initial weights, for encoder layers of widths `dims`."""

    @property
    def trained(self) -> TrainedNetwork[Network]:
        """What `fit` trained. Raises NotFittedError before that."""
        if not hasattr(self, "trained_"):
            raise NotFittedError("a network that has learned", "one that has not", "call fit first")
        trained: TrainedNetwork[Network] = self.trained_
        return trained

    @property
    def loss_(self) -> Tensor:
        """The loss of every training step `(steps,)`; NaN where a step was skipped."""
        return self.trained.loss

    def state(self) -> dict[str, Tensor]:
        """The network's weights, the widths of its layers and its loss; see `TrainedNetwork.state`."""
        return self.trained.state()

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        self.trained_ = TrainedNetwork.from_state(state, self.build_network)
        return self


@dataclass(kw_only=True, eq=False, repr=False)
class BatchTrainedDetector(TrainedDetector[Network]):
    """Trains on one batch of normal images a step; what is particular to a method are the methods below `fit`."""

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Train for `steps` steps, as many epochs over `batches` as that takes; `loss_` keeps every step's loss."""
        stream = forever(batches)
        first = list(islice(stream, FIRST_BATCHES))
        with seeded(self.seed):
            dims = self.widths(first[0])
            device = first[0].features.layers[RGB][0].device
            network = self.build_network(dims).to(device)
            self.fit_scales(network, first)
            kept = self.kept_for_residuals(first)
            stream = drained(first, stream)
            loss = self.training.run(network, lambda step: self.training_step(network, next(stream), step), progress)
            with torch.no_grad():
                self.fit_residuals(network, kept, stream)
        self.trained_ = TrainedNetwork(network, dims, loss)
        return self

    @abstractmethod
    def widths(self, batch: Batch) -> tuple[int, ...]:
        """The widths of the layers that the network is built for."""

    @abstractmethod
    def training_step(self, network: Network, batch: Batch, step: int) -> Tensor:
        """The loss, a scalar, of one batch in step number `step` (from 0)."""

    def fit_scales(self, network: Network, first: Sequence[Batch]) -> None:
        """Take the scales of the channels from the first batches, before training; nothing unless overridden."""

    def kept_for_residuals(self, first: Sequence[Batch]) -> Sequence[Tensor]:
        """What of the first batches `fit_residuals` asks for; nothing unless overridden.

        All else of them is let go while the network trains: layers of many images, that may be large.
        """
        return ()

    def fit_residuals(self, network: Network, kept: Sequence[Tensor], stream: Iterator[Batch]) -> None:
        """Measure what the trained network leaves of normal patches: of what was kept, or of the next batches.

        Nothing unless overridden.
        """


def drained(first: list[Item], rest: Iterator[Item]) -> Iterator[Item]:
    """All of `first`, which is emptied on the way, then the `rest`."""
    while first:
        yield first.pop(0)
    yield from rest
