"""A memory bank of M3DM: the coreset of one category's patches in one kind of features, and how these are scaled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from blemish.detectors.collected_patches import Coreset
from blemish.numeric.neighbours import Neighbours
from blemish.numeric.standardise import floored_std, rare_bounds


class MemoryBank:
    """Rows `(M, D)` of scaled normal patches; features `(N, D)` are clipped at `bounds` `(2, D)`, over `scale` `(D,)`.

    `scans` `(M,)` are the numbers of the normal scans that the rows are from, None once loaded. `skips_itself`: a patch
    that equals a row is compared with the others.
    """

    def __init__(
        self, rows: Tensor, bounds: Tensor, scale: Tensor, scans: Tensor | None = None, skips_itself: bool = False
    ) -> None:
        self.rows, self.bounds, self.scale = rows.detach().float().contiguous(), bounds, scale
        self.scans, self.skips_itself = scans, skips_itself
        self._neighbours = Neighbours(self.rows)

    @classmethod
    def fit(
        cls, patches: Tensor, scans: Tensor, foreground: Tensor, widths: Sequence[int], coreset: Coreset
    ) -> MemoryBank:
        """A coreset of normal `patches` `(N, D)`, of the scans of these numbers `(N,)`.

        Channels are clipped at RARE standard deviations of the `foreground` patches `(n, D)` and divided by one; and by
        √width of the part that they belong to, of `widths`, so that none of several side by side outweighs another.
        """
        mean, std = foreground.mean(0), floored_std(foreground.std(0, correction=0))  # (D,) each
        bounds = rare_bounds(mean, std)  # (2, D)
        scale = std * torch.cat([std.new_full((width,), width**0.5) for width in widths])  # (D,)
        rows = patches.clamp(bounds[0], bounds[1]) / scale  # (N, D)
        kept = coreset.chosen(rows, coreset.count(len(rows)))
        return cls(rows[kept.to(rows.device)], bounds, scale, scans[kept.to(scans.device)])

    def scaled(self, patches: Tensor) -> Tensor:
        """Patches `(N, D)` as they are compared."""
        low, high = self.bounds.to(patches.device)  # (D,) each
        scaled: Tensor = patches.clamp(low, high) / self.scale.to(patches.device)
        return scaled

    def on(self, device: torch.device) -> Neighbours:
        """The bank, moved to where the features are."""
        neighbours = self._neighbours
        if neighbours.rows.device != device:
            neighbours = self._neighbours = Neighbours(self.rows.to(device))
        return neighbours

    def nearest(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Distance to, and index of, the nearest row of each of the scaled patches `(N, D)`: `(N,)` each."""
        bank = self.on(rows.device)
        if not self.skips_itself or len(bank) < 2:
            distance, index = bank.search(rows)  # (N, 1) each
            return distance[:, 0], index[:, 0]
        distance, index = bank.search(rows, 2)  # (N, 2) each
        is_itself = distance[:, 0] == 0
        return torch.where(is_itself, distance[:, 1], distance[:, 0]), torch.where(is_itself, index[:, 1], index[:, 0])

    def without(self, scan: int) -> MemoryBank:
        """The same without the rows of the normal scan of that number.

        Where all rows are of it each of its patches leaves only itself out.
        """
        assert self.scans is not None  # it was fitted, not loaded
        kept = self.scans != scan
        if not kept.any():
            return MemoryBank(self.rows, self.bounds, self.scale, skips_itself=True)
        return MemoryBank(self.rows[kept.to(self.rows.device)], self.bounds, self.scale)

    def state(self) -> dict[str, Tensor]:
        """`rows` `(M, D)`, `bounds` `(2, D)` and `scale` `(D,)`."""
        return {"rows": self.rows, "bounds": self.bounds, "scale": self.scale}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        return cls(state["rows"], state["bounds"], state["scale"])
