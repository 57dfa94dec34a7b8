"""Rules that hold for all normal images of a category: how often a visual word is seen, how much of the image it is.

They put into numbers what a composition's distance does not say: "always two of these, each 2 % of the part".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Self

import numpy as np
import torch
from scipy.ndimage import label
from torch import Tensor

from blemish.numeric.grids import box_mean
from blemish.types import BrokenRule, Quantity

QUANTITIES: tuple[Quantity, ...] = ("count", "area")
# Chosen by hand; no benchmark set them.
STABLE = 0.15  # standard deviation of an area, over its mean, up to which it makes a rule
MARGIN = 3.0  # standard deviations between the mean area and the ends of its rule
SEEN = 3  # normal images that must show either of two counts that make a rule
MIN_AREA = 0.002  # of the image, that a word must cover to make a rule: 2 patches of 32 × 32
_NEIGHBOURS = np.ones((3, 3), dtype=int)  # patches that touch at a corner are one area


@dataclass(frozen=True)
class Rule:
    """In all of `images` normal images, `quantity` of a visual `word` lay between `low` and `high`, both included.

    "count": separate areas of the word; "area": its share of what is judged of an image. `is_either`: it was `low` or
    `high`, and never between. `place` is the mean middle of
    the word as (x, y), each in [0, 1]; `example` the number of the normal image (`Batch.images`) that shows most of it,
    where `example_place` (x, y) is its largest area's middle.
    """

    word: int
    quantity: Quantity
    low: float
    high: float
    images: int
    place: tuple[float, float]
    example: int
    example_place: tuple[float, float]
    is_either: bool = False

    def is_broken(self, measures: WordMeasures) -> bool:
        """Whether an image's measures lie outside."""
        value = self.value(measures)
        return value not in (self.low, self.high) if self.is_either else not self.low <= value <= self.high

    def value(self, measures: WordMeasures) -> float:
        """What an image shows of the rule's word."""
        return float((measures.counts if self.quantity == "count" else measures.areas)[self.word])

    def broken_by(self, measures: WordMeasures) -> BrokenRule:
        """The rule as an image breaks it: the areas of the word where there are too many, else its usual place."""
        found = self.value(measures)
        own = measures.blobs[self.word]
        is_more = found > self.low if self.is_either else found > self.high
        return BrokenRule(
            component=self.word + 1,
            quantity=self.quantity,
            low=self.low,
            high=self.high,
            found=found,
            images=self.images,
            places=tuple(map(pair, own)) if is_more and len(own) else (self.place,),
            is_either=self.is_either,
        )

    def to_row(self) -> list[float]:
        """All fields as numbers; `from_row` takes them back."""
        word, quantity, low, high, images, place, example, example_place, is_either = astuple(self)
        return [word, QUANTITIES.index(quantity), low, high, images, *place, example, *example_place, is_either]

    @classmethod
    def from_row(cls, row: Sequence[float]) -> Self:
        """Takes back what `to_row` gave."""
        word, quantity, low, high, images, x, y, example, example_x, example_y, is_either = row
        kind, middle = QUANTITIES[int(quantity)], (example_x, example_y)
        return cls(int(word), kind, low, high, int(images), (x, y), int(example), middle, bool(is_either))


@dataclass(frozen=True, eq=False)
class WordMeasures:
    """Of one image, for each of k words: separate areas `counts` `(k,)`, their share of it `areas` `(k,)` in [0, 1].

    `middles` `(k, 2)` are the (x, y) of all of a word, `largest` `(k, 2)` those of its largest area; NaN without it.
    `blobs` are for each word the middles `(count, 2)` of its areas.
    """

    counts: np.ndarray
    areas: np.ndarray
    middles: np.ndarray
    largest: np.ndarray
    blobs: tuple[np.ndarray, ...]


def measure_words(memberships: Tensor, judged: Tensor | None = None) -> WordMeasures:
    """Counts and areas of words in one image's `memberships` `(h, w, k)`, of the patches `judged` `(h, w)` bool alone.

    Each patch is of the word that is strongest in its 3 × 3 neighbourhood, so that single patches make no area.
    """
    planes = memberships.permute(2, 0, 1)[None].float()  # (1, k, h, w)
    labels = box_mean(planes, 3)[0].argmax(0).cpu().numpy()  # (h, w)
    inside = np.ones(labels.shape, bool) if judged is None else judged.cpu().numpy()
    height, width = labels.shape
    y, x = (np.mgrid[:height, :width] + 0.5) / np.array([height, width])[:, None, None]
    number = memberships.shape[2]
    counts, areas = np.zeros(number), np.zeros(number)
    middles, largest = np.full((number, 2), np.nan), np.full((number, 2), np.nan)
    found = [np.zeros((0, 2))] * number
    for word in np.unique(labels[inside]):
        of_word = (labels == word) & inside
        blobs, counts[word] = label(of_word, structure=_NEIGHBOURS)
        areas[word] = of_word.sum() / max(1, inside.sum())
        sizes = np.bincount(blobs[of_word])[1:]  # (count,)
        sums = [np.bincount(blobs[of_word], weights=axis[of_word])[1:] for axis in (x, y)]
        found[word] = np.stack(sums, axis=1) / sizes[:, None]
        middles[word] = x[of_word].mean(), y[of_word].mean()
        largest[word] = found[word][sizes.argmax()]
    return WordMeasures(counts, areas, middles, largest, tuple(found))


def learned_rules(measured: Sequence[WordMeasures], images: Sequence[int]) -> list[Rule]:
    """Rules that hold in all of these normal images, whose numbers are `images`; those of counts first."""
    counts = np.stack([one.counts for one in measured])  # (n, k)
    areas = np.stack([one.areas for one in measured])  # (n, k)
    rules = []
    for word in np.flatnonzero(areas.mean(0) >= MIN_AREA):
        own, n = areas[:, word], len(measured)
        shown = own > 0
        most = int(own.argmax())
        facts = (
            n,
            pair(np.mean([m.middles[word] for m, s in zip(measured, shown, strict=True) if s], axis=0)),
            int(images[most]),
            pair(measured[most].largest[word]),
        )
        values, seen = np.unique(counts[:, word], return_counts=True)
        if len(values) == 1 or (len(values) == 2 and values[1] - values[0] > 1 and seen.min() >= SEEN):
            rules.append(Rule(int(word), "count", float(values[0]), float(values[-1]), *facts, len(values) == 2))
        std = float(own.std(ddof=1)) if n > 1 else float("inf")
        if std <= STABLE * own.mean():
            reach = MARGIN * std * (1 + 1 / n) ** 0.5
            low, high = min(own.min(), own.mean() - reach), max(own.max(), own.mean() + reach)
            rules.append(Rule(int(word), "area", max(0.0, float(low)), float(high), *facts))
    return sorted(rules, key=lambda rule: (QUANTITIES.index(rule.quantity), rule.word))


def pair(values: np.ndarray) -> tuple[float, float]:
    """Two numbers `(2,)` as Python's."""
    return float(values[0]), float(values[1])


def rules_as_tensor(rules: Sequence[Rule]) -> Tensor:
    """`(R, 11)` float64, for a detector's state."""
    return torch.tensor([rule.to_row() for rule in rules], dtype=torch.float64).reshape(-1, 11)


def rules_from_tensor(table: Tensor) -> list[Rule]:
    """Takes back what `rules_as_tensor` gave."""
    return [Rule.from_row(row) for row in table.tolist()]
