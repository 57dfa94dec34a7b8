"""The images of an evaluation that are worth a look: what was missed, what was flagged wrongly, what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from blemish.data.full_scale import FullScale
from blemish.data.images import load_mask
from blemish.errors import ImageError
from blemish.registry import joined_names, sees_points
from blemish.report.overlays import draw_mask, draw_overlay, heat_image, thumbnail
from blemish.report.page import Photo, photo
from blemish.report.pivot import Names
from blemish.report.views import image_view, relief_view, side_by_side
from blemish.scoring.describe import times_in_words
from blemish.types import Prediction, Sample

if TYPE_CHECKING:
    from blemish.evaluation import RunDetail

ImageOf = Callable[[Sample], np.ndarray | None]

_SIDE = 240  # pixels of a shown image
_HEADINGS = {"missed": "Missed", "false alarm": "False alarms", "found": "Found"}  # mistakes first


@dataclass(frozen=True)
class Example:
    """One image with its words; `photo` is None where it is not at hand."""

    title: str
    words: str
    photo: Photo | None


@dataclass(frozen=True)
class ExampleGroup:
    """Examples of one kind under their heading."""

    heading: str
    examples: Sequence[Example]


def example_groups(
    details: Sequence[RunDetail], names: Names, images: ImageOf | None, masks: ImageOf | None, most: int
) -> tuple[list[ExampleGroup], int]:
    """Mistakes first, each image once a method, about `most` in all; and how many were left out.

    `images` and `masks` give a sample's image and mask or None; without them both are read from disk.
    """
    order = {kind: place for place, kind in enumerate(_HEADINGS)}
    kinds = sorted({kind for d in details for kind in d.examples}, key=lambda kind: order.get(kind, len(order)))
    room = max(6, most // max(1, len(kinds)))
    groups, omitted = [], 0
    for kind in kinds:
        found = _distinct(kind, details, names)
        shown = [_example(names, kind, *each, images, masks or _mask_of) for each in found[:room]]
        omitted += len(found) - len(shown)
        if shown:
            groups.append(ExampleGroup(_HEADINGS.get(kind, kind), shown))
    return groups, omitted


def _distinct(kind: str, details: Sequence[RunDetail], names: Names) -> list[tuple[RunDetail, Sample, Prediction]]:
    """The examples of a kind, each image once a method; one of every run before the second of any."""
    seen: dict[tuple[object, str], tuple[RunDetail, Sample, Prediction]] = {}
    ranked = zip_longest(*([(d, *pair) for pair in d.examples.get(kind, ())] for d in details))
    for each in (e for one_a_run in ranked for e in one_a_run if e is not None):
        seen.setdefault((_identity(each[1]), names.method(each[0].row)), each)
    return list(seen.values())


def _identity(sample: Sample) -> object:
    return sample.source if isinstance(sample.source, Path) else id(sample.source)


def _example(
    names: Names,
    kind: str,
    detail: RunDetail,
    sample: Sample,
    prediction: Prediction,
    images: ImageOf | None,
    masks: ImageOf,
) -> Example:
    score = times_in_words(prediction.score, prediction.threshold)
    category, method = names.category(detail.row), names.method(detail.row)
    defect = sample.defect or ("defect" if sample.label else "good")
    drawn = _drawn(kind, detail, sample, prediction, images, masks)
    alt = f"{category}, {method}: {defect}, {kind}, {score}"
    return Example(
        title=f"{category}, {defect}",
        words=f"{score}, {method}, {Path(sample.name).name}",
        photo=None if drawn is None else photo(drawn, alt),
    )


def _drawn(
    kind: str, detail: RunDetail, sample: Sample, prediction: Prediction, images: ImageOf | None, masks: ImageOf
) -> np.ndarray | None:
    """The image with what the model saw, the true defect outlined; beside it the map of what was missed, the relief."""
    image = images(sample) if images is not None else _image_of(sample, detail.full_scale)
    if image is None:
        return None
    small, mask = thumbnail(image, _SIDE), masks(sample)
    drawn = draw_overlay(small, prediction, boxes=False, strip=False)
    if mask is not None and np.any(mask):
        drawn = draw_mask(drawn, mask, tint=0.0, scale=2.0)
    if kind == "missed":
        drawn = np.concatenate([drawn, heat_image(prediction, (small.shape[0], small.shape[1]))], axis=1)
    relief = _relief_of(sample) if any(map(sees_points, joined_names(str(detail.row.get("encoder"))))) else None
    return drawn if relief is None else side_by_side([drawn, thumbnail(relief, _SIDE)])


# Images were read while evaluating; one that went away since is no reason to lose the report.
def _image_of(sample: Sample, full_scale: FullScale | None) -> np.ndarray | None:
    try:
        return image_view(sample, full_scale)
    except (OSError, ImageError):
        return None


def _relief_of(sample: Sample) -> np.ndarray | None:
    try:
        return None if sample.image is None else relief_view(sample)
    except (OSError, ImageError):
        return None


def _mask_of(sample: Sample) -> np.ndarray | None:
    try:
        return None if sample.mask is None else load_mask(sample.mask)
    except (OSError, ImageError):
        return None
