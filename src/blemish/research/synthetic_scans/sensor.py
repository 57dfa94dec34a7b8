"""What camera and depth sensor make of a scene: grain in the image, noisy, quantised and missing points."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

from blemish.research.synthetic_scans.fields import Noise
from blemish.research.synthetic_scans.scene import DISTANCE, FINE, VIEW, pooled

# Chosen to look like scans of an industrial structured-light sensor; not fitted to a particular one.
DEPTH_NOISE = 0.08  # standard deviation, millimetres
DEPTH_STEP = 0.05  # what depth is rounded to, millimetres
STEEP = 3.2  # rise over run beyond which a surface is often not measured
GLARE = 0.27  # specular reflection beyond which the sensor is often blinded
GRAIN = 1.6  # standard deviation of the image's noise, levels of 255


class Sensor:
    """The noise of one scan: an intact part and a damaged one with the same draw differ by the damage alone."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.size = size
        wave, warp = Noise(rng, 45, 1), rng.uniform(0.02, 0.06)
        steps = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * VIEW
        self.x, self.y = np.tile(steps, (size, 1)), np.repeat(steps[:, None], size, axis=1)
        own = np.random.default_rng(rng.integers(2**63))  # how much it draws depends on the size: `rng` must not
        self.grain = GRAIN * own.standard_normal((size, size, 3), np.float32)
        self.depth = DEPTH_NOISE * own.standard_normal((size, size), np.float32) + warp * wave(self.x, self.y)
        self.luck = own.random((size, size), np.float32)

    def image(self, light: np.ndarray) -> np.ndarray:
        """`(size, size, 3)` uint8 from light in 0…1."""
        return np.round(255 * light + self.grain).clip(0, 255).astype(np.uint8)

    def points(self, height: np.ndarray, glare: np.ndarray) -> np.ndarray:
        """`(size, size, 3)` float32 in metres in the camera's frame (x right, y down, z away), NaN where nothing came.

        `height` is on the fine grid in millimetres. A pixel looks along its ray; where the part stands high it is seen
        a little larger, as through a pinhole.
        """
        depth = DISTANCE - pooled(height) + self.depth
        depth = np.round(depth / DEPTH_STEP) * DEPTH_STEP
        points = np.stack([self.x * depth / DISTANCE, self.y * depth / DISTANCE, depth], axis=-1) / 1000
        points[self.missing(height, glare)] = np.nan
        return np.asarray(points, np.float32)

    def missing(self, height: np.ndarray, glare: np.ndarray) -> np.ndarray:
        """Where nothing is measured, `(size, size)` bool: most of steep and glaring places, one in 400 elsewhere."""
        span = 2 * FINE
        jump = maximum_filter(height, span) - minimum_filter(height, span)
        steep = jump[::FINE, ::FINE] / (VIEW / self.size * (span - 1) / FINE) > STEEP
        chance = np.where(steep, 0.8, np.where(glare > GLARE, 0.45, 0.0025))
        return np.asarray(self.luck < chance)
