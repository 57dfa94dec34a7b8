"""What all signs are measured on: training images, held-out normal images, and both with synthetic spots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from blemish.augmentation.blob import SHARE, spot
from blemish.augmentation.perturb import slight_copies
from blemish.data import image_of
from blemish.data.duplicates import fingerprint
from blemish.data.loading import ImageInputs, good_samples
from blemish.diagnosis.signs import InspectedImage
from blemish.errors import ImageError
from blemish.preprocessing.foreground import from_pixels
from blemish.preprocessing.ignored_area import fill_ignored, resized_area
from blemish.types import Sample
from blemish.utils.indices import evenly_spaced

if TYPE_CHECKING:
    from blemish.detectors.base import Progress
    from blemish.model.fitted import FittedModel
    from blemish.model.inspector import Inspector

MOST_IMAGES = 16  # training images inspected, and as many held-out ones: some seconds on a CPU
KEPT_SIDE = 768  # pixels of the longer side of images that are kept, at least: enough for a report
TINY = 1e-12  # stands for a score of 0 as a divisor


@dataclass(frozen=True)
class Material:
    """Normal images that were inspected, those the model was fitted on (`training`) and others (`held_out`).

    `pairs` are known normal images, each without and with a synthetic spot: held-out ones or, where there are none
    (`perturbed`), slightly perturbed copies of training images. `failures` are (file, error) of unreadable images.
    """

    inspector: Inspector
    training: Sequence[InspectedImage]
    held_out: Sequence[InspectedImage]
    pairs: Sequence[tuple[InspectedImage, InspectedImage]]
    perturbed: bool
    failures: Sequence[tuple[str, str]]
    seed: int

    @property
    def model(self) -> FittedModel:
        """The fitted model that is diagnosed."""
        return self.inspector.model_

    @property
    def known(self) -> list[InspectedImage]:
        """The held-out images that show an object the model was fitted on."""
        return [one for one in self.held_out if one.prediction.is_known]

    @cached_property
    def power(self) -> float:
        """Scores to this power grow like distances."""
        return 1 / self.model.detector.needs.score_exponent

    def relative_score(self, one: InspectedImage) -> float:
        """An image's score in units of the typical score of a normal image of its category."""
        return float((one.prediction.score / self.typical_score(one.prediction.category)) ** self.power)

    def typical_score(self, category: str | None) -> float:
        """What a normal image of a category typically scores, above 0: by its calibration, or else by those here."""
        scores = self.model.calibrations[category].scores
        if not len(scores):  # of a model that has seen no image
            scores = np.array([one.prediction.score for one in self.known if one.prediction.category == category])
        return max(float(np.median(scores)), TINY) if len(scores) else 1.0

    @cached_property
    def held_out_scores(self) -> np.ndarray:
        """Relative scores `(n,)` of normal images the detector was not fitted on: the known held-out ones here or, for
        want of them, those of the calibration."""
        if self.known:
            return np.array([self.relative_score(one) for one in self.known])
        found = [c.scores for c in self.model.calibrations.values() if len(c.scores) and not c.source.copies]
        relative = [(scores / max(float(np.median(scores)), TINY)) ** self.power for scores in found]
        return np.concatenate([np.zeros(0), *relative])

    def scores(self) -> dict[str, np.ndarray]:
        """Relative scores by kind of image, for those there are."""
        kinds = {
            "good, learned": np.array([self.relative_score(one) for one in self.training]),
            "good, not learned": self.held_out_scores,
            "made-up spot": np.array([self.relative_score(altered) for _, altered in self.pairs]),
        }
        return {name: values for name, values in kinds.items() if len(values)}

    def words(self) -> Iterator[str]:
        """What the measures rest on, and what was missing."""
        yield (
            f"Looked at {len(self.training)} good pictures that the model learned from and {len(self.held_out)} that "
            f"it did not, {len(self.held_out) - len(self.known)} of these unlike anything it learned."
        )
        if self.held_out and not self.training:
            yield "Give some of those it learned from, too: over-fitting shows in how they score beside new ones."
        if self.perturbed and self.pairs:
            yield (
                "No new good picture of a known part was given: spots were made up on slightly changed copies of "
                "learned ones, which look more familiar than new parts do. Give good pictures that the model has not "
                "seen for a stricter answer."
            )
        if not self.known and len(self.held_out_scores):
            yield (
                "Scores of good parts that were not learned are those the threshold rests on: "
                "each was scored by a detector that did not know the picture."
            )
        if not self.pairs:
            yield "No good picture of a known part was given, so no defect could be made up: give good pictures."


def collect(
    inspector: Inspector, images: ImageInputs, category: str | None, seed: int, progress: Progress | None
) -> Material:
    """Inspect some of the normal images, training and held-out ones, and paste synthetic spots into them."""
    training, held_out, failures = split_by_training(inspector, images)
    work = Collection(inspector, category, seed, 2 * (len(training) + len(held_out)), progress)
    inspected = [
        work.inspect(image_of(sample, inspector.model_.full_scale), sample.name, category) for sample in training
    ]
    new = []
    for sample in held_out:
        image = image_of(sample, inspector.model_.full_scale)
        new.append(work.inspect(image, sample.name, category))
        if new[-1].prediction.is_known:
            work.pair(new[-1], image)
    perturbed = not work.pairs
    if perturbed:
        for sample, one in zip(training, inspected, strict=True):
            (copy,) = slight_copies(image_of(sample, inspector.model_.full_scale), 1, seed=seed + len(work.pairs))
            work.pair(work.inspect(copy, sample.name, one.prediction.category), copy)
    return Material(inspector, inspected, new, work.pairs, perturbed, failures, seed)


def split_by_training(
    inspector: Inspector, images: ImageInputs
) -> tuple[list[Sample], list[Sample], list[tuple[str, str]]]:
    """At most MOST_IMAGES of the images the detector was fitted on, as many others, and (file, error) of unreadable
    ones. Raises DatasetError for images that are known to be defective, or none where some were named."""
    none_given = isinstance(images, (list, tuple)) and not images
    model = inspector.model_
    training: list[Sample] = []
    held_out: list[Sample] = []
    failures: list[tuple[str, str]] = []
    for sample in [] if none_given else good_samples(images):
        try:
            is_training = model.was_given(fingerprint(image_of(sample, model.full_scale)))
        except ImageError as error:
            failures.append((sample.name, str(error)))
        else:
            (training if is_training else held_out).append(sample)
    some_training, some_held_out = (
        [kind[i] for i in evenly_spaced(len(kind), MOST_IMAGES)] if kind else [] for kind in (training, held_out)
    )
    return some_training, some_held_out, failures


@dataclass
class Collection:
    """Inspection of image after image: counts them for `progress`, and keeps the `pairs` made so far."""

    inspector: Inspector
    category: str | None
    seed: int
    total: int
    progress: Progress | None
    pairs: list[tuple[InspectedImage, InspectedImage]] = field(default_factory=list)
    done: int = 0

    def inspect(
        self, image: np.ndarray, name: str, category: str | None, mask: np.ndarray | None = None
    ) -> InspectedImage:
        """The image with its prediction, thinned to what is kept."""
        self.done += 1
        if self.progress:
            self.progress(min(self.done, self.total), self.total, {})
        return thinned(InspectedImage(image, replace(self.inspector.inspect(image, category), source=name), mask))

    def pair(self, untouched: InspectedImage, image: np.ndarray) -> None:
        """Paste a synthetic spot into the `image` that was inspected as `untouched`, and keep the two."""
        random = np.random.default_rng((self.seed, len(self.pairs)))
        prediction = untouched.prediction
        area = self.inspector.model_.ignored_in(prediction.category)
        altered, mask = spot_where_judged(image, area, random)
        self.pairs.append((untouched, self.inspect(altered, prediction.source, prediction.category, mask)))


def spot_where_judged(
    image: np.ndarray, area: np.ndarray | None, rng: np.random.Generator, share: tuple[float, float] = SHARE
) -> tuple[np.ndarray, np.ndarray]:
    """The image `(H, W, 3)` uint8 with a synthetic spot outside the ignored `area`, and the spot's mask `(H, W)` bool.

    `area` `(h, w)` bool, of any size; None where all of the image is judged.
    `share`: of what is judged of the part, or of the image where the part lies in the area, that the spot covers.
    """
    if area is None:
        return spot(image, from_pixels(image), rng, share)
    judged = ~resized_area(area, (image.shape[0], image.shape[1]))
    part = from_pixels(np.asarray(fill_ignored(image, area))) & judged
    altered, mask = spot(image, part if part.any() else judged, rng, share)
    mask &= judged
    return np.where(mask[..., None], altered, image), mask


def thinned(one: InspectedImage) -> InspectedImage:
    """The same, every nth pixel of it, so that dozens of huge images can be kept: the longer side is then at least
    KEPT_SIDE and under twice that."""
    step = max(one.image.shape[:2]) // KEPT_SIDE
    if step < 2:
        return one
    every = (slice(None, None, step), slice(None, None, step))
    regions = tuple(
        replace(
            region,
            box=tuple(edge // step for edge in region.box[:2]) + tuple(-(-edge // step) for edge in region.box[2:]),
            area=max(1, region.area // step**2),
            centroid=(region.centroid[0] / step, region.centroid[1] / step),
        )
        for region in one.prediction.regions
    )
    prediction = replace(one.prediction, map=one.prediction.map[every].copy(), regions=regions)
    return InspectedImage(one.image[every].copy(), prediction, None if one.mask is None else one.mask[every].copy())
