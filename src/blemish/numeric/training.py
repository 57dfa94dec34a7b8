"""The training loop: AdamW (Loshchilov & Hutter, ICLR 2019) or SGD, a schedule, mixed precision, averaged weights,
seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from blemish.encoders.precision import Precision, check_precision, resolve_precision
from blemish.errors import DatasetError, SettingsError
from blemish.utils.progress import Progress

Schedule = Literal["constant", "cosine"]
Optimiser = Literal["adamw", "sgd"]
Item = TypeVar("Item")

MOMENTUM = 0.9  # of SGD


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's random generators inside the block; outside, their state is unchanged."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def forever(items: Iterable[Item]) -> Iterator[Item]:
    """Iterate over `items` epoch after epoch. Raises DatasetError when an epoch is empty."""
    while True:
        empty = True
        for item in items:
            empty = False
            yield item
        if empty:
            raise DatasetError("at least one good picture to learn from", "none", "give good pictures")


def learning_rate(step: int, steps: int, peak: float, schedule: Schedule, warmup_steps: int) -> float:
    """The rate for `step` (from 0): linear up to `peak` over `warmup_steps`, then constant or half a cosine to 0."""
    if schedule not in ("constant", "cosine"):
        raise SettingsError('schedule "constant" or "cosine"', repr(schedule), "choose one of them")
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


@dataclass(frozen=True)
class Training:
    """How a network is trained: `steps` of AdamW (or SGD with momentum), the rate by `learning_rate()` above.

    `ema_decay` is the decay of an exponential moving average of the weights (0: the last weights), `max_grad_norm` the
    largest norm of a gradient (0: any), `precision` "auto" trains under bfloat16 autocast where the hardware has it.
    `skip_nonfinite`: a step whose loss or gradient is not finite changes nothing, and its loss is returned as NaN.
    """

    steps: int
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    schedule: Schedule = "cosine"
    warmup_steps: int = 20
    ema_decay: float = 0.0
    max_grad_norm: float = 0.0
    precision: Precision = "auto"
    skip_nonfinite: bool = False
    optimiser: Optimiser = "adamw"

    def run(
        self,
        model: nn.Module,
        loss_of: Callable[[int], Tensor],
        progress: Progress | None = None,
    ) -> Tensor:
        """Minimise `loss_of(step)`, a scalar, over the weights of `model`; returns the losses `(steps,)`.

        `loss_of` runs under the autocast. The model is in training mode meanwhile, and in evaluation mode afterwards.
        Raises SettingsError for settings out of range, and when the loss or a weight is no longer finite (where such
        steps are skipped: in no step at all).
        """
        self.check()
        device = next(model.parameters()).device
        bf16 = resolve_precision(self.precision, device) == "bf16"
        optimiser = self.optimiser_of(model)
        averaged = AveragedWeights(model, self.ema_decay) if self.ema_decay else None
        losses = torch.zeros(self.steps)
        model.train()
        for step in range(self.steps):
            rate = learning_rate(step, self.steps, self.learning_rate, self.schedule, self.warmup_steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = loss_of(step)
            optimiser.zero_grad()
            loss.backward()
            losses[step] = loss.detach().cpu()
            if self.skip_nonfinite and not (math.isfinite(losses[step]) and finite_gradients(model)):
                losses[step] = math.nan
                continue
            if self.max_grad_norm:
                nn.utils.clip_grad_norm_(model.parameters(), self.max_grad_norm)
            optimiser.step()
            if averaged:
                averaged.update(model)
            if not math.isfinite(losses[step]):
                raise SettingsError("a finite loss", f"{float(losses[step])} in step {step}", "lower learning_rate")
            if progress:
                progress(step + 1, self.steps, {"loss": float(losses[step])})
        if bool(losses.isnan().all()):
            raise SettingsError("a finite loss and gradient in some step", "none", "lower learning_rate")
        if averaged:
            model.load_state_dict(averaged.weights)
        if not all(bool(weight.isfinite().all()) for weight in model.parameters()):  # by the last step's gradient
            raise SettingsError("finite weights", "NaN or infinite ones after the last step", "lower learning_rate")
        model.eval()
        return losses

    def optimiser_of(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of a model's weights."""
        common: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.weight_decay, "fused": True}
        if self.optimiser == "sgd":
            return torch.optim.SGD(model.parameters(), momentum=MOMENTUM, **common)
        return torch.optim.AdamW(model.parameters(), **common)

    def check(self) -> None:
        """Raise SettingsError for a setting outside its range."""
        conditions = (
            ("steps", "a whole number of at least 1", isinstance(self.steps, int) and self.steps >= 1),
            ("learning_rate", "a number above 0", _within(self.learning_rate, 0) and self.learning_rate > 0),
            ("weight_decay", "a number of at least 0", _within(self.weight_decay, 0)),
            ("schedule", "constant or cosine", self.schedule in get_args(Schedule)),
            ("optimiser", "adamw or sgd", self.optimiser in get_args(Optimiser)),
            ("warmup_steps", "a number of at least 0", _within(self.warmup_steps, 0)),
            ("ema_decay", "a number in [0, 1)", _within(self.ema_decay, 0) and self.ema_decay < 1),
            ("max_grad_norm", "a number of at least 0", _within(self.max_grad_norm, 0)),
        )
        for name, expected, holds in conditions:
            if not holds:
                raise SettingsError(f"{name} to be {expected}", repr(getattr(self, name)), "correct this setting")
        check_precision(self.precision)


def _within(value: object, least: float) -> bool:
    """Whether it is a finite number of at least `least`."""
    return isinstance(value, (int, float)) and least <= value < math.inf


def finite_gradients(model: nn.Module) -> bool:
    """Whether every gradient that a model's weights have is finite."""
    return all(bool(weight.grad.isfinite().all()) for weight in model.parameters() if weight.grad is not None)


class AveragedWeights:
    """An exponential moving average (EMA) of a module's weights and buffers; `decay` 0 keeps the last ones.

    Buffers of whole numbers (BatchNorm's `num_batches_tracked`) have no mean: the last value is kept.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {k: v.detach().clone() for k, v in module.state_dict().items()}
        self.updates = 0

    def update(self, module: nn.Module) -> None:
        """Take in the module's weights; early on the average runs over the steps there were."""
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value.detach(), 1 - keep)
            else:
                self.weights[name].copy_(value)
