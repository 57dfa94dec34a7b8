"""Synthetic anomalies from the image's own material: the rectangle and scar of CutPaste.

Li, Sohn, Yoon, Pfister: CutPaste: Self-supervised learning for anomaly detection and localization, CVPR 2021.

A piece of the image is cut out, its colours are jittered, and it is pasted elsewhere with its first (top left) pixel
on the foreground, as in FoundAD. Every function returns the new image and the mask of what was pasted; outside the
mask no pixel changes.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from blemish.augmentation.augment import colour_jitter

AREA = (0.02, 0.25)  # of the image, for a rectangle
ASPECT = (0.3, 3.3)  # of a rectangle, drawn evenly on a log scale
SCAR_WIDTH = (2, 16)  # pixels
SCAR_LENGTH = (10, 25)  # pixels
SCAR_TURN = 45.0  # degrees either way
JITTER = 0.5  # brightness, contrast, saturation and hue


def synthetic_anomaly(
    image: np.ndarray, foreground: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle or a scar, half and half.

    `image` is `(H, W, 3)` uint8, `foreground` `(H, W)` bool or None for the whole image. Returns a new image of
    the same shape and an `(H, W)` bool mask with at least one pixel set.
    """
    return (rectangle if rng.random() < 0.5 else scar)(image, foreground, rng)


def rectangle(
    image: np.ndarray, foreground: np.ndarray | None, rng: np.random.Generator, share: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A jittered rectangle of `ASPECT`; arguments and result as in `synthetic_anomaly`.

    It takes `share` of the image, drawn from `AREA` where that is None; less where a side is too short.
    """
    height, width = image.shape[:2]
    area = (rng.uniform(*AREA) if share is None else share) * height * width
    aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
    high = int(np.clip(round(math.sqrt(area / aspect)), 1, height))
    wide = int(np.clip(round(math.sqrt(area * aspect)), 1, width))
    piece = _cut(image, high, wide, rng)
    return _paste(image, piece, np.ones((high, wide), dtype=bool), foreground, rng)


def scar(image: np.ndarray, foreground: np.ndarray | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A thin jittered strip, turned by up to `SCAR_TURN`; arguments and result as `synthetic_anomaly`."""
    height, width = image.shape[:2]
    wide = min(int(rng.integers(SCAR_WIDTH[0], SCAR_WIDTH[1] + 1)), width)
    high = min(int(rng.integers(SCAR_LENGTH[0], SCAR_LENGTH[1] + 1)), height)
    piece = Image.fromarray(_cut(image, high, wide, rng))
    angle = rng.uniform(-SCAR_TURN, SCAR_TURN)
    # Resampled alike, so that both agree on which pixels lie in the strip: those beside it are black.
    shape, turned = (
        np.asarray(one.rotate(angle, resample=Image.Resampling.BILINEAR, expand=True))
        for one in (Image.new("L", piece.size, 255), piece)
    )
    footprint = shape[:height, :width] > 127
    footprint = footprint if footprint.any() else ~footprint
    return _paste(image, turned[:height, :width], footprint, foreground, rng)


def _cut(image: np.ndarray, high: int, wide: int, rng: np.random.Generator) -> np.ndarray:
    """A jittered copy `(high, wide, 3)` from a random place."""
    top = int(rng.integers(image.shape[0] - high + 1))
    left = int(rng.integers(image.shape[1] - wide + 1))
    return colour_jitter(image[top : top + high, left : left + wide], rng, JITTER, JITTER, JITTER, JITTER)


def _paste(
    image: np.ndarray,
    piece: np.ndarray,
    footprint: np.ndarray,
    foreground: np.ndarray | None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """`piece` where `footprint` is set, its top left pixel on the foreground where it fits there, else anywhere."""
    high, wide = footprint.shape
    rows, columns = image.shape[0] - high + 1, image.shape[1] - wide + 1
    starts = np.arange(0) if foreground is None else np.flatnonzero(foreground[:rows, :columns])
    start = int(starts[rng.integers(len(starts))]) if len(starts) else int(rng.integers(rows * columns))
    top, left = divmod(start, columns)
    altered, mask = image.copy(), np.zeros(image.shape[:2], dtype=bool)
    mask[top : top + high, left : left + wide] = footprint
    altered[top : top + high, left : left + wide][footprint] = piece[footprint]
    return altered, mask
