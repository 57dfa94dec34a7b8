"""One kept normal image: what the encoder saw of it, small enough to be part of a model, and its patches."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from PIL import Image

from blemish.types import POINTS, ImageOrScan, Scan

QUALITY = 95  # of JPEG, without colour subsampling: under one level of ΔE2000 on average


@dataclass(frozen=True, eq=False)
class ReferenceImage:
    """A kept normal image: its file's name, the encoder's input as it is stored, and its patches.

    `encoded` is a JPEG of the image, b"" where there are points alone; `heights` `(h, w, 3)` float16 are measured
    points in mm relative to `origin` (3,) in mm, None where there are none; `cells` `(gh, gw, K)` float16 are patches
    of unit length.
    """

    file: str
    encoded: bytes
    cells: np.ndarray
    heights: np.ndarray | None = None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def of(cls, file: str, encoder_input: ImageOrScan, cells: np.ndarray) -> Self:
        """Of an encoder's input and its patches `(gh, gw, K)`."""
        scan = encoder_input if isinstance(encoder_input, Scan) else Scan(rgb=encoder_input)
        encoded, heights, origin = b"", None, np.zeros(3)
        if scan.image is not None:
            buffer = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(scan.image)).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
            encoded = buffer.getvalue()
        if scan.xyz is not None and POINTS in scan.available:
            millimetres = 1000 * scan.xyz.astype(np.float64)
            origin = np.nanmedian(millimetres.reshape(-1, 3), axis=0)
            heights = (millimetres - origin).astype(np.float16)
        return cls(
            file, encoded, cells.astype(np.float16), heights, (float(origin[0]), float(origin[1]), float(origin[2]))
        )

    @cached_property
    def image(self) -> np.ndarray | None:
        """What the encoder saw, `(h, w, 3)` uint8; None where there are points alone."""
        if not self.encoded:
            return None
        with Image.open(io.BytesIO(self.encoded)) as image:
            return np.array(image.convert("RGB"))

    @cached_property
    def xyz(self) -> np.ndarray | None:
        """The measured points `(h, w, 3)` float32 in metres; None where there are none."""
        if self.heights is None:
            return None
        return ((self.heights.astype(np.float32) + np.array(self.origin, np.float32)) / 1000).astype(np.float32)

    @cached_property
    def unit_cells(self) -> np.ndarray:
        """The patches `(gh, gw, K)` float32."""
        return self.cells.astype(np.float32)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        shown = self.image if self.encoded else self.heights
        assert shown is not None  # one of them is there
        return shown.shape[0], shown.shape[1]
