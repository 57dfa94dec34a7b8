"""Rows of normal images that others are compared with, and of which image each is: WinCLIP's and PromptAD's banks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from blemish.numeric.neighbours import Neighbours


@dataclass(frozen=True, eq=False)
class References:
    """What one category's normal images look like at one scale: rows `(M, D)`, and the image `(M,)` each is from."""

    rows: Tensor
    images: Tensor | None = None
    _searches: dict[torch.device, Neighbours] = field(default_factory=dict, init=False, repr=False)  # of all rows

    def nearest(self, queries: Tensor, left_out: Collection[int] = ()) -> Tensor:
        """(1 − cosine) / 2 of each query `(N, D)` to its nearest row, `(N,)`, without those of some images."""
        return self._search_on(queries.device, left_out).search(queries)[0][:, 0] / 2

    def _search_on(self, device: torch.device, left_out: Collection[int]) -> Neighbours:
        """The search among the rows on a device; that among all of them is prepared once."""
        if left_out and self.images is not None:
            kept = ~torch.isin(self.images, torch.tensor(sorted(left_out))).to(self.rows.device)  # (M,)
            return Neighbours(self.rows[kept].to(device), "cosine")
        if device not in self._searches:
            self._searches[device] = Neighbours(self.rows.to(device), "cosine")
        return self._searches[device]


@dataclass
class CollectedReferences:
    """The rows of one category's normal images by scale, and of which image they are."""

    rows: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    images: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    known: set[int] = field(default_factory=set)

    def add(self, scale: str, rows: Tensor, image: int) -> None:
        self.rows[scale].append(rows)
        self.images[scale].append(torch.full((len(rows),), image))

    def references(self) -> dict[str, References]:
        return {scale: References(torch.cat(own), torch.cat(self.images[scale])) for scale, own in self.rows.items()}


def judged_rows(vectors: Tensor, ignored: Tensor | None) -> Tensor:
    """Patches or windows `(h', w', D)` as rows, without patches that are `ignored` `(h, w)`.

    Windows stay: what is ignored was filled in by what surrounds it.
    """
    rows = vectors.flatten(0, 1)
    if ignored is None or tuple(ignored.shape) != tuple(vectors.shape[:2]):
        return rows
    return rows[~ignored.flatten().to(rows.device)]
