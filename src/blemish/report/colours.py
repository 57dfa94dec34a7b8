"""The colours of blemish: a heat table of even perceptual steps, and the few tones that carry a meaning.

The table runs in OKLab (Ottosson 2020, "A perceptual color space for image processing"), where equal steps look equal:
lightness rises evenly from dark violet over crimson and orange to pale yellow, so that it also reads in greyscale.
"""

from __future__ import annotations

import numpy as np

GOOD = (22, 120, 104)
DEFECT = (184, 58, 16)
UNKNOWN = (92, 76, 184)
UNSURE = (43, 106, 143)
TRUTH = (64, 190, 255)

_LINEAR_TO_CONE = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_CONE_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# Hue and chroma of the way through OKLab: (position, lightness, a, b).
_STOPS = np.array(
    [
        (0.00, 0.10, 0.010, -0.030),
        (0.20, 0.26, 0.070, -0.090),
        (0.40, 0.42, 0.140, -0.050),
        (0.60, 0.58, 0.165, 0.060),
        (0.80, 0.75, 0.080, 0.140),
        (1.00, 0.94, -0.020, 0.110),
    ]
)


def from_oklab(lab: np.ndarray) -> np.ndarray:
    """OKLab `(…, 3)` → sRGB `(…, 3)` uint8, clipped where the colour lies outside sRGB."""
    cone = (np.asarray(lab, dtype=np.float64) @ np.linalg.inv(_CONE_TO_LAB).T) ** 3
    linear = np.clip(cone @ np.linalg.inv(_LINEAR_TO_CONE).T, 0, 1)
    value = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(value * 255).astype(np.uint8)


def heat_table(steps: int = 256) -> np.ndarray:
    """The heat colours `(steps, 3)` uint8, from low scores (dark) to high ones (pale yellow)."""
    where = np.linspace(0, 1, steps)
    return from_oklab(np.stack([np.interp(where, _STOPS[:, 0], _STOPS[:, i]) for i in (1, 2, 3)], axis=1))


HEAT = heat_table()


def css(colour: tuple[int, int, int]) -> str:
    """The colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
