"""What the normal images of a category show of a set of visual words, and how well these tell wrong from right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from blemish.detectors.word_rules import WordMeasures, measure_words
from blemish.numeric.compositions import (
    LEVELS,
    CompositionBank,
    VisualWords,
    composition,
    distances_to_others,
    swapped,
)

COMPARED = 64  # normal images whose words are held to be swapped; bounds memory
SWAPS = 64  # made-up wrong compositions that words are judged by


@dataclass(eq=False)
class ShownWords:
    """Collects images of one category: their compositions, measures and numbers, and where each word lies."""

    words: VisualWords
    seed: int
    images: list[int] = field(default_factory=list)
    measures: list[WordMeasures] = field(default_factory=list)
    held: list[Tensor] = field(default_factory=list)  # memberships (h, w, k) float16 of the first images
    levels: dict[str, list[Tensor]] = field(default_factory=lambda: {level: [] for level in LEVELS})  # (F,) each
    total: Tensor | None = None  # (k, h, w): the sum of all memberships, on the grid of the first image

    def add(self, patches: Tensor, judged: Tensor, image: int) -> None:
        """Take in the scaled patches `(h, w, D)` of the normal image of that number, of which some are `judged`."""
        memberships = (self.words.memberships(patches) * judged[..., None]).cpu()  # (h, w, k)
        self.images.append(image)
        self.measures.append(measure_words(memberships, judged))
        if len(self.held) < COMPARED:
            self.held.append(memberships.half())
        for level, found in self.levels.items():
            found.append(composition(memberships, LEVELS[level]).flatten())
        planes = memberships.permute(2, 0, 1)  # (k, h, w)
        if self.total is None:
            self.total = torch.zeros_like(planes)
        self.total += interpolate(planes[None], self.total.shape[1:], mode="bilinear", align_corners=False)[0]

    def banks(self) -> dict[str, CompositionBank]:
        """The compositions by level."""
        return {level: CompositionBank.of(torch.stack(found)) for level, found in self.levels.items()}

    def usual(self) -> Tensor:
        """How much of each word lies where on average, `(k, h, w)` in [0, 1]."""
        assert self.total is not None  # of at least one image
        return self.total / len(self.images)

    def separation(self) -> float:
        """The share of pairs of a made-up wrong and a normal image in which the wrong one deviates more, in [0, 1].

        Wrong ones are swaps between normal images of one grid; either kind is compared with all others but its sources.
        """
        grid = Counter(one.shape for one in self.held).most_common(1)[0][0]
        members = [i for i, one in enumerate(self.held) if one.shape == grid]
        if len(members) < 2:
            return 0.5
        made, sources = swapped(torch.stack([self.held[i] for i in members]).float(), SWAPS, self.seed)
        banks = self.banks()
        normal = _largest(
            [bank.standardised(float(d)) for d in distances_to_others(bank.rows).amin(1)] for bank in banks.values()
        )  # (n,)
        numbers = torch.tensor(members)
        wrong = _largest(
            [
                bank.compared(composition(one, LEVELS[level]).flatten(), self._all_but(int(numbers[pair[0]])))[0]
                for one, pair in zip(made, sources, strict=True)
            ]
            for level, bank in banks.items()
        )  # (SWAPS,)
        return float((wrong[:, None] > normal).double().mean())

    def _all_but(self, index: int) -> Tensor:
        """`(n,)` bool."""
        return torch.arange(len(self.images)) != index


def _largest(by_level: Iterable[list[float]]) -> Tensor:
    """The largest value over levels, for each image."""
    return torch.tensor(list(by_level), dtype=torch.float64).amax(0)
