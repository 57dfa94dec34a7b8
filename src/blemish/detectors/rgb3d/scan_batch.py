"""Scans as a graph without Python sees them: all patches of a batch at once, by masks, as `patches.py` one by one.

A graph picks no patches out: everything is computed of every patch, and what does not apply becomes 0. Holes and their
nearest patches are those of scipy's `binary_fill_holes` and `distance_transform_edt`, which `ScanPatches` uses, to the
patch, by the two classical ways: growing the outside until it grows no more, and one axis after the other (Felzenszwalb
& Huttenlocher, "Distance Transforms of Sampled Functions", Theory of Computing 8, 2012). An image finer than the points
is averaged by an antialiased resize, which OpenVINO computes otherwise; `ScanEncoder` gives none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from blemish.detectors.rgb3d.patches import Holes, check_modalities, on_grid
from blemish.numeric.dense_neighbours import nearest_distances
from blemish.numeric.neighbours import Neighbours
from blemish.types import POINTS, RGB, Features, is_available


@dataclass(frozen=True, eq=False)
class ScanBatch:
    """B scans on the grid `(h, w)` of their points; what is asked of them is what `ScanPatches` tells of one.

    `has_image` and `has_points` `(B, 1, 1)` bool say it of each scan; False where it is known of none before any is
    seen, and nothing need be computed.
    """

    image: Tensor  # (B, h, w, D1)
    points: Tensor  # (B, h, w, D2), zeros where not `valid`
    has_image: Tensor | bool
    has_points: Tensor | bool
    valid: Tensor  # (B, h, w) bool

    @property
    def has_both(self) -> Tensor | bool:
        """Which scans have both modalities."""
        return _both(self.has_image, self.has_points)

    @property
    def image_alone(self) -> Tensor | bool:
        """Which scans have an image and no points."""
        return _both(self.has_image, _without(self.has_points))

    @property
    def points_alone(self) -> Tensor | bool:
        """Which scans have no image."""
        return _without(self.has_image)

    @cached_property
    def silhouette(self) -> Tensor:
        """The valid patches and the holes they enclose, `(B, h, w)` bool."""
        return filled_holes(self.valid)

    @cached_property
    def filled(self) -> ScanBatch:
        """The same with the nearest valid patch's point features in every hole, which then count as valid."""
        row, column = nearest_valid(self.valid)  # (B, h, w) each
        number = torch.arange(self.valid.shape[0], device=row.device)[:, None, None]  # (B, 1, 1)
        nearest = self.points[number, row, column]  # (B, h, w, D2)
        holes = self.silhouette & ~self.valid
        points = torch.where(holes[..., None], nearest, self.points)
        return replace(self, points=points, valid=self.silhouette)

    def usable(self, holes: Holes) -> ScanBatch:
        """As that of `ScanPatches`."""
        return self.filled if holes == "fill" else self

    def rows(self, features: Tensor, where: Tensor) -> Tensor:
        """Features `(B, h, w, D)` of all patches, `(B·h·w, D)`, wherever `where` is."""
        return features.flatten(0, 2)

    def chunks(self, *rows: Tensor) -> list[tuple[Tensor, ...]]:
        """All rows in one part: their number is open."""
        return [rows]

    def spread(self, values: Tensor, where: Tensor) -> Tensor:
        """Values `(B·h·w,)` of all patches on their grid `(B, h, w)`, 0 but `where` it holds."""
        return torch.where(where, values.float().view(where.shape), 0.0)

    @staticmethod
    def nearest(bank: Neighbours, rows: Tensor) -> Tensor:
        """The distance `(N,)` of each of `rows` `(N, D)` to the nearest one of the bank."""
        return nearest_distances(bank, rows)[0][:, 0]


def scan_batch(features: Features, dims: Sequence[int]) -> ScanBatch:
    """The scans of a batch at once; arguments and errors are those of `scan_patches`."""
    check_modalities(features, dims)
    image = features[RGB].float() if RGB in features.layers else None  # (B, h', w', D1)
    points = features[POINTS].float() if POINTS in features.layers else None  # (B, h, w, D2)
    present = points if points is not None else image
    assert present is not None  # `check_modalities` refuses features of neither modality
    shape = present.shape[:3]
    has_image, has_points = (_available(features, modality) for modality in (RGB, POINTS))
    valid = features.valid[POINTS] if POINTS in features.valid else torch.ones_like(present[..., 0]) > 0
    if isinstance(has_image, Tensor) and isinstance(has_points, Tensor):
        valid = valid & (has_points | ~has_image)
    return ScanBatch(
        image=present.new_zeros(*shape, dims[0]) if image is None else on_grid(image, (shape[1], shape[2])),
        points=present.new_zeros(*shape, dims[1]) if points is None else points,
        has_image=has_image,
        has_points=has_points,
        valid=valid if points is not None else torch.zeros_like(valid),
    )


def _available(features: Features, modality: str) -> Tensor | bool:
    """Which images have a modality, `(B, 1, 1)` bool; False where it is not among the features."""
    if modality not in features.layers:
        return False
    if modality in features.valid:
        return is_available(features.valid[modality])[:, None, None]
    return torch.ones_like(features.layers[modality][0][:, :1, :1, 0]) > 0


def _both(one: Tensor | bool, other: Tensor | bool) -> Tensor | bool:
    return False if one is False or other is False else one & other


def _without(flag: Tensor | bool) -> Tensor | bool:
    return ~flag if isinstance(flag, Tensor) else not flag


def filled_holes(valid: Tensor) -> Tensor:
    """The `valid` patches `(B, h, w)` bool and the holes they enclose: what the outside does not reach sideways."""
    free = pad((~valid).float(), (1, 1, 1, 1), value=1.0)[:, None]  # (B, 1, h + 2, w + 2)
    border = pad(torch.zeros_like(valid, dtype=torch.float32), (1, 1, 1, 1), value=1.0)[:, None]

    def grown(outside: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        sideways = max_pool2d(outside, (1, 3), 1, (0, 1)), max_pool2d(outside, (3, 1), 1, (1, 0))
        wider = torch.maximum(*sideways) * free
        return wider, (wider > outside).any()

    state = border, torch.ones((), dtype=torch.bool, device=valid.device)
    if torch.compiler.is_compiling():
        state = torch.while_loop(lambda _, grows: grows.clone(), grown, state)
    else:
        while bool(state[1]):
            state = grown(*state)
    return state[0][:, 0, 1:-1, 1:-1] < 0.5


def nearest_valid(valid: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column `(B, h, w)` int64 of the valid patch nearest to each patch of `valid` `(B, h, w)` bool.

    The first of those equally near: of columns before rows. Any in a scan without valid patches.
    """
    height, width = valid.shape[1:3]
    down, across = (torch.arange(side, dtype=torch.float32, device=valid.device) for side in (height, width))
    rows = (down[:, None] - down).square()[None, :, :, None]  # (1, h, h', 1)
    far = torch.where(valid, 0.0, float(height**2 + width**2))  # (B, h', w), farther than anything
    squared, row = (rows + far[:, None]).min(2)  # (B, h, w): the nearest in the column
    columns = (across[:, None] - across).square()  # (w, w')
    column = (squared[:, :, None] + columns).argmin(3)  # (B, h, w)
    return row.gather(2, column), column
