"""Decode, orient and resize: every image enters blemish here, as `(H, W, 3)` uint8 RGB.

Needs numpy and pillow alone. One rule for each kind of pixel, never chosen by what an image shows, so that a good and
a defective part are treated alike:

- 8 bits: as they are. 1 bit: 0 and 255. Grey is copied to three channels.
- 16 bits: the high byte, so full scale (65535) becomes 255. A TIFF that declares 12 bits a pixel is scaled by 12 bits.
- floats: [0, 1] becomes 0 to 255, rounded. Values beyond, NaN and infinity are refused.
- transparency: the image is laid on black. Palettes are looked up, CMYK and YCbCr converted.
- Colour profiles are ignored.
- EXIF orientation is applied. Of an animation or a file of many pages the first is taken.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from blemish.data.files import shown
from blemish.errors import BlemishError, ImageError, SettingsError

_T = TypeVar("_T")

ImageSource = Path | str | np.ndarray | Image.Image

MAX_PIXELS = 100_000_000
MAX_PIXELS_VARIABLE = "BLEMISH_MAX_PIXELS"

# Raster formats alone: EPS and PDF would start an interpreter on a stranger's file.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")

_FLOAT_SLACK = 1e-3  # interpolation overshoots [0, 1] a little
_BITS_TAG, _PHOTOMETRIC_TAG, _ORIENTATION_TAG = 258, 262, 274
_pillow_limit = threading.Lock()

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


@dataclass(frozen=True)
class _Decoded:
    """A decoded file before its pixels are converted: PIL's image and what its header said."""

    pil_image: Image.Image
    name: str
    orientation: int = 1
    is_jpeg: bool = False
    bits: int = 16
    white_is_zero: bool = False

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        return _UPRIGHT.get(self.orientation, lambda a: a)(pixels)


def load_image(source: ImageSource, max_pixels: int | None = None) -> np.ndarray:
    """The image as a writable `(H, W, 3)` uint8 RGB array.

    `source` is a file, a PIL image (its current frame) or an array: `(H, W)`, `(H, W, 1)`, `(H, W, 3)` RGB or
    `(H, W, 4)` RGBA, of uint8, uint16, bool, or float in [0, 1]. An array that already is what is returned is not
    copied. A file of more than `max_pixels` pixels (None: the environment's BLEMISH_MAX_PIXELS, else `MAX_PIXELS`) is
    refused before it is decoded.

    Raises ImageError, which names the file, for everything that cannot be read or used.
    """
    if isinstance(source, np.ndarray):
        rgb = _array_to_rgb(source, "array")
    else:
        decoded = _decode(source, max_pixels)
        rgb = _guarded(decoded.name, lambda: decoded.upright(_image_to_rgb(decoded)))
    return np.require(rgb, requirements=["C", "W"])


def load_mask(source: ImageSource, size: tuple[int, int] | None = None, max_pixels: int | None = None) -> np.ndarray:
    """A defect's mask as `(H, W)` bool: every pixel that is not black, in any channel, is defect. Alpha is ignored.

    In a JPEG, whose edges ring, pixels of at least half the full brightness count.
    A mask whose size differs from `size` `(H, W)` belongs to another image: it is refused, not stretched.
    """
    name, least = "array", 1
    if isinstance(source, np.ndarray):
        levels = source
    else:
        decoded = _decode(source, max_pixels)
        name, least = decoded.name, 128 if decoded.is_jpeg else 1
        levels = _guarded(name, lambda: decoded.upright(_mask_levels(decoded.pil_image)))
    if levels.ndim not in (2, 3) or 0 in levels.shape:
        raise ImageError(f"a mask of shape (H, W) in '{name}'", f"shape {levels.shape}", "reshape it")
    defect = levels > 0 if least == 1 else levels >= least
    mask = defect if defect.ndim == 2 else defect[..., :3].any(axis=-1)  # (H, W)
    if size is not None and mask.shape != tuple(size):
        raise ImageError(
            f"a mask of {size[1]}x{size[0]} pixels, its picture's size, in '{name}'",
            f"{mask.shape[1]}x{mask.shape[0]}",
            "give the mask that was drawn on this picture, or scale it with nearest neighbour",
        )
    return np.ascontiguousarray(mask)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`image` `(H, W, 3)` uint8 scaled to `size` `(h, w)`: bilinear, with antialiasing where it shrinks.

    The one resize that learning, inspecting and exported models share (Pillow's BILINEAR, whose support grows with the
    reduction).
    """
    if image.shape[:2] == tuple(size):
        return image
    height, width = size
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def fit_size(
    height: int, width: int, image_size: int, multiple: int, square: bool = False, max_aspect: float = 4.0
) -> tuple[int, int]:
    """The size `(h, w)` at which an encoder sees an image of `height` x `width` pixels.

    The short side becomes `image_size` and the aspect ratio is kept; then each side is rounded to the nearest multiple
    of `multiple` (halves up), at least one multiple. The long side ends at `max_aspect` x `image_size`, which bounds
    the work: an image longer than that is squeezed. With `square` both sides become `image_size`, rounded alike.
    """
    if min(height, width, image_size, multiple) < 1 or max_aspect < 1:
        raise SettingsError(
            "sizes of at least one pixel and a max_aspect of at least 1",
            f"a picture of {width}x{height}, image_size {image_size}, multiple {multiple}, max_aspect {max_aspect}",
            "correct the setting",
        )
    short = min(height, width)
    sides = (1.0, 1.0) if square else (min(height / short, max_aspect), min(width / short, max_aspect))
    h, w = (max(1, int(side * image_size / multiple + 0.5)) * multiple for side in sides)
    return h, w


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Whatever a decoder raises on a damaged file becomes a ImageError that names it and `what` it should hold."""
    try:
        yield
    except BlemishError:
        raise
    except Exception as error:  # decoders of damaged files raise anything
        raise ImageError(
            f"{what} in '{shown(path)}'", f"a damaged or unsupported file ({error})", "copy or record it again"
        ) from error


def check_pixels(height: int, width: int, name: str, max_pixels: int | None = None) -> None:
    """Refuse a file, before it is decoded, whose header says that it has more pixels than the limit."""
    limit = pixel_limit(max_pixels)
    if height * width > limit:
        raise ImageError(
            f"at most {limit:,} pixels in '{name}'",
            f"{width}x{height} = {width * height:,} pixels",
            f"scale it down, or raise max_pixels or {MAX_PIXELS_VARIABLE}",
        )


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


def _decode(source: Path | str | Image.Image, max_pixels: int | None) -> _Decoded:
    limit = pixel_limit(max_pixels)
    if isinstance(source, Image.Image):
        name = shown(getattr(source, "filename", "") or "picture")
        return _guarded(name, lambda: _load(source, name, limit))
    if not isinstance(source, (str, Path)):
        raise ImageError("a path, a numpy array or a PIL picture", type(source).__name__, "convert it first")
    path = Path(os.path.expanduser(source))
    name = shown(path)
    if not os.path.exists(path):
        raise ImageError(f"a picture at '{name}'", "nothing there", "check the path")
    if not os.path.isfile(path):
        raise ImageError(f"a picture at '{name}'", "a folder or device", "give a picture file")
    if path.stat().st_size == 0:
        raise ImageError(f"a picture in '{name}'", "an empty file (0 bytes)", "copy or record it again")
    return _guarded(name, lambda: _load_file(path, name, limit))


def _guarded(name: str, load: Callable[[], _T]) -> _T:
    """Whatever a decoder or converter raises on a damaged file becomes a ImageError that names the file."""
    try:
        return load()
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            f"a picture in '{name}'", "bytes of no known picture format", f"convert it to one of {', '.join(FORMATS)}"
        ) from error
    except Exception as error:  # decoders of damaged files raise anything
        raise ImageError(
            f"a whole picture in '{name}'", f"a damaged or unsupported one ({error})", "copy or record it again"
        ) from error


def _load_file(path: Path, name: str, limit: int) -> _Decoded:
    with path.open("rb") as file:
        with _without_pillows_limit() as usual:
            pil_image: Image.Image = Image.open(file, formats=FORMATS)
            if usual is not None and pil_image.width * pil_image.height > usual:
                return _load(
                    pil_image, name, limit
                )  # inside, because some of Pillow's decoders ask for its limit again
        return _load(pil_image, name, limit)


@contextmanager
def _without_pillows_limit() -> Iterator[int | None]:
    """Lift Pillow's own limit, one for the whole process, so that ours alone decides; yields what it was."""
    with _pillow_limit:
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield usual
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def _load(pil_image: Image.Image, name: str, limit: int) -> _Decoded:
    """Decode `image`, of which only the header was read, unless it has more than `limit` pixels."""
    check_pixels(pil_image.height, pil_image.width, name, limit)
    tags: Mapping[int, Any] = getattr(pil_image, "tag_v2", {})
    bits, photometric, is_jpeg = (
        tags.get(_BITS_TAG, (16,)),
        tags.get(_PHOTOMETRIC_TAG),
        pil_image.format in ("JPEG", "MPO"),
    )
    pil_image.load()
    try:
        orientation = int(pil_image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block says nothing about the image itself
        orientation = 1
    return _Decoded(pil_image, name, orientation, is_jpeg, 12 if tuple(bits) == (12,) else 16, photometric == 0)


def _image_to_rgb(decoded: _Decoded) -> np.ndarray:
    """PIL's image as `(H, W, 3)` uint8, not yet upright."""
    pil_image, name = decoded.pil_image, decoded.name
    if pil_image.mode == "F":
        return _array_to_rgb(np.asarray(pil_image), name)
    if pil_image.mode == "I" or pil_image.mode.startswith("I;16"):
        levels = np.asarray(pil_image)
        if levels.min() < 0 or levels.max() > 65535:
            raise ImageError(
                f"8-bit or 16-bit levels in '{name}'",
                f"levels from {levels.min()} to {levels.max()}",
                "save it as 16-bit",
            )
        # Pillow turns "white is zero" round for 8 bits only.
        levels = 65535 - levels if decoded.white_is_zero and pil_image.mode != "I" else levels
        return _array_to_rgb(levels.astype(np.uint16) << (16 - decoded.bits), name)
    if pil_image.has_transparency_data or pil_image.mode in ("PA", "La", "RGBa"):
        return _on_black(pil_image.convert("RGBA"))
    return np.array(pil_image.convert("RGB"))


def _mask_levels(pil_image: Image.Image) -> np.ndarray:
    """PIL's image as an array of its own levels, unscaled, so that the level 1 of 16 bits stays above zero."""
    if pil_image.mode not in ("1", "L", "I", "F", "RGB") and not pil_image.mode.startswith("I;16"):
        pil_image = pil_image.convert("RGBA").convert("RGB")  # by way of RGBA a palette gives its colours
    return np.asarray(pil_image)


def _array_to_rgb(array: np.ndarray, name: str) -> np.ndarray:
    """An array of any accepted shape and type as `(H, W, 3)` uint8."""
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        raise ImageError(
            f"shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) in '{name}'",
            f"shape {array.shape}",
            "put channels last: numpy.moveaxis(array, 0, -1)" if first else "give one picture at a time, channels last",
        )
    levels = _levels(array, name)
    if levels.ndim == 2 or levels.shape[2] == 1:
        return np.repeat(levels.reshape(*levels.shape[:2], 1), 3, axis=2)
    return levels if levels.shape[2] == 3 else _on_black(Image.fromarray(levels))


def _levels(array: np.ndarray, name: str) -> np.ndarray:
    """Values of any accepted type as uint8 of the same shape."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(
            f"values of type uint8, uint16, bool or float in '{name}'",
            f"{array.dtype}",
            "convert: array.astype('uint8')",
        )
    wrong = array.size - int(np.isfinite(array).sum())
    if wrong:
        raise ImageError(f"finite values in '{name}'", f"{wrong} that are NaN or infinite", "fill them in first")
    low, high = float(array.min()), float(array.max())
    if low < -_FLOAT_SLACK or high > 1 + _FLOAT_SLACK:
        raise ImageError(
            f"float values in [0, 1] in '{name}'",
            f"[{low:g}, {high:g}]",
            "divide all your pictures by the same full scale",
        )
    return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)


def _on_black(rgba: Image.Image) -> np.ndarray:
    return np.array(Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB"))
