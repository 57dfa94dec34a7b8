"""Made-up scans: a dome on a tilted plane, as a camera above sees it."""

from __future__ import annotations

import numpy as np

from blemish.types import Scan

ACROSS = 0.2  # metres that a scan covers
RADIUS = 0.06


def heights(side: int, top: float, box: bool = False) -> np.ndarray:
    """How far each point `(H, W)` of a dome (or a box) of height `top` stands above the ground, in metres."""
    down, across = (np.mgrid[:side, :side] + 0.5) / side * ACROSS - ACROSS / 2
    if box:
        return np.where(np.maximum(abs(down), abs(across)) < RADIUS, top, 0.0)
    return top * np.sqrt(np.clip(1 - (down**2 + across**2) / RADIUS**2, 0, 1))


def points_of(
    height: np.ndarray, tilt: tuple[float, float] = (0.0, 0.0), noise: float = 0.0, holes: float = 0.0, seed: int = 0
) -> np.ndarray:
    """The points `(H, W, 3)` float32 of a surface `height` above a plane that rises by `tilt` across and down."""
    random = np.random.default_rng(seed)
    rows, columns = height.shape
    down, across = (np.mgrid[:rows, :columns] + 0.5) / max(rows, columns) * ACROSS - ACROSS / 2
    normal = np.array([-tilt[0], -tilt[1], 1]) / np.sqrt(1 + tilt[0] ** 2 + tilt[1] ** 2)
    ground = np.stack([across, down, 0.4 + tilt[0] * across + tilt[1] * down], axis=-1)
    points = ground - (height + random.normal(0, noise or 1e-12, height.shape))[..., None] * normal
    points[random.random(height.shape) < holes] = np.nan
    return points.astype(np.float32)


def same(one: Scan, other: Scan) -> bool:
    """Whether two scans hold the same, NaN being equal to NaN."""
    pairs = ((one.rgb, other.rgb), (one.xyz, other.xyz))
    return all(np.array_equal(a, b, equal_nan=True) if a is not None and b is not None else a is b for a, b in pairs)


def rotation(seed: int) -> np.ndarray:
    """A random rotation `(3, 3)`."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))
