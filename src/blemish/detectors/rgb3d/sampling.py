"""Good cells drawn evenly from all scans, in bounded memory: what networks that see one cell at a time learn from.

Every step then sees cells of all categories, however the images come, and costs the same on a grid of patches and on
one of pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from blemish.detectors.rgb3d.patches import Cells, Holes, cells_of, mask_on_grid
from blemish.errors import SettingsError
from blemish.numeric.sampling import EvenSample
from blemish.types import POINTS, RGB, Batch

AROUND = 65536  # cells of whole scans, whether measured or not
ALONE = 4096  # cells of a category and modality that tell what it looks like by itself
_CHANGED = 0.01  # of a cell's length that a synthetic anomaly must change at least, to have changed it at all


@dataclass(frozen=True)
class Altered:
    """Cells under synthetic anomalies, `(M, …)` each, and whether the image (or the points) there changed, `(M,)`."""

    image: Tensor
    points: Tensor
    image_changed: Tensor
    points_changed: Tensor
    label: Tensor


@dataclass(frozen=True)
class Pool:
    """Cells with both modalities: `image` `(N, D1)`, `points` `(N, D2)`, `label` `(N,)`, the place in `names`.

    `alone` holds, by modality and category, `(n, D)` rows of all cells that this modality sees: of images, the ground
    as well. `around` is drawn from all cells of whole scans: their images `(M, D1)`, and whether points were measured
    there, `(M,)` bool; None where nobody asked. `altered` is None where no synthetic anomalies were shown.
    """

    names: tuple[str, ...]
    image: Tensor
    points: Tensor
    label: Tensor
    alone: dict[str, dict[str, Tensor]]
    around: tuple[Tensor, Tensor] | None
    altered: Altered | None

    @property
    def dims(self) -> tuple[int, int]:
        """The widths D1 and D2."""
        return self.image.shape[1], self.points.shape[1]

    def of(self, name: str) -> tuple[Tensor, Tensor]:
        """Image and points of the cells of one category."""
        own = self.label == self.names.index(name)
        return self.image[own], self.points[own]


def pooled(batches: Iterable[Batch], sample: int, holes: Holes, seed: int, around: bool = False) -> Pool:
    """At most `sample` good cells, the same number of every category, from one walk over `batches`.

    `around`: what lies around the part is kept as well.
    """
    pairs: dict[str, EvenSample] = {}
    alone: dict[str, dict[str, EvenSample]] = {RGB: {}, POINTS: {}}
    everywhere: dict[str, EvenSample] = {}
    altered: dict[str, EvenSample] = {}
    dims = (0, 0)

    def add(to: dict[str, EvenSample], name: str, rows: Tensor, size: int, shared: bool = True) -> None:
        if name not in to:
            to[name] = EvenSample(size, seed)
            for one in to.values() if shared else ():
                one.limit(max(1, size // len(to)))
        to[name].add(rows)

    for batch in batches:
        for index, cells in enumerate(cells_of(batch.features)):
            name, dims = cells.category, (cells.image.shape[-1], cells.points.shape[-1])
            if cells.seen:
                add(alone[RGB], name, cells.image.flatten(0, 1), ALONE, shared=False)
            if cells.measured.any():
                add(alone[POINTS], name, cells.points[cells.measured], ALONE, shared=False)
            if cells.complete:
                if around:
                    both = torch.cat([cells.image, cells.measured[..., None]], dim=-1)  # (h, w, D1 + 1)
                    add(everywhere, name, both.flatten(0, 1), AROUND)
                shown = cells.filled() if holes == "fill" else cells
                add(pairs, name, _rows(shown)[shown.measured], sample)
                if (rows := _altered(batch, index, shown)) is not None and len(rows):
                    add(altered, name, rows, max(1, sample // 4))
    if not pairs:
        raise SettingsError("at least one good scan with a picture and points", "none", "give good scans to learn from")
    names = tuple(sorted(pairs))
    rows, label = _stacked(pairs, names)
    image, points = rows.split(dims, dim=1)
    return Pool(
        names,
        image,
        points,
        label,
        {modality: {name: one.rows() for name, one in found.items()} for modality, found in alone.items()},
        _around(_stacked(everywhere, names)[0]) if everywhere else None,
        _altered_cells(altered, names, dims) if altered else None,
    )


def at_random(count: int, label: Tensor) -> Tensor:
    """Places `(count,)` among the cells that have a `label` `(N,)`, drawn anew each time, with repetition."""
    return torch.randint(len(label), (count,)).to(label.device)


def _around(rows: Tensor) -> tuple[Tensor, Tensor]:
    return rows[:, :-1], rows[:, -1] > 0


def _rows(cells: Cells) -> Tensor:
    return torch.cat([cells.image, cells.points], dim=-1)  # (h, w, D1 + D2)


def _altered(batch: Batch, index: int, good: Cells) -> Tensor | None:
    """Cells under the synthetic anomaly of a scan, `(m, D1 + D2 + 2)`; the last two say which modality it changed."""
    if batch.altered is None or batch.altered_mask is None:
        return None
    bad = next(_only(batch, index)).filled()
    grid = (good.measured.shape[0], good.measured.shape[1])
    under = mask_on_grid(batch.altered_mask[index], grid) & bad.measured & good.measured
    changed = [
        _changed(one[under], other[under]) for one, other in ((bad.image, good.image), (bad.points, good.points))
    ]
    return torch.cat([_rows(bad)[under], *(flag[:, None] for flag in changed)], dim=1)


def _only(batch: Batch, index: int) -> Iterator[Cells]:
    assert batch.altered is not None
    return cells_of(batch.altered.take(slice(index, index + 1)))


def _changed(bad: Tensor, good: Tensor) -> Tensor:
    """Rows `(m, D)` each → `(m,)`, 1 where they differ by more than rounding."""
    return ((bad - good).norm(dim=1) > _CHANGED * good.norm(dim=1)).float()


def _stacked(samples: dict[str, EvenSample], names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """The rows of all categories `(N, D)`, and the place in `names` of each one's `(N,)`."""
    rows = [(samples[name].rows(), place) for place, name in enumerate(names) if name in samples]
    labels = [torch.full((len(own),), place, device=own.device) for own, place in rows]
    return torch.cat([own for own, _ in rows]), torch.cat(labels)


def _altered_cells(samples: dict[str, EvenSample], names: tuple[str, ...], dims: tuple[int, int]) -> Altered:
    rows, label = _stacked(samples, names)
    image, points, flags = rows.split((*dims, 2), dim=1)
    return Altered(image, points, flags[:, 0] > 0, flags[:, 1] > 0, label)
