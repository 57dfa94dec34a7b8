"""Stands for OpenCV in tests where it is not installed: a video of the one frame that is in a file, blue first."""

from __future__ import annotations

import numpy as np
from PIL import Image


class VideoCapture:
    def __init__(self, source: int | str) -> None:
        assert isinstance(source, str)
        self._frames = [np.asarray(Image.open(source).convert("RGB"))[..., ::-1]] * 2

    def read(self) -> tuple[bool, np.ndarray | None]:
        return (True, self._frames.pop()) if self._frames else (False, None)
