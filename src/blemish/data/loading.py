"""What a user hands in (paths, folders, arrays, PIL images, samples) as samples, and samples as loaded images."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from blemish.data import inspection_samples, load_image, load_sample, normal_samples
from blemish.data.data_warnings import warn
from blemish.data.files import shown
from blemish.errors import DatasetError, ImageError
from blemish.types import POINTS, RGB, ImageOrScan, Sample, Scan

ImageInput = str | Path | np.ndarray | Image.Image | Scan | Sample
ImageInputs = ImageInput | Iterable[ImageInput]

_ONE = (str, os.PathLike, np.ndarray, Image.Image, Scan, Sample)
_KEPT = 4  # decoded images kept by LazyImages


def as_sample(image: ImageInput) -> Sample:
    """One image as a sample; a PIL image is decoded. Raises ImageError for anything that is no image."""
    if isinstance(image, Sample):
        return image
    if isinstance(image, Image.Image):
        return Sample(load_image(image))
    if isinstance(image, Scan):
        return Sample.of(image)
    if isinstance(image, np.ndarray):
        return Sample(image)
    if isinstance(image, (str, os.PathLike)):
        return Sample(Path(image))
    expected = "a path, a numpy array, a PIL picture, a Scan or a Sample"
    raise ImageError(expected, type(image).__name__, "convert it first")


def samples_of(images: ImageInputs) -> Iterator[Sample | ImageError]:
    """Images to inspect, one by one: a folder stands for those it holds; what is no image comes as its error."""
    for image in [images] if isinstance(images, _ONE) else images:
        if isinstance(image, (str, os.PathLike)) and Path(image).is_dir():
            yield from inspection_samples(Path(image))
        else:
            try:
                yield as_sample(image)
            except ImageError as error:
                yield error


def good_samples(images: ImageInputs, category: str | None = None) -> list[Sample]:
    """Images to learn from; paths and folders as `datasets.normal_samples` reads them.

    `category` replaces what the samples say. Raises DatasetError when there are none, or one is known to be defective.
    """
    samples: list[Sample] = []
    for image in [images] if isinstance(images, _ONE) else images:
        samples += normal_samples(Path(image)) if isinstance(image, (str, os.PathLike)) else [as_sample(image)]
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
    return RGB if RGB in modalities and sample.image is None else None


def distinct(samples: Sequence[Sample], modalities: Sequence[str] = (RGB,)) -> tuple[list[Sample], list[str]]:
    """The samples without repetitions of an image within a category, and their fingerprints; reads every image.

    A good image given twice would be compared with itself, and make thresholds far too low. `modalities` says what
    of them counts. Raises ImageError for one that cannot be read.
    """
    kept: dict[tuple[str | None, str], Sample] = {}
    for sample in samples:
        kept.setdefault((sample.category, fingerprint(load_sample(sample, modalities))), sample)
    return list(kept.values()), [mark for _, mark in kept]


class LazyImages(Sequence[ImageOrScan]):
    """The images `(H, W, 3)` uint8 of samples, decoded when asked for; the last few are kept.

    Scans where the `modalities` asked for include points.
    """

    def __init__(self, samples: Sequence[Sample], modalities: Sequence[str] = (RGB,)) -> None:
        self.samples, self.modalities = samples, modalities
        self._kept: OrderedDict[int, ImageOrScan] = OrderedDict()

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> ImageOrScan: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageOrScan]: ...
    def __getitem__(self, index: int | slice) -> ImageOrScan | list[ImageOrScan]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index not in self._kept:
            self._kept[index] = load_sample(self.samples[index], self.modalities)  # IndexError ends a plain for loop
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return self._kept[index]


def fingerprint(image: ImageOrScan) -> str:
    """A short hash of an image's pixels (of a scan's points, too), the same whatever file they came from."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()[:16]


def ahead(pool: ThreadPoolExecutor, work: Any, items: Iterator[Any], most: int) -> Iterator[Any]:
    """`work` of every item, in order, done in `pool` at most `most` items ahead of the reader."""
    waiting: deque[Future[Any]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
