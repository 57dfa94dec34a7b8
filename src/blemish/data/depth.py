"""Depth images as points, through the pinhole camera of Eyecandies (Bonfiglioli et al., ACCV 2022).

    NNN_depth.png          16 bits: 0 is the nearest depth of this image, 65535 the farthest
    NNN_info_depth.yaml    normalization: {min, max}: these two depths in metres

One camera made all images: a 50 mm lens before a sensor 36 mm wide, so 711.11 pixels of focal length at 512 across.
Points are in the camera's frame: x to the right, y down, z the depth.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from blemish.data.files import shown
from blemish.data.images import check_pixels, reading
from blemish.errors import ImageError

DEPTH_ENDING, INFO_ENDING = "_depth.png", "_info_depth.yaml"
FOCAL = 50 / 36  # focal length over the image's width
FULL_SCALE = 65535


def is_depth_image(path: Path) -> bool:
    """True for a name such as 007_depth.png."""
    return path.name.endswith(DEPTH_ENDING)


def load_depth(path: Path, max_pixels: int | None = None) -> np.ndarray:
    """The points `(H, W, 3)` float32, in metres, of a depth image with its info file beside it.

    Raises ImageError for an image that is not of 16 bits and grey, and for an info file that is not there or says
    no range.
    """
    near, far = depth_range(path.with_name(path.name.removesuffix(DEPTH_ENDING) + INFO_ENDING), path)
    with reading(path, "a depth picture"), Image.open(path, formats=("PNG",)) as image:
        check_pixels(image.height, image.width, shown(path), max_pixels)
        mode, levels = image.mode, np.asarray(image)
    if mode != "I" and not mode.startswith("I;16"):
        raise ImageError(
            f"depth as 16-bit grey in '{shown(path)}'", f"a picture of mode {mode}", "unpack the dataset again"
        )
    return unproject(levels.astype(np.float64) / FULL_SCALE * (far - near) + near)


def depth_range(info: Path, depth: Path) -> tuple[float, float]:
    """The depths in metres, nearest and farthest, that the info file of a depth image states."""
    try:
        text = info.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ImageError(
            f"the depth range of '{shown(depth)}' in '{shown(info)}'",
            getattr(error, "strerror", None) or str(error),
            "unpack the dataset again: without it depth has no unit",
        ) from error
    near, far = number_in(text, "min"), number_in(text, "max")
    if near is None or far is None or not 0 <= near < far < np.inf:
        raise ImageError(
            f"0 <= min < max, in metres, in '{shown(info)}'", f"min {near}, max {far}", "unpack the dataset again"
        )
    return near, far


def unproject(depth: np.ndarray) -> np.ndarray:
    """The points `(H, W, 3)` float32 that a pinhole camera sees at `depth` `(H, W)`; NaN where that is not above 0."""
    height, width = depth.shape
    focal = FOCAL * width
    x = (np.arange(width) - width / 2)[None, :] * depth / focal  # (H, W)
    y = (np.arange(height) - height / 2)[:, None] * depth / focal
    points = np.stack([x, y, depth], axis=-1).astype(np.float32)  # (H, W, 3)
    points[~(depth > 0)] = np.nan
    return points


def number_in(text: str, key: str) -> float | None:
    """The number that `key` has in a small YAML text, in a block or between braces; None where there is none."""
    found = re.search(rf"(?:^|[\s{{,]){key}\s*:\s*([^\s,}}#]+)", text)
    try:
        return None if found is None else float(found[1])
    except ValueError:
        return None
