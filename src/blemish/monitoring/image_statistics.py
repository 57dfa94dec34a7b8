"""What a picture looks like as a picture: light, contrast, sharpness, colour, and where the part lies in it.

None of it depends on a model, so values of the pictures that were learned from are a fair reference for those of the
line. numpy alone; the part is found on a small copy (`preprocessing.foreground.find_part`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from blemish.errors import ImageError
from blemish.preprocessing.foreground import Part, find_part

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
SAMPLES = 400  # rows and columns that light and sharpness are measured on, at most
EDGES = 0.02  # share of the strongest second differences that sharpness is measured by: edges, not the sensor's noise


@dataclass(frozen=True)
class ImageStatistics:
    """Measures of one image of `width` × `height` pixels.

    `brightness` is the mean grey value, 0 to 255. `contrast` is the standard deviation of grey values over their mean,
    `sharpness` the second differences of neighbouring pixels at edges over that standard deviation: neither changes
    with the light's strength. `red` and `blue` are the channels' means over green's. `part_x`, `part_y` are the
    centroid of the part and `part_size` the square root of its area, in pixels; None where no one part is seen.
    """

    width: int
    height: int
    brightness: float
    contrast: float
    sharpness: float
    red: float
    blue: float
    part_x: float | None = None
    part_y: float | None = None
    part_size: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImageStatistics:
        """Take back what `to_dict` gave."""
        return cls(**values)


def statistics_of(image: np.ndarray) -> ImageStatistics:
    """The statistics of `(H, W, 3)` uint8. Raises ImageError for another shape or type."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or min(image.shape[:2]) < 8:
        got = f"{image.dtype} of shape {image.shape}"
        raise ImageError("a picture as (H, W, 3) uint8 of 8 pixels or more a side", got, "decode it as RGB")
    height, width = image.shape[:2]
    step = max(1, math.ceil(max(height, width) / SAMPLES))
    sampled = image[::step, ::step].reshape(-1, 3).astype(np.float32)  # (N, 3)
    grey = sampled @ LUMA  # (N,)
    mean, std = float(grey.mean()), float(grey.std())
    red, green, blue = (sampled.mean(axis=0, dtype=np.float64) + 1).tolist()  # + 1: black has no colour
    part = find_part(image)
    x, y, size = (None, None, None) if part is None else _place(part)
    return ImageStatistics(
        width=width,
        height=height,
        brightness=mean,
        contrast=std / (mean + 1),
        sharpness=_second_difference(image, step) / (std + 1),
        red=red / green,
        blue=blue / green,
        part_x=x,
        part_y=y,
        part_size=size,
    )


def _second_difference(image: np.ndarray, step: int) -> float:
    """The Laplacian's mean absolute value among its strongest EDGES, at every `step`-th pixel of each axis."""
    height, width = image.shape[:2]
    rows, columns = np.arange(1, height - 1, step), np.arange(1, width - 1, step)

    def grey(down: int, right: int) -> np.ndarray:
        return image[np.ix_(rows + down, columns + right)].astype(np.float32) @ LUMA

    laplacian = 4 * grey(0, 0) - grey(-1, 0) - grey(1, 0) - grey(0, -1) - grey(0, 1)  # (h, w)
    values = np.abs(laplacian).ravel()
    strongest = max(1, round(EDGES * len(values)))
    return float(np.partition(values, len(values) - strongest)[-strongest:].mean())


def _place(part: Part) -> tuple[float, float, float]:
    """Centroid x, y and the square root of the area of a part, in image pixels."""
    y, x = np.nonzero(part.mask)
    return (
        float((x.mean() + 0.5) * part.shrink),
        float((y.mean() + 0.5) * part.shrink),
        float(math.sqrt(len(x)) * part.shrink),
    )
