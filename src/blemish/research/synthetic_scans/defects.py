"""Defects of a part: a change of its surface in shape alone, in colour alone, or in both, from faint to obvious.

A defect is drawn for one part: its size as a share of the part's area, its place on the part. Both are decided on a
coarse footprint of the part, never on a rendered image, so that a scene is the same at any resolution.

Sizes, depths and colours are chosen by eye after the kinds of defects of MVTec 3D-AD.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import distance_transform_edt

from blemish.research.synthetic_scans.fields import Noise, smoothstep
from blemish.research.synthetic_scans.surface import Colour, Part, Surface, blended

GEOMETRY = ("dent", "bump", "hole", "bend", "missing")
COLOUR = ("stain", "colour")
BOTH = ("contamination", "crack")
KINDS = (*GEOMETRY, *COLOUR, *BOTH)

MIN_SHARE, MAX_SHARE = 0.003, 0.08  # of the part's area
MIN_AREA = 12.0  # square millimetres: on a slim part a small share would be a speck
VISIBLE_HEIGHT = 0.4  # millimetres: five standard deviations of the measured depth
VISIBLE_COLOUR = 0.05  # of the whole range of a channel
_TRIES = 40
_HALF = 60  # millimetres: the footprint reaches this far from the middle, in steps of one

Defect = Callable[[np.ndarray, np.ndarray, Surface], Surface]
"""The surface of a damaged part at places (x, y), given that of the intact one there."""


@dataclass(frozen=True)
class Footprint:
    """A part on a grid of 1 mm: places `(n, n)`, its surface there, and each one's distance to the outline (mm)."""

    x: np.ndarray
    y: np.ndarray
    intact: Surface
    depth: np.ndarray

    @classmethod
    def of(cls, part: Part) -> Footprint:
        steps = np.arange(-_HALF, _HALF, dtype=np.float32) + 0.5
        x, y = (axis.copy() for axis in np.broadcast_arrays(steps[None, :], steps[:, None]))
        intact = part(x, y)
        return cls(x, y, intact, distance_transform_edt(intact.inside).astype(np.float32))

    @property
    def area(self) -> float:
        """Square millimetres."""
        return float(self.intact.inside.sum())

    def share(self, defect: Defect) -> float:
        """The share of the area that a defect visibly changes."""
        damaged = defect(self.x, self.y, self.intact)
        moved = np.abs(heights(damaged) - heights(self.intact)) > VISIBLE_HEIGHT
        dyed = np.abs(damaged.colour - self.intact.colour).max(-1) > VISIBLE_COLOUR
        return float(((moved | dyed) & self.intact.inside).sum()) / self.area

    def place(self, rng: np.random.Generator, least: float, most: float = math.inf) -> tuple[float, float]:
        """A place that lies between `least` and `most` millimetres inside the part, or the deepest if none does."""
        fit = np.argwhere((self.depth >= least) & (self.depth <= most))
        if not len(fit):
            fit = np.argwhere(self.depth >= 0.8 * self.depth.max())
        row, column = fit[int(rng.integers(len(fit)))]
        return float(self.x[row, column]), float(self.y[row, column])


def heights(surface: Surface) -> np.ndarray:
    """Millimetres above the background everywhere, 0 beside the part."""
    return np.where(surface.inside, surface.height, 0).astype(np.float32)


def draw_defect(kind: str, part: Part, rng: np.random.Generator) -> Defect:
    """A defect of this kind that visibly changes between 0.3 and 8 % of the part's area, and 12 mm² at least."""
    footprint = Footprint.of(part)
    least = max(MIN_SHARE, MIN_AREA / footprint.area)
    best, least_miss = None, math.inf
    for _ in range(_TRIES):
        area = math.exp(rng.uniform(math.log(least), math.log(MAX_SHARE))) * footprint.area
        defect = _DRAW[kind](footprint, area, rng)
        share = footprint.share(defect)
        if least <= share <= MAX_SHARE:
            return defect
        miss = abs(math.log(max(share, 1e-6) / math.sqrt(least * MAX_SHARE)))
        if miss < least_miss:
            best, least_miss = defect, miss
    assert best is not None
    return best


class Blob:
    """A round patch with an uneven outline: `reach(x, y)` is 0 in its middle, 1 on the outline, more outside."""

    def __init__(
        self, middle: tuple[float, float], area: float, rng: np.random.Generator, uneven: float = 0.12
    ) -> None:
        self.x, self.y = middle
        self.slim, self.angle = rng.uniform(0.55, 1.0), rng.uniform(0, math.pi)
        self.radius = math.sqrt(area / math.pi / self.slim)
        self.waves = [(k, rng.normal(0, uneven / math.sqrt(k)), rng.uniform(0, 2 * math.pi)) for k in (2, 3, 5)]

    def reach(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = x - self.x, y - self.y
        a = (x * math.cos(self.angle) + y * math.sin(self.angle)) / self.radius
        b = (y * math.cos(self.angle) - x * math.sin(self.angle)) / (self.radius * self.slim)
        turn = np.arctan2(b, a)
        swing = sum(size * np.cos(k * turn + phase) for k, size, phase in self.waves)
        return np.asarray(np.hypot(a, b) * (1 + swing))

    def cover(self, x: np.ndarray, y: np.ndarray, soft: float) -> np.ndarray:
        """1 inside, 0 outside, over a rim of `soft` millimetres."""
        return smoothstep((self.reach(x, y) - 1) * self.radius * math.sqrt(self.slim), soft)


def _radius(area: float) -> float:
    return math.sqrt(area / math.pi)


def _random_depth(rng: np.random.Generator, radius: float) -> float:
    """Millimetres, from ten to forty times the sensor's noise, less on small places."""
    return min(math.exp(rng.uniform(math.log(0.9), math.log(3.6))), 0.3 + 0.6 * radius)


def _dent(footprint: Footprint, area: float, rng: np.random.Generator, sign: float = -1.0) -> Defect:
    blob = Blob(footprint.place(rng, 0.6 * _radius(area)), 1.6 * area, rng)
    deep = sign * _random_depth(rng, _radius(area))

    def defect(x: np.ndarray, y: np.ndarray, intact: Surface) -> Surface:
        hollow = np.maximum(1 - blob.reach(x, y) ** 2, 0) ** 1.5
        return replace(intact, height=np.maximum(intact.height + deep * hollow, 0.15 * intact.height))

    return defect


def _bump(footprint: Footprint, area: float, rng: np.random.Generator) -> Defect:
    return _dent(footprint, area, rng, sign=1.0)


def _hole(footprint: Footprint, area: float, rng: np.random.Generator) -> Defect:
    blob = Blob(footprint.place(rng, 0.8 * _radius(area)), area, rng, uneven=0.06)

    def defect(x: np.ndarray, y: np.ndarray, intact: Surface) -> Surface:
        return replace(intact, inside=intact.inside & (blob.reach(x, y) > 1))

    return defect


def _bend(footprint: Footprint, area: float, rng: np.random.Generator) -> Defect:
    """The part beyond a line curls up; the line cuts off a little more than the area, as the rise starts gently."""
    turn, inside = rng.uniform(0, 2 * math.pi), footprint.intact.inside
    beyond = footprint.x * math.cos(turn) + footprint.y * math.sin(turn)
    line = float(np.quantile(beyond[inside], 1 - min(1.5 * area / footprint.area + 0.01, 0.5)))
    tip = max(float(beyond[inside].max()) - line, 1.0)
    lift = rng.uniform(1.5, 4.5)

    def defect(x: np.ndarray, y: np.ndarray, intact: Surface) -> Surface:
        past = np.maximum(x * math.cos(turn) + y * math.sin(turn) - line, 0) / tip
        return replace(intact, height=intact.height + lift * past**1.6)

    return defect


def _missing(footprint: Footprint, area: float, rng: np.random.Generator) -> Defect:
    """A piece has broken off the rim: a ragged bite around a place on it."""
    blob = Blob(footprint.place(rng, 0.5, 1.5), 1.9 * area, rng, uneven=0.10)
    ragged, rough = Noise(rng, 3.0), rng.uniform(0.03, 0.10)

    def defect(x: np.ndarray, y: np.ndarray, intact: Surface) -> Surface:
        return replace(intact, inside=intact.inside & (blob.reach(x, y) + rough * ragged(x, y) > 1))

    return defect


def _stain(footprint: Footprint, area: float, rng: np.random.Generator) -> Defect:
    """A stain: a cloudy patch, denser along its rim."""
    blob = Blob(footprint.place(rng, 0.5 * _radius(area)), 1.1 * area, rng, uneven=0.2)
    cloud, dense = Noise(rng, 4.0), rng.uniform(0.3, 0.75)
    dye = _contrasting_colour(
        rng, footprint, blob, ((0.20, 0.12, 0.07), (0.10, 0.10, 0.12), (0.42, 0.20, 0.10), (0.9, 0.9, 0.85))
    )

    def defect(x: np.ndarray, y: np.ndarray, intact: Surface) -> Surface:
        reach = blob.reach(x, y)
        rim = 0.25 * np.exp(-(((reach - 0.88) / 0.12) ** 2))
        share = blob.cover(x, y, 2.0) * np.clip(dense * (1 + 0.18 * cloud(x, y)) + rim, 0, 0.95)
        return replace(intact, colour=blended(intact.colour, dye, share))

    return defect


def _colour(footprint: Footprint, area: float, rng: np.random.Generator) -> Defect:
    """The right texture in a wrong colour, within a sharp outline."""
    blob = Blob(footprint.place(rng, 0.5 * _radius(area)), area, rng, uneven=0.08)
    hues = ((0.75, 0.25, 0.2), (0.2, 0.4, 0.75), (0.25, 0.6, 0.3), (0.85, 0.75, 0.25), (0.6, 0.3, 0.65))
    dye, strong = np.array(_contrasting_colour(rng, footprint, blob, hues), np.float32), rng.uniform(0.45, 0.95)

    def defect(x: np.ndarray, y: np.ndarray, intact: Surface) -> Surface:
        level = intact.colour.mean(-1, keepdims=True) / float(dye.mean())
        dyed = np.clip(level * dye, 0.01, 0.97)
        return replace(intact, colour=blended(intact.colour, dyed, strong * blob.cover(x, y, 0.6)))

    return defect


def _contamination(footprint: Footprint, area: float, rng: np.random.Generator) -> Defect:
    """A lump of something else sticks to the part: its own height, colour and gloss."""
    blob = Blob(footprint.place(rng, 0.7 * _radius(area)), area, rng, uneven=0.16)
    matter = ((0.25, 0.45, 0.8), (0.16, 0.13, 0.10), (0.93, 0.92, 0.88), (0.45, 0.75, 0.25), (0.75, 0.15, 0.35))
    hue = np.array(_contrasting_colour(rng, footprint, blob, matter), np.float32)
    tall, lumps, gloss = _random_depth(rng, _radius(area)), Noise(rng, 2.2), rng.uniform(0, 0.5)

    def defect(x: np.ndarray, y: np.ndarray, intact: Surface) -> Surface:
        cover, lump = blob.cover(x, y, 0.8), lumps(x, y)
        crown = np.sqrt(np.maximum(1 - np.minimum(blob.reach(x, y), 1) ** 2, 0))
        added = tall * np.clip(crown * (1 + 0.15 * lump), 0, 2) * cover
        own = hue * (1 + 0.10 * lump)[..., None]
        return Surface(
            intact.height + added.astype(np.float32),
            intact.inside,
            np.clip(blended(intact.colour, own, cover), 0.01, 0.97).astype(np.float32),
            (intact.gloss * (1 - cover) + gloss * cover).astype(np.float32),
        )

    return defect


def _crack(footprint: Footprint, area: float, rng: np.random.Generator) -> Defect:
    """A ragged, tapering groove that runs in from somewhere near the rim, dark at its bottom."""
    broad = rng.uniform(1.3, 2.4)
    steps = int(np.clip(area / broad / 4.0, 3, 14))
    line = np.array(_random_path(footprint, steps, 4.0, rng), np.float32)
    deep, dark = rng.uniform(0.8, 2.2), rng.uniform(0.45, 0.8)

    def defect(x: np.ndarray, y: np.ndarray, intact: Surface) -> Surface:
        away, at = _along_line(line, x, y)
        width = 0.5 * broad * (1 - 0.55 * at)
        gap = smoothstep(away - width, 0.5)
        valley = deep * (1 - 0.4 * at) * np.clip(1.6 * (1 - away / (width + 0.3)), 0, 1)
        height = np.maximum(intact.height - valley, 0.15 * intact.height)
        return replace(
            intact, height=height, colour=intact.colour * (1 - dark * gap)[..., None], gloss=intact.gloss * (1 - gap)
        )

    return defect


def _random_path(
    footprint: Footprint, steps: int, stride: float, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Vertices of a random walk over the part that starts near its rim; a step off the part turns back."""
    x, y = footprint.place(rng, 2.0, 6.0)
    heading, way = rng.uniform(0, 2 * math.pi), [(x, y)]
    for _ in range(steps):
        for _ in range(8):
            heading += rng.normal(0, 0.5)
            ahead = x + stride * math.cos(heading), y + stride * math.sin(heading)
            column, row = (int(np.clip(c + _HALF, 0, 2 * _HALF - 1)) for c in ahead)
            if footprint.depth[row, column] > 1:
                break
            heading += 1.2
        x, y = ahead
        way.append(ahead)
    return way


def _along_line(line: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance from a polyline `(P, 2)`, and the nearest place on it from 0 (its start) to 1."""
    nearest, at = np.full_like(x, np.inf), np.zeros_like(x)
    for number, ((ax, ay), (bx, by)) in enumerate(zip(line[:-1].tolist(), line[1:].tolist(), strict=True)):
        dx, dy = bx - ax, by - ay
        t = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
        away = np.hypot(x - ax - t * dx, y - ay - t * dy)
        closer = away < nearest
        nearest = np.where(closer, away, nearest)
        at = np.where(closer, (number + t) / (len(line) - 1), at)
    return nearest, at


def _contrasting_colour(
    rng: np.random.Generator, footprint: Footprint, blob: Blob, colours: tuple[Colour, ...]
) -> Colour:
    """One of the colours that differs from the part's at the blob's centre."""
    nearest = np.argmin(np.hypot(footprint.x - blob.x, footprint.y - blob.y))
    here = footprint.intact.colour.reshape(-1, 3)[nearest]
    unlike = [c for c in colours if np.abs(np.array(c) - here).max() > 0.25]
    options = unlike or list(colours)
    return options[int(rng.integers(len(options)))]


_DRAW: dict[str, Callable[[Footprint, float, np.random.Generator], Defect]] = {
    "dent": _dent,
    "bump": _bump,
    "hole": _hole,
    "bend": _bend,
    "missing": _missing,
    "stain": _stain,
    "colour": _colour,
    "contamination": _contamination,
    "crack": _crack,
}
