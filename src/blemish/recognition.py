"""Which category a picture shows, and whether it shows any: nearest patches, averaged over the whole picture.

Each category keeps a few hundred patches of its good pictures. A picture's distance to a category is the mean, over its
own patches, of the distance to the nearest of them; a defect spoils only its share of that mean, where a comparison of
averaged features would be led astray by it. Of scans, the distances of picture and points add up, of what there is.
numpy and pillow only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from blemish.copies import slight_copies
from blemish.detectors.base import part_of
from blemish.errors import NotFittedError
from blemish.types import POINTS, RGB, Features

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


def describe(features: Features, modality: str = RGB) -> list[np.ndarray]:
    """Each picture's patches on the last layer, evenly thinned out, of unit length: `(P, D)` float32, P ≤ `PATCHES`.

    Where the modality has holes, those alone where it has none; a single zero vector where it has nothing else.
    """
    layer = features.layers[modality][-1].detach().float().cpu().numpy()  # (B, h, w, D)
    step = math.ceil(math.sqrt(layer.shape[1] * layer.shape[2] / PATCHES))
    thin = unit(layer[:, ::step, ::step].reshape(len(layer), -1, layer.shape[-1]))
    if modality not in features.valid or modality == RGB:  # a picture has no holes: it is there or not
        return list(thin)
    measured = features.valid[modality][:, ::step, ::step].reshape(len(layer), -1).cpu().numpy()
    return [own[there] if there.any() else own[:1] for own, there in zip(thin, measured, strict=True)]


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
        return nearest(self.distances(patches), self.names_, self.limits_, category)

    def distances(self, patches: np.ndarray) -> np.ndarray:
        """How far a described picture `(P, D)` is from each category, `(C,)`."""
        if not hasattr(self, "names_"):
            raise NotFittedError("a recogniser that has learned", "one that has not", "call fit first")
        return np.array([distance(patches, prototypes) for prototypes in self.prototypes_])

    def state(self) -> dict[str, np.ndarray]:
        """All that was learned; names as the bytes of one text, a line each."""
        names = np.frombuffer("\n".join(self.names_).encode(), dtype=np.uint8)
        return {"prototypes": self.prototypes_, "limits": self.limits_, "names": names.copy()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        """Take back what `state` gave."""
        self.names_ = tuple(state["names"].tobytes().decode().split("\n"))
        self.prototypes_, self.limits_ = state["prototypes"], state["limits"]
        return self


def nearest(distances: np.ndarray, names: Sequence[str], limits: np.ndarray, category: str | None) -> Recognised:
    """The nearest of the categories `names` by `distances` `(C,)`, each known up to its limit; or the one given."""
    best = int(distances.argmin()) if category is None else names.index(category)
    near = distances <= limits
    return Recognised(names[best], float(distances[best]), bool(near[best] if category is None else near.any()))


class Recognisers:
    """Learns a recogniser for each modality, `by_modality_`; all whose modality there is answer together."""

    def fit(
        self,
        names: Sequence[str],
        pictures: Sequence[np.ndarray],
        seen: Callable[[int], Features],
        look: Callable[[int, np.ndarray], Features],
        modalities: Sequence[str] = (RGB,),
    ) -> Self:
        """Learn what each category looks like, from its good pictures and, while they are few, copies of them.

        `names` `(n,)` are the categories of the `pictures`; `seen(index)` is the picture at `index` encoded for
        recognition, `look(index, copy)` a changed copy of it.
        """
        own: dict[str, dict[str, list[np.ndarray]]] = {modality: {} for modality in modalities}
        copies: dict[str, dict[str, list[np.ndarray]]] = {modality: {} for modality in modalities}
        for name, members in positions(names).items():
            chosen = [members[i] for i in spread(len(members), RECOGNISED_FROM)]
            count = -(-COPIES // len(chosen))
            changed = (
                look(index, copy)
                for index in chosen[:COPIES]
                for copy in slight_copies(pictures[index], count, seed=index)
            )
            whole = described((seen(index) for index in chosen), modalities)
            for modality, descriptions in described(changed, modalities).items():
                own[modality][name], copies[modality][name] = whole[modality], descriptions
        self.by_modality_ = {modality: Recogniser().fit(own[modality], copies[modality]) for modality in modalities}
        return self

    def recognise(self, features: Features, category: str | None = None) -> Recognised:
        """The category of one encoded picture or scan, or how near it is to the `category` given."""
        if not hasattr(self, "by_modality_"):
            raise NotFittedError("a recogniser that has learned", "one that has not", "call fit first")
        there = [m for m in self.by_modality_ if m not in features.valid or bool(features.valid[m].any())] or [RGB]
        asked = [self.by_modality_[modality] for modality in there]
        found = [one.distances(describe(features, m)[0]) for one, m in zip(asked, there, strict=True)]
        limits = np.sum([one.limits_ for one in asked], axis=0)
        return nearest(np.sum(found, axis=0), asked[0].names_, limits, category)

    def state(self) -> dict[str, np.ndarray]:
        """All that was learned: the picture's by plain names, what else there is under its modality's."""
        return {
            name if modality == RGB else f"{modality}.{name}": array
            for modality, own in self.by_modality_.items()
            for name, array in own.state().items()
        }

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        """Take back what `state` gave."""
        self.by_modality_ = {RGB: Recogniser().load_state(state)}
        if others := part_of(state, POINTS):
            self.by_modality_[POINTS] = Recogniser().load_state(others)
        return self


def drawn(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """`PROTOTYPES` patches `(N, D)` drawn from all pictures, always the same; repeated where there are fewer."""
    patches = np.concatenate(list(pictures))
    return patches[np.resize(np.random.default_rng(0).permutation(len(patches)), PROTOTYPES)]


def described(encoded: Iterable[Features], modalities: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """Pictures encoded one by one, described by each modality."""
    found: dict[str, list[np.ndarray]] = {modality: [] for modality in modalities}
    for features in encoded:
        for modality in modalities:
            found[modality].append(describe(features, modality)[0])
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
