"""A generated image set whose defects are a wrong co-occurrence: every part is right, their number or pairing is not.

Logical anomalies in the sense of Bergmann et al., "Beyond Dents and Scratches", IJCV 130, 2022, at their simplest. A
good image shows two hexagonal or two square nuts, anywhere, turned at random; a defective one shows one of each
(`wrong_pair`), or one or three of a kind (`wrong_count`). Nuts never lie so close that a small window would see two.
Good and defective images are drawn by the same function from the same distributions of place, turn, colour, light and
background; only the kinds of the nuts that are laid down differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from blemish.data.category import Category
from blemish.data.layouts.mvtec import GOOD
from blemish.errors import SettingsError
from blemish.research.drawn_parts import (
    BRASS,
    HEXAGON,
    SQUARE,
    ZINC,
    background,
    nut,
    painted,
    photographed,
    write_png,
)
from blemish.types import Sample
from blemish.utils.paths import check_empty

NAME = "cooccurrence"
MASK_ENDING = "_mask"  # of the name of a mask, as in MVTec AD
KINDS = ("wrong_count", "wrong_pair")
COLOURS = {HEXAGON: BRASS, SQUARE: ZINC}
RADIUS = 0.105  # of a nut's inscribed circle, in image sides
APART = 0.4  # least distance between the middles of two nuts, in image sides
MARGIN = 0.16  # least distance of a nut's middle from the edge, in image sides
LEAST_SIZE = 64  # pixels; below, a nut is a blot

_SPLITS = {("train", GOOD): 0, ("test", GOOD): 1, ("test", KINDS[0]): 2, ("test", KINDS[1]): 3}


def cooccurrence(seed: int = 0, train: int = 30, good: int = 20, defective: int = 20, size: int = 256) -> Category:
    """The set in memory: `train` and `good` good images, `defective` of each kind, `(size, size, 3)` uint8.

    Masks cover every nut of a defective image: none of them alone is the wrong one. An image depends on `seed`, its
    place in its list and `size` alone, so that a larger set begins like a smaller one. Raises SettingsError.
    """
    fitted_on = _samples(seed, "train", GOOD, train, size)
    tested = [_samples(seed, "test", kind, good if kind == GOOD else defective, size) for kind in (GOOD, *KINDS)]
    return Category(list(fitted_on), [sample for kind in tested for sample in kind])


def generate_cooccurrence(
    folder: str | Path, seed: int = 0, train: int = 30, good: int = 20, defective: int = 20, size: int = 256
) -> Path:
    """Write the set of `cooccurrence` to `folder` as one category in the MVTec AD layout; gives back its path.

    Raises DatasetError when there is something in `folder` already, which would mix with the new images.
    """
    folder = Path(folder)
    check_empty(folder)
    made = cooccurrence(seed, train, good, defective, size)
    counts: dict[tuple[str, str], int] = {}
    for sample in [*made.train, *made.test]:
        kind = sample.defect or GOOD
        number = counts[sample.split, kind] = counts.get((sample.split, kind), -1) + 1
        write_png(folder / sample.split / kind / f"{number:03}.png", np.asarray(sample.image))
        if sample.mask is not None:
            mask = np.asarray(sample.mask).astype(np.uint8) * 255
            write_png(folder / "ground_truth" / kind / f"{number:03}{MASK_ENDING}.png", mask)
    return folder


def nuts_of(kind: str, index: int) -> tuple[int, ...]:
    """Which nuts the image number `index` of a kind shows, as numbers of corners."""
    one, other = (HEXAGON, SQUARE) if index % 2 == 0 else (SQUARE, HEXAGON)
    if kind == "wrong_pair":
        return (one, other)
    if kind == "wrong_count":
        return (one,) * (1 if index // 2 % 2 == 0 else 3)
    return (one, one)


def draw_nuts(nuts: tuple[int, ...], size: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """These nuts on a mottled background `(size, size, 3)` uint8, and where they lie, `(size, size)` bool."""
    image = background(size, random)
    covered = np.zeros((size, size), bool)
    y, x = np.mgrid[:size, :size] + 0.5
    for corners, (middle_y, middle_x) in zip(nuts, _places(len(nuts), random), strict=True):
        turned = random.uniform(0, 2 * math.pi)
        drawn = nut(x - middle_x * size, y - middle_y * size, corners, RADIUS * size, turned)
        image = painted(image, drawn, np.array(COLOURS[corners]) * random.uniform(0.95, 1.05), size)
        covered |= drawn.mask
    return photographed(image, size, random), covered


def _samples(seed: int, split: str, kind: str, count: int, size: int) -> Iterator[Sample]:
    if count < 1:
        raise SettingsError("at least 1 picture of each kind", str(count), "raise it")
    if size < LEAST_SIZE or seed < 0:
        raise SettingsError(f"a seed ≥ 0 and a size ≥ {LEAST_SIZE} pixels", f"{seed} and {size}", "raise them")
    return (_sample(seed, split, kind, index, size) for index in range(count))


def _sample(seed: int, split: str, kind: str, index: int, size: int) -> Sample:
    random = np.random.default_rng((seed, _SPLITS[split, kind], index))
    image, covered = draw_nuts(nuts_of(kind, index), size, random)
    if kind == GOOD:
        return Sample(image, label=0, category=NAME, split=split)
    return Sample(image, label=1, mask=covered, category=NAME, defect=kind, split=split)


def _places(count: int, random: np.random.Generator) -> np.ndarray:
    """Middles `(count, 2)` in image sides: drawn evenly, all drawn again until none are too close."""
    while True:
        places = random.uniform(MARGIN, 1 - MARGIN, (count, 2))
        apart = np.linalg.norm(places[:, None] - places, axis=-1)[np.triu_indices(count, 1)]
        if not (apart < APART).any():
            return places
