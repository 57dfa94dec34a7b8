"""Synthetic anomalies whose attributes are known, to measure how often the reasons for an alarm are right.

Each is drawn on a normal image where its part allows it: darker or brighter by a step, of another hue, a line at an
angle, a hole that shows the background, a piece missing at the rim, something extra beside the part, rough, smooth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy import ndimage

from blemish.numeric.cielab import lab_of
from blemish.preprocessing.foreground import find_part
from blemish.scoring.anomaly_map import centroid

LEAST_CONTRAST = 12.0  # in CIELAB, between part and background, for a hole to be seen


@dataclass(frozen=True, eq=False)
class KnownDefect:
    """An `image` `(H, W, 3)` uint8 with a defect at `mask` `(H, W)` bool, and what is true of it.

    `nouns` are the keys that are right, `words` keys of differences of which the first must be said, `degrees` the
    direction of a line. `delta` (3,) is the mean difference in CIELAB inside the mask.
    """

    image: np.ndarray
    mask: np.ndarray
    nouns: frozenset[str]
    words: frozenset[str]
    delta: np.ndarray
    degrees: float | None = None

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the mask's centre of mass, in pixels."""
        x, y = centroid(self.mask)
        return x + 0.5, y + 0.5


@dataclass(frozen=True, eq=False)
class Stage:
    """A normal image, its `part` `(H, W)` bool (all of it, where it shows none), and whether there is a background."""

    image: np.ndarray
    part: np.ndarray
    has_background: bool

    @classmethod
    def of(cls, image: np.ndarray) -> Stage:
        """The part of an image `(H, W, 3)` uint8."""
        found = find_part(image)
        if found is None:
            return cls(image, np.ones(image.shape[:2], dtype=bool), False)
        height, width = image.shape[:2]
        rows = np.minimum((np.arange(height) / found.shrink).astype(int), found.mask.shape[0] - 1)
        columns = np.minimum((np.arange(width) / found.shrink).astype(int), found.mask.shape[1] - 1)
        return cls(image, found.mask[rows][:, columns], True)

    @property
    def unit(self) -> float:
        """The side in pixels of a square as large as the part."""
        return math.sqrt(float(self.part.sum()))

    def inside(self, radius: float, random: np.random.Generator) -> tuple[float, float] | None:
        """A place (x, y) on the part at least `radius` pixels from its outline and the image's edge."""
        depth = ndimage.distance_transform_edt(np.pad(self.part, 1))[1:-1, 1:-1]
        return _drawn(depth > radius, random)


def _drawn(where: np.ndarray, random: np.random.Generator) -> tuple[float, float] | None:
    ys, xs = np.nonzero(where)
    if not len(ys):
        return None
    at = int(random.integers(len(ys)))
    return float(xs[at]), float(ys[at])


def _blob(
    shape: tuple[int, ...], centre: tuple[float, float], radius: float, random: np.random.Generator
) -> np.ndarray:
    """A roundish area `(H, W)` bool: an ellipse with axes up to 1.3 : 1."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    angle, stretch = random.uniform(0, math.pi), math.sqrt(random.uniform(1.0, 1.3))
    dx, dy = x - centre[0], y - centre[1]
    along, across = math.cos(angle) * dx + math.sin(angle) * dy, -math.sin(angle) * dx + math.cos(angle) * dy
    found: np.ndarray = np.hypot(along / stretch, across * stretch) <= radius
    return found


def _made(
    stage: Stage,
    mask: np.ndarray,
    altered: np.ndarray,
    nouns: set[str],
    words: set[str],
    degrees: float | None = None,
) -> KnownDefect:
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 0.6)[..., None]
    image = np.rint(stage.image * (1 - soft) + altered * soft).clip(0, 255).astype(np.uint8)
    delta = lab_of(image[mask]).mean(axis=0) - lab_of(stage.image[mask]).mean(axis=0)
    return KnownDefect(image, mask, frozenset(nouns), frozenset(words), delta, degrees)


def _step(stage: Stage, random: np.random.Generator, sign: int) -> KnownDefect | None:
    radius = max(3.0, stage.unit * random.uniform(0.03, 0.1))
    place = stage.inside(1.3 * radius, random)
    if place is None:
        return None
    mask = _blob(stage.part.shape, place, radius, random)
    altered = stage.image + sign * random.uniform(30, 70)
    names = ("dark_spot", "dark_area", "darker") if sign < 0 else ("bright_spot", "bright_area", "brighter")
    return _made(stage, mask, altered, {*names[:2]}, {names[2]})


def darker(stage: Stage, random: np.random.Generator) -> KnownDefect | None:
    """Darker by 30 to 70 levels."""
    return _step(stage, random, -1)


def brighter(stage: Stage, random: np.random.Generator) -> KnownDefect | None:
    """Brighter by 30 to 70 levels."""
    return _step(stage, random, +1)


def discoloured(stage: Stage, random: np.random.Generator) -> KnownDefect | None:
    """Of another hue, hardly darker or brighter: levels of red, green and blue move against one another."""
    radius = max(3.0, stage.unit * random.uniform(0.04, 0.12))
    place = stage.inside(1.3 * radius, random)
    if place is None:
        return None
    mask = _blob(stage.part.shape, place, radius, random)
    tint, word = (
        ((45, -12, -12), "redder"),
        ((-35, 16, -20), "greener"),
        ((14, 10, -60), "yellower"),
        ((-10, -6, 60), "bluer"),
    )[int(random.integers(4))]
    return _made(stage, mask, stage.image + np.array(tint, float), {"discoloured"}, {word})


def line(stage: Stage, random: np.random.Generator) -> KnownDefect | None:
    """A straight line, darker or brighter by 50 to 90 levels, at any angle."""
    length, width = stage.unit * random.uniform(0.15, 0.35), max(1.2, stage.unit * random.uniform(0.006, 0.012))
    place = stage.inside(0.5 * length, random)
    if place is None:
        return None
    angle = random.uniform(0, math.pi)
    y, x = np.mgrid[: stage.part.shape[0], : stage.part.shape[1]]
    dx, dy = x - place[0], y - place[1]
    along, across = math.cos(angle) * dx - math.sin(angle) * dy, math.sin(angle) * dx + math.cos(angle) * dy
    mask = (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2 + 0.5)
    sign = -1 if stage.image[mask].mean() > 128 else 1
    words = {"darker" if sign < 0 else "brighter"}
    return _made(stage, mask, stage.image + sign * random.uniform(50, 90), {"line"}, words, math.degrees(angle))


def _background(stage: Stage, random: np.random.Generator) -> np.ndarray | None:
    """Background `(H, W, 3)` in place of all: its colour around the part, and its grain."""
    if not stage.has_background:
        return None
    bare = ~ndimage.binary_dilation(stage.part, iterations=4)
    if bare.sum() < 100:
        return None
    colours = stage.image[bare].astype(float)
    usual = np.median(colours, axis=0)
    if np.linalg.norm(lab_of(usual.astype(np.uint8)) - lab_of(stage.image[stage.part]).mean(axis=0)) < LEAST_CONTRAST:
        return None
    return np.asarray(usual + random.normal(0, min(3.0, float(colours.std())), stage.image.shape))


def _stands_out(part: np.ndarray, ground: np.ndarray) -> bool:
    """Whether pixels `(N, 3)` of the part clearly differ in colour from those of the background."""
    levels = ground.clip(0, 255).astype(np.uint8)
    return float(np.linalg.norm(lab_of(part).mean(axis=0) - lab_of(levels).mean(axis=0))) >= LEAST_CONTRAST


def hole(stage: Stage, random: np.random.Generator) -> KnownDefect | None:
    """A hole inside the part that shows the background."""
    radius = max(4.0, stage.unit * random.uniform(0.04, 0.1))
    place, ground = stage.inside(2.5 * radius, random), _background(stage, random)
    if place is None or ground is None:
        return None
    mask = _blob(stage.part.shape, place, radius, random)
    if not _stands_out(stage.image[mask], ground[mask]):
        return None
    return _made(stage, mask, ground, {"hole", "missing"}, set())


def missing(stage: Stage, random: np.random.Generator) -> KnownDefect | None:
    """A bite out of the part's outline."""
    radius, ground = max(5.0, stage.unit * random.uniform(0.08, 0.16)), _background(stage, random)
    rim = stage.part & ~ndimage.binary_erosion(stage.part, iterations=2)
    place = _drawn(rim, random)
    if place is None or ground is None:
        return None
    mask = _blob(stage.part.shape, place, radius, random) & stage.part
    if not _stands_out(stage.image[mask], ground[mask]):
        return None
    return _made(stage, mask, ground, {"missing", "hole"}, set())


def extra(stage: Stage, random: np.random.Generator) -> KnownDefect | None:
    """A blob of another colour on the background beside the part."""
    radius = max(4.0, stage.unit * random.uniform(0.04, 0.09))
    far = ndimage.distance_transform_edt(np.pad(~stage.part, 1, constant_values=False))[1:-1, 1:-1]
    near = ndimage.distance_transform_edt(~stage.part) < 3 * radius
    place, ground = _drawn((far > 1.4 * radius) & near, random), _background(stage, random)
    if place is None or ground is None:
        return None
    mask = _blob(stage.part.shape, place, radius, random)
    colour = np.where(np.median(ground, axis=(0, 1)) > 128, -1, 1) * random.uniform(60, 110, 3)
    return _made(stage, mask, ground + colour, {"extra"}, set())


def rough(stage: Stage, random: np.random.Generator) -> KnownDefect | None:
    """The same colour with a coarse grain."""
    radius = max(6.0, stage.unit * random.uniform(0.06, 0.12))
    place = stage.inside(1.3 * radius, random)
    if place is None:
        return None
    mask = _blob(stage.part.shape, place, radius, random)
    grain = ndimage.gaussian_filter(random.standard_normal(stage.part.shape), 0.8)
    grain *= 30 / grain.std()
    return _made(stage, mask, stage.image + grain[..., None], {"rough"}, {"rougher"})


KNOWN_DEFECTS: Mapping[str, Callable[[Stage, np.random.Generator], KnownDefect | None]] = MappingProxyType(
    {
        "darker": darker,
        "brighter": brighter,
        "discoloured": discoloured,
        "line": line,
        "hole": hole,
        "missing": missing,
        "extra": extra,
        "rough": rough,
    }
)
