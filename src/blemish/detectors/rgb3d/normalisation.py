"""How much each modality of a scan has to do with its score, cell by cell, in units of good parts of its category.

What the crossmodal detectors share: distances Ψ are brought to how good cells scatter (`level` in prototypes.py), cells
in holes and scans without one of the modalities are judged by what is left, and a scan's category is told where nobody
gave it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from blemish.detectors.base import part_of, under
from blemish.detectors.categories import UNNAMED, answering, key_of
from blemish.detectors.rgb3d.patches import Cells, Holes
from blemish.detectors.rgb3d.prototypes import GoodCells, level, levelled
from blemish.detectors.rgb3d.sampling import Pool
from blemish.types import POINTS, RGB

# Image (N, D1) and points (N, D2) of cells of one category → each Ψ (N,), by its kind.
Measure = Callable[[Tensor, Tensor, str], dict[str, Tensor]]
Shares = dict[str, Tensor]  # Ψ by kind, (h, w) each
ALONE = "alone/"  # before a modality: the kind of what it says by itself
_AT_ONCE = 8192  # cells that go through a network together


class CellShares:
    """How each kind of Ψ scatters by category (`levels_`), and what good cells look like to each modality alone."""

    def __init__(self, holes: Holes, prototypes: int, seed: int) -> None:
        self.holes, self.prototypes, self.seed = holes, prototypes, seed
        self.alone = {modality: GoodCells(prototypes, seed) for modality in (RGB, POINTS)}

    def learn(self, pool: Pool, measure: Measure) -> Self:
        """From good cells: how each Ψ scatters, and prototypes."""
        self.names_ = pool.names
        for place, (modality, cells) in enumerate(self.alone.items()):
            own = {name: rows for name, rows in pool.alone[modality].items() if name in pool.names}
            cells.learn(own, {name: pool.of(name)[place] for name in own})
        self.levels_: dict[str, dict[str, Tensor]] = {}
        for name in pool.names:
            found = at_once(measure, *pool.of(name), name)
            self.levels_[name] = {kind: level(psi) for kind, psi in found.items()}
        return self

    def category_for(self, cells: Cells) -> str:
        """The learned category that answers for a scan: its own or, where nobody named it, the one it is nearest to."""
        if cells.category != UNNAMED or UNNAMED in self.names_ or len(self.names_) == 1:
            return answering(cells.category, self.names_)
        modality, rows = (RGB, cells.image.flatten(0, 1)) if cells.seen else (POINTS, cells.points[cells.measured])
        bank = self.alone[modality]
        known = [name for name in self.names_ if name in bank.rows_ and len(rows)]
        away = {name: float(bank.distances(name, rows).mean()) for name in known}
        return min(away, key=away.__getitem__, default=self.names_[0])

    def of(self, cells: Cells, category: str, measure: Measure) -> Shares:
        """Ψ by kind `(h, w)`, levelled; 0 where a kind has nothing to say.

        The kinds are those of `measure` and, for what is judged by one modality, "alone/" and its name.
        """
        shares: Shares = {}
        if cells.complete:
            shown = self._shown(cells)
            rows = shown.image[shown.measured], shown.points[shown.measured]
            for kind, psi in at_once(measure, *rows, category).items():
                shares[kind] = laid(levelled(psi, self.levels_[category][kind]), shown.measured)
            if self.holes == "own":
                shares[ALONE + RGB] = self._alone(RGB, category, cells.image, cells.inside & ~cells.measured)
        elif cells.seen:
            shares[ALONE + RGB] = self._alone(RGB, category, cells.image, torch.ones_like(cells.measured))
        else:
            shares[ALONE + POINTS] = self._alone(POINTS, category, cells.points, cells.measured)
        nothing = torch.zeros(cells.measured.shape, device=cells.image.device)
        kinds = (*self.levels_[category], ALONE + RGB, ALONE + POINTS)
        return {kind: shares.get(kind, nothing) for kind in kinds}

    def strange(self, modality: str, cells: Cells, category: str) -> Tensor:
        """How far one modality of each cell with points lies from those of good cells, `(h, w)`, levelled."""
        shown, bank = self._shown(cells), self.alone[modality]
        if not cells.complete or category not in bank.rows_:
            return torch.zeros(cells.measured.shape, device=cells.image.device)
        rows = (shown.image if modality == RGB else shown.points)[shown.measured]
        return laid(bank.levelled(category, rows), shown.measured)

    def blamed(self, shares: Shares, cells: Cells, category: str, sides: Mapping[str, str] | None = None) -> Shares:
        """√(Ψ_rgb ⊙ Ψ_3d) split among the modalities, `(h, w)` by modality; and what one of them says alone.

        A defect of one modality breaks the mapping in both directions: both distances grow, whichever is wrong. How
        strange each modality is by itself tells, to prototypes of good cells and, where `sides` names a kind of
        `shares` for each modality, by that.
        """
        own = {modality: self.strange(modality, cells, category) for modality in (RGB, POINTS)}
        if sides:
            own = {modality: strange * shares[sides[modality]] for modality, strange in own.items()}
        total = (own[RGB] + own[POINTS]).clamp_min(1e-12)
        both = (shares[RGB] * shares[POINTS]).sqrt()
        return {modality: both * one / total + shares[ALONE + modality] for modality, one in own.items()}

    def _shown(self, cells: Cells) -> Cells:
        return cells.filled() if self.holes == "fill" else cells

    def plain(self, shares: Shares, category: str) -> Shares:
        """Levelled Ψ of the kinds of `measure` as they were measured; what one modality says alone in like units."""
        device = shares[RGB].device
        levels = {kind: how.to(device) for kind, how in self.levels_[category].items()}
        plain = {kind: unit * shares[kind].pow(1 / power) for kind, (unit, power) in levels.items()}
        both = (levels[RGB][0] * levels[POINTS][0]).sqrt()
        return plain | {ALONE + modality: both * shares[ALONE + modality] for modality in (RGB, POINTS)}

    def _alone(self, modality: str, category: str, layer: Tensor, where: Tensor) -> Tensor:
        if not where.any() or category not in self.alone[modality].rows_:
            return torch.zeros(where.shape, device=layer.device)
        return laid(self.alone[modality].strangeness(category, layer[where]), where)

    def state(self) -> dict[str, Tensor]:
        """`level.…` by kind and category, `alone.…` by modality."""
        state: dict[str, Tensor] = {}
        for name, kinds in self.levels_.items():
            state |= {key_of(f"level.{kind}", name): value for kind, value in kinds.items()}
        for modality, cells in self.alone.items():
            state |= under(f"alone.{modality}", cells.state())
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        self.levels_ = {}
        for key, value in part_of(state, "level").items():
            kind, _, name = key.partition("/")
            self.levels_.setdefault(name, {})[kind] = value
        self.names_ = tuple(sorted(self.levels_))
        for modality, cells in self.alone.items():
            cells.load_state(part_of(state, f"alone.{modality}"))
        return self


def laid(values: Tensor, where: Tensor) -> Tensor:
    """Values of the cells `where` `(h, w)` on their grid, 0 elsewhere."""
    return torch.zeros(where.shape, device=values.device).masked_scatter(where, values.float())


def at_once(measure: Measure, image: Tensor, points: Tensor, category: str) -> dict[str, Tensor]:
    """`measure` of any number of cells, some thousands at a time."""
    parts = [measure(p, q, category) for p, q in zip(image.split(_AT_ONCE), points.split(_AT_ONCE), strict=True)]
    return {kind: torch.cat([part[kind] for part in parts]) for kind in parts[0]}


def smoothed(scores: Tensor) -> Tensor:
    """CFM's box filters on a map `(h, w)`: five of 5 × 5 and three of 7 × 7 pixels of a 224-pixel image.

    On a grid of other size their sides are scaled to it; where they are smaller than a cell nothing changes.
    """
    for side, times in ((5, 5), (7, 3)):
        cells = 2 * round((side * min(scores.shape) / 224 - 1) / 2) + 1
        for _ in range(times if cells > 1 else 0):
            scores = avg_pool2d(scores[None], cells, stride=1, padding=cells // 2, count_include_pad=False)[0]
    return scores
