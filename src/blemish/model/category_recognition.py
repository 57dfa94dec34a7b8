"""Which category an image shows, and whether it shows any: nearest patches, averaged over the whole image.

Each category keeps `REFERENCE_PATCHES` patches of its normal images. An image's distance to a category is the
mean, over its own patches, of the distance to the nearest of these; a defect changes only its share of that mean,
where averaged features would be dominated by it. In choosing the nearest category, patches weigh by how well they
discriminate: a background on which all products lie weighs nothing. Of scans, the distances of the points and of the
image where there are points add up; the background is ignored. numpy and pillow only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from blemish.augmentation.perturb import slight_copies
from blemish.data.points import spacing_and_extent, spacing_and_noise
from blemish.detectors.base import add_prefix, strip_prefix
from blemish.errors import NotFittedError
from blemish.types import POINTS, RGB, Features, ImageOrScan, Scan
from blemish.utils.indices import evenly_spaced, group_indices

# Chosen by hand, for time and the size of saved models.
PATCHES = 256  # of an image, at most, evenly spaced
REFERENCE_PATCHES = 1024  # patches that a category keeps
# Chosen by eye so that images of four products stay known and those of a fifth mostly do not; that is held by a test
# on real images (tests/model/test_category_recognition.py).
TOLERANCE = 2.5  # how many times as far as perturbed copies of normal images an image of the category may lie
HALF_TOLERANCE = 1.75  # the same for normal images measured by the patches of others, which lie further away already
FITTED_ON = 64  # normal images of a category that its recogniser is fitted on, at most
PART = "part"  # as a source of patches: the image where there are points
MEASURED = 16  # normal scans of a category whose size is looked at, at most
# How many times as far apart neighbours and edges of a scan must both be as those of normal scans, or the reverse, for
# it to be of another unit, which is ten times as large at least. Chosen by hand.
OTHER_SIZE = 3.0
COPIES = 4  # perturbed copies of normal images that a recogniser is fitted on


@dataclass(frozen=True)
class Recognised:
    """The category of an image ("" is the unnamed one), its distance to it, and whether that is below the threshold.

    `note` says, in words that follow the name of a scan, why its size makes it unknown; empty for others.
    """

    category: str
    distance: float
    is_known: bool
    note: str = ""


def recognition_patches(features: Features, source: str = RGB) -> list[np.ndarray]:
    """Returns the patches of each image that recognition compares: `(P, D)` float32 of unit length, P ≤ about
    `PATCHES`.

    They are evenly spaced on the last layer. `source` is a modality or `PART`. For points and for the part, only
    patches where points were measured are taken; where none were, the result is a single zero vector.
    """
    layer = features.layers[RGB if source == PART else source][-1].detach().float().cpu().numpy()  # (B, h, w, D)
    valid = features.valid.get(POINTS) if source != RGB else None  # an image has no holes: it is available or not
    if valid is None:
        step = recognition_step(layer.shape[1], layer.shape[2])
        return list(unit(layer[:, ::step, ::step].reshape(len(layer), -1, layer.shape[-1])))
    height, width = layer.shape[1:3]
    rows, columns = (np.arange(n) * size // n for n, size in zip((height, width), valid.shape[1:], strict=True))
    measured = valid.cpu().numpy()[:, rows][:, :, columns]  # (B, h, w)
    valid_patches = (own[where] for own, where in zip(layer, measured, strict=True))  # (P, D) each
    nothing = np.zeros_like(layer[0, :1, 0])  # (1, D)
    return [unit(own[:: math.ceil(len(own) / PATCHES)]) if len(own) else nothing for own in valid_patches]


def recognition_step(height: int, width: int) -> int:
    """Of a grid of patches every so-manieth row and column is compared, so that about `PATCHES` are left."""
    return math.ceil(math.sqrt(height * width / PATCHES))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scales vectors `(…, D)` to length 1; a zero vector stays zero."""
    scaled: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return scaled


def distances(patches: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Euclidean distances `(P,)` in [0, 2] of unit `patches` `(P, D)` to the nearest of unit `references` `(N, D)`."""
    found: np.ndarray = np.sqrt(np.maximum(2 - 2 * (patches @ references.T).max(axis=1), 0))  # (P,) from the cosine
    return found


def mean_distance(patches: np.ndarray, references: np.ndarray) -> float:
    """The mean of `distances`: the distance of an image with these `patches` to a category with these references."""
    return float(distances(patches, references).mean(dtype=np.float64))


def discriminative_means(patch_distances: np.ndarray) -> np.ndarray:
    """Mean distances to categories `(C,)` from those of patches `(C, P)`, each patch weighted by how well it
    discriminates: the square of how much nearer it is to the nearest category than to the second."""
    ranked = np.partition(patch_distances, 1, axis=0) if len(patch_distances) > 1 else patch_distances[[0, 0]]
    weights = (ranked[1] - ranked[0]).astype(np.float64) ** 2  # (P,)
    return np.average(patch_distances, axis=1, weights=weights if weights.sum() > 0 else None)


class CategoryRecogniser:
    """Recognises the category of an image by one source: the image, the points, or the part.

    `fit` sets `names_`, `reference_patches_` `(C, N, D)` and `distance_thresholds_` `(C,)`, the distances up to which
    an image counts as known.
    """

    def fit(self, images: Mapping[str, Sequence[np.ndarray]], copies: Mapping[str, Sequence[np.ndarray]]) -> Self:
        """Fit to the recognition patches `(P, D)` of normal images by category, and of perturbed copies of some.

        The thresholds come from the distances of the copies and, where a category has several images, from those of
        each half of them to the patches of the other half alone.
        """
        self.names_ = tuple(images)
        self.reference_patches_ = np.stack([sample_reference_patches(own) for own in images.values()])  # (C, N, D)
        self.distance_thresholds_ = np.zeros(len(self.names_))  # (C,)
        for index, (name, own) in enumerate(images.items()):
            far = [TOLERANCE * mean_distance(copy, self.reference_patches_[index]) for copy in copies.get(name, ())]
            if len(own) > 1:
                halves = own[::2], own[1::2]
                for half, other in (halves, halves[::-1]):
                    references = sample_reference_patches(half)
                    far += [HALF_TOLERANCE * mean_distance(image, references) for image in other]
            self.distance_thresholds_[index] = max(far, default=0.0)
        return self

    def recognise(self, patches: np.ndarray, category: str | None = None) -> Recognised:
        """The nearest category of an image with these `patches` `(P, D)`, or its distance to the `category` given."""
        apart = self.distances(patches)  # (C, P)
        means = apart.mean(axis=1, dtype=np.float64)  # (C,)
        return nearest(discriminative_means(apart), means, self.names_, self.distance_thresholds_, category)

    def distances(self, patches: np.ndarray) -> np.ndarray:
        """The distance of each of `patches` `(P, D)` to the nearest reference patch of each category, `(C, P)`."""
        if not hasattr(self, "names_"):
            raise NotFittedError("a fitted recogniser", "one that is not", "call fit first")
        return np.stack([distances(patches, references) for references in self.reference_patches_])

    def state(self) -> dict[str, np.ndarray]:
        """All that was fitted; names as the bytes of a JSON list. Keys are those of models already saved."""
        names = np.frombuffer(json.dumps(self.names_).encode(), dtype=np.uint8)
        return {"prototypes": self.reference_patches_, "limits": self.distance_thresholds_, "names": names.copy()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        """Take back what `state` gave."""
        self.names_ = tuple(json.loads(state["names"].tobytes()))
        self.reference_patches_, self.distance_thresholds_ = state["prototypes"], state["limits"]
        return self


def nearest(
    ranking: np.ndarray, distances: np.ndarray, names: Sequence[str], thresholds: np.ndarray, category: str | None
) -> Recognised:
    """The category with the smallest `ranking` distance `(C,)`, or the `category` given.

    The image is known where the distance to the category found is within its threshold; where one is given, which is
    believed, where any of `distances` `(C,)` is within its own.
    """
    best = int(ranking.argmin()) if category is None else names.index(category)
    near = distances <= thresholds
    return Recognised(names[best], float(distances[best]), bool(near[best] if category is None else near.any()))


class CategoryRecognisers:
    """Recognises the category of an image or scan; `fit` sets `by_source_`, one `CategoryRecogniser` for each source.

    For images there is one. For scans there are also one for the points and one for the part, which decide together
    where both modalities are available; where only one is, its own recogniser decides. Descriptors of points do not
    see how large a part is, so that of some normal scans `lengths_` keeps, by category, the least and largest
    `spacing_and_extent` `(2, 2)`: a scan of another unit or camera is unknown.
    """

    lengths_: Mapping[str, np.ndarray] = {}

    def fit(
        self,
        names: Sequence[str],
        images: Sequence[ImageOrScan],
        encoded: Callable[[int], Features],
        encode: Callable[[int, ImageOrScan], Features],
        scans: bool = False,
    ) -> Self:
        """Fit the recognisers to normal images of each category and to perturbed copies of a few of them.

        `names` `(n,)` are the categories of the `images`; `encoded(index)` is the image at `index` encoded for
        recognition, `encode(index, copy)` a perturbed copy of it. `scans`: whether there are points.
        """
        sources = (RGB, POINTS, PART) if scans else (RGB,)
        own: dict[str, dict[str, list[np.ndarray]]] = {source: {} for source in sources}
        copies: dict[str, dict[str, list[np.ndarray]]] = {source: {} for source in sources}
        for name, members in group_indices(names).items():
            chosen = [members[i] for i in evenly_spaced(len(members), FITTED_ON)]
            count = -(-COPIES // len(chosen))
            perturbed = (
                encode(index, copy)
                for index in chosen[:COPIES]
                for copy in slight_copies(images[index], count, seed=index)
            )
            whole = patches_by_source((encoded(index) for index in chosen), sources)
            for source, patches in patches_by_source(perturbed, sources).items():
                own[source][name], copies[source][name] = whole[source], patches
        self.by_source_ = {source: CategoryRecogniser().fit(own[source], copies[source]) for source in sources}
        if scans:
            self.lengths_ = {
                name: lengths_of(images[members[i]] for i in evenly_spaced(len(members), MEASURED))
                for name, members in group_indices(names).items()
            }
        return self

    @classmethod
    def of_anything(cls, name: str, width: int) -> Self:
        """Recognises every image as the one category of this name, of which no image was seen.

        `width` is that of the patches; they are compared with a vector of zeros, and no distance is too far.
        """
        self, only = cls(), CategoryRecogniser()
        only.names_ = (name,)
        only.reference_patches_ = np.zeros((1, 1, width), np.float32)
        only.distance_thresholds_ = np.full(1, np.inf)
        self.by_source_ = {RGB: only}
        return self

    def recognise(
        self, features: Features, category: str | None = None, image: ImageOrScan | None = None
    ) -> Recognised:
        """The category of one encoded `image` or scan, or how near it is to the `category` given.

        Without the scan itself nobody sees whether it is of another size.
        """
        if not hasattr(self, "by_source_"):
            raise NotFittedError("a fitted recogniser", "one that is not", "call fit first")
        sources = [source for source in sources_of(features) if source in self.by_source_] or [RGB]
        asked = [self.by_source_[source] for source in sources]
        patches = [recognition_patches(features, source)[0] for source in sources]  # (P, D) each
        apart = [one.distances(own) for one, own in zip(asked, patches, strict=True)]  # (C, P) each
        means = [each.mean(axis=1, dtype=np.float64) for each in apart]  # (C,) each
        # Of points all patches weigh alike: theirs hardly differ from category to category but by noise.
        ranking = [
            mean if source == POINTS else discriminative_means(each)
            for source, each, mean in zip(sources, apart, means, strict=True)
        ]
        thresholds = np.sum([one.distance_thresholds_ for one in asked], axis=0)
        found = nearest(np.sum(ranking, axis=0), np.sum(means, axis=0), asked[0].names_, thresholds, category)
        note = self._size_in_words(found.category, image) if isinstance(image, Scan) else ""
        return replace(found, is_known=False, note=note) if note else found

    def _size_in_words(self, category: str, scan: Scan) -> str:
        """`Recognised.note` of a scan of this category."""
        if category not in self.lengths_ or scan.xyz is None or POINTS not in scan.available:
            return ""
        least, largest = self.lengths_[category]  # (2,) each
        spacing, _ = spacing_and_noise(scan.xyz)
        if spacing <= OTHER_SIZE * largest[0] and OTHER_SIZE * spacing >= least[0]:
            return ""  # whatever its extent, for which all points have to be looked at
        lengths = spacing_and_extent(scan.xyz)  # (2,)
        if not ((lengths > OTHER_SIZE * largest).all() or (OTHER_SIZE * lengths < least).all()):  # NaN: not known
            return ""
        measures = [f"{1000 * extent:.3g}" for extent in (lengths[1], least[1], largest[1])]
        return f"extends {measures[0]} mm, good scans {measures[1]} to {measures[2]} mm: check its unit and its camera"

    def state(self) -> dict[str, np.ndarray]:
        """All that was fitted: the image's recogniser under plain names, each other one under that of its source."""
        found: dict[str, np.ndarray] = {}
        for source, own in self.by_source_.items():
            found |= own.state() if source == RGB else add_prefix(own.state(), source)
        if self.lengths_:
            found["lengths"] = np.stack([self.lengths_[name] for name in self.by_source_[RGB].names_])  # (C, 2, 2)
        return found

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        """Take back what `state` gave."""
        self.by_source_ = {RGB: CategoryRecogniser().load_state(state)}
        for source in (POINTS, PART):
            if others := strip_prefix(state, source):
                self.by_source_[source] = CategoryRecogniser().load_state(others)
        if "lengths" in state:  # not in models of earlier versions
            self.lengths_ = dict(zip(self.by_source_[RGB].names_, state["lengths"], strict=True))
        return self


def lengths_of(images: Iterable[ImageOrScan]) -> np.ndarray:
    """The least and the largest `spacing_and_extent` of scans, `(2, 2)`; NaN where none has points."""
    found = [
        spacing_and_extent(one.xyz)
        for one in images
        if isinstance(one, Scan) and one.xyz is not None and POINTS in one.available
    ]
    return np.array([np.min(found, axis=0), np.max(found, axis=0)]) if found else np.full((2, 2), np.nan)


def sources_of(features: Features) -> tuple[str, ...]:
    """The sources by which an image or scan can be recognised."""
    available = features.available
    return (PART, POINTS) if {RGB, POINTS} <= set(available) else available


def sample_reference_patches(images: Sequence[np.ndarray]) -> np.ndarray:
    """Draws `REFERENCE_PATCHES` of the patches of all `images` `(P, D)`, always the same ones, repeated if too few."""
    patches = np.concatenate(list(images))
    return patches[np.resize(np.random.default_rng(0).permutation(len(patches)), REFERENCE_PATCHES)]


def patches_by_source(encoded: Iterable[Features], sources: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """The recognition patches `(P, D)` of images encoded one by one, by source."""
    found: dict[str, list[np.ndarray]] = {source: [] for source in sources}
    for features in encoded:
        for source in sources:
            found[source].append(recognition_patches(features, source)[0])
    return found
