"""The contract of every detector: settings in its constructor, `fit`, `score`, its state, and `needs` as data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, runtime_checkable

from blemish.encoders.base import Alignment, LayerRole
from blemish.encoders.text.prompts import PromptKind
from blemish.types import RGB, Batch, BrokenRule, Features, PatchScores, Prompts
from blemish.utils.progress import Progress as Progress

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")


@dataclass(frozen=True)
class Needs:
    """What a detector asks the feature loader for, as data: which encoder layers, which images, how framed and turned.

    Encoder: `layers`, a role for each part of a composite encoder; `modalities`; `points_stride`, in pixels, between
    the points that an encoder of points describes; `prompts`, the kind of sentences that `Batch.prompts` holds for
    every category (None: none). `alignment`: the encoder must have a text tower, which embeds the prompts, and gives
    what this says in the space of sentences (None: another text encoder embeds them).
    Normal images of each category: at least `min_images`, of which `min_images_left` must stay where some are left out
    to calibrate (0: as many as `min_images`). Each in `rotations` copies, evenly spaced over 360°, the original first,
    and with `flips` mirrored as well; with more than `max_copies` of a category (0: no limit) copies are left out,
    never originals (see `limited_to_max_copies`).
    `augmentation`: random flips, quarter turns, colour and blur, drawn anew in every epoch (as FoundAD's).
    `synthetic_anomalies`: `Batch.altered` and `Batch.altered_mask` are filled.
    Geometry: `image_size` in pixels, of the short side or, with `square`, of the side a plain resize gives; `framing`:
    a name of `preprocessing.framing.FRAMINGS`.
    Scores: `score_exponent`, 1 where they grow like distances and 2 where like squared ones (a cosine distance is half
    the squared distance of unit vectors), so that their logarithms have twice the standard deviation; `score_spread`,
    how many times as far those of normal images scatter beyond that as the priors of scoring/calibration.py expect;
    `pooling`, how an image score comes from patch scores (see numeric/pooling.py).
    `slow_fit`: fitting takes long although nothing is augmented; held-out scores come from one fit, not from folds.
    """

    layers: LayerRole | tuple[LayerRole, ...] = "deep"
    modalities: tuple[str, ...] = (RGB,)
    prompts: PromptKind | None = None
    alignment: Alignment | None = None
    points_stride: int = 4
    min_images: int = 1
    min_images_left: int = 0
    rotations: int = 1
    flips: bool = False
    max_copies: int = 0
    augmentation: bool = False
    synthetic_anomalies: bool = False
    image_size: int = 448
    square: bool = False
    framing: str = "plain"
    score_exponent: int = 1
    score_spread: float = 1.0
    pooling: str = "top:0.01"
    slow_fit: bool = False

    def enough_left(self, images: int) -> bool:
        """Whether so many `images` of a category suffice where others of it are left out to calibrate."""
        return images >= (self.min_images_left or self.min_images)

    def limited_to_max_copies(self, images: int) -> Needs:
        """These needs for `images` normal images of a category: `rotations` are halved until `max_copies` suffice.

        Many images show the part in its poses already, and every copy costs an encoding.
        """
        if not self.max_copies:
            return self
        rotations, sides = self.rotations, 1 + self.flips
        while rotations > 1 and rotations * sides * images > self.max_copies:
            rotations //= 2
        return replace(self, rotations=rotations, flips=self.flips and rotations * sides * images <= self.max_copies)


class Scorer(Protocol):
    """What scores the patches of images: a fitted detector, or one without some of its normal images."""

    @property
    def needs(self) -> Needs:
        """What features it takes, and how an image score comes from its patch scores."""
        ...

    def score(self, features: Features) -> PatchScores:
        """Patch scores `(B, h, w)` float32 ≥ 0, larger is more anomalous."""
        ...


@runtime_checkable
class Detector(Protocol):
    """Is fitted to patch features of normal images and scores the patches of others.

    Its constructor only stores settings (see settings.py); what `fit` learns is kept in names that end in `_`.
    """

    @property
    def needs(self) -> Needs:
        """What the feature loader feeds it."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments that rebuild this detector, not fitted; JSON can hold them."""
        ...

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Fit to normal images; `batches` may be iterated more than once.

        Raises SettingsError or DatasetError where there are none.
        """
        ...

    def score(self, features: Features) -> PatchScores:
        """Patch scores `(B, h, w)` float32 ≥ 0, larger is more anomalous; an image's never depend on its batch.

        Raises NotFittedError before `fit`, SettingsError for a category that was not fitted.
        """
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """All that `fit` learned, as tensors by name. Raises NotFittedError before `fit`."""
        ...

    def load_state(self, state: Mapping[str, torch.Tensor]) -> Self:
        """Take back what `state` gave; scores afterwards are bit-identical."""
        ...


@runtime_checkable
class FitsToHeldOut(Protocol):
    """What a detector offers that also learns from held-out normal images."""

    def fit_held_out(self, features: Iterable[Features]) -> Self:
        """Fit to the `features` of normal images that `fit` did not see. Scores are valid without it, too."""
        ...


@runtime_checkable
class Explains(Protocol):
    """What a detector of several modalities may offer besides scores."""

    def explain(self, features: Features) -> Mapping[str, torch.Tensor]:
        """What each modality ("rgb", "points", "text") adds to the patch scores: maps `(B, h, w)` ≥ 0 by modality.

        Their sum is the patch scores.
        """
        ...


@runtime_checkable
class Exportable(Protocol):
    """What a detector offers whose scores can be computed by a graph without Python, as an exported bundle does."""

    def graph_scores(self, features: Features, category: str) -> PatchScores:
        """As `score`, of images of one fitted category, by tensor operations alone.

        B may be left open: no image is taken by itself, and nothing branches on values. Of scans the graph takes the
        features of points and which patches have any, `Features.valid`, as they come from the encoder. Raises
        SettingsError where some setting of the detector has no such form.
        """
        ...


@runtime_checkable
class StatesRules(Protocol):
    """What a detector offers that learns what all normal images of a category have in common."""

    def broken_rules(self, features: Features) -> Sequence[Sequence[BrokenRule]]:
        """For each image the rules of its category that it breaks, the most telling first."""
        ...


@runtime_checkable
class ZeroShot(Protocol):
    """What a detector offers that can be fitted by sentences alone, without any normal image."""

    def fit_zero_shot(self, prompts: Mapping[str, Prompts]) -> Self:
        """Fit to the sentences about each category, as `Needs.prompts` asks for them.

        Raises SettingsError where there are none.
        """
        ...


@runtime_checkable
class ComparesWithText(Protocol):
    """What a detector offers whose patches lie in one space with sentences."""

    def text_margins(self, features: Features) -> torch.Tensor:
        """By how much each patch `(B, h, w)` is nearer to the abnormal sentences: the difference of its cosines."""
        ...


@runtime_checkable
class LeavesOut(Scorer, Protocol):
    """What a detector offers that can score as if it had been fitted without some of its normal images."""

    def can_leave_out(self, category: str) -> bool:
        """Whether `score_without` holds for a category as it is fitted now; never after `load_state`."""
        ...

    def score_without(self, features: Features, left_out: Collection[int]) -> PatchScores:
        """As `score`, by what was fitted on the other images; `left_out` are numbers as in `Batch.images`."""
        ...


@dataclass(frozen=True, eq=False)
class WithoutImages:
    """A fitted detector as it would be without the normal images of some numbers."""

    detector: LeavesOut
    left_out: tuple[int, ...]

    @property
    def needs(self) -> Needs:
        return self.detector.needs

    def score(self, features: Features) -> PatchScores:
        return self.detector.score_without(features, self.left_out)


def strip_prefix(state: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    """What a state holds under names that start with `prefix` and a dot, without these."""
    return {name.removeprefix(f"{prefix}."): t for name, t in state.items() if name.startswith(f"{prefix}.")}


def add_prefix(state: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    """A state with `prefix` and a dot before every name; `strip_prefix` takes it back."""
    return {f"{prefix}.{name}": t for name, t in state.items()}


def weights_of(module: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """A network's weights and buffers on the CPU, under names that start with `prefix` and a dot."""
    return add_prefix({name: value.detach().cpu() for name, value in module.state_dict().items()}, prefix)
