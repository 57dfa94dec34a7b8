"""An obvious synthetic anomaly: a rough, grainy spot on the part, in the colour that lies furthest from its own.

For questions that any working method must answer (does it see this at all?), not for training: CutPaste's anomalies
(cutpaste.py; Li et al., CVPR 2021) are the subtle ones.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

# All chosen by eye: the spot must be plain to see on any part.
SHARE = (0.02, 0.1)  # of the part's area, drawn evenly on a log scale
OPACITY = 0.8
GRAIN = 25.0  # standard deviation of the spot's own texture, grey levels
GRAIN_SIZE = 1.5  # pixels
ROUGH = 0.3  # how far the outline strays from a disc's


def spot(
    image: np.ndarray, foreground: np.ndarray, rng: np.random.Generator, share: tuple[float, float] = SHARE
) -> tuple[np.ndarray, np.ndarray]:
    """The image with a spot whose centre lies on the part, and the spot's mask.

    `image` is `(H, W, 3)` uint8, `foreground` `(H, W)` bool, `share` of the foreground the spot covers, from and to.
    Returns a new image of the same shape and an `(H, W)` bool mask with at least one pixel set; outside the mask no
    pixel changes.
    """
    shape = image.shape[:2]
    inside = foreground if foreground.any() else np.ones(shape, dtype=bool)
    area = float(inside.sum()) * np.exp(rng.uniform(*np.log(share)))
    places = np.flatnonzero(_away_from_the_border(shape, np.sqrt(area / np.pi)) & inside)
    places = places if len(places) else np.flatnonzero(inside)
    y, x = np.divmod(int(places[rng.integers(len(places))]), shape[1])
    mask = _rough_disc(shape, (y, x), area, rng)
    own = image[mask].mean(axis=0)  # (3,)
    colour = np.where(own < 127.5, 235.0, 20.0)
    # Blurred unit noise has a standard deviation of 1/(2σ√π).
    grain = ndimage.gaussian_filter(rng.standard_normal(shape), GRAIN_SIZE)[mask] * 2 * GRAIN_SIZE * np.sqrt(np.pi)
    mixed = (1 - OPACITY) * image[mask] + OPACITY * colour + GRAIN * grain.clip(-2, 2)[:, None]
    altered = image.copy()
    altered[mask] = mixed.clip(0, 255).astype(np.uint8)
    return altered, mask


def _away_from_the_border(shape: tuple[int, int], distance: float) -> np.ndarray:
    """Places `(H, W)` bool further than `distance` from the image's border."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y >= distance) & (y < shape[0] - distance) & (x >= distance) & (x < shape[1] - distance)


def _rough_disc(shape: tuple[int, int], centre: tuple[int, int], area: float, rng: np.random.Generator) -> np.ndarray:
    """A disc of about `area` pixels with a wavy outline, `(H, W)` bool, its centre always set."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    down, across = y - centre[0], x - centre[1]
    angle = np.arctan2(down, across)
    mask = np.asarray(np.hypot(down, across) < np.sqrt(area / np.pi) * rough_outline(angle, rng))
    mask[centre] = True
    return mask


def rough_outline(angle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How far a wavy outline lies from its middle in each direction, in [0.5, 1.5] of a disc's radius."""
    waves = sum(rng.normal() * np.cos(n * angle + rng.uniform(0, 2 * np.pi)) / n for n in (2, 3, 5))
    return np.clip(1 + ROUGH * waves, 0.5, 1.5)
