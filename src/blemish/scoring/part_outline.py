"""Where places lie on the part: its outline as the encoder sees it, its upright box in the image, its background."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from PIL import Image
from scipy import ndimage

from blemish.numeric.cielab import lab_of
from blemish.numeric.raster import binary_dilation
from blemish.preprocessing.foreground import LEAST_CELLS, find_part
from blemish.scoring.region_attributes import Background

_SIDE = 112  # pixels, the longer side that an outline is found on, more in strips: a place to about 1 % of the part
_FEWEST = 25  # pixels of background that its colour is learned from


@dataclass(frozen=True, eq=False)
class PartOutline:
    """A part's `mask` `(h, w)` bool on a small copy of the encoder's input, `shrink` input pixels for each of its own.

    `to_image` `(2, 3)` maps (x, y, 1) of the encoder's input to the image.
    """

    mask: np.ndarray
    shrink: float
    to_image: np.ndarray
    background: Background | None = None

    @classmethod
    def of_image(cls, pixels: np.ndarray, to_image: np.ndarray) -> Self | None:
        """The part in the encoder's input `(h, w, 3)` uint8, where one is expected; None where none is found."""
        height, width = pixels.shape[:2]
        shrink = max(1.0, min(max(height, width) / _SIDE, min(height, width) / LEAST_CELLS))  # as `find_part` does
        size = max(LEAST_CELLS, round(width / shrink)), max(LEAST_CELLS, round(height / shrink))
        small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
        part = find_part(small, side=_SIDE, expected=True)
        if part is None or not part.mask.any():
            return None
        bare = ~binary_dilation(part.mask | part.debris, 3)
        background = Background.of(lab_of(small[bare])) if bare.sum() >= _FEWEST else None
        return cls(part.mask, shrink, to_image, background)

    @classmethod
    def of_points(cls, xyz: np.ndarray, to_image: np.ndarray) -> Self | None:
        """The part as the measured points `(h, w, 3)` that are left of a scan; None where there are none."""
        known = np.isfinite(xyz).all(axis=-1)
        return cls(ndimage.binary_fill_holes(known), 1.0, to_image) if known.any() else None

    @cached_property
    def area(self) -> float:
        """In image pixels."""
        return float(self.mask.sum()) * self.shrink**2 * abs(float(np.linalg.det(self.to_image[:, :2])))

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """The upright box (left, top, right, bottom) in image pixels."""
        ys, xs = np.nonzero(self.mask)
        places = self.to_image[:, :2] @ ((np.stack([xs, ys]) + 0.5) * self.shrink) + self.to_image[:, 2:]  # (2, N)
        (left, top), (right, bottom) = places.min(axis=1), places.max(axis=1)
        return float(left), float(top), float(right), float(bottom)

    @cached_property
    def depth(self) -> np.ndarray:
        """How far each pixel `(h, w)` of the part lies inside the outline, in pixels of the copy; 0 beside the part."""
        inside: np.ndarray = ndimage.distance_transform_edt(np.pad(self.mask, 1))[1:-1, 1:-1]
        return inside

    def edge_distance(self, place: tuple[float, float]) -> float:
        """How far a place (x, y) of the image lies inside the outline, negative outside, over the inscribed radius."""
        forward = np.vstack([self.to_image, [0, 0, 1]])
        x, y = np.linalg.solve(forward, [*place, 1.0])[:2] / self.shrink
        row = min(self.mask.shape[0] - 1, max(0, int(y)))
        column = min(self.mask.shape[1] - 1, max(0, int(x)))
        signed = float(self.depth[row, column]) - 0.5
        if not self.mask[row, column]:
            ys, xs = np.nonzero(self.mask)
            signed = 0.5 - math.sqrt(float(((ys - row) ** 2 + (xs - column) ** 2).min()))
        return signed / max(float(self.depth.max()), 1.0)
