"""The patches of one category's normal images in bounded memory, and the memory bank that is made of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from blemish.numeric.coreset import k_centre
from blemish.numeric.sampling import ReservoirSample

Scaled = Callable[[Tensor], Tensor]  # patches (N, D) as they are compared


@dataclass(frozen=True)
class Coreset:
    """Which patches a bank keeps: greedily those far from the ones kept already; see the settings of `PatchCore`."""

    ratio: float
    min_patches: int
    max_patches: int
    is_cosine: bool
    seed: int

    def count(self, patches: int) -> int:
        """The size of a coreset of `patches`."""
        return min(max(round(self.ratio * patches), min(self.min_patches, patches)), self.max_patches)

    def chosen(self, rows: Tensor, count: int) -> Tensor:
        """Which `count` of the rows `(N, D)` are kept, as indices."""
        if count >= len(rows):
            return torch.arange(len(rows))
        return k_centre(normalize(rows, dim=1) if self.is_cosine else rows, count, seed=self.seed)


@dataclass(frozen=True, eq=False)
class BankRows:
    """The rows `(M, D)` of a bank, and where known the number of the image `(M,)` that each is from.

    `is_turned` `(M,)` bool: which rows are from turned copies. `is_separable`: no other image's row was chosen, nor any
    left out, by what that image shows. Without its rows the bank is the one that would have been made without it, but
    for what all images were counted or measured for together: the scale of its channels, and how many patches of each
    image's copies there is room for.
    """

    rows: Tensor
    images: Tensor | None = None
    is_turned: Tensor | None = None
    is_separable: bool = False

    @property
    def count(self) -> int:
        """How many different images are known to be in it."""
        return 0 if self.images is None else len(self.images.unique())


class CollectedPatches(Protocol):
    """Takes in the patches of views of normal images, and makes a bank of them."""

    def add(self, rows: Tensor, image: int, is_original: bool) -> None:
        """Take in the patches `(N, D)` of one view of the normal image of that number."""
        ...

    def rows(self) -> Tensor:
        """All patches that are held `(N, D)`."""
        ...

    def bank(self, coreset: Coreset, scaled: Scaled) -> BankRows:
        """The bank made of what is held, its rows `scaled`."""
        ...


class PooledPatches:
    """A uniform sample of all patches, whatever image they are from (PatchCore)."""

    def __init__(self, size: int, seed: int) -> None:
        self._sample = ReservoirSample(size, seed)

    def add(self, rows: Tensor, image: int, is_original: bool) -> None:
        self._sample.add(rows)

    def rows(self) -> Tensor:
        return self._sample.rows()

    def bank(self, coreset: Coreset, scaled: Scaled) -> BankRows:
        rows = scaled(self.rows())
        return BankRows(rows[coreset.chosen(rows, coreset.count(len(rows))).to(rows.device)])


@dataclass
class PatchesByImage:
    """Patches kept apart by image, those of the original apart from its turned copies; `size` of either kind.

    Few images (their originals fill at most half of the bank) stay whole in the bank, joined by a coreset of each one's
    copies. Of more images one coreset is drawn from `size` patches of all.
    """

    size: int
    seed: int
    originals: dict[int, ReservoirSample] = field(default_factory=dict)
    copies: dict[int, ReservoirSample] = field(default_factory=dict)
    seen: int = 0  # patches of originals, held or not

    def add(self, rows: Tensor, image: int, is_original: bool) -> None:
        kind = self.originals if is_original else self.copies
        kind.setdefault(image, ReservoirSample(self.size, self.seed + image)).add(rows)
        self.seen += len(rows) if is_original else 0
        if sum(sample.held for sample in kind.values()) > 2 * self.size:
            self._limit(kind.values())

    def rows(self) -> Tensor:
        self._limit(self.originals.values())
        self._limit(self.copies.values())
        return torch.cat([sample.rows() for kind in (self.originals, self.copies) for sample in kind.values()])

    def bank(self, coreset: Coreset, scaled: Scaled) -> BankRows:
        self._limit(self.originals.values())
        self._limit(self.copies.values())
        whole = sum(len(sample.rows()) for sample in self.originals.values())
        is_few = whole == self.seen and 2 * whole <= coreset.max_patches
        if not is_few:
            self._limit([*self.originals.values(), *self.copies.values()])
        held = [(image, scaled(sample.rows())) for image, sample in self.originals.items()]  # (N, D) each
        turned = [(image, scaled(sample.rows())) for image, sample in self.copies.items()]
        if is_few:
            total = whole + sum(len(rows) for _, rows in turned)
            if total > min(coreset.min_patches, coreset.max_patches):
                left = (coreset.max_patches - whole) // max(1, len(turned))
                turned = [
                    (image, rows[coreset.chosen(rows, min(left, max(1, round(coreset.ratio * len(rows)))))])
                    for image, rows in turned
                ]
        rows = torch.cat([rows for _, rows in held + turned])  # (N, D)
        images = torch.cat([torch.full((len(rows),), image) for image, rows in held + turned])  # (N,)
        is_turned = torch.arange(len(rows)) >= sum(len(own) for _, own in held)  # (N,)
        if is_few:
            return BankRows(rows, images, is_turned, is_separable=True)
        kept = coreset.chosen(rows, coreset.count(len(rows)))
        return BankRows(rows[kept.to(rows.device)], images[kept], is_turned[kept])

    def _limit(self, samples: Collection[ReservoirSample]) -> None:
        """Keep `size` patches of all these together, as many of each."""
        for sample in samples:
            sample.limit(max(1, self.size // len(samples)))
