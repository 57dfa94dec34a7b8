"""The generated set: which scan lies where, each drawn from its seed, class, split, kind and number alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from blemish.data.category import Category
from blemish.errors import SettingsError
from blemish.research.synthetic_scans import defects, machined, natural
from blemish.research.synthetic_scans.scene import Rendering, Scene, pooled
from blemish.research.synthetic_scans.sensor import Sensor
from blemish.research.synthetic_scans.surface import Part
from blemish.types import Sample
from blemish.utils.validation import is_whole

GOOD = "good"
SPLITS = ("train", "validation", "test")
CLASSES: dict[str, Callable[[np.random.Generator], Part]] = {
    "washer": machined.washer,
    "biscuit": natural.biscuit,
    "bolt": machined.bolt,
    "tile": natural.tile,
    "gear": machined.gear,
    "bread": natural.bread,
    "rope": natural.rope,
    "bracket": machined.bracket,
    "cap": machined.cap,
    "dowel": natural.dowel,
}
LEAST_SIZE, MOST_SIZE = 64, 800
SEEN_LEVELS = 6.0  # of 255: a change of colour beyond it belongs to the mask


@dataclass(frozen=True)
class Plan:
    """How large a set is: classes, pixels a side, and scans of each class; `defective` are those of each kind."""

    classes: int = 10
    seed: int = 0
    size: int = 224
    train: int = 40
    validation: int = 8
    good: int = 16
    defective: int = 4

    def __post_init__(self) -> None:
        for name, least, most in (
            ("classes", 1, len(CLASSES)),
            ("seed", 0, 2**32 - 1),
            ("size", LEAST_SIZE, MOST_SIZE),
            ("train", 1, 100_000),
            ("validation", 0, 100_000),
            ("good", 1, 100_000),
            ("defective", 1, 100_000),
        ):
            value = getattr(self, name)
            if not is_whole(value, least) or value > most:
                raise SettingsError(f"{name} as a whole number from {least} to {most}", repr(value), f"change {name}")

    @property
    def names(self) -> list[str]:
        """The classes, in the order in which they join."""
        return list(CLASSES)[: self.classes]

    def shots(self) -> list[Shot]:
        """Every scan of the set."""
        tested = [(GOOD, self.good), *((kind, self.defective) for kind in defects.KINDS)]
        counts = [("train", GOOD, self.train), ("validation", GOOD, self.validation)]
        counts += [("test", kind, count) for kind, count in tested]
        return [
            Shot(self.seed, name, split, kind, number, self.size)
            for name in self.names
            for split, kind, count in counts
            for number in range(count)
        ]


@dataclass(frozen=True)
class Shot:
    """One scan to take: number `number` of a kind ("good" or a defect) in a split of a class."""

    seed: int
    category: str
    split: str
    kind: str
    number: int
    size: int

    def scene(self) -> Scene:
        """The part as it lies there, without any defect."""
        random = self._random(0)
        return Scene.draw(CLASSES[self.category](random), random)

    def defect(self, scene: Scene) -> defects.Defect:
        return defects.draw_defect(self.kind, scene.part, self._random(1))

    def sensor(self) -> Sensor:
        return Sensor(self._random(2), self.size)

    def _random(self, purpose: int) -> np.random.Generator:
        place = (list(CLASSES).index(self.category), SPLITS.index(self.split), (GOOD, *defects.KINDS).index(self.kind))
        return np.random.default_rng((self.seed, *place, self.number, purpose))


def take(shot: Shot) -> Sample:
    """The scan in memory: image `(H, W, 3)` uint8, points `(H, W, 3)` float32 in metres with NaN, mask `(H, W)` bool.

    A defect of shape alone leaves the image as it is, one of colour alone the points.
    """
    scene, sensor = shot.scene(), shot.sensor()
    rendering = Rendering(scene, shot.size)
    sound = rendering.sound
    light, glare = rendering.image(sound, sound)
    if shot.kind == GOOD:
        return _sample(shot, sensor.image(light), sensor.points(sound.height, glare), None)
    damaged = rendering.damaged(shot.defect(scene))
    shape = sound if shot.kind in defects.COLOUR else damaged
    seen, blinding = light, glare
    if shot.kind not in defects.GEOMETRY:
        seen, blinding = rendering.image(shape, damaged)
    if shot.kind in defects.COLOUR:
        blinding = glare
    mask = np.abs(pooled(shape.height) - pooled(sound.height)) > defects.SEEN_HEIGHT
    mask |= 255 * np.abs(seen - light).max(-1) > SEEN_LEVELS
    return _sample(shot, sensor.image(seen), sensor.points(shape.height, blinding), mask)


def _sample(shot: Shot, image: np.ndarray, points: np.ndarray, mask: np.ndarray | None) -> Sample:
    return Sample(
        image,
        points,
        label=int(mask is not None),
        mask=mask,
        category=shot.category,
        defect="" if mask is None else shot.kind,
        split=shot.split,
    )


def scan_set(
    classes: int | Sequence[str] = 10,
    seed: int = 0,
    size: int = 224,
    train: int = 40,
    validation: int = 0,
    good: int = 16,
    defective: int = 4,
) -> dict[str, Category]:
    """The set in memory by class: `train`, `validation` and `good` good scans, `defective` of each kind of defect.

    `classes` is how many, or names out of CLASSES. A scan depends on `seed`, its place and `size` alone, so that a
    larger set begins like a smaller one. Raises SettingsError.
    """
    count = classes if isinstance(classes, int) else len(CLASSES)
    plan = Plan(count, seed, size, train, validation, good, defective)
    names = plan.names if isinstance(classes, int) else list(classes)
    if not names or any(name not in CLASSES for name in names):
        raise SettingsError(f"classes out of {', '.join(CLASSES)}", ", ".join(names) or "none", "correct the names")
    made = {name: Category([], [], []) for name in sorted(names)}
    for shot in plan.shots():
        if shot.category in made:
            getattr(made[shot.category], shot.split).append(take(shot))
    return made
