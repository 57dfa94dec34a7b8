"""Which category a picture shows, and whether it shows any: nearest patches, averaged over the whole picture.

Each category keeps a few hundred patches of its good pictures. A picture's distance to a category is the mean, over its
own patches, of the distance to the nearest of them; a defect spoils only its share of that mean, where a comparison of
averaged features would be led astray by it. numpy and pillow only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from blemish.copies import slight_copies
from blemish.errors import NotFittedError
from blemish.types import RGB, Features

PATCHES = 256  # of a picture, at most, evenly spread
PROTOTYPES = 1024  # patches that a category keeps
LEEWAY = 2.5  # how many times as far as changed copies of good pictures a picture of the category may lie
HALF_LEEWAY = 1.75  # the same for good pictures measured by the patches of others, which lie further away already
RECOGNISED_FROM = 64  # good pictures of a category that are learned from, at most
COPIES = 4  # changed copies of every good picture that are learned from, while those are few


@dataclass(frozen=True)
class Recognised:
    """The category ("" for the unnamed one), the picture's distance to it, and whether that is near enough."""

    category: str
    distance: float
    is_known: bool


def describe(features: Features) -> list[np.ndarray]:
    """Each picture's patches on the last layer, evenly thinned out, of unit length: `(P, D)` float32, P ≤ `PATCHES`."""
    layer = features.layers[RGB][-1].detach().float().cpu().numpy()  # (B, h, w, D)
    step = math.ceil(math.sqrt(layer.shape[1] * layer.shape[2] / PATCHES))
    thin = layer[:, ::step, ::step].reshape(len(layer), -1, layer.shape[-1])
    return list(unit(thin))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors `(…, D)` scaled to length 1; a zero vector stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def distance(patches: np.ndarray, prototypes: np.ndarray) -> float:
    """Mean Euclidean distance, in [0, 2], of unit `patches` `(P, D)` to the nearest of unit `prototypes` `(N, D)`."""
    nearest = (patches @ prototypes.T).max(axis=1)  # cosine
    return float(np.sqrt(np.maximum(2 - 2 * nearest, 0)).mean(dtype=np.float64))


class Recogniser:
    """Learns `names_`, `prototypes_` `(C, N, D)` and `limits_` `(C,)`, the distance up to which a picture is known."""

    def fit(self, pictures: Mapping[str, Sequence[np.ndarray]], copies: Mapping[str, Sequence[np.ndarray]]) -> Self:
        """`pictures` are the described good pictures of each category, `copies` described changed copies of some.

        How far a good picture may lie away is learned from the copies and, where there are several pictures, from each
        half of them seen with the patches of the other half alone.
        """
        self.names_ = tuple(pictures)
        self.prototypes_ = np.stack([drawn(own) for own in pictures.values()])
        self.limits_ = np.zeros(len(self.names_))
        for index, (name, own) in enumerate(pictures.items()):
            far = [LEEWAY * distance(copy, self.prototypes_[index]) for copy in copies.get(name, ())]
            if len(own) > 1:
                halves = own[::2], own[1::2]
                for seen, other in (halves, halves[::-1]):
                    prototypes = drawn(seen)
                    far += [HALF_LEEWAY * distance(picture, prototypes) for picture in other]
            self.limits_[index] = max(far, default=0.0)
        return self

    def recognise(self, patches: np.ndarray, category: str | None = None) -> Recognised:
        """The nearest category of a described picture `(P, D)`, or the distance to the `category` given."""
        if not hasattr(self, "names_"):
            raise NotFittedError("a recogniser that has learned", "one that has not", "call fit first")
        distances = [distance(patches, prototypes) for prototypes in self.prototypes_]
        near = [one <= limit for one, limit in zip(distances, self.limits_, strict=True)]
        best = int(np.argmin(distances)) if category is None else self.names_.index(category)
        return Recognised(self.names_[best], distances[best], bool(near[best] if category is None else any(near)))

    def state(self) -> dict[str, np.ndarray]:
        """All that was learned; names as the bytes of one text, a line each."""
        names = np.frombuffer("\n".join(self.names_).encode(), dtype=np.uint8)
        return {"prototypes": self.prototypes_, "limits": self.limits_, "names": names.copy()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        """Take back what `state` gave."""
        self.names_ = tuple(state["names"].tobytes().decode().split("\n"))
        self.prototypes_, self.limits_ = state["prototypes"], state["limits"]
        return self


def drawn(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """`PROTOTYPES` patches `(N, D)` drawn from all pictures, always the same; repeated where there are fewer."""
    patches = np.concatenate(list(pictures))
    return patches[np.resize(np.random.default_rng(0).permutation(len(patches)), PROTOTYPES)]


def learn_recogniser(
    names: Sequence[str],
    pictures: Sequence[np.ndarray],
    seen: Callable[[int], Features],
    look: Callable[[int, np.ndarray], Features],
) -> Recogniser:
    """What each category looks like as a whole, from its good pictures and, while they are few, copies of them.

    `seen(index)` is the picture at `index` encoded for recognition, `look(index, copy)` a changed copy of it.
    """
    own: dict[str, list[np.ndarray]] = {}
    copies: dict[str, list[np.ndarray]] = {}
    for name, members in positions(names).items():
        chosen = [members[i] for i in spread(len(members), RECOGNISED_FROM)]
        own[name] = [describe(seen(index))[0] for index in chosen]
        count = -(-COPIES // len(chosen))
        copies[name] = [
            describe(look(index, copy))[0]
            for index in chosen[:COPIES]
            for copy in slight_copies(pictures[index], count, seed=index)
        ]
    return Recogniser().fit(own, copies)


def positions(keys: Sequence[Any]) -> dict[Any, list[int]]:
    """Where each key stands, keys in the order of their first appearance."""
    found: dict[Any, list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(key, []).append(index)
    return found


def spread(count: int, most: int) -> list[int]:
    """At most `most` indices, evenly spread over `range(count)`."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})
