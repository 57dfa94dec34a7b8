"""Frames as OpenCV gives them: blue first."""

from __future__ import annotations

from typing import Any

import numpy as np

from blemish.errors import ImageError


def from_bgr(frame: Any) -> np.ndarray:
    """A frame of OpenCV, such as `cv2.imread` and `VideoCapture.read` give, as an image with red first; a copy.

    `(H, W, 3)` BGR becomes RGB, `(H, W, 4)` BGRA becomes RGBA, and `(H, W)` stays grey, of any number format that
    images in memory may have. A function and no flag of `Inspector.inspect`: what is converted is the array alone,
    where it is made, so that `fit`, `inspect_many` and `calibrate` take it as well, and no file is ever turned round.
    Raises ImageError for anything else, None among it, which OpenCV gives for a file that it cannot read.
    """
    if frame is None:
        raise ImageError("a frame of OpenCV", "None", "check the path or the camera: OpenCV could not read it")
    if (
        not isinstance(frame, np.ndarray)
        or frame.ndim not in (2, 3)
        or (frame.ndim == 3 and frame.shape[2] not in (1, 3, 4))
    ):
        got = f"shape {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise ImageError("a frame of OpenCV: an array (H, W), (H, W, 3) or (H, W, 4)", got, "give one frame at a time")
    if frame.ndim == 2 or frame.shape[2] == 1:
        return frame.copy()
    return np.ascontiguousarray(frame[..., [2, 1, 0, 3][: frame.shape[2]]])
