"""Depth images as points, through the pinhole camera of Eyecandies.

Bonfiglioli, Toschi, Silvestri, Fioraio, De Gregorio: The Eyecandies dataset for unsupervised multimodal anomaly
detection and localization, ACCV 2022.

    NNN_depth.png          16 bits: 0 is the nearest depth of this image, 65535 the farthest
    NNN_info_depth.yaml    normalization: {min, max}: these two depths in metres

One camera made all images: a 50 mm lens before a sensor 36 mm wide, so 711.11 pixels of focal length at 512 across.
Its axis meets the middle of the image, at (W - 1) / 2 and (H - 1) / 2 where pixel centres lie at whole numbers, as in
camera.py. Points are in the camera's frame: x to the right, y down, z the depth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from blemish.data.camera import unprojected
from blemish.data.depth_images import read_depth_image
from blemish.data.files import shown
from blemish.errors import ImageError
from blemish.types import Camera

DEPTH_ENDING, INFO_ENDING = "_depth.png", "_info_depth.yaml"
FOCAL = 50 / 36  # focal length over the image's width
FULL_SCALE = 65535


def is_depth_image(path: Path, is_stated: bool = False) -> bool:
    """True for a name such as 007_depth.png; where another camera `is_stated`, only with an info file beside it."""
    return path.name.endswith(DEPTH_ENDING) and (not is_stated or info_of(path).is_file())


def info_of(path: Path) -> Path:
    """Where the info file of a depth image lies."""
    return path.with_name(path.name.removesuffix(DEPTH_ENDING) + INFO_ENDING)


def load_depth(path: Path, max_pixels: int | None = None) -> np.ndarray:
    """The points `(H, W, 3)` float32, in metres, of a depth image with its info file beside it.

    Raises ImageError for an image that is not of 16 bits and grey, and for an info file that is not there, is no YAML,
    or states no range.
    """
    near, far = depth_range(info_of(path), path)
    levels = read_depth_image(path, max_pixels)  # (H, W)
    return unproject(levels.astype(np.float64) / FULL_SCALE * (far - near) + near)


def depth_range(info: Path, depth: Path) -> tuple[float, float]:
    """The depths in metres, nearest and farthest, that the info file of a depth image states."""
    try:
        facts = read_yaml(info)
    except OSError as error:
        raise ImageError(
            f"the depth range of '{shown(depth)}' in '{shown(info)}'",
            error.strerror or str(error),
            "unpack the dataset again, or state the camera that took it: --intrinsics FILE or fx,fy,cx,cy",
        ) from error
    near, far = number_in(facts, "min"), number_in(facts, "max")
    if near is None or far is None or not 0 <= near < far < np.inf:
        raise ImageError(
            f"0 <= min < max, in metres, in '{shown(info)}'", f"min {near}, max {far}", "unpack the dataset again"
        )
    return near, far


def unproject(depth: np.ndarray) -> np.ndarray:
    """The points `(H, W, 3)` float32 that a pinhole camera sees at `depth` `(H, W)`; NaN where that is not above 0."""
    height, width = depth.shape
    focal = FOCAL * width
    camera = Camera(fx=focal, fy=focal, cx=(width - 1) / 2, cy=(height - 1) / 2)
    points = unprojected(depth, camera, "depth").astype(np.float32)  # (H, W, 3)
    points[~(depth > 0)] = np.nan
    return points


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises ImageError, which names it, where it holds none, OSError where it is not there."""
    import yaml  # here, because only Eyecandies' depth needs it, and the light runtime has none

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are no text, impossible dates
        raise ImageError(
            f"YAML in '{shown(path)}'", " ".join(str(error).split()), "unpack the dataset again"
        ) from error


def number_in(facts: Any, key: str) -> float | None:
    """The number of the first `key` in nested mappings, None where there is none; true and false are 1 and 0."""
    if not isinstance(facts, dict):
        return None
    if key not in facts:
        return next((found for value in facts.values() if (found := number_in(value, key)) is not None), None)
    try:
        return float(facts[key])  # YAML 1.1 leaves numbers such as 5e-1 as text
    except (TypeError, ValueError):
        return None
