"""A few normal images that a model keeps, and the place on them that a region of another image is matched with.

A region's own patches look like nothing that is normal, so that it is its surroundings that are matched: of all places
on all kept images the one whose patches, in the same arrangement, are most like those around the region (template
matching in the space of features; Bergmann et al., PatchCore and others compare single patches alone). It holds for
every detector, as it needs the encoder's features only. Turned arrangements are tried where no upright one fits.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from blemish.numeric.grids import averaged_to
from blemish.preprocessing.foreground import find_part
from blemish.types import POINTS, RGB, Features, ImageOrScan, Scan

KEPT = 8  # images of a category, at most: about 0.3 MB each at 448 pixels
MOST = 48  # of all categories together, and at least one of each
CELLS = 40  # a side of the grid on which places are compared
WIDTH = 64  # directions that are kept of features
QUALITY = 95  # of JPEG, without colour subsampling: under one level of ΔE2000 on average
TURNS = tuple(range(0, 360, 45))  # degrees
# Chosen by eye on further good images of bottle, pill, cookie and screw.
TURN_GAIN = 0.05  # in similarity, that a turned place must win over the upright ones
FAR_LOSS = 0.1  # of similarity, at a place as far away as the image is large: of equal places the nearest counts
MARGIN = 0.15  # below what normal images have among themselves, down to which a place still matches
ALONE = 0.35  # the least similarity where only one image was fitted on
FEWEST = 12  # cells clear of a defect, for their likeness to count
ROWS = 4096  # patches that the directions are fitted on


@dataclass(frozen=True, eq=False)
class ReferenceImage:
    """A kept normal image: its file's name, the encoder's input as it is stored, and its patches.

    `encoded` is a JPEG of the image, b"" where there are points alone; `heights` `(h, w, 3)` float16 are measured
    points in mm relative to `origin` (3,) in mm, None where there are none; `cells` `(gh, gw, K)` float16 are patches
    of unit length.
    """

    file: str
    encoded: bytes
    cells: np.ndarray
    heights: np.ndarray | None = None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def of(cls, file: str, encoder_input: ImageOrScan, cells: np.ndarray) -> Self:
        """Of an encoder's input and its patches `(gh, gw, K)`."""
        scan = encoder_input if isinstance(encoder_input, Scan) else Scan(rgb=encoder_input)
        encoded, heights, origin = b"", None, np.zeros(3)
        if scan.image is not None:
            buffer = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(scan.image)).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
            encoded = buffer.getvalue()
        if scan.xyz is not None and POINTS in scan.available:
            millimetres = 1000 * scan.xyz.astype(np.float64)
            origin = np.nanmedian(millimetres.reshape(-1, 3), axis=0)
            heights = (millimetres - origin).astype(np.float16)
        return cls(
            file, encoded, cells.astype(np.float16), heights, (float(origin[0]), float(origin[1]), float(origin[2]))
        )

    @cached_property
    def image(self) -> np.ndarray | None:
        """What the encoder saw, `(h, w, 3)` uint8; None where there are points alone."""
        if not self.encoded:
            return None
        with Image.open(io.BytesIO(self.encoded)) as image:
            return np.array(image.convert("RGB"))

    @cached_property
    def xyz(self) -> np.ndarray | None:
        """The measured points `(h, w, 3)` float32 in metres; None where there are none."""
        if self.heights is None:
            return None
        return ((self.heights.astype(np.float32) + np.array(self.origin, np.float32)) / 1000).astype(np.float32)

    @cached_property
    def unit_cells(self) -> np.ndarray:
        """The patches `(gh, gw, K)` float32."""
        return self.cells.astype(np.float32)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        shown = self.image if self.encoded else self.heights
        assert shown is not None  # one of them is there
        return shown.shape[0], shown.shape[1]


@dataclass(frozen=True, eq=False)
class Directions:
    """The main directions of a category's patches: `mean` (D,), `matrix` `(D, K)`, of one `modality`."""

    modality: str
    mean: Tensor
    matrix: Tensor

    @classmethod
    def fit(cls, modality: str, rows: Tensor) -> Self:
        """Of patches `(N, D)`: subspace iteration from a fixed start; each is divided by the root of its deviation."""
        rows = rows[:: max(1, len(rows) // ROWS)].float()
        mean = rows.mean(0)
        centred = rows - mean  # (N, D)
        width = min(WIDTH, *centred.shape)
        start = torch.randn(centred.shape[1], width, generator=torch.Generator().manual_seed(0))
        basis = torch.linalg.qr(start)[0]  # (D, K)
        for _ in range(3):
            basis = torch.linalg.qr(centred.T @ (centred @ basis))[0]
        std = (centred @ basis).std(0, correction=0)  # (K,)
        return cls(modality, mean, basis / (std + 1e-2 * std.max() + 1e-12).sqrt())

    def cells(self, features: Features) -> np.ndarray:
        """The patches `(gh, gw, K)` float32 of unit length of one image's features."""
        patches = pooled(features, self.modality)[0].cpu()  # (gh, gw, D)
        found = (patches - self.mean) @ self.matrix
        return np.asarray(found / found.norm(dim=-1, keepdim=True).clamp_min(1e-12))


def pooled(features: Features, modality: str) -> Tensor:
    """Patches `(B, gh, gw, D)` float32 of a modality, on a grid of at most `CELLS` a side."""
    patches = features[modality].detach().float()  # (B, h, w, D)
    return averaged_to(patches, (min(CELLS, patches.shape[1]), min(CELLS, patches.shape[2])))


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
        ys, xs = np.nonzero(inside)
        top, left = max(0, ys.min() - reach), max(0, xs.min() - reach)
        bottom, right = min(grid[0], ys.max() + 1 + reach), min(grid[1], xs.max() + 1 + reach)
        step = max(1, math.ceil(math.sqrt((bottom - top) * (right - left) / most)))
        rows, columns = np.mgrid[top:bottom:step, left:right:step].reshape(2, -1)
        near = ndimage.binary_dilation(inside, np.ones((3, 3), dtype=bool))
        weights = np.where(inside[rows, columns], 0.1, np.where(near[rows, columns], 0.4, 1.0))
        centre = (round(float(ys.mean())), round(float(xs.mean())))
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


@dataclass(frozen=True, eq=False)
class ReferenceImages:
    """The kept normal images of a category; `least` is the similarity from which on a place counts as known."""

    directions: Directions
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
        directions = Directions.fit(modality, rows)
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
        directions = Directions(facts["modality"], tensors["mean"], tensors["matrix"])
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
