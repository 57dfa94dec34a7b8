"""Small synthetic anomalies of five kinds: the least that a threshold should not let pass.

`stain` (a faint tint), `scar` (CutPaste; Li, Sohn, Yoon, Pfister, CVPR 2021), `swirl` (material turned on itself),
`transplant` (replaced by what lies elsewhere in the image) and `erasure` (blurred away). Sizes are drawn evenly
on a log scale. All are subtle by design: on plain material a swirl or an erasure may change next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from blemish.augmentation import cutpaste

# Chosen by eye on products with defects of their own kind, before any was scored.
SHARE = (0.003, 0.03)  # of the foreground
STAIN_SHARE = (0.001, 0.02)
TINT = (0.2, 0.4)  # opacity of a stain
SWIRL = (0.6, 1.5)  # radians at its middle
SOFT = 1.0  # pixels, standard deviation of every outline's blur

SmallDefect = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def stain(image: np.ndarray, foreground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image `(H, W, 3)` uint8 with a faint tinted blob on the `foreground` `(H, W)` bool; so all kinds."""
    y, x, area = place(foreground, rng, STAIN_SHARE)
    where = blob(foreground.shape, area, (y, x), rng)
    opacity = rng.uniform(*TINT)
    tinted = image * rng.uniform(0.6, 1 - opacity) + opacity * rng.uniform(0, 255, 3)
    return mixed(image, tinted, where)


def scar(image: np.ndarray, foreground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A thin strip of the image, its colours changed, pasted elsewhere."""
    return cutpaste.scar(image, foreground, rng)[0]


def swirl(image: np.ndarray, foreground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A disc whose material is turned about its middle, less and less towards its rim."""
    y, x, area = place(foreground, rng, SHARE)
    radius = 1.6 * np.sqrt(area / np.pi)
    down, right = np.mgrid[: image.shape[0], : image.shape[1]].astype(float)
    inside = np.clip(1 - np.hypot(down - y, right - x) / radius, 0, 1) ** 0.5
    angle = rng.uniform(*SWIRL) * rng.choice([-1, 1]) * inside
    source = [
        y + (down - y) * np.cos(angle) - (right - x) * np.sin(angle),
        x + (down - y) * np.sin(angle) + (right - x) * np.cos(angle),
    ]
    planes = [ndimage.map_coordinates(image[..., c].astype(float), source, order=1, mode="reflect") for c in range(3)]
    return np.asarray(np.stack(planes, axis=-1).clip(0, 255), dtype=np.uint8)


def transplant(image: np.ndarray, foreground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A blob replaced by what lies elsewhere in the image."""
    y, x, area = place(foreground, rng, SHARE)
    shift = tuple(int(rng.integers(side)) for side in image.shape[:2])
    return mixed(image, np.roll(image, shift, (0, 1)), blob(foreground.shape, area, (y, x), rng))


def erasure(image: np.ndarray, foreground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A blob whose detail is blurred away."""
    y, x, area = place(foreground, rng, SHARE)
    width = max(2.0, 0.6 * np.sqrt(area / np.pi))
    blurred = np.stack([ndimage.gaussian_filter(image[..., c].astype(float), width) for c in range(3)], axis=-1)
    return mixed(image, blurred, blob(foreground.shape, area, (y, x), rng))


SMALL_DEFECTS: dict[str, SmallDefect] = {
    "stain": stain,
    "scar": scar,
    "swirl": swirl,
    "transplant": transplant,
    "erasure": erasure,
}


def place(foreground: np.ndarray, rng: np.random.Generator, share: tuple[float, float]) -> tuple[int, int, float]:
    """A place (y, x) on the foreground `(H, W)` bool, anywhere if that is empty, and an area, a `share` of it."""
    inside = foreground if foreground.any() else np.ones_like(foreground)
    ys, xs = np.nonzero(inside)
    at = int(rng.integers(len(ys)))
    return int(ys[at]), int(xs[at]), float(inside.sum() * np.exp(rng.uniform(*np.log(share))))


def blob(shape: tuple[int, ...], area: float, centre: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A rough disc of `area` to twice `area` pixels or so, as `(H, W)` bool."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    rough = ndimage.gaussian_filter(rng.standard_normal(shape), max(2.0, np.sqrt(area) / 3))
    stretch = np.clip(1 + 0.35 * rough / rough.std(), 0.3, None)
    return np.asarray(np.hypot(y - centre[0], x - centre[1]) * stretch < np.sqrt(area / np.pi))


def mixed(image: np.ndarray, other: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The `other` `(H, W, 3)` image where `where` `(H, W)` bool holds, with a soft outline."""
    soft = ndimage.gaussian_filter(where.astype(float), SOFT)[..., None]
    return np.asarray((image * (1 - soft) + other * soft).clip(0, 255), dtype=np.uint8)
