"""Which category an image shows, and whether it shows any: nearest patches, averaged over the whole image.

Each category keeps a few hundred patches of its normal images as prototypes. An image's distance to a category is the
mean, over its own patches, of the distance to the nearest prototype; a defect changes only its share of that mean,
where averaged features would be dominated by it. In choosing the nearest category, patches weigh by how well they
discriminate: a background on which all products lie weighs nothing. Of scans, the distances of the points and of the
image where there are points add up; the background is ignored. numpy and pillow only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from blemish.augmentation.perturb import slight_copies
from blemish.detectors.base import add_prefix, strip_prefix
from blemish.errors import NotFittedError
from blemish.types import POINTS, RGB, Features, ImageOrScan

PATCHES = 256  # of an image, at most, evenly spaced
PROTOTYPES = 1024  # patches that a category keeps
# Chosen by eye so that images of four products stay known and those of a fifth mostly do not; that is held by a test
# on real images (tests/model/test_category_recognition.py).
TOLERANCE = 2.5  # how many times as far as perturbed copies of normal images an image of the category may lie
HALF_TOLERANCE = 1.75  # the same for normal images measured by the patches of others, which lie further away already
FITTED_ON = 64  # normal images of a category that its recogniser is fitted on, at most
PART = "part"  # the image where there are points
COPIES = 4  # perturbed copies of normal images that a recogniser is fitted on


@dataclass(frozen=True)
class Recognised:
    """The category ("" for the unnamed one), the image's distance to it, and whether that is near enough."""

    category: str
    distance: float
    is_known: bool


def describe(features: Features, view: str = RGB) -> list[np.ndarray]:
    """Each image's patches on the last layer, thinned out, of unit length: `(P, D)` float32, P ≤ about `PATCHES`.

    `view` is a modality or `PART`. Of points and of the part these are the patches where points were measured; a single
    zero vector where none were.
    """
    layer = features.layers[RGB if view == PART else view][-1].detach().float().cpu().numpy()  # (B, h, w, D)
    valid = features.valid.get(POINTS) if view != RGB else None  # an image has no holes: it is available or not
    if valid is None:
        step = math.ceil(math.sqrt(layer.shape[1] * layer.shape[2] / PATCHES))
        return list(unit(layer[:, ::step, ::step].reshape(len(layer), -1, layer.shape[-1])))
    height, width = layer.shape[1:3]
    rows, columns = (np.arange(n) * size // n for n, size in zip((height, width), valid.shape[1:], strict=True))
    measured = valid.cpu().numpy()[:, rows][:, :, columns]  # (B, h, w)
    valid_patches = (own[where] for own, where in zip(layer, measured, strict=True))  # (P, D) each
    nothing = np.zeros_like(layer[0, :1, 0])  # (1, D)
    return [unit(own[:: math.ceil(len(own) / PATCHES)]) if len(own) else nothing for own in valid_patches]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors `(…, D)` scaled to length 1; a zero vector stays zero."""
    scaled: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return scaled


def distances(patches: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """Euclidean distances `(P,)` in [0, 2] of unit `patches` `(P, D)` to the nearest of unit `prototypes` `(N, D)`."""
    found: np.ndarray = np.sqrt(np.maximum(2 - 2 * (patches @ prototypes.T).max(axis=1), 0))  # (P,) from the cosine
    return found


def mean_distance(patches: np.ndarray, prototypes: np.ndarray) -> float:
    """Their mean."""
    return float(distances(patches, prototypes).mean(dtype=np.float64))


def discriminative_means(patch_distances: np.ndarray) -> np.ndarray:
    """Mean distances to categories `(C,)` from those of patches `(C, P)`, each patch weighted by how well it
    discriminates: the square of how much nearer it is to the nearest category than to the second."""
    ranked = np.partition(patch_distances, 1, axis=0) if len(patch_distances) > 1 else patch_distances[[0, 0]]
    weights = (ranked[1] - ranked[0]).astype(np.float64) ** 2  # (P,)
    return np.average(patch_distances, axis=1, weights=weights if weights.sum() > 0 else None)


class CategoryRecogniser:
    """Learns `names_`, `prototypes_` `(C, N, D)` and `limits_` `(C,)`, the distance up to which an image is known."""

    def fit(self, images: Mapping[str, Sequence[np.ndarray]], copies: Mapping[str, Sequence[np.ndarray]]) -> Self:
        """`images` are the described normal images of each category, `copies` described perturbed copies of some.

        How far a normal image may lie away is learned from the copies and, where there are several images, from each
        half of them measured by the patches of the other half alone.
        """
        self.names_ = tuple(images)
        self.prototypes_ = np.stack([sample_prototypes(own) for own in images.values()])  # (C, N, D)
        self.limits_ = np.zeros(len(self.names_))
        for index, (name, own) in enumerate(images.items()):
            far = [TOLERANCE * mean_distance(copy, self.prototypes_[index]) for copy in copies.get(name, ())]
            if len(own) > 1:
                halves = own[::2], own[1::2]
                for half, other in (halves, halves[::-1]):
                    prototypes = sample_prototypes(half)
                    far += [HALF_TOLERANCE * mean_distance(image, prototypes) for image in other]
            self.limits_[index] = max(far, default=0.0)
        return self

    def recognise(self, patches: np.ndarray, category: str | None = None) -> Recognised:
        """The nearest category of a described image `(P, D)`, or the distance to the `category` given."""
        apart = self.distances(patches)  # (C, P)
        means = apart.mean(axis=1, dtype=np.float64)
        return nearest(discriminative_means(apart), means, self.names_, self.limits_, category)

    def distances(self, patches: np.ndarray) -> np.ndarray:
        """How far each patch of a described image `(P, D)` is from each category, `(C, P)`."""
        if not hasattr(self, "names_"):
            raise NotFittedError("a fitted recogniser", "one that is not", "call fit first")
        return np.stack([distances(patches, prototypes) for prototypes in self.prototypes_])

    def state(self) -> dict[str, np.ndarray]:
        """All that was learned; names as the bytes of a JSON list."""
        names = np.frombuffer(json.dumps(self.names_).encode(), dtype=np.uint8)
        return {"prototypes": self.prototypes_, "limits": self.limits_, "names": names.copy()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        """Take back what `state` gave."""
        self.names_ = tuple(json.loads(state["names"].tobytes()))
        self.prototypes_, self.limits_ = state["prototypes"], state["limits"]
        return self


def nearest(
    ranking: np.ndarray, distances: np.ndarray, names: Sequence[str], limits: np.ndarray, category: str | None
) -> Recognised:
    """The category of the least `ranking` distance `(C,)` among `names`, or the one given.

    Known where one of `distances` `(C,)`, or that of the one given, is within its limit.
    """
    best = int(ranking.argmin()) if category is None else names.index(category)
    near = distances <= limits
    return Recognised(names[best], float(distances[best]), bool(near[best] if category is None else near.any()))


class CategoryRecognisers:
    """Learns `by_view_`: a recogniser of the image; of scans, one of the points and one of the part's image as well.

    The last two decide together where both modalities are available, else the one for what is.
    """

    def fit(
        self,
        names: Sequence[str],
        images: Sequence[ImageOrScan],
        encoded: Callable[[int], Features],
        encode: Callable[[int, ImageOrScan], Features],
        scans: bool = False,
    ) -> Self:
        """Learn what each category looks like from its normal images and perturbed copies of a few.

        `names` `(n,)` are the categories of the `images`; `encoded(index)` is the image at `index` encoded for
        recognition, `encode(index, copy)` a perturbed copy of it. `scans`: whether there are points.
        """
        views = (RGB, POINTS, PART) if scans else (RGB,)
        own: dict[str, dict[str, list[np.ndarray]]] = {view: {} for view in views}
        copies: dict[str, dict[str, list[np.ndarray]]] = {view: {} for view in views}
        for name, members in group_indices(names).items():
            chosen = [members[i] for i in evenly_spaced(len(members), FITTED_ON)]
            count = -(-COPIES // len(chosen))
            perturbed = (
                encode(index, copy)
                for index in chosen[:COPIES]
                for copy in slight_copies(images[index], count, seed=index)
            )
            whole = describe_all((encoded(index) for index in chosen), views)
            for view, descriptions in describe_all(perturbed, views).items():
                own[view][name], copies[view][name] = whole[view], descriptions
        self.by_view_ = {view: CategoryRecogniser().fit(own[view], copies[view]) for view in views}
        return self

    def recognise(self, features: Features, category: str | None = None) -> Recognised:
        """The category of one encoded image or scan, or how near it is to the `category` given."""
        if not hasattr(self, "by_view_"):
            raise NotFittedError("a fitted recogniser", "one that is not", "call fit first")
        views = [view for view in views_of(features) if view in self.by_view_] or [RGB]
        asked = [self.by_view_[view] for view in views]
        apart = [one.distances(describe(features, view)[0]) for one, view in zip(asked, views, strict=True)]  # (C, P)
        means = [each.mean(axis=1, dtype=np.float64) for each in apart]
        # Of points all patches weigh alike: theirs hardly differ from category to category but by noise.
        ranking = [
            mean if view == POINTS else discriminative_means(each)
            for view, each, mean in zip(views, apart, means, strict=True)
        ]
        limits = np.sum([one.limits_ for one in asked], axis=0)
        return nearest(np.sum(ranking, axis=0), np.sum(means, axis=0), asked[0].names_, limits, category)

    def state(self) -> dict[str, np.ndarray]:
        """All that was learned: the image's by plain names, what else there is under its view's."""
        found: dict[str, np.ndarray] = {}
        for view, own in self.by_view_.items():
            found |= own.state() if view == RGB else add_prefix(own.state(), view)
        return found

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        """Take back what `state` gave."""
        self.by_view_ = {RGB: CategoryRecogniser().load_state(state)}
        for view in (POINTS, PART):
            if others := strip_prefix(state, view):
                self.by_view_[view] = CategoryRecogniser().load_state(others)
        return self


def views_of(features: Features) -> tuple[str, ...]:
    """What an image or scan can be recognised by."""
    available = features.available
    return (PART, POINTS) if {RGB, POINTS} <= set(available) else available


def sample_prototypes(images: Sequence[np.ndarray]) -> np.ndarray:
    """`PROTOTYPES` patches `(N, D)` drawn from all images, always the same; repeated where there are fewer."""
    patches = np.concatenate(list(images))
    return patches[np.resize(np.random.default_rng(0).permutation(len(patches)), PROTOTYPES)]


def describe_all(encoded: Iterable[Features], views: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """Images encoded one by one, described in each view."""
    found: dict[str, list[np.ndarray]] = {view: [] for view in views}
    for features in encoded:
        for view in views:
            found[view].append(describe(features, view)[0])
    return found


def group_indices(keys: Sequence[Any]) -> dict[Any, list[int]]:
    """The indices at which each key stands, keys in the order of their first appearance."""
    found: dict[Any, list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(key, []).append(index)
    return found


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` indices, evenly spaced over `range(count)`."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})
