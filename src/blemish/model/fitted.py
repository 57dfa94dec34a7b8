"""A fitted model: all that fitting made, all that prediction and saving need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from blemish.data.full_scale import FullScale
from blemish.detectors.base import Detector
from blemish.encoders.base import Encoder
from blemish.errors import SettingsError
from blemish.model.category_recognition import CategoryRecognisers
from blemish.model.outliers import Outlier
from blemish.model.reasons import ReasonSettings
from blemish.model.reference_images import ReferenceImages
from blemish.model.settings import ModelSettings
from blemish.model.standing_out import StandingOut
from blemish.preprocessing.framing import Framing, same_state
from blemish.scoring.calibration import Calibration


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedModel:
    """All that was fitted; never changed, only replaced (`dataclasses.replace`).

    `settings` are those it was fitted with, where "auto" has become what it stood for. `full_scale` is which level of
    images with more than 8 bits is white. `framings` and `calibrations` have one entry a category; the unnamed category
    is "" among the framings and None among the calibrations. `recognition_framing` shows images to the `recogniser`,
    None where the framing of any category does. `fingerprints` are those of the images the detector was fitted on,
    `held_out_fingerprints` of those that were held out for the calibrations alone, `repeat_fingerprints` of those that
    nearly repeat one of either (none in models of earlier versions);
    `outliers` those that were left out, `standing_out` others that score apart from the rest; `repeats` says how many
    more were given that repeat others. `thumbnails` `(H, W, 3)` uint8 is a sheet of the normal images. `ignored` are
    the areas `(h, w)` bool of images, at any resolution, that are not judged, of the categories that have one.
    `references` are the normal images that regions are compared with, by category, none in models of earlier versions;
    `reasons` is how regions are described, which is not saved.
    """

    settings: ModelSettings
    encoder: Encoder
    detector: Detector
    full_scale: FullScale
    framings: Mapping[str, Framing]
    recognition_framing: Framing | None
    recogniser: CategoryRecognisers
    calibrations: Mapping[str | None, Calibration]
    fingerprints: frozenset[str]
    outliers: tuple[Outlier, ...]
    standing_out: tuple[StandingOut, ...]
    repeats: int
    thumbnails: np.ndarray
    ignored: Mapping[str, np.ndarray] = field(default_factory=dict)
    references: Mapping[str, ReferenceImages] = field(default_factory=dict)
    held_out_fingerprints: frozenset[str] = frozenset()
    repeat_fingerprints: frozenset[str] = frozenset()
    reasons: ReasonSettings = field(default_factory=ReasonSettings)

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the detector uses: images, measured points, or both."""
        return self.detector.needs.modalities

    @property
    def categories(self) -> tuple[str, ...]:
        """The named categories, none for a model of one unnamed category."""
        return tuple(name for name in self.calibrations if name is not None)

    def was_given(self, fingerprint: str) -> bool:
        """Whether the detector was fitted on the image of this fingerprint, or that was given as a near-duplicate."""
        return fingerprint in self.fingerprints or fingerprint in self.repeat_fingerprints

    def framing_of(self, category: str | None) -> Framing:
        """The framing of a category, or of all where they are framed alike."""
        return self.framings.get(category or "", next(iter(self.framings.values())))

    @cached_property
    def framed_otherwise(self) -> frozenset[str]:
        """The categories whose framing has learned something else than that of images of unknown category."""
        usual = self.framing_of(None)
        return frozenset(name for name, own in self.framings.items() if own is not usual and not same_state(own, usual))

    def ignored_in(self, category: str | None) -> np.ndarray | None:
        """The area `(h, w)` bool that images of a category, or of the only one, ignore; None where there is none."""
        names = [category or ""] if category or len(self.framings) > 1 else list(self.framings)
        return self.ignored.get(names[0])

    def category_of(self, category: str | None) -> str | None:
        """The category that an image's own place states, such as its folder: None for a model of one unnamed category.

        Raises SettingsError for one that the model does not know.
        """
        if not self.categories:
            return None
        self.check_category(category)
        return category

    def check_category(self, category: str | None) -> None:
        """Raise SettingsError for the name of a category that the model does not know."""
        if category is not None and category not in self.calibrations:
            raise SettingsError(
                f"a category the model learned: {', '.join(self.categories) or 'it has no named one'}",
                repr(category),
                "leave the category out to have it recognised" if self.categories else "leave the category out",
            )
