"""Decode, orient and resize: every image enters blemish here, as `(H, W, 3)` uint8 RGB.

Needs numpy and pillow alone. One rule for each kind of pixel, never chosen by what an image shows, so that a good and
a defective part are treated alike:

- 8 bits: as they are. 1 bit: 0 and 255. Grey is copied to three channels.
- more bits, and floats: by the full scale that was learned or stated (full_scale.py), or that a header declares.
  Without one, 16 bits keep the high byte, and floats are taken as [0, 1], or as [0, 255] where any is above 1.
- transparency: the image is laid on black; one that is transparent everywhere is refused. Palettes are looked up, CMYK
  and YCbCr converted.
- Colour profiles are ignored.
- EXIF orientation is applied. Of an animation or a file of many pages the first is taken, unless a page is named.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from blemish.data.data_warnings import warn
from blemish.data.decoding import ImageSource, decode
from blemish.data.files import find_images
from blemish.data.full_scale import FullScale, to_uint8
from blemish.data.readers.base import Decoded, guarded
from blemish.errors import ImageError, SettingsError
from blemish.utils.paths import shown


def load_image(
    source: ImageSource,
    max_pixels: int | None = None,
    full_scale: FullScale | None = None,
    page: int | None = None,
) -> np.ndarray:
    """The image as a writable `(H, W, 3)` uint8 RGB array.

    `source` is a file (a path, its bytes, or one opened in binary mode), a PIL image (its current frame) or an array:
    `(H, W)`, `(H, W, 1)`, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, of uint8, wider integers, bool, or float. An array that
    already is what is returned is not copied. `full_scale` says which level of more than 8 bits is white. `page` of a
    file counts from 1; a path may name it: "stack.tif#3". A file of more than `max_pixels` pixels (None: the
    environment's BLEMISH_MAX_PIXELS, else 100 million) is refused before it is decoded.

    Raises ImageError, which names the file, for everything that cannot be read or used. Gives a DataWarning where a
    full scale is doubtful, or a TIFF has more pages than the one taken.
    """
    if isinstance(source, np.ndarray):
        rgb = _array_to_rgb(source, "array", full_scale)
    else:
        decoded = decode(source, max_pixels, page)
        rgb = guarded(decoded.name, lambda: decoded.upright(_decoded_to_rgb(decoded, full_scale)))
        if decoded.pages > 1 and "#" not in decoded.name and not isinstance(source, Image.Image):
            warn("pages", decoded.name, f"has {decoded.pages} pages, of which the first is taken")
    return np.require(rgb, requirements=["C", "W"])


def load_levels(source: ImageSource, max_pixels: int | None = None) -> np.ndarray:
    """An image in memory as an array that `load_image` takes, its own: of more than 8 bits with all of them.

    For images whose full scale is not known yet; the array is never the caller's. Raises ImageError as `load_image`.
    """
    if isinstance(source, np.ndarray):
        return source.copy()
    decoded = decode(source, max_pixels)
    if decoded.levels is None or decoded.bits is not None or decoded.white_is_zero:
        return guarded(decoded.name, lambda: decoded.upright(_decoded_to_rgb(decoded, None))).copy()
    return decoded.upright(decoded.levels).copy()


def load_mask(source: ImageSource, size: tuple[int, int] | None = None, max_pixels: int | None = None) -> np.ndarray:
    """A defect's mask as `(H, W)` bool: every pixel that is not black, in any channel, is defect. Alpha is ignored.

    In a JPEG, whose edges ring, pixels of at least half the full brightness count. Of a folder, all masks together.
    A mask whose size differs from `size` `(H, W)` belongs to another image: it is refused, not stretched.
    """
    name, least = "array", 1
    if isinstance(source, Path) and source.is_dir():
        return _union_of_masks(source, size, max_pixels)
    if isinstance(source, np.ndarray):
        levels = source
    else:
        decoded = decode(source, max_pixels)
        name, least = decoded.name, 128 if decoded.is_jpeg else 1
        levels = guarded(name, lambda: decoded.upright(_mask_levels(decoded)))
    if levels.ndim not in (2, 3) or 0 in levels.shape:
        raise ImageError(f"a mask of shape (H, W) in '{name}'", f"shape {levels.shape}", "reshape it")
    defect = levels > 0 if least == 1 else levels >= least
    mask = defect if defect.ndim == 2 else defect[..., :3].any(axis=-1)  # (H, W)
    if size is not None and mask.shape != tuple(size):
        is_turned = mask.shape == (size[1], size[0])
        raise ImageError(
            f"a mask of {size[1]}x{size[0]} pixels, its picture's size, in '{name}'",
            f"{mask.shape[1]}x{mask.shape[0]}" + " (drawn before the picture was turned upright?)" * is_turned,
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


def _decoded_to_rgb(decoded: Decoded, full_scale: FullScale | None) -> np.ndarray:
    """A decoded file as `(H, W, 3)` uint8, not yet upright."""
    if decoded.levels is not None:
        # Only of 8 bits does Pillow turn "white is zero" round itself.
        rgb = _array_to_rgb(decoded.levels, decoded.name, full_scale, decoded.bits)
        return 255 - rgb if decoded.white_is_zero else rgb
    pil_image = decoded.pil_image
    assert pil_image is not None  # a reader gives one of the two
    if pil_image.has_transparency_data or pil_image.mode in ("PA", "La", "RGBa"):
        return _on_black(pil_image.convert("RGBA"), decoded.name)
    return np.array(pil_image.convert("RGB"))


def _union_of_masks(folder: Path, size: tuple[int, int] | None, max_pixels: int | None) -> np.ndarray:
    """All masks of a folder together, `(H, W)` bool. Raises ImageError for none, or masks of several sizes."""
    masks = [load_mask(path, size, max_pixels) for path in find_images(folder)]
    if len({mask.shape for mask in masks}) != 1:
        raise ImageError(
            f"masks of one size in '{shown(folder)}'",
            ", ".join(f"{mask.shape[1]}x{mask.shape[0]}" for mask in masks[:8]) or "none",
            "give a mask for each defect of the picture",
        )
    return np.logical_or.reduce(masks)


def _mask_levels(decoded: Decoded) -> np.ndarray:
    """A decoded file as an array of its own levels, unscaled, so that the level 1 of 16 bits stays above zero."""
    if decoded.levels is not None:
        levels = decoded.levels
        if decoded.white_is_zero and levels.dtype.kind == "u":
            return (1 << (decoded.bits or 8 * levels.dtype.itemsize)) - 1 - levels
        return levels
    pil_image = decoded.pil_image
    assert pil_image is not None  # a reader gives one of the two
    if pil_image.mode not in ("1", "L", "RGB"):
        pil_image = pil_image.convert("RGBA").convert("RGB")  # by way of RGBA a palette gives its colours
    return np.asarray(pil_image)


def _array_to_rgb(
    array: np.ndarray, name: str, full_scale: FullScale | None = None, bits: int | None = None
) -> np.ndarray:
    """An array of any accepted shape and type as `(H, W, 3)` uint8."""
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        raise ImageError(
            f"shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) in '{name}'",
            f"shape {array.shape}",
            "put channels last: numpy.moveaxis(array, 0, -1)" if first else "give one picture at a time, channels last",
        )
    levels = to_uint8(array, name, full_scale, bits)
    if levels.ndim == 2 or levels.shape[2] == 1:
        return np.repeat(levels.reshape(*levels.shape[:2], 1), 3, axis=2)
    return levels if levels.shape[2] == 3 else _on_black(Image.fromarray(levels), name)


def _on_black(rgba: Image.Image, name: str) -> np.ndarray:
    if rgba.getchannel("A").getextrema() == (0, 0):
        raise ImageError(
            f"a picture that can be seen in '{name}'", "one that is transparent everywhere", "save it without alpha"
        )
    return np.array(Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB"))
