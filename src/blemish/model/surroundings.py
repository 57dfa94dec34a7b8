"""The place on other images that looks like a region's surroundings: template matching in the space of features.

Of all places on all images the one whose patches, in the same arrangement, are most like those around the region
(Bergmann et al., PatchCore and others compare single patches alone). Turned arrangements are tried where no upright one
fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import ndimage

from blemish.model.reference_image import ReferenceImage
from blemish.scoring.anomaly_map import centroid

TURNS = tuple(range(0, 360, 45))  # degrees
# Chosen by eye on further good images of bottle, pill, cookie and screw.
TURN_GAIN = 0.05  # in similarity, that a turned place must win over the upright ones
FAR_LOSS = 0.1  # of similarity, at a place as far away as the image is large: of equal places the nearest counts


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The cells around a region of an image: `cells` `(N, K)`, their `offsets` `(N, 2)` int (y, x) from its centre.

    `weights` `(N,)` say how much each counts; `centre` (y, x) is a cell of the image's `grid` (gh, gw).
    """

    cells: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray
    centre: tuple[int, int]
    grid: tuple[int, int]

    @classmethod
    def of(cls, cells: np.ndarray, inside: np.ndarray, reach: int = 3, most: int = 64) -> Self:
        """Around the cells `inside` `(gh, gw)` bool of an image's `cells` `(gh, gw, K)`, up to `reach` cells away.

        A defect's own cells count little, and those next to it, whose receptive fields see it, less than others.
        """
        grid = (inside.shape[0], inside.shape[1])
        down, across = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        top, left = max(0, down[0] - reach), max(0, across[0] - reach)
        bottom, right = min(grid[0], down[-1] + 1 + reach), min(grid[1], across[-1] + 1 + reach)
        step = max(1, math.ceil(math.sqrt((bottom - top) * (right - left) / most)))
        rows, columns = np.mgrid[top:bottom:step, left:right:step].reshape(2, -1)
        near = ndimage.binary_dilation(inside, np.ones((3, 3), dtype=bool))
        weights = np.where(inside[rows, columns], 0.1, np.where(near[rows, columns], 0.4, 1.0))
        x, y = centroid(inside)
        centre = (round(y), round(x))
        offsets = np.stack([rows - centre[0], columns - centre[1]], axis=1)
        return cls(cells[rows, columns], offsets, weights.astype(np.float32), centre, grid)


@dataclass(frozen=True)
class Placement:
    """A place on a kept image: the image's `number`, and its `cell` (y, x) that lies on the `anchor` of the region.

    The part lies `degrees` further clockwise there. `similarity` is the mean cosine of the surroundings' cells.
    """

    number: int
    anchor: tuple[int, int]
    cell: tuple[int, int]
    degrees: float
    similarity: float


def best_place(around: Surroundings, images: Sequence[ReferenceImage], enough: float = 1.0) -> Placement:
    """The place on any of the images that is most like the surroundings.

    Turned arrangements are tried unless an upright place has `enough` similarity, and must be better by `TURN_GAIN`.
    """
    grids: dict[tuple[int, ...], list[int]] = {}
    for number, one in enumerate(images):
        grids.setdefault(one.cells.shape[:2], []).append(number)
    likeness = {grid: likeness_to(around, [images[i] for i in numbers]) for grid, numbers in grids.items()}
    found = []
    for turns in (TURNS[:1], TURNS[1:]):
        for grid, alike in likeness.items():
            found += [best_cell(around, alike, grids[grid], degrees) for degrees in turns]
        if max(place.similarity for _, place in found) >= enough:
            break
    return max(found, key=lambda pair: pair[0])[1]


def likeness_to(around: Surroundings, images: Sequence[ReferenceImage]) -> np.ndarray:
    """How like each of the N surrounding cells each cell of I images of one grid is, `(N, I, gh, gw)`, weighted."""
    grid = images[0].cells.shape[:2]
    alike = np.empty((len(around.cells), len(images), *grid), np.float32)
    for i, one in enumerate(images):
        alike[:, i] = (around.cells @ one.unit_cells.reshape(-1, one.cells.shape[2]).T).reshape(-1, *grid)
    alike *= around.weights[:, None, None, None]
    return alike


def best_cell(
    around: Surroundings, alike: np.ndarray, numbers: Sequence[int], degrees: float
) -> tuple[float, Placement]:
    """What the best cell of images of these `numbers` is worth, and its place, from `likeness_to` them.

    What would lie beyond an image's edge is like nothing.
    """
    height, width = alike.shape[2:]
    total = np.zeros(alike.shape[1:], np.float32)  # (I, gh, gw)
    for (down, across), own in zip(turned(around.offsets, degrees), alike, strict=True):
        top, left = max(0, -down), max(0, -across)
        bottom, right = min(height, height - down), min(width, width - across)
        if top < bottom and left < right:
            total[:, top:bottom, left:right] += own[:, top + down : bottom + down, left + across : right + across]
    total /= around.weights.sum()
    y = np.arange(height)[:, None] / height - around.centre[0] / around.grid[0]
    x = np.arange(width)[None] / width - around.centre[1] / around.grid[1]
    worth = total - FAR_LOSS * np.hypot(y, x) - (TURN_GAIN if degrees else 0.0)  # (I, gh, gw)
    best = int(np.argmax(worth))
    image, cell = divmod(best, height * width)
    return float(worth.flat[best]), Placement(
        numbers[image], around.centre, divmod(cell, width), degrees, float(total.flat[best])
    )


def turned(offsets: np.ndarray, degrees: float) -> np.ndarray:
    """Offsets (y, x) `(N, 2)` in cells, turned clockwise on the screen and rounded."""
    angle = math.radians(degrees)
    y, x = offsets[:, 0], offsets[:, 1]
    rotated = np.stack([math.sin(angle) * x + math.cos(angle) * y, math.cos(angle) * x - math.sin(angle) * y], axis=1)
    return np.rint(rotated).astype(int)
