"""The promise of every detector: settings in `__init__`, learning in `fit`, scores from `score`, facts as data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, runtime_checkable

from blemish.encoders.base import LayerRole
from blemish.encoders.text.prompts import PromptKind
from blemish.types import RGB, Batch, Features, PatchScores

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")

# Called while learning with (done, total, facts such as {"loss": 0.1}).
Progress = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Needs:
    """What a detector needs to be fed; the feature loader renders it, the detector never does."""

    layers: LayerRole | tuple[LayerRole, ...] = "deep"  # several: one for each part of a joint encoder
    modalities: tuple[str, ...] = (RGB,)
    text: PromptKind | None = None  # which sentences Batch.prompts holds for every category; None: no text
    points_stride: int = 4  # pixels between the points that an encoder of points describes
    rotations: int = 1  # copies of every good image, evenly spaced over 360°, the original first
    flips: bool = False  # the mirrored copies as well
    most_copies: int = 0  # of the good images of a category, at most; 0: no limit (see `affordable`)
    augmentation: bool = False  # random flips, quarter turns, colour and blur at every walk (FoundAD)
    synthetic_anomalies: bool = False  # Batch.altered and Batch.altered_mask are filled
    images: int = 1  # good images at least
    image_size: int = 448  # pixels, short side (or side, when square)
    square: bool = False  # True: plain resize to a square; False: aspect ratio kept
    framing: str = "plain"  # "plain": the whole image; "part": the part alone, in one pose (see framing.py)
    slow: bool = False  # learning takes long although nothing is augmented or made up: it is done once, not in folds
    squared: bool = False  # scores grow like squared distances, so that their logarithms scatter twice as much
    pooling: str = "top:0.01"  # image score from the patches: "top:SHARE", "top:COUNT" or "max" (numeric/pooling.py)

    def affordable(self, images: int) -> Needs:
        """These needs where so many good images of a category are at hand: rotations halve down to `most_copies`.

        Many images show the part in its poses already, and every copy costs an encoding.
        """
        if not self.most_copies:
            return self
        rotations, sides = self.rotations, 1 + self.flips
        while rotations > 1 and rotations * sides * images > self.most_copies:
            rotations //= 2
        return replace(self, rotations=rotations, flips=self.flips and rotations * sides * images <= self.most_copies)


@runtime_checkable
class Detector(Protocol):
    """Learns what good parts look like and scores the patches of others.

    `__init__` only stores its settings (all JSON-able keyword arguments); what is learned lives in names ending in `_`.
    """

    @property
    def needs(self) -> Needs: ...

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments that rebuild this detector, unlearned."""
        ...

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Learn from good images; `batches` can be walked more than once."""
        ...

    def score(self, features: Features) -> PatchScores:
        """Patch scores `(B, h, w)`; an image's scores never depend on its batch."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """All that was learned, as tensors by name."""
        ...

    def load_state(self, state: Mapping[str, torch.Tensor]) -> Self:
        """Take back what `state` gave; scores afterwards are bit-identical."""
        ...


def setting_names(make: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the keyword arguments that a detector's class takes."""
    return tuple(p.name for p in inspect.signature(make).parameters.values() if p.kind is not p.VAR_KEYWORD)


def settings_of(detector: object) -> dict[str, Any]:
    """A detector's `settings`: its attributes of the names that its constructor takes."""
    return {name: getattr(detector, name) for name in setting_names(type(detector))}


@runtime_checkable
class Explains(Protocol):
    """What a detector of several modalities may offer beside its scores."""

    def explain(self, features: Features) -> Mapping[str, torch.Tensor]:
        """What each modality ("rgb", "points", "text") adds to the patch scores: maps `(B, h, w)` ≥ 0 by modality."""
        ...


def part_of(state: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    """What a state holds under names that start with `prefix` and a dot, without these."""
    return {name.removeprefix(f"{prefix}."): t for name, t in state.items() if name.startswith(f"{prefix}.")}


def under(prefix: str, state: Mapping[str, Value]) -> dict[str, Value]:
    """A state with `prefix` and a dot before every name; `part_of` takes it back."""
    return {f"{prefix}.{name}": t for name, t in state.items()}


def weights_of(module: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """A network's weights and buffers on the CPU, under names that start with `prefix` and a dot."""
    return under(prefix, {name: value.detach().cpu() for name, value in module.state_dict().items()})
