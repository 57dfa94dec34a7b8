"""Augmentation that keeps a normal image normal: mirror, quarter turn, colour, grey, blur (those of FoundAD, 2025)."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

GEOMETRY_CHANCE = 0.3  # one of the mirrored or turned copies
COLOUR_CHANCE = 0.3  # one of colour jitter, grey, blur
UNCHANGED = (1 - GEOMETRY_CHANCE) * (1 - COLOUR_CHANCE)  # the chance that `augment` returns the very array it was given


def colour_jitter(
    image: np.ndarray,
    rng: np.random.Generator,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> np.ndarray:
    """Brightness, contrast, saturation and hue changed at random, in random order.

    `image` is `(H, W, 3)` uint8; the first three amounts draw a factor from [1 - amount, 1 + amount], `hue` (≤ 0.5)
    a shift from [-hue, hue] turns of the colour wheel. Returns a new `(H, W, 3)` uint8 array.
    """
    pil_image = Image.fromarray(np.ascontiguousarray(image))
    for name in rng.permutation(4):
        if name == 0:
            pil_image = ImageEnhance.Brightness(pil_image).enhance(
                rng.uniform(max(0.0, 1 - brightness), 1 + brightness)
            )
        elif name == 1:
            pil_image = ImageEnhance.Contrast(pil_image).enhance(rng.uniform(max(0.0, 1 - contrast), 1 + contrast))
        elif name == 2:
            pil_image = ImageEnhance.Color(pil_image).enhance(rng.uniform(max(0.0, 1 - saturation), 1 + saturation))
        else:
            pil_image = _shift_hue(pil_image, rng.uniform(-hue, hue))
    return np.asarray(pil_image)


def _shift_hue(pil_image: Image.Image, turns: float) -> Image.Image:
    hue, saturation, value = pil_image.convert("HSV").split()
    step = round(turns * 256)
    turned = hue.point([(level + step) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A normal image, changed at random as FoundAD does before every step.

    `image` is `(H, W, 3)` uint8, and so is the result, of the same size: quarter turns are left out of the draw for
    images that are not square. About half of all draws return the array given.
    """
    if rng.random() < GEOMETRY_CHANCE:
        turns = ("across", "down", "turn") if image.shape[0] == image.shape[1] else ("across", "down")
        match turns[rng.integers(len(turns))]:
            case "across":
                image = image[:, ::-1]
            case "down":
                image = image[::-1]
            case _:
                image = np.rot90(image, rng.choice((1, 3)))
    if rng.random() < COLOUR_CHANCE:
        match rng.integers(3):
            case 0:
                image = colour_jitter(image, rng, 0.3, 0.3, 0.3, 0.05)
            case 1:
                grey = Image.fromarray(np.ascontiguousarray(image)).convert("L")
                image = np.repeat(np.asarray(grey)[..., None], 3, axis=-1)
            case _:
                blur = ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0))
                image = np.asarray(Image.fromarray(np.ascontiguousarray(image)).filter(blur))
    return image if image.flags.c_contiguous else np.ascontiguousarray(image)
