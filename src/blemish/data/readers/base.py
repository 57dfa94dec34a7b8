"""What a reader gives back, and the guards that all of them share: limits on size, and errors that name the file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from blemish.data.files import shown
from blemish.errors import BlemishError, ImageError, SettingsError

_T = TypeVar("_T")

MAX_PIXELS = 100_000_000
MAX_PIXELS_VARIABLE = "BLEMISH_MAX_PIXELS"

# Raster formats alone: EPS and PDF would start an interpreter on a stranger's file. Formats that need a package of
# their own are added where a file's first bytes call for them (decoding.py).
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")

# How a stored array becomes upright, by the EXIF orientation it carries; 1 needs nothing.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded file before its pixels are converted: PIL's image or, where that has too few bits, its levels.

    `levels` are as stored, `(H, W)`, `(H, W, 3)` or, with straight alpha, `(H, W, 4)`, of any number format. `bits` is
    the depth that the header declares for them, None where it declares none or that of their number format.
    `orientation` is EXIF's: neither of the two is upright yet. `pages` counts the pages of a TIFF of which none was
    named.
    """

    name: str
    pil_image: Image.Image | None = None
    levels: np.ndarray | None = None
    orientation: int = 1
    is_jpeg: bool = False
    bits: int | None = None
    white_is_zero: bool = False
    pages: int = 1

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """`pixels` `(H, W, ...)` of this file turned as EXIF says."""
        turn = _UPRIGHT.get(self.orientation)
        return pixels if turn is None else turn(pixels)


def pixel_limit(max_pixels: int | None = None) -> int:
    """How many pixels a file may have: `max_pixels`, else BLEMISH_MAX_PIXELS, else `MAX_PIXELS`."""
    value: int | str = os.environ.get(MAX_PIXELS_VARIABLE) or MAX_PIXELS if max_pixels is None else max_pixels
    try:
        limit = int(value)
    except ValueError:
        limit = 0
    if limit < 1:
        raise SettingsError(
            f"a whole number of pixels, at least 1, as max_pixels or {MAX_PIXELS_VARIABLE}",
            repr(value),
            f"set it to {MAX_PIXELS}, or to what your largest picture has",
        )
    return limit


def check_pixels(height: int, width: int, name: str, max_pixels: int | None = None) -> None:
    """Refuse a file, before it is decoded, whose header says that it has more pixels than the limit."""
    limit = pixel_limit(max_pixels)
    if height * width > limit:
        raise ImageError(
            f"at most {limit:,} pixels in '{name}'",
            f"{width}x{height} = {width * height:,} pixels",
            f"scale it down, or raise max_pixels or {MAX_PIXELS_VARIABLE}",
        )


def check_file(path: Path) -> None:
    """Raise ImageError, with the true reason, unless `path` is a file that can be opened and is not empty."""
    name = shown(path)
    try:
        size = os.stat(path).st_size
        if os.path.isfile(path):
            with open(path, "rb"):
                pass
    except PermissionError as error:
        raise ImageError(f"a picture at '{name}'", "permission denied", _GIVE_THE_RIGHT) from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        if isinstance(error, ValueError) or error.errno in _ABSENT:
            raise ImageError(f"a picture at '{name}'", "nothing there", "check the path") from error
        raise ImageError(f"a picture at '{name}'", error.strerror or str(error), "check the disk or network") from error
    if not os.path.isfile(path):
        raise ImageError(f"a picture at '{name}'", "a folder or device", "give a picture file")
    if size == 0:
        raise ImageError(f"a picture in '{name}'", "an empty file (0 bytes)", "copy or record it again")


def guarded(name: str, load: Callable[[], _T]) -> _T:
    """Whatever a decoder or converter raises on a damaged file becomes an ImageError that names the file."""
    try:
        return load()
    except BlemishError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"a picture in '{name}'", "bytes of no known picture format", f"convert it to one of {', '.join(FORMATS)}"
        ) from error
    except Exception as error:  # decoders of damaged files raise anything
        raise _damaged(f"a whole picture in '{name}'", error) from error


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Whatever a decoder raises on a damaged file becomes an ImageError that names it and `what` it should hold."""
    try:
        yield
    except BlemishError:
        raise
    except Exception as error:  # decoders of damaged files raise anything
        raise _damaged(f"{what} in '{shown(path)}'", error) from error


def points_shape(path: Path) -> bool:
    """Whether a TIFF or .npy file holds floats of three channels or of one, as points and depth are, by its header."""
    try:
        if path.suffix.lower() == ".npy":
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
            return stored.dtype.kind == "f" and (stored.ndim == 2 or (stored.ndim == 3 and stored.shape[2] == 3))
        with path.open("rb") as file:
            tags = getattr(Image.open(file, formats=("TIFF",)), "tag_v2", {})
            return set(tags.get(_SAMPLE_FORMAT, (1,))) == {3} and tags.get(_SAMPLES, 1) in (1, 3)
    except UnidentifiedImageError:  # floats of three channels, which Pillow does not know
        return path.suffix.lower() != ".npy"
    except Exception:  # loading it will say what is wrong with it
        return False


def no_page(name: str, pages: int) -> ImageError:
    """The error for a page that a file does not have."""
    return ImageError(f"the page that '{name}' names", f"a file of {pages}", f"name a page from 1 to {pages}")


_SAMPLES, _SAMPLE_FORMAT = 277, 339  # tags of TIFF
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_GIVE_THE_RIGHT = "give this user the right to read it"


def _damaged(expected: str, error: Exception) -> ImageError:
    if isinstance(error, PermissionError):
        return ImageError(expected, "permission denied", _GIVE_THE_RIGHT)
    return ImageError(expected, f"a damaged or unsupported file ({error})", "copy or record it again")
