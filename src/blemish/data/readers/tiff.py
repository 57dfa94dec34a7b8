"""The reader of TIFF: Pillow where it is known to read a kind of file right and with all bits, tifffile elsewhere.

Pillow misreads two kinds without a word: 16-bit colours in separate planes without compression come out striped, and
compressed files in big-endian byte order that hold signed, 32-bit or floating point levels come out byte-swapped. Of
16-bit colours it keeps the high byte alone, and signed bytes it takes for unsigned ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from blemish.data.readers.base import Decoded, check_pixels, no_page
from blemish.data.readers.pillow import (
    BITS_TAG,
    ORIENTATION_TAG,
    WHITE_IS_ZERO,
    read_with_pillow,
    turn_to,
    without_pillows_limit,
)
from blemish.errors import ImageError, MissingPackageError
from blemish.utils.optional import need

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COMPRESSION_TAG, _SAMPLES_TAG, _PLANAR_TAG, _EXTRA_TAG, _FORMAT_TAG = 259, 277, 284, 338, 339
_SUBFILE_TAG = 254
_SMALLER_OR_MASK = 0b101  # bits of the subfile tag: a smaller copy of a page, a mask of one
_BLACK_IS_ZERO, _RGB = 1, 2  # values of the photometric tag
_UNSPECIFIED, _PREMULTIPLIED = 0, 1  # values of the extra samples tag; 2 is straight alpha
_FORMATS = {1: "unsigned", 2: "signed", 3: "floating point", 4: "undefined", 5: "complex", 6: "complex"}


@dataclass(frozen=True)
class _Kind:
    """How a page stores its pixels, and which reader is right for that."""

    words: str
    is_read: bool = False  # by Pillow, right
    is_whole: bool = False  # with all bits


def read_tiff(file: BinaryIO, name: str, limit: int, page: int | None = None) -> Decoded:
    """Decode an open TIFF from its beginning; `page` counts from 1.

    Raises ImageError, with what can be done, for a kind of file that the packages at hand cannot read right.
    """
    kind, pages, unknown = _Kind("a kind of TIFF that Pillow does not know"), 0, None
    try:
        with without_pillows_limit():
            pil_image = Image.open(file, formats=("TIFF",))
            pages = int(getattr(pil_image, "n_frames", 1)) if page is None else 1  # to count, all headers are read
            turn_to(pil_image, name, page)
            kind = _kind_of(pil_image.tag_v2, is_big_endian=pil_image.tag_v2.prefix == b"MM")  # type: ignore[attr-defined]
    except ImageError:
        raise
    except Exception as error:  # of damaged files too: which of the two it is, tifffile will say
        unknown = error
    file.seek(0)
    if kind.is_whole:
        return read_with_pillow(file, name, limit, page, ("TIFF",))
    try:
        return replace(_read_with_tifffile(file, name, limit, page), pages=max(pages, 1))
    except ImageError:
        raise
    except Exception as error:  # tifffile is not installed, lacks a codec, or finds the file damaged
        if not kind.is_read:
            raise _unread(name, kind, error) from (unknown or error)
    file.seek(0)
    return read_with_pillow(file, name, limit, page, ("TIFF",))


def page_numbers(file: BinaryIO) -> list[int]:
    """The numbers, from 1, of the equal pages of an open TIFF; 1 alone where they differ. Reads headers.

    Smaller copies of a page and masks of one are none.
    """
    try:
        pages = _pages_by_pillow(file)
    except Exception:  # a kind of TIFF that Pillow does not know, or a damaged one
        file.seek(0)
        pages = _pages_by_tifffile(file)
    whole = {i: kind for i, (subfile, kind) in enumerate(pages, start=1) if not subfile & _SMALLER_OR_MASK}
    return list(whole) if len(set(whole.values())) == 1 else [1]


def _pages_by_pillow(file: BinaryIO) -> list[tuple[int, object]]:
    """The subfile tag of each page, and its size and kind of pixels."""
    found: list[tuple[int, object]] = []
    with without_pillows_limit():
        pil_image = Image.open(file, formats=("TIFF",))
        for index in range(int(getattr(pil_image, "n_frames", 1))):
            pil_image.seek(index)
            subfile = int(pil_image.tag_v2.get(_SUBFILE_TAG, 0))  # type: ignore[attr-defined]
            found.append((subfile, (pil_image.size, pil_image.mode)))
    return found


def _pages_by_tifffile(file: BinaryIO) -> list[tuple[int, object]]:
    tifffile = need("tifffile", "tiff", "this kind of TIFF")
    with tifffile.TiffFile(file) as tiff:
        return [(int(page.subfiletype), (page.shape, page.dtype)) for page in tiff.pages]


def _kind_of(tags: Mapping[int, Any], is_big_endian: bool) -> _Kind:
    bits = tuple(tags.get(BITS_TAG, (1,)))
    samples, planar = int(tags.get(_SAMPLES_TAG, 1)), int(tags.get(_PLANAR_TAG, 1))
    formats = {int(value) for value in tags.get(_FORMAT_TAG, (1,))}
    is_compressed = int(tags.get(_COMPRESSION_TAG, 1)) != 1
    words = f"{samples} channel{'s' * (samples > 1)} of {'/'.join(map(str, sorted(set(bits))))}-bit "
    words += f"{'/'.join(_FORMATS.get(f, str(f)) for f in sorted(formats))} levels"
    words += " in separate planes" * (planar == 2 and samples > 1) + ", compressed" * is_compressed
    if max(bits) <= 8:
        return _Kind(words, *[formats <= {1, 4}] * 2)
    if samples == 1:
        sound = (formats <= {1, 4} and max(bits) <= 16) or not (is_compressed and is_big_endian)
        return _Kind(words, sound, sound)
    sound = formats <= {1, 4} and set(bits) == {16} and (planar == 1 or is_compressed)
    return _Kind(words, sound)


def _read_with_tifffile(file: BinaryIO, name: str, limit: int, page: int | None) -> Decoded:
    tifffile = need("tifffile", "tiff", "this kind of TIFF")
    with tifffile.TiffFile(file) as tiff:
        if page is not None and page > len(tiff.pages):
            raise no_page(name, len(tiff.pages))
        at = tiff.pages[0 if page is None else page - 1]
        check_pixels(at.imagelength, at.imagewidth, name, limit)
        photometric, samples = int(at.photometric), int(at.samplesperpixel)
        if photometric not in (WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
            raise ValueError(f"colours of kind {photometric}")
        if int(at.bitspersample) < 8 and samples > 1:
            raise ValueError("several channels of less than 8 bits")  # tifffile unpacks them wrong
        extra = [int(value) for value in at.extrasamples]
        _check_channels(samples, extra, name)
        levels = np.asarray(at.asarray())
        if samples > 1 and int(at.planarconfig) == 2:
            levels = np.moveaxis(levels, 0, -1)  # (S, H, W) to (H, W, S)
        levels = levels.reshape(at.imagelength, at.imagewidth, samples)
        orientation = at.tags.valueof(ORIENTATION_TAG, 1)
        bits = int(at.bitspersample) if at.bitspersample not in (8, 16, 32, 64) else None
    return Decoded(
        name,
        levels=_with_alpha(levels, extra),
        orientation=int(orientation),
        bits=bits,
        white_is_zero=photometric == WHITE_IS_ZERO,
    )


def _check_channels(samples: int, extra: list[int], name: str) -> None:
    """Refuse, before it is decoded, a picture of more channels than colours and alpha."""
    if samples > 4 or (samples == 2 and not extra):
        raise ImageError(f"a picture of 1, 3 or 4 channels in '{name}'", f"{samples} channels", "choose three of them")


def _with_alpha(levels: np.ndarray, extra: list[int]) -> np.ndarray:
    """Levels `(H, W, S)` as `(H, W)`, `(H, W, 3)` or, with straight alpha, `(H, W, 4)`."""
    samples = levels.shape[2]
    colours = 1 if samples < 3 else 3
    kind = None if samples == colours else (extra or [2])[0]
    # Laid on black, premultiplied colours are what they are; an extra sample of unknown meaning is no alpha.
    if kind in (None, _UNSPECIFIED, _PREMULTIPLIED):
        return levels[..., 0] if colours == 1 else levels[..., :3]
    return levels if colours == 3 else levels[..., [0, 0, 0, 1]]


def _unread(name: str, kind: _Kind, error: Exception) -> ImageError:
    """Why a TIFF cannot be read, and what really helps."""
    if isinstance(error, MissingPackageError):
        return ImageError(
            f"a TIFF that Pillow reads right in '{name}'",
            kind.words,
            "install tifffile, which reads more kinds: pip install 'blemish[tiff]'; or save it as PNG",
        )
    return ImageError(
        f"a whole TIFF that Pillow or tifffile reads in '{name}'",
        f"{kind.words} ({error})",
        "copy it again, or save it as PNG, or as TIFF without compression in 8-bit or 16-bit grey",
    )
