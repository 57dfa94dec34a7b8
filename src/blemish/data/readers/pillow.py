"""The reader of everything that Pillow reads: 8 bits a channel as PIL's image, wider pixels as levels."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from blemish.data.readers.base import FORMATS, Decoded, check_pixels, no_page

BITS_TAG, PHOTOMETRIC_TAG, ORIENTATION_TAG = 258, 262, 274
WHITE_IS_ZERO = 0  # a value of the photometric tag

_pillow_limit = threading.Lock()


def read_with_pillow(
    file: BinaryIO, name: str, limit: int, page: int | None = None, formats: tuple[str, ...] = FORMATS
) -> Decoded:
    """Decode an open file from its beginning, by one of Pillow's `formats`; `page` counts from 1."""
    with without_pillows_limit() as usual:
        pil_image: Image.Image = Image.open(file, formats=formats)
        turn_to(pil_image, name, page)
        if usual is not None and pil_image.width * pil_image.height > usual:
            # Inside, because some of Pillow's decoders ask for its limit again.
            return load(pil_image, name, limit, file, page)
    return load(pil_image, name, limit, file, page)


@contextmanager
def without_pillows_limit() -> Iterator[int | None]:
    """Lift Pillow's own limit, one for the whole process, so that ours alone decides; yields what it was."""
    with _pillow_limit:
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield usual
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def turn_to(pil_image: Image.Image, name: str, page: int | None) -> None:
    """Make `page`, which counts from 1, the image's current one. Raises ImageError where there is none."""
    if page is None or page == 1:
        return
    try:
        pil_image.seek(page - 1)
    except EOFError as error:
        file: Any = pil_image.fp  # type: ignore[attr-defined]
        file.seek(0)  # opened again, because Pillow counts a TIFF wrong after a page that is not there
        raise no_page(name, getattr(Image.open(file, formats=(pil_image.format or "",)), "n_frames", 1)) from error


def load(
    pil_image: Image.Image, name: str, limit: int, file: BinaryIO | None = None, page: int | None = None
) -> Decoded:
    """Decode `pil_image`, of which only the header was read, unless it has more than `limit` pixels.

    Pages are counted where no `page` was named.
    """
    check_pixels(pil_image.height, pil_image.width, name, limit)
    tags: Mapping[int, Any] = getattr(pil_image, "tag_v2", {})
    is_jpeg = pil_image.format in ("JPEG", "MPO")
    white_is_zero = tags.get(PHOTOMETRIC_TAG) == WHITE_IS_ZERO
    bits = 12 if tuple(tags.get(BITS_TAG, ())) == (12,) else None
    pages = getattr(pil_image, "n_frames", 1) if pil_image.format == "TIFF" and page is None else 1
    low = None if file is None else _low_bytes(pil_image, file)
    pil_image.load()
    try:
        orientation = int(pil_image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block says nothing about the image itself
        orientation = 1
    levels = None
    if low is not None:
        levels = np.asarray(pil_image).astype(np.uint16) << 8 | low  # (H, W, 3) or (H, W, 4)
    elif is_wide(pil_image):
        levels = np.asarray(pil_image)  # (H, W)
        is_16_bit = pil_image.mode == "I" and pil_image.format in ("PNG", "PPM")  # which hold no more
        levels = levels.astype(np.uint16 if is_16_bit else levels.dtype.newbyteorder("="), copy=False)
    kept = None if levels is not None else pil_image
    return Decoded(name, kept, levels, orientation, is_jpeg, bits, white_is_zero, pages)


def is_wide(pil_image: Image.Image) -> bool:
    """Whether PIL keeps more than 8 bits a pixel of this image."""
    return pil_image.mode in ("F", "I") or pil_image.mode.startswith("I;16")


def is_deep_png(pil_image: Image.Image) -> bool:
    """Whether an image not yet loaded is a PNG of 16-bit colours, of which Pillow keeps the high bytes alone."""
    tiles = getattr(pil_image, "tile", None)
    if pil_image.format != "PNG" or not tiles or "transparency" in pil_image.info:
        return False
    return tiles[0][3] in ("RGB;16B", "RGBA;16B")


def _low_bytes(pil_image: Image.Image, file: BinaryIO) -> np.ndarray | None:
    """The low bytes `(H, W, C)` uint8 of a PNG of 16-bit colours, None for any other file.

    Decoded as if its byte order were the other one, Pillow keeps the low bytes for the high ones.
    """
    if not is_deep_png(pil_image):
        return None
    place = file.tell()
    file.seek(0)
    again = Image.open(io.BytesIO(file.read()), formats=("PNG",))
    file.seek(place)
    # A tile is a tuple of codec, box, offset and raw mode: a named one from Pillow 11.1 on.
    for i, (codec, box, offset, _) in enumerate(again.tile):
        other_order: Any = (codec, box, offset, f"{again.mode};16L")
        again.tile[i] = type(again.tile[i])(*other_order) if hasattr(again.tile[i], "_fields") else other_order
    return np.array(again)
