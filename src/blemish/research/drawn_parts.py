"""Small parts drawn on a mottled background: nuts, rings and pins, each known to the pixel. numpy and Pillow only.

Coordinates of a part are pixels from its middle; lengths are in image sides. A part is a function `outside(x, y)` ≥ 0
beyond its outline and < 0 within, so that its mask is exact and its edge smooth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HEXAGON, SQUARE = 6, 4  # corners of the two kinds of nut
BRASS, ZINC, STEEL = (176.0, 148.0, 92.0), (142.0, 150.0, 160.0), (96.0, 100.0, 112.0)
SHADOW = 0.4  # of the light that a part takes from the background around it


@dataclass(frozen=True, eq=False)
class Outline:
    """`outside` `(H, W)`: how many pixels each pixel lies beyond a part's edge; `away` `(H, W)`: from its middle."""

    outside: np.ndarray
    away: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """The pixels of the part, `(H, W)` bool."""
        return self.outside < 0


def nut(x: np.ndarray, y: np.ndarray, corners: int, radius: float, turned: float) -> Outline:
    """A nut of so many corners whose inscribed circle has a `radius` in pixels, with a hole of half of it."""
    away = np.hypot(x, y)
    sides = turned + 2 * math.pi * np.arange(corners) / corners
    edge = np.max([x * math.cos(a) + y * math.sin(a) for a in sides], axis=0) - radius
    return Outline(np.maximum(edge, 0.5 * radius - away), away)


def ring(x: np.ndarray, y: np.ndarray, radius: float) -> Outline:
    """A washer of an outer `radius` in pixels, its hole .55 of it."""
    away = np.hypot(x, y)
    return Outline(np.maximum(away - radius, 0.55 * radius - away), away)


def pin(x: np.ndarray, y: np.ndarray, length: float, width: float, turned: float) -> Outline:
    """A round-ended bar of `length` and `width` in pixels, turned by an angle from the horizontal."""
    along, across = x * math.cos(turned) + y * math.sin(turned), y * math.cos(turned) - x * math.sin(turned)
    beyond = np.maximum(np.abs(along) - (length - width) / 2, 0)
    return Outline(np.hypot(beyond, across) - width / 2, np.abs(across))


def painted(image: np.ndarray, part: Outline, colour: np.ndarray, size: int) -> np.ndarray:
    """`image` `(size, size, 3)` float64 with the part, its bevel and its shadow on it."""
    shadow = smooth(part.outside - 0.008 * size, 0.03 * size)
    body = smooth(part.outside, 1.0)
    bevel = 0.75 + 0.25 * np.clip(-part.outside / (0.02 * size), 0, 1)
    rings = 1 + 0.05 * np.sin(part.away / size * 2 * math.pi * 45)
    image = image * (1 - SHADOW * shadow[..., None])
    image += body[..., None] * ((bevel * rings)[..., None] * colour - image)
    return image


def photographed(image: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """The scene `(size, size, 3)` under a lamp, with noise, as uint8."""
    lit = image * light(size, random)[..., None] + random.normal(0, 2.5, image.shape)
    return lit.clip(0, 255).astype(np.uint8)


def smooth(outside: np.ndarray, width: float) -> np.ndarray:
    """1 inside, 0 outside, falling over `width` pixels around the edge."""
    return np.clip(0.5 - outside / width, 0, 1)


def background(size: int, random: np.random.Generator) -> np.ndarray:
    """A grey background `(size, size, 3)` with coarse and fine mottling."""
    mottled = 4.0 * random_field(size, 12, random) + 4.0 * random_field(size, 48, random)
    return (105 + random.uniform(-3, 3) + mottled)[..., None] * np.array((1.0, 0.99, 0.96))


def light(size: int, random: np.random.Generator) -> np.ndarray:
    """Gain `(size, size)` of a lamp: brighter or darker as a whole, and falling off to one side."""
    y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
    angle = random.uniform(0, 2 * math.pi)
    slope = random.uniform(0, 0.12) * (math.cos(angle) * x + math.sin(angle) * y)
    return np.asarray(random.uniform(0.94, 1.06) * (1 + slope))


def random_field(size: int, cells: int, random: np.random.Generator) -> np.ndarray:
    """A smooth random field `(size, size)` of `cells` knots a side, about normal."""
    knots = Image.fromarray(random.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(knots.resize((size, size), Image.Resampling.BICUBIC))


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Save pixels `(H, W)` or `(H, W, 3)` uint8, in folders that are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def union(masks: Iterable[np.ndarray], size: int) -> np.ndarray:
    """All of the masks `(size, size)` bool together."""
    return np.logical_or.reduce([np.zeros((size, size), bool), *masks])
