"""What every learning loop needs: seeds that stay inside, learning-rate schedules, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from blemish.errors import DatasetError, SettingsError

Schedule = Literal["constant", "cosine"]
Item = TypeVar("Item")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers start at `seed` inside, and go on outside as if nothing had happened."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def forever(items: Iterable[Item]) -> Iterator[Item]:
    """Walk `items` again and again. Raises DatasetError when a walk is empty."""
    while True:
        empty = True
        for item in items:
            empty = False
            yield item
        if empty:
            raise DatasetError("at least one good picture to learn from", "none", "give good pictures")


def learning_rate(step: int, steps: int, peak: float, schedule: Schedule, warmup: int) -> float:
    """The rate for `step` (from 0): linear up to `peak` over `warmup` steps, then constant or half a cosine to 0."""
    if schedule not in ("constant", "cosine"):
        raise SettingsError('schedule "constant" or "cosine"', repr(schedule), "choose one of them")
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class AveragedWeights:
    """An exponential moving average of a module's weights; `decay` 0 keeps the last ones."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {k: v.detach().clone() for k, v in module.state_dict().items()}
        self.updates = 0

    def update(self, module: nn.Module) -> None:
        """Take in the module's weights; early on the average runs over the steps there were."""
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in module.state_dict().items():
            self.weights[name].lerp_(value.detach(), 1 - keep)
