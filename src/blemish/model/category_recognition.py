"""Which category an image shows, and whether it shows any: nearest patches, averaged over the whole image.

Each category keeps a few hundred patches of its good images. An image's distance to a category is the mean, over its
own patches, of the distance to the nearest of them; a defect spoils only its share of that mean, where a comparison of
averaged features would be led astray by it. Which category is nearest is told by the patches that tell them apart: a
ground on which all products lie says nothing. Of scans, the distances of the points and of the image where there are
points add up; what lies around the part tells nothing of it. numpy and pillow only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from blemish.augmentation.perturb import slight_copies
from blemish.detectors.base import part_of, under
from blemish.errors import NotFittedError
from blemish.types import POINTS, RGB, Features

PATCHES = 256  # of an image, at most, evenly spread
PROTOTYPES = 1024  # patches that a category keeps
LEEWAY = 2.5  # how many times as far as changed copies of good images an image of the category may lie
HALF_LEEWAY = 1.75  # the same for good images measured by the patches of others, which lie further away already
RECOGNISED_FROM = 64  # good images of a category that are learned from, at most
PART = "part"  # the image where there are points
COPIES = 4  # changed copies of every good image that are learned from, while those are few


@dataclass(frozen=True)
class Recognised:
    """The category ("" for the unnamed one), the image's distance to it, and whether that is near enough."""

    category: str
    distance: float
    is_known: bool


def describe(features: Features, side: str = RGB) -> list[np.ndarray]:
    """Each image's patches on the last layer, thinned out, of unit length: `(P, D)` float32, P ≤ about `PATCHES`.

    `side` is a modality or `PART`. Of points and of the part these are the patches where points were measured; a single
    zero vector where none were.
    """
    layer = features.layers[RGB if side == PART else side][-1].detach().float().cpu().numpy()  # (B, h, w, D)
    valid = features.valid.get(POINTS) if side != RGB else None  # an image has no holes: it is there or not
    if valid is None:
        step = math.ceil(math.sqrt(layer.shape[1] * layer.shape[2] / PATCHES))
        return list(unit(layer[:, ::step, ::step].reshape(len(layer), -1, layer.shape[-1])))
    height, width = layer.shape[1:3]
    rows, columns = (np.arange(n) * size // n for n, size in zip((height, width), valid.shape[1:], strict=True))
    measured = valid.cpu().numpy()[:, rows][:, :, columns]  # (B, h, w)
    there = (own[where] for own, where in zip(layer, measured, strict=True))
    nothing = np.zeros_like(layer[0, :1, 0])
    return [unit(own[:: math.ceil(len(own) / PATCHES)]) if len(own) else nothing for own in there]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors `(…, D)` scaled to length 1; a zero vector stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def distances(patches: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """Euclidean distances `(P,)` in [0, 2] of unit `patches` `(P, D)` to the nearest of unit `prototypes` `(N, D)`."""
    return np.sqrt(np.maximum(2 - 2 * (patches @ prototypes.T).max(axis=1), 0))  # from the cosine


def distance(patches: np.ndarray, prototypes: np.ndarray) -> float:
    """Their mean."""
    return float(distances(patches, prototypes).mean(dtype=np.float64))


def telling(apart: np.ndarray) -> np.ndarray:
    """Mean distances to categories `(C,)` out of those of patches `(C, P)`.

    Each patch weighs as the square of how much nearer it is to the first category than to the second.
    """
    first, second = np.partition(apart, 1, axis=0)[:2] if len(apart) > 1 else (apart[0], apart[0])
    weights = (second - first).astype(np.float64) ** 2
    return np.average(apart, axis=1, weights=weights if weights.sum() > 0 else None)


class Recogniser:
    """Learns `names_`, `prototypes_` `(C, N, D)` and `limits_` `(C,)`, the distance up to which an image is known."""

    def fit(self, images: Mapping[str, Sequence[np.ndarray]], copies: Mapping[str, Sequence[np.ndarray]]) -> Self:
        """`images` are the described good images of each category, `copies` described changed copies of some.

        How far a good image may lie away is learned from the copies and, where there are several images, from each
        half of them seen with the patches of the other half alone.
        """
        self.names_ = tuple(images)
        self.prototypes_ = np.stack([drawn(own) for own in images.values()])
        self.limits_ = np.zeros(len(self.names_))
        for index, (name, own) in enumerate(images.items()):
            far = [LEEWAY * distance(copy, self.prototypes_[index]) for copy in copies.get(name, ())]
            if len(own) > 1:
                halves = own[::2], own[1::2]
                for seen, other in (halves, halves[::-1]):
                    prototypes = drawn(seen)
                    far += [HALF_LEEWAY * distance(image, prototypes) for image in other]
            self.limits_[index] = max(far, default=0.0)
        return self

    def recognise(self, patches: np.ndarray, category: str | None = None) -> Recognised:
        """The nearest category of a described image `(P, D)`, or the distance to the `category` given."""
        apart = self.distances(patches)
        return nearest(telling(apart), apart.mean(axis=1, dtype=np.float64), self.names_, self.limits_, category)

    def distances(self, patches: np.ndarray) -> np.ndarray:
        """How far each patch of a described image `(P, D)` is from each category, `(C, P)`."""
        if not hasattr(self, "names_"):
            raise NotFittedError("a recogniser that has learned", "one that has not", "call fit first")
        return np.stack([distances(patches, prototypes) for prototypes in self.prototypes_])

    def state(self) -> dict[str, np.ndarray]:
        """All that was learned; names as the bytes of one text, a line each."""
        names = np.frombuffer("\n".join(self.names_).encode(), dtype=np.uint8)
        return {"prototypes": self.prototypes_, "limits": self.limits_, "names": names.copy()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        """Take back what `state` gave."""
        self.names_ = tuple(state["names"].tobytes().decode().split("\n"))
        self.prototypes_, self.limits_ = state["prototypes"], state["limits"]
        return self


def nearest(
    told: np.ndarray, distances: np.ndarray, names: Sequence[str], limits: np.ndarray, category: str | None
) -> Recognised:
    """The least of `told` `(C,)` among the categories `names`, or the one given.

    Known where one of `distances` `(C,)`, or that of the one given, is within its limit.
    """
    best = int(told.argmin()) if category is None else names.index(category)
    near = distances <= limits
    return Recognised(names[best], float(distances[best]), bool(near[best] if category is None else near.any()))


class Recognisers:
    """Learns recognisers, `by_side_`: of the image; of scans, of the points and of the part's image as well.

    The last two answer together where there are both, else the one for what there is.
    """

    def fit(
        self,
        names: Sequence[str],
        images: Sequence[np.ndarray],
        seen: Callable[[int], Features],
        look: Callable[[int, np.ndarray], Features],
        scans: bool = False,
    ) -> Self:
        """Learn what each category looks like, from its good images and, while they are few, copies of them.

        `names` `(n,)` are the categories of the `images`; `seen(index)` is the image at `index` encoded for
        recognition, `look(index, copy)` a changed copy of it. `scans`: whether there are points.
        """
        sides = (RGB, POINTS, PART) if scans else (RGB,)
        own: dict[str, dict[str, list[np.ndarray]]] = {side: {} for side in sides}
        copies: dict[str, dict[str, list[np.ndarray]]] = {side: {} for side in sides}
        for name, members in positions(names).items():
            chosen = [members[i] for i in spread(len(members), RECOGNISED_FROM)]
            count = -(-COPIES // len(chosen))
            changed = (
                look(index, copy)
                for index in chosen[:COPIES]
                for copy in slight_copies(images[index], count, seed=index)
            )
            whole = described((seen(index) for index in chosen), sides)
            for side, descriptions in described(changed, sides).items():
                own[side][name], copies[side][name] = whole[side], descriptions
        self.by_side_ = {side: Recogniser().fit(own[side], copies[side]) for side in sides}
        return self

    def recognise(self, features: Features, category: str | None = None) -> Recognised:
        """The category of one encoded image or scan, or how near it is to the `category` given."""
        if not hasattr(self, "by_side_"):
            raise NotFittedError("a recogniser that has learned", "one that has not", "call fit first")
        sides = [side for side in self._sides(features) if side in self.by_side_] or [RGB]
        asked = [self.by_side_[side] for side in sides]
        apart = [one.distances(describe(features, side)[0]) for one, side in zip(asked, sides, strict=True)]
        plain = [each.mean(axis=1, dtype=np.float64) for each in apart]
        # Of points all patches count alike: theirs hardly differ from category to category but by noise.
        told = [mean if side == POINTS else telling(each) for side, each, mean in zip(sides, apart, plain, strict=True)]
        limits = np.sum([one.limits_ for one in asked], axis=0)
        return nearest(np.sum(told, axis=0), np.sum(plain, axis=0), asked[0].names_, limits, category)

    def _sides(self, features: Features) -> tuple[str, ...]:
        """What there is to tell a scan by."""
        there = features.available
        return (PART, POINTS) if {RGB, POINTS} <= set(there) else there

    def state(self) -> dict[str, np.ndarray]:
        """All that was learned: the image's by plain names, what else there is under its side's."""
        found: dict[str, np.ndarray] = {}
        for side, own in self.by_side_.items():
            found |= own.state() if side == RGB else under(side, own.state())
        return found

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        """Take back what `state` gave."""
        self.by_side_ = {RGB: Recogniser().load_state(state)}
        for side in (POINTS, PART):
            if others := part_of(state, side):
                self.by_side_[side] = Recogniser().load_state(others)
        return self


def drawn(images: Sequence[np.ndarray]) -> np.ndarray:
    """`PROTOTYPES` patches `(N, D)` drawn from all images, always the same; repeated where there are fewer."""
    patches = np.concatenate(list(images))
    return patches[np.resize(np.random.default_rng(0).permutation(len(patches)), PROTOTYPES)]


def described(encoded: Iterable[Features], sides: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """Images encoded one by one, described from each side."""
    found: dict[str, list[np.ndarray]] = {side: [] for side in sides}
    for features in encoded:
        for side in sides:
            found[side].append(describe(features, side)[0])
    return found


def positions(keys: Sequence[Any]) -> dict[Any, list[int]]:
    """Where each key stands, keys in the order of their first appearance."""
    found: dict[Any, list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(key, []).append(index)
    return found


def spread(count: int, most: int) -> list[int]:
    """At most `most` indices, evenly spread over `range(count)`."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})
