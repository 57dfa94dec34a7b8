"""A learned network: how a detector's settings say it is learned, what is kept of it, how it is stored and rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from blemish.detectors.base import part_of, settings_of, weights_of
from blemish.errors import NotFittedError
from blemish.numeric.training import Training

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Learned(Generic[Network]):
    """A `network` in evaluation mode, the widths `dims` of the layers it is for, and the `loss` `(steps,)` of it."""

    network: Network
    dims: tuple[int, ...]
    loss: Tensor

    def on(self, device: torch.device) -> Network:
        """The network, moved to where the features are."""
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
        network = build(dims)
        network.load_state_dict(part_of(state, "network"))
        return cls(network.eval(), dims, state["loss"])


class Learner(Protocol[Network]):
    """A detector that keeps its network in `learned_`."""

    learned_: Learned[Network]


def learned_by(detector: Learner[Network]) -> Learned[Network]:
    """What the detector has learned. Raises NotFittedError where that is nothing yet."""
    if not hasattr(detector, "learned_"):
        raise NotFittedError("a network that has learned", "one that has not", "call fit first")
    return detector.learned_


def training_of(detector: object) -> Training:
    """How the detector's network learns, by those of its settings that are `Training`'s too."""
    settings = settings_of(detector)
    return Training(**{field.name: settings[field.name] for field in fields(Training) if field.name in settings})
