"""A first pass over normal images: what they hold, which repeat others, how each category is framed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from blemish.data.content import Content, check_normal_contents
from blemish.data.data_warnings import warn
from blemish.data.duplicates import Signature, fingerprint, near_duplicates, signature
from blemish.data.samples import as_rgb
from blemish.model.decoded_images import DecodedImages
from blemish.model.model_folder import thumbnail
from blemish.preprocessing.framing import Framing
from blemish.preprocessing.ignored_area import GivenAreas, fill_ignored, ignored_areas
from blemish.types import ImageOrScan, Sample, Scan
from blemish.utils.indices import evenly_spaced, group_indices

THUMBNAILS = 64  # normal images shown in a saved model


@dataclass(frozen=True, eq=False)
class NormalImages:
    """Different normal images, ready to be encoded: their decoded pixels, fingerprints, framings and thumbnails.

    `sizes` are their (height, width); `framings` are by category; `thumbnails` by index, of some of them; `ignored` are
    the areas `(h, w)` bool that are not judged, of the categories that have one. `repeated` are the fingerprints of
    further images, which nearly repeat one of these.
    """

    images: DecodedImages
    fingerprints: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    framings: Mapping[str, Framing]
    thumbnails: Mapping[int, np.ndarray]
    ignored: Mapping[str, np.ndarray] = field(default_factory=dict)
    repeated: frozenset[str] = frozenset()

    @property
    def samples(self) -> Sequence[Sample]:
        return self.images.samples

    @property
    def categories(self) -> list[str]:
        """The category of each image, "" for the unnamed one."""
        return [sample.category or "" for sample in self.samples]

    def subset(self, indices: Sequence[int], framings: Mapping[str, Framing]) -> NormalImages:
        """The images at `indices` alone, framed anew."""
        return NormalImages(
            self.images.subset(indices),
            [self.fingerprints[i] for i in indices],
            [self.sizes[i] for i in indices],
            framings,
            {new: self.thumbnails[old] for new, old in enumerate(indices) if old in self.thumbnails},
            self.ignored,
            self.repeated,
        )


def survey(
    samples: Sequence[Sample],
    load: Callable[[Sample], ImageOrScan],
    build_framing: Callable[[], Framing],
    assume_good: bool = False,
    ignore: GivenAreas | None = None,
) -> NormalImages:
    """Decode every image once: check what it holds, find repetitions, fit the framing of each category.

    An image that is given twice in a category would be compared with itself, and make thresholds far too low: images
    that repeat one another, exactly or nearly (saved again as JPEG), count once, with a DataWarning for the latter.
    What is to `ignore` in them is filled in before a framing sees them.
    Raises ImageError for one that cannot be read, DatasetError where the images show nothing, or some are masks (the
    latter unless they are to be `assume_good`); for what is to be ignored as `ignored_areas`.
    """
    images = DecodedImages(samples, load)
    groups = group_indices([sample.category or "" for sample in samples])
    images.expect(i for members in groups.values() for i in members)
    notes = Notes(samples, frozenset(evenly_spaced(len(samples), THUMBNAILS)))
    framings = {}
    areas = first_areas(images, groups, ignore or {})
    for name, members in groups.items():
        stream = (fill_ignored(image, areas.get(name)) for image in notes.distinct(images, members))
        framings[name] = build_framing().fit(stream)
        for _ in stream:  # what the framing had no need to see
            pass
    ignored_areas(
        ignore or {}, {name: [notes.sizes[i] for i in own if i in notes.sizes] for name, own in groups.items()}
    )
    for warning in check_normal_contents([notes.contents[i] for i in sorted(notes.contents)], assume_good):
        warnings.warn(warning, stacklevel=2)
    kept = sorted(i for members in groups.values() for i in notes.without_near_duplicates(members))
    marks = [notes.fingerprints.get(i, "") for i in range(len(samples))]
    sizes = [notes.sizes.get(i, (0, 0)) for i in range(len(samples))]
    repeated = frozenset(notes.fingerprints.values()) - {marks[i] for i in kept}
    return NormalImages(images, marks, sizes, framings, notes.thumbnails, areas, repeated).subset(kept, framings)


def first_areas(
    images: Sequence[ImageOrScan], groups: Mapping[str, Sequence[int]], given: GivenAreas
) -> dict[str, np.ndarray]:
    """The areas `(h, w)` bool that categories ignore, by the size of the first image of each."""
    if not given:
        return {}
    shapes = {name: images[members[0]].shape for name, members in groups.items()}
    return ignored_areas(given, {name: [(shape[0], shape[1])] for name, shape in shapes.items()})


class Notes:
    """What is noted of images that pass by, by index; thumbnails of the `chosen` ones."""

    def __init__(self, samples: Sequence[Sample], chosen: frozenset[int]) -> None:
        self.samples, self.chosen = samples, chosen
        self.fingerprints: dict[int, str] = {}
        self.sizes: dict[int, tuple[int, int]] = {}
        self.signatures: dict[int, Signature | None] = {}
        self.contents: dict[int, Content] = {}
        self.thumbnails: dict[int, np.ndarray] = {}

    def distinct(self, images: Sequence[ImageOrScan], members: Sequence[int]) -> Iterator[ImageOrScan]:
        """The images at `members`, without exact repetitions."""
        seen: set[str] = set()
        for i in members:
            image = images[i]
            mark = fingerprint(image)
            if mark in seen:
                continue
            seen.add(mark)
            self.fingerprints[i] = mark
            self.sizes[i] = (image.shape[0], image.shape[1])
            self.signatures[i] = signature(image)
            if not isinstance(image, Scan) or image.rgb is not None:
                self.contents[i] = Content.of(as_rgb(image), self.samples[i].name)
            if i in self.chosen:
                self.thumbnails[i] = thumbnail(as_rgb(image))
            yield image

    def without_near_duplicates(self, members: Sequence[int]) -> list[int]:
        """Those of `members` that repeat no other one before them."""
        indices = [i for i in members if i in self.fingerprints]
        kept = []
        for i, first in zip(indices, near_duplicates([self.signatures[i] for i in indices]), strict=True):
            if indices[first] == i:
                kept.append(i)
            else:
                name = self.samples[indices[first]].name
                warn(
                    "near-duplicate", self.samples[i].name, f"is nearly the same as '{name}', and does not count again"
                )
        return kept
