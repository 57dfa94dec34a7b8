"""The reader of numpy's .npy files, which hold one array of levels."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from blemish.data.files import npy_header
from blemish.data.readers.base import Decoded, check_pixels, no_page
from blemish.errors import ImageError

MAGIC = b"\x93NUMPY"


def read_npy(file: BinaryIO, name: str, limit: int, page: int | None = None) -> Decoded:
    """Decode an open .npy file from its beginning: levels `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)`."""
    if page not in (None, 1):
        raise no_page(name, 1)
    shape, dtype = npy_header(file)
    if dtype.hasobject:
        raise ImageError(f"an array of numbers in '{name}'", "Python objects", "save it with a number format")
    if len(shape) in (2, 3):
        check_pixels(shape[0], shape[1], name, limit)
    else:
        raise ImageError(f"an array (H, W) or (H, W, 3) in '{name}'", f"shape {shape}", "save one picture a file")
    file.seek(0)
    levels = np.load(file, allow_pickle=False)
    return Decoded(name, levels=levels.astype(levels.dtype.newbyteorder("="), copy=False))
