"""The generated set: the scans of each class and split, each rendered from its seed, place and number alone."""

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
from blemish.utils.validation import LARGEST_SEED, is_whole

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
MIN_SIZE, MAX_SIZE = 64, 800
VISIBLE_LEVELS = 6.0  # of 255: a change of colour beyond it belongs to the mask; about four times the grain's std


@dataclass(frozen=True)
class ScanSetSpec:
    """What a set consists of: classes, pixels a side, and scans of each class; `defective` are those of each kind."""

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
            ("seed", 0, LARGEST_SEED),
            ("size", MIN_SIZE, MAX_SIZE),
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

    def scans(self) -> list[ScanSpec]:
        """The specification of every scan of the set."""
        tested = [(GOOD, self.good), *((kind, self.defective) for kind in defects.KINDS)]
        counts = [("train", GOOD, self.train), ("validation", GOOD, self.validation)]
        counts += [("test", kind, count) for kind, count in tested]
        return [
            ScanSpec(self.seed, name, split, kind, number, self.size)
            for name in self.names
            for split, kind, count in counts
            for number in range(count)
        ]


@dataclass(frozen=True)
class ScanSpec:
    """One scan to render: number `number` of a kind ("good" or a defect) in a split of a class."""

    seed: int
    category: str
    split: str
    kind: str
    number: int
    size: int

    def scene(self) -> Scene:
        """The intact part in its pose, under its lamp."""
        rng = self._random(0)
        return Scene.draw(CLASSES[self.category](rng), rng)

    def defect(self, scene: Scene) -> defects.Defect:
        return defects.draw_defect(self.kind, scene.part, self._random(1))

    def sensor(self) -> Sensor:
        return Sensor(self._random(2), self.size)

    def _random(self, purpose: int) -> np.random.Generator:
        place = (list(CLASSES).index(self.category), SPLITS.index(self.split), (GOOD, *defects.KINDS).index(self.kind))
        return np.random.default_rng((self.seed, *place, self.number, purpose))


def render_scan(spec: ScanSpec) -> Sample:
    """One scan in memory: image `(H, W, 3)` uint8, points `(H, W, 3)` float32 in metres with NaN, mask `(H, W)` bool.

    A defect of shape alone leaves the image as it is, one of colour alone the points.
    """
    scene, sensor = spec.scene(), spec.sensor()
    rendering = Rendering(scene, spec.size)
    intact = rendering.intact
    light, glare = rendering.image(intact, intact)
    if spec.kind == GOOD:
        return _sample(spec, sensor.image(light), sensor.points(intact.height, glare), None)
    damaged = rendering.damaged(spec.defect(scene))
    shape = intact if spec.kind in defects.COLOUR else damaged
    seen, sensor_glare = light, glare
    if spec.kind not in defects.GEOMETRY:
        seen, sensor_glare = rendering.image(shape, damaged)
    if spec.kind in defects.COLOUR:
        sensor_glare = glare
    mask = np.abs(pooled(shape.height) - pooled(intact.height)) > defects.VISIBLE_HEIGHT
    mask |= 255 * np.abs(seen - light).max(-1) > VISIBLE_LEVELS
    return _sample(spec, sensor.image(seen), sensor.points(shape.height, sensor_glare), mask)


def _sample(spec: ScanSpec, image: np.ndarray, points: np.ndarray, mask: np.ndarray | None) -> Sample:
    return Sample(
        image,
        points,
        label=int(mask is not None),
        mask=mask,
        category=spec.category,
        defect="" if mask is None else spec.kind,
        split=spec.split,
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
    plan = ScanSetSpec(count, seed, size, train, validation, good, defective)
    names = plan.names if isinstance(classes, int) else list(classes)
    if not names or any(name not in CLASSES for name in names):
        raise SettingsError(f"classes out of {', '.join(CLASSES)}", ", ".join(names) or "none", "correct the names")
    made = {name: Category([], [], []) for name in sorted(names)}
    for spec in plan.scans():
        if spec.category in made:
            getattr(made[spec.category], spec.split).append(render_scan(spec))
    return made
