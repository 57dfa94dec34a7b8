"""Rendering: a part on a plane under a lamp, seen from straight above.

Lambertian and Blinn-Phong shading (Blinn: Models of light reflection for computer synthesized pictures, SIGGRAPH 1977)
of a height field, with shadows and ambient occlusion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from blemish.research.synthetic_scans.defects import Defect, heights
from blemish.research.synthetic_scans.fields import Noise
from blemish.research.synthetic_scans.surface import Part, Surface, painted

VIEW = 125.0  # millimetres of ground that the image shows from edge to edge
DISTANCE = 450.0  # millimetres from the pinhole to the ground
LAMP_DISTANCE = 330.0  # millimetres: so near that a shiny flat face shows its reflection as a spot
FINE = 2  # supersampling: samples a pixel, down and across


@dataclass(frozen=True)
class Pose:
    """The pose of a part: rotation (radians), translation (mm), and tilt (rise over run)."""

    turn: float
    shift: tuple[float, float]
    tilt: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Pose:
        shift_x, shift_y = rng.uniform(-9, 9, 2).tolist()
        tilt_x, tilt_y = rng.normal(0, 0.015, 2).clip(-0.04, 0.04).tolist()
        return cls(rng.uniform(0, 2 * math.pi), (shift_x, shift_y), (tilt_x, tilt_y))

    def onto_part(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places on the ground in the part's own coordinates."""
        x, y = x - self.shift[0], y - self.shift[1]
        across, down = math.cos(self.turn), math.sin(self.turn)
        return x * across + y * down, y * across - x * down

    def raised(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Millimetres that the tilt adds at places on the ground; the lowest side of the part touches it."""
        a, b = self.tilt
        return np.asarray(a * (x - self.shift[0]) + b * (y - self.shift[1]) + 40 * math.hypot(a, b), np.float32)


@dataclass(frozen=True)
class Lamp:
    """One lamp from the side and light from all around; `x, y, z` point to it."""

    x: float
    y: float
    z: float
    strength: float
    ambient: float
    tint: tuple[float, float, float]
    fall: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Lamp:
        around, up = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(42, 68))
        warm = rng.normal(0, 0.03)
        fall_x, fall_y = rng.uniform(-0.12, 0.12, 2).tolist()
        return cls(
            math.cos(around) * math.cos(up),
            math.sin(around) * math.cos(up),
            math.sin(up),
            rng.uniform(0.62, 0.92),
            rng.uniform(0.26, 0.42),
            (1 + warm, 1.0, 1 - warm),
            (fall_x, fall_y),
        )


@dataclass(frozen=True)
class Scene:
    """Everything a rendering needs but its resolution. `ground` is the surface beneath, `slope` its rise over run."""

    part: Part
    pose: Pose
    lamp: Lamp
    ground: Part
    slope: tuple[float, float]

    @classmethod
    def draw(cls, part: Part, rng: np.random.Generator) -> Scene:
        pose, lamp, ground = Pose.draw(rng), Lamp.draw(rng), _ground(rng)
        slope_x, slope_y = rng.normal(0, 0.006, 2).tolist()
        return cls(part, pose, lamp, ground, (slope_x, slope_y))


@dataclass(frozen=True)
class View:
    """A scene on the fine grid `(n, n)`: the part's surface, heights of everything (mm) and where the part is."""

    part: Surface
    height: np.ndarray
    colour: np.ndarray
    gloss: np.ndarray


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Places (x, y) in mm on the ground of an image of `size` pixels, x to the right, y down, `(n, n)` float32."""
    count = size * FINE
    steps = ((np.arange(count, dtype=np.float32) + 0.5) / count - 0.5) * VIEW
    return np.tile(steps, (count, 1)), np.repeat(steps[:, None], count, axis=1)


class Rendering:
    """A scene at one size, without noise: intact, and damaged by any defect."""

    def __init__(self, scene: Scene, size: int) -> None:
        self.scene, self.size = scene, size
        self.x, self.y = grid(size)
        self.on_part = scene.pose.onto_part(self.x, self.y)
        self.ground = scene.ground(self.x, self.y)
        self.lift = scene.pose.raised(self.x, self.y)
        self.intact = self._view(scene.part(*self.on_part))
        self.halfway = _halfway(scene.lamp, self.x, self.y)
        self.shade = _occlusion(self.intact.height, size), _shadow(self.intact.height, scene.lamp, size)

    def damaged(self, defect: Defect) -> View:
        return self._view(defect(*self.on_part, self.intact.part))

    def _view(self, part: Surface) -> View:
        a, b = self.scene.slope
        height = self.ground.height + a * self.x + b * self.y
        height += np.where(part.inside, heights(part) + self.lift, 0)
        colour = np.where(part.inside[..., None], part.colour, self.ground.colour)
        return View(part, height, colour, np.where(part.inside, part.gloss, self.ground.gloss))

    def image(self, shape: View, paint: View) -> tuple[np.ndarray, np.ndarray]:
        """The light `(size, size, 3)` in 0…1 of one view's shape in another's colours, and its glare `(size, size)`.

        Shadows are those of the intact part: a defect changes the image where it is, not beside it.
        """
        lamp, (open_sky, lit) = self.scene.lamp, self.shade
        down, across = np.gradient(shape.height, VIEW / len(self.x))
        up = 1 / np.sqrt(1 + across * across + down * down)
        facing = np.maximum((lamp.z - across * lamp.x - down * lamp.y) * up, 0)
        half_x, half_y, half_z = self.halfway
        mirror = np.maximum((half_z - across * half_x - down * half_y) * up, 0)
        tight = mirror**2
        for _ in range(3):
            tight = tight * tight  # to the 16th
        glare = paint.gloss * lit * lamp.strength * (0.22 * tight + 0.8 * tight**4)
        fall = 1 + (lamp.fall[0] * self.x + lamp.fall[1] * self.y) / (VIEW / 2)
        diffuse = (lamp.ambient * open_sky * (0.6 + 0.4 * up) + lamp.strength * lit * facing * open_sky**0.5) * fall
        light = (paint.colour**2) * (1 - 0.35 * paint.gloss * (1 - tight))[..., None] * diffuse[..., None]
        light += glare[..., None] * (0.35 + 0.65 * paint.colour)
        linear = pooled(light) * np.array(lamp.tint, np.float32)
        return np.sqrt(np.clip(linear, 0, 1)), pooled(glare)


def _halfway(lamp: Lamp, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Blinn-Phong half vectors `(3, n, n)`: unit vectors half-way between those to the lamp and to the camera."""
    to_lamp = np.stack(
        [lamp.x * LAMP_DISTANCE - x, lamp.y * LAMP_DISTANCE - y, np.full_like(x, lamp.z * LAMP_DISTANCE)]
    )
    to_camera = np.stack([-x, -y, np.full_like(x, DISTANCE)])
    half = to_lamp / np.linalg.norm(to_lamp, axis=0) + to_camera / np.linalg.norm(to_camera, axis=0)
    return np.asarray(half / np.linalg.norm(half, axis=0))


def pooled(fine: np.ndarray) -> np.ndarray:
    """Means over the fine samples of each pixel: `(n, n, …)` → `(size, size, …)`."""
    rows = fine.reshape(len(fine) // FINE, FINE, *fine.shape[1:]).mean(1)
    return np.asarray(rows.reshape(len(rows), -1, FINE, *fine.shape[2:]).mean(2))


def _ground(rng: np.random.Generator) -> Part:
    """A mat or table: one dull colour, woven, speckled or plain."""
    level, cast = rng.uniform(0.10, 0.30), rng.normal(0, 0.012, 3)
    red, green, blue = (level + cast).clip(0.03, 0.6).tolist()
    mottled, speckled = Noise(rng, 30), Noise(rng, 0.9)
    woven, pitch, turn = rng.random() < 0.4, rng.uniform(1.6, 2.6), rng.uniform(0, math.pi)

    def surface_at(x: np.ndarray, y: np.ndarray) -> Surface:
        brightness = 1 + 0.05 * mottled(x, y) + 0.05 * speckled(x, y)
        if woven:
            across, down = math.cos(turn) * 2 * math.pi / pitch, math.sin(turn) * 2 * math.pi / pitch
            brightness += 0.07 * np.sin(x * across + y * down) * np.sin(y * across - x * down)
        nothing = np.zeros_like(x)
        return Surface(nothing, nothing > 1, painted((red, green, blue), brightness).clip(0.01, 1), nothing + 0.03)

    return surface_at


def _occlusion(height: np.ndarray, size: int) -> np.ndarray:
    """Ambient light that arrives, 0.25…1.1 (ambient occlusion): less where the surroundings stand higher."""
    pixels = size * FINE / VIEW
    open_sky = np.ones_like(height)
    for wide, weight in ((1.5, 0.05), (6.0, 0.045)):
        around = gaussian_filter(height, wide * pixels, mode="nearest", truncate=2.5)
        open_sky -= weight * np.clip(around - height, -2, 8)
    return open_sky.clip(0.25, 1.1)


def _shadow(height: np.ndarray, lamp: Lamp, size: int) -> np.ndarray:
    """Share of the lamp's light that arrives, 0.15…1: a march towards it over 26 mm finds what stands in the way."""
    pixels, steepness = size * FINE / VIEW, lamp.z / math.hypot(lamp.x, lamp.y)
    away = math.hypot(lamp.x, lamp.y)
    hidden = np.zeros_like(height)
    rows, columns = np.arange(len(height)), np.arange(len(height))
    for millimetres in (0.8, 1.6, 2.6, 4, 5.5, 7.5, 10, 13, 17, 21, 26):
        down, across = (round(millimetres * pixels * part / away) for part in (lamp.y, lamp.x))
        there = height[np.clip(rows + down, 0, len(rows) - 1)][:, np.clip(columns + across, 0, len(rows) - 1)]
        np.maximum(hidden, (there - height - millimetres * steepness) / (0.6 + 0.12 * millimetres), out=hidden)
    soft = gaussian_filter(hidden.clip(0, 1), 0.5 * pixels, truncate=2.5)
    return 1 - 0.85 * soft
