"""A few normal images that a model keeps, to compare regions of other images with.

A region's own patches look like nothing that is normal, so that it is its surroundings that are matched
(surroundings.py). It holds for every detector, as it needs the encoder's features only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from blemish.model.reference_image import ReferenceImage
from blemish.model.surroundings import Placement, Surroundings, best_place
from blemish.numeric.principal_directions import PrincipalDirections, pooled
from blemish.preprocessing.foreground import find_part
from blemish.types import POINTS, RGB, Features, ImageOrScan

KEPT = 8  # images of a category, at most: about 0.3 MB each at 448 pixels
MOST = 48  # of all categories together, and at least one of each
# Chosen by eye on further good images of bottle, pill, cookie and screw.
MARGIN = 0.15  # below what normal images have among themselves, down to which a place still matches
ALONE = 0.35  # the least similarity where only one image was fitted on
FEWEST = 12  # cells clear of a defect, for their likeness to count


@dataclass(frozen=True, eq=False)
class ReferenceImages:
    """The kept normal images of a category; `least` is the similarity from which on a place counts as known."""

    directions: PrincipalDirections
    images: tuple[ReferenceImage, ...]
    least: float

    @cached_property
    def show_parts(self) -> bool:
        """Whether the images, as far as a few say, show a part on a plain background."""
        return all(one.image is not None and find_part(one.image) is not None for one in self.images[:4])

    @classmethod
    def fit(cls, files: Sequence[str], inputs: Sequence[ImageOrScan], features: Sequence[Features]) -> Self | None:
        """Of the encoder's inputs of normal images and their features; None where there is nothing to compare."""
        modality = next((name for name in (RGB, POINTS) if all(name in one.available for one in features)), None)
        if modality is None:
            return None
        rows = torch.cat([pooled(one, modality).flatten(0, 2) for one in features]).cpu()  # (N, D)
        directions = PrincipalDirections.fit(modality, rows)
        cells = [directions.cells(one) for one in features]
        images = [ReferenceImage.of(Path(f).name, i, c) for f, i, c in zip(files, inputs, cells, strict=True)]
        return cls(directions, tuple(images), least_similarity(images))

    def cells_of(self, features: Features) -> np.ndarray | None:
        """The patches `(gh, gw, K)` of one image that are compared; None where its modality is missing."""
        return self.directions.cells(features) if self.directions.modality in features.available else None

    def place_of(self, around: Surroundings) -> Placement | None:
        """The place most like a region's surroundings; None where none is like them."""
        # Around a defect that covers nearly all there is too little to tell what is known from what is not.
        least = self.least if (around.weights == 1).sum() >= FEWEST else min(ALONE, self.least)
        found = best_place(around, self.images, enough=self.least + MARGIN)
        return None if found.similarity < least else found

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All of it as facts that JSON can hold, and tensors by name."""
        facts = {
            "modality": self.directions.modality,
            "least": self.least,
            "files": [one.file for one in self.images],
            "origins": [list(one.origin) for one in self.images],
        }
        tensors = {"mean": self.directions.mean, "matrix": self.directions.matrix}
        for number, one in enumerate(self.images):
            tensors[f"{number}.cells"] = torch.from_numpy(one.cells)
            if one.encoded:
                tensors[f"{number}.image"] = torch.from_numpy(np.frombuffer(one.encoded, np.uint8).copy())
            if one.heights is not None:
                tensors[f"{number}.heights"] = torch.from_numpy(one.heights)
        return facts, tensors

    @classmethod
    def from_state(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Take back what `to_state` gave."""
        directions = PrincipalDirections(facts["modality"], tensors["mean"], tensors["matrix"])
        images = []
        for number, (file, origin) in enumerate(zip(facts["files"], facts["origins"], strict=True)):
            encoded, heights = tensors.get(f"{number}.image"), tensors.get(f"{number}.heights")
            images.append(
                ReferenceImage(
                    file,
                    b"" if encoded is None else encoded.numpy().tobytes(),
                    tensors[f"{number}.cells"].numpy(),
                    None if heights is None else heights.numpy(),
                    (origin[0], origin[1], origin[2]),
                )
            )
        return cls(directions, tuple(images), facts["least"])


def least_similarity(images: Sequence[ReferenceImage]) -> float:
    """The similarity that places of normal images have at least on the others of them, less a margin."""
    if len(images) < 2:
        return ALONE
    found = []
    for one in images[:4]:
        grid = one.cells.shape[:2]
        for y, x in ((0.3, 0.3), (0.5, 0.5), (0.7, 0.6)):
            inside = np.zeros(grid, dtype=bool)
            inside[int(y * grid[0]), int(x * grid[1])] = True
            others = [other for other in images if other is not one][:3]
            found.append(best_place(Surroundings.of(one.unit_cells, inside), others).similarity)
    return max(0.0, min(found) - MARGIN)
