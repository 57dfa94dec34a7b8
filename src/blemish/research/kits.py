"""A generated image set of kits: every part is right by itself; how many there are, where, and of which kind is not.

Logical anomalies in the sense of Bergmann et al., "Beyond Dents and Scratches", IJCV 130, 2022. A good image shows a
tray with a rail in its middle: on the left two nuts, on the right two rings and, below them, a pin. Nuts and rings are
of one kind, hexagonal and brass or square and zinc; all lie anywhere in their area, turned at random. Anomalous ones:

    count        a nut more, or one fewer
    missing      no pin
    extra        a second pin, or a third ring
    wrong_place  a nut and a ring have changed sides, or the pin lies above the rings
    wrong_pair   nuts of one kind beside rings of the other
    scratch      a structural defect, for comparison: a scratch across a nut or a ring

Parts never lie so close that a small window would see two. Good and anomalous images are drawn by one function from the
same distributions of place, turn, colour, light and background; only what is laid down, and where, differs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blemish.data.category import Category
from blemish.errors import SettingsError
from blemish.research.drawn_parts import (
    BRASS,
    HEXAGON,
    SQUARE,
    STEEL,
    ZINC,
    Outline,
    background,
    nut,
    painted,
    photographed,
    pin,
    ring,
    smooth,
    union,
    write_png,
)
from blemish.types import Sample, Saturation
from blemish.utils.paths import check_empty

NAME, GOOD = "kits", "good"
LOGICAL = ("count", "missing", "extra", "wrong_place", "wrong_pair")
STRUCTURAL = ("scratch",)
KINDS = (*LOGICAL, *STRUCTURAL)
LEAST_SIZE = 64  # pixels; below, a nut is a blot

# In image sides, chosen by eye.
NUT_RADIUS, RING_RADIUS, PIN_LENGTH, PIN_WIDTH = 0.07, 0.06, 0.26, 0.04
APART = 0.21  # least distance between the middles of two parts
RAIL = 0.02  # width of the rail
TILT = math.radians(15)  # of a pin, at most
SPLITS = {("train", GOOD): 0, ("test", GOOD): 1} | {("test", kind): i for i, kind in enumerate(KINDS, start=2)}


@dataclass(frozen=True)
class Area:
    """Where the middle of a part may lie: from `low` to `high` `(y, x)`, in image sides."""

    low: tuple[float, float]
    high: tuple[float, float]


LEFT, RIGHT = Area((0.11, 0.11), (0.89, 0.38)), Area((0.11, 0.61), (0.58, 0.89))
BELOW, ABOVE = Area((0.80, 0.67), (0.91, 0.83)), Area((0.09, 0.67), (0.16, 0.83))
FREED = Area((0.36, 0.61), (0.89, 0.89))  # of rings, when the pin lies above them


@dataclass(frozen=True)
class Part:
    """One part to lay down: "hexagon", "square", "brass", "zinc" (rings) or "pin", where, and if it is wrong."""

    kind: str
    area: Area
    is_wrong: bool = False


def kits(
    seed: int = 0,
    train: int = 30,
    good: int = 20,
    defective: int = 20,
    size: int = 256,
    kinds: Sequence[str] = KINDS,
) -> Category:
    """The set in memory: `train` and `good` good images, `defective` of each of the `kinds`, `(size, size, 3)` uint8.

    A mask marks what is wrong; where a part is missing, all of the area where it may lie. `saturations` of an anomalous
    sample says how many of these pixels are enough: those of the parts in question. An image depends on `seed`, its
    place in its list and `size` alone, so that a larger set begins like a smaller one. Raises SettingsError.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or min(train, good, defective) < 1 or size < LEAST_SIZE or seed < 0:
        raise SettingsError(
            f"kinds among {', '.join(KINDS)}, 1 or more pictures of each, a seed ≥ 0 and a size ≥ {LEAST_SIZE} pixels",
            f"{', '.join(unknown) or 'no unknown kind'}, {train}, {good} and {defective} pictures, {seed} and {size}",
            "correct them",
        )
    tested = [(GOOD, good), *((kind, defective) for kind in kinds)]
    return Category(
        list(_samples(seed, "train", GOOD, train, size)),
        [sample for kind, count in tested for sample in _samples(seed, "test", kind, count, size)],
    )


def generate_kits(
    folder: str | Path,
    seed: int = 0,
    train: int = 30,
    good: int = 20,
    defective: int = 20,
    size: int = 256,
    kinds: Sequence[str] = KINDS,
) -> Path:
    """Write the set of `kits` to `folder` as one category in the layout of MVTec LOCO AD; gives back its path.

    Raises DatasetError when there is something in `folder` already, which would mix with the new images.
    """
    folder = Path(folder)
    check_empty(folder)
    made = kits(seed, train, good, defective, size, kinds)
    counts: dict[tuple[str, str], int] = {}
    config: dict[int, dict[str, object]] = {}
    for sample in [*made.train, *made.test]:
        kind = "structural_anomalies" if sample.defect in STRUCTURAL else "logical_anomalies"
        kind = kind if sample.label else GOOD
        number = counts[sample.split, kind] = counts.get((sample.split, kind), -1) + 1
        write_png(folder / sample.split / kind / f"{number:03}.png", np.asarray(sample.image))
        if sample.mask is not None:
            write_png(folder / "ground_truth" / kind / f"{number:03}" / "000.png", np.asarray(sample.mask))
            config |= {value: _config_entry(value, sample) for value in sample.saturations}
    text = json.dumps([config[value] for value in sorted(config)], indent=2)
    (folder / "defects_config.json").write_text(text, encoding="utf-8")
    return folder


def parts_of(kind: str, index: int) -> list[Part]:
    """What the image number `index` of a kind shows."""
    own, other = (("hexagon", "brass"), ("square", "zinc"))[:: 1 if index % 2 == 0 else -1]
    turn = index // 2 % 2  # which of a kind's two versions
    nuts, rings = [Part(own[0], LEFT)] * 2, [Part(own[1], RIGHT)] * 2
    pins = [Part("pin", BELOW)]
    if kind == "count":
        nuts = [Part(own[0], LEFT, is_wrong=turn == 1)] * (1 if turn == 0 else 3)
    elif kind == "missing":
        pins = []
    elif kind == "extra" and turn == 0:
        pins = [Part("pin", BELOW, True), Part("pin", Area((0.66, 0.67), (0.70, 0.83)), True)]
        rings = [Part(own[1], Area(RIGHT.low, (0.52, RIGHT.high[1])))] * 2
    elif kind == "extra":
        rings = [Part(own[1], RIGHT, True)] * 3
    elif kind == "wrong_place" and turn == 0:
        nuts = [Part(own[0], LEFT), Part(own[0], RIGHT, True)]
        rings = [Part(own[1], RIGHT), Part(own[1], LEFT, True)]
    elif kind == "wrong_place":
        rings, pins = [Part(own[1], FREED)] * 2, [Part("pin", ABOVE, True)]
    elif kind == "wrong_pair":
        rings = [Part(other[1], RIGHT, True)] * 2
    elif kind == "scratch":
        chosen = nuts if turn == 0 else rings
        chosen[0] = Part(chosen[0].kind, chosen[0].area, True)
    return [*nuts, *rings, *pins]


def draw_kit(kind: str, index: int, size: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """One image `(size, size, 3)` uint8, its mask `(size, size)` bool, and its saturation in pixels (0: a good one)."""
    parts = parts_of(kind, index)
    middles = _middles(parts, random)
    image = _rail(background(size, random), size, random)
    wrong = []
    y, x = np.mgrid[:size, :size] + 0.5
    for part, (middle_y, middle_x) in zip(parts, middles, strict=True):
        outline, colour = _outline(part.kind, x - middle_x * size, y - middle_y * size, size, random)
        image = painted(image, outline, colour * random.uniform(0.95, 1.05), size)
        if part.is_wrong and kind == "scratch":
            image, mark = _scratched(image, x - middle_x * size, y - middle_y * size, outline, size, random)
            wrong.append(mark)
        elif part.is_wrong:
            wrong.append(outline.mask)
    if kind == "missing":
        return photographed(image, size, random), _reach(BELOW, PIN_LENGTH / 2, size), _least_pin(size)
    if kind == "count" and not wrong:
        return photographed(image, size, random), _reach(LEFT, NUT_RADIUS, size), _least_nut(size)
    mask = union(wrong, size)
    # Of several parts of which one is too many any one will do; of those in the wrong place or of the wrong kind all.
    share = 1 / len(wrong) if kind in ("count", "extra") else 1.0
    return photographed(image, size, random), mask, float(share * mask.sum())


def _samples(seed: int, split: str, kind: str, count: int, size: int) -> Iterator[Sample]:
    for index in range(count):
        random = np.random.default_rng((seed, SPLITS[split, kind], index))
        image, mask, saturation = draw_kit(kind, index, size, random)
        if kind == GOOD:
            yield Sample(image, label=0, category=NAME, split=split)
            continue
        value = 250 - 2 * KINDS.index(kind) - index // 2 % 2  # of this kind and version, as in MVTec LOCO AD
        yield Sample(
            image,
            label=1,
            mask=mask.astype(np.uint8) * value,
            category=NAME,
            defect=kind,
            split=split,
            saturations={value: _saturation(kind, index, size, saturation, mask)},
        )


def _saturation(kind: str, index: int, size: int, pixels: float, mask: np.ndarray) -> Saturation:
    """The same for all images of a kind and version: a share of the mask, or the size of what is missing."""
    is_gone = kind == "missing" or (kind == "count" and index // 2 % 2 == 0)
    return Saturation(pixels) if is_gone else Saturation(round(float(pixels / mask.sum()), 6), is_relative=True)


def _config_entry(value: int, sample: Sample) -> dict[str, object]:
    saturation = sample.saturations[value]
    return {
        "defect_name": f"{sample.defect}_{(250 - value) % 2 + 1}",
        "pixel_value": value,
        "saturation_threshold": saturation.amount,
        "relative_saturation": saturation.is_relative,
    }


def _middles(parts: Sequence[Part], random: np.random.Generator) -> np.ndarray:
    """Middles `(count, 2)` (y, x) in image sides, each in its area: all drawn again until none are too close.

    Pins are longer than they are wide: below one another they may be nearer.
    """
    low, high = (np.array([getattr(part.area, end) for part in parts]) for end in ("low", "high"))
    are_pins = np.array([part.kind == "pin" for part in parts])
    either = np.triu_indices(len(parts), 1)
    least = np.where(are_pins[either[0]] & are_pins[either[1]], APART / 2, APART)
    while True:
        places = random.uniform(low, high)
        if not (np.linalg.norm(places[either[0]] - places[either[1]], axis=-1) < least).any():
            return places


def _outline(
    kind: str, x: np.ndarray, y: np.ndarray, size: int, random: np.random.Generator
) -> tuple[Outline, np.ndarray]:
    """A part's outline around its middle, turned at random, and its colour `(3,)`."""
    if kind in ("hexagon", "square"):
        corners, colour = (HEXAGON, BRASS) if kind == "hexagon" else (SQUARE, ZINC)
        return nut(x, y, corners, NUT_RADIUS * size, random.uniform(0, 2 * math.pi)), np.array(colour)
    if kind == "pin":
        return pin(x, y, PIN_LENGTH * size, PIN_WIDTH * size, random.uniform(-TILT, TILT)), np.array(STEEL)
    return ring(x, y, RING_RADIUS * size), np.array(BRASS if kind == "brass" else ZINC)


def _rail(image: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """The background `(size, size, 3)` with the rail that parts the tray."""
    away = np.abs((np.arange(size) + 0.5) / size - random.uniform(0.49, 0.51)) * size  # (size,) pixels
    on = smooth(away - RAIL / 2 * size, 1.0)[None, :, None]
    return image + on * (np.array(STEEL) * (0.8 + 0.3 * np.cos(away / (RAIL * size)))[None, :, None] - image)


def _scratched(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, part: Outline, size: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The image with a dark scratch across a part, and the scratch's mask `(size, size)` bool."""
    angle, offset = random.uniform(0, math.pi), random.choice((-1, 1)) * random.uniform(0.6, 0.75) * RING_RADIUS * size
    across = np.abs(x * math.cos(angle) + y * math.sin(angle) - offset)
    on = smooth(np.maximum(across - 0.006 * size, part.outside), 1.0)  # (size, size)
    return image * (1 - 0.6 * on[..., None]), on > 0.5


def _reach(area: Area, margin: float, size: int) -> np.ndarray:
    """All pixels `(size, size)` bool within `margin` image sides of `area`: those that a part may cover."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    inside = [
        (low - margin <= values) & (values <= high + margin)
        for values, low, high in zip((y, x), area.low, area.high, strict=True)
    ]
    return np.asarray(inside[0] & inside[1])


def _least_pin(size: int) -> float:
    """The pixels that a pin covers."""
    return ((PIN_LENGTH - PIN_WIDTH) * PIN_WIDTH + math.pi / 4 * PIN_WIDTH**2) * size**2


def _least_nut(size: int) -> float:
    """The pixels that a hexagonal nut covers, of both kinds the smaller one."""
    return (2 * math.sqrt(3) - math.pi / 4) * NUT_RADIUS**2 * size**2
