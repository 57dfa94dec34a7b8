"""What a user hands in (paths, folders, arrays, PIL images, bytes, samples) as samples of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
from PIL import Image

from blemish.data.data_warnings import warn
from blemish.data.files import shown, stated_path
from blemish.data.folder import find_inspection, find_normal
from blemish.data.images import load_levels
from blemish.data.samples import has_image
from blemish.errors import BlemishError, DatasetError, ImageError
from blemish.types import POINTS, RGB, Sample, Scan
from blemish.utils.paths import expanded

ImageInput = str | Path | np.ndarray | Image.Image | bytes | BinaryIO | Scan | Sample
ImageInputs = ImageInput | Iterable[ImageInput]


def as_sample(image: ImageInput) -> Sample:
    """One image as a sample. What lies in memory is copied, so that the caller may reuse it for the next frame.

    PIL images, bytes and binary files are decoded at once, with all their bits. Raises ImageError for anything that is
    no image, and DatasetError for an empty path.
    """
    if isinstance(image, Sample):
        return replace(image, image=_own(image.image), points=_own(image.points), mask=_own(image.mask))
    if isinstance(image, Scan):
        return Sample.of(image.map(np.copy, np.copy))
    if _is_path(image):
        return Sample(stated_path(image))
    if is_one(image):
        return Sample(load_levels(image))
    expected = "a path, a numpy array, a PIL picture, bytes, a binary file, a Scan or a Sample"
    raise ImageError(expected, type(image).__name__, "convert it first")


def samples_of(images: ImageInputs) -> Iterator[Sample | BlemishError]:
    """Images to inspect, one by one: a folder stands for those it holds; what is no image comes as its error."""
    for image in _several(images):
        found: list[Sample | BlemishError]
        try:
            if _is_path(image) and str(image).strip() and os.path.isdir(expanded(image)):
                found = [*find_inspection(image).samples]
            else:
                found = [as_sample(image)]
        except BlemishError as error:
            found = [error]
        yield from found


def good_samples(images: ImageInputs, category: str | None = None, assume_good: bool = False) -> list[Sample]:
    """Images to fit on; paths and folders as `find_normal` reads them, with `assume_good` handed on.

    `category` replaces what the samples say. Raises DatasetError when there are none, or one is known to be defective.
    """
    samples: list[Sample] = []
    for are_paths, group in groupby(_several(images), _is_path):
        members: list[Any] = [image if are_paths else as_sample(image) for image in group]
        samples += find_normal(members, assume_good, category=category).samples if are_paths else members
    if not samples:
        raise DatasetError("at least one good picture", "none", "give pictures or folders of good parts")
    defective = [sample for sample in samples if sample.label]
    if defective:
        raise DatasetError("good pictures alone", f"the defective {defective[0].name}", "leave defective ones out")
    return samples if category is None else [replace(sample, category=category) for sample in samples]


def complete_samples(samples: Sequence[Sample], modalities: Sequence[str]) -> list[Sample]:
    """The samples that have all of `modalities`; a DataWarning names every other one.

    Raises DatasetError where less than half of them do: then it is not a file or two that got lost.
    """
    lacking = [(sample, missing) for sample in samples if (missing := _missing(sample, modalities))]
    if 2 * len(lacking) > len(samples):
        sample, missing = lacking[0]
        raise DatasetError(
            f"{'measured points' if missing == POINTS else 'a picture'} of every good part",
            f"{len(lacking)} of {len(samples)} without, first {shown(sample.name)}",
            "give Sample(picture, points), folders rgb and xyz side by side, or the layout of MVTec 3D-AD"
            + ("; or learn from pictures alone" if missing == POINTS else ""),
        )
    for sample, missing in lacking:
        warn(
            "incomplete", shown(sample.name), f"has no {'points' if missing == POINTS else 'picture'}, and is left out"
        )
    gone = {id(sample) for sample, _ in lacking}
    return [sample for sample in samples if id(sample) not in gone]


def _missing(sample: Sample, modalities: Sequence[str]) -> str | None:
    """The first of `modalities` that a sample lacks."""
    if POINTS in modalities and sample.points is None:
        return POINTS
    return RGB if RGB in modalities and not has_image(sample) else None


def _several(images: ImageInputs) -> Iterable[ImageInput]:
    return [images] if is_one(images) else images  # type: ignore[list-item,return-value]


def is_one(images: object) -> bool:
    """Whether this is one image or folder, and not several; binary files could be iterated over, too."""
    one = (str, os.PathLike, np.ndarray, Image.Image, bytes, bytearray, memoryview, Scan, Sample)
    return isinstance(images, one) or hasattr(images, "read")


def _is_path(image: object) -> TypeGuard[str | Path]:
    return isinstance(image, (str, os.PathLike))


def _own(held: Any) -> Any:
    return held.copy() if isinstance(held, np.ndarray) else held
