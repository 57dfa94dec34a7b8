"""The full scale of pixels with more than 8 bits: which level is white, learned from normal images and kept.

A 12-bit camera that writes 16-bit files uses their lowest sixteenth. What is white cannot be read off a single image
without treating a good and a defective part differently; so it is learned once, from the maxima of the normal images,
stored in the model, and applied to every image inspected. The user can state it instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blemish.data.data_warnings import warn
from blemish.data.decoding import decode, split_page
from blemish.data.readers import npy, tiff
from blemish.data.readers.base import FORMATS
from blemish.data.readers.pillow import BITS_TAG, is_wide, without_pillows_limit
from blemish.errors import ImageError, SettingsError
from blemish.types import Sample
from blemish.utils.indices import evenly_spaced

LEAST_BITS, MOST_BITS = 8, 32
CAMERA_BITS = (8, 10, 12, 14, 16, 24, 32)  # depths that cameras and file formats have
FLOAT_SCALES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
LEARNED_FROM = 64  # wide images decoded to learn from, at most: their maxima settle a depth in steps of two bits

_FLOAT_SLACK = 1e-3  # interpolation overshoots the full scale a little
_DIM = 16  # an image below a sixteenth of full scale (four bits) probably has another depth


@dataclass(frozen=True, kw_only=True)
class FullScale:
    """Which level becomes 255. Images of 8 bits are never touched.

    `bits` holds for integers of more than 8 bits, whose level `2**bits - 1` is white; None where the normal images
    have none. `floats` is white in images of floats; None where there are none. A depth that a file's header declares
    outranks `bits`, unless the user has `stated` it. Raises SettingsError for an impossible scale.
    """

    bits: int | None = None
    floats: float | None = None
    stated: bool = False

    def __post_init__(self) -> None:
        if self.bits is not None and not LEAST_BITS <= self.bits <= MOST_BITS:
            raise SettingsError(
                f"a bit depth from {LEAST_BITS} to {MOST_BITS}", str(self.bits), "give what your camera states: 10, 12…"
            )
        if self.floats is not None and not self.floats > 0:
            raise SettingsError("a full scale of floats above 0", str(self.floats), "give the value that is white")

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FullScale:
        """What `to_dict` gave. Raises SettingsError for anything else."""
        try:
            bits, floats = values.get("bits"), values.get("floats")
            return cls(
                bits=None if bits is None else int(bits),
                floats=None if floats is None else float(floats),
                stated=bool(values.get("stated", False)),
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise SettingsError("a full scale as FullScale.to_dict gives it", repr(values), "fit again") from error


def learn_full_scale(samples: Sequence[Sample], bit_depth: int | None = None) -> FullScale:
    """The full scale of normal images: the least usual one that none of them exceeds.

    Reads the header of every file, and the pixels of at most `LEARNED_FROM` evenly spaced ones among those with more
    than 8 bits a channel. `bit_depth` is the depth of integers that the user states. Files that cannot be read are
    passed over: loading them says why.
    """
    stated = FullScale(bits=bit_depth, stated=bit_depth is not None)  # checks it first
    wide = [sample.image for sample in samples if sample.image is not None and _may_be_wide(sample.image)]
    highest_integer, highest_float = -1, -1.0
    for image in (wide[i] for i in evenly_spaced(len(wide), LEARNED_FROM)):
        levels = _undeclared_levels(image)
        if levels is None or levels.size == 0:
            continue
        if np.issubdtype(levels.dtype, np.floating):
            finite = levels[np.isfinite(levels)]
            highest_float = max(highest_float, float(finite.max()) if finite.size else 0.0)
        else:
            highest_integer = max(highest_integer, int(levels.max()))
    bits = next((b for b in CAMERA_BITS if highest_integer < 1 << b), MOST_BITS) if highest_integer >= 0 else None
    slack = 1 + _FLOAT_SLACK
    floats = next((f for f in FLOAT_SCALES if highest_float <= f * slack), None) if highest_float >= 0 else None
    return FullScale(bits=bits if bit_depth is None else bit_depth, floats=floats, stated=stated.stated)


def to_uint8(levels: np.ndarray, name: str, full_scale: FullScale | None = None, bits: int | None = None) -> np.ndarray:
    """Levels of any accepted number format as uint8 of the same shape, `(H, W)` or `(H, W, C)`; alpha is a fourth C.

    8 bits stay as they are, 1 bit becomes 0 and 255. Of integers the highest 8 of the depth's bits are kept: `bits` as
    the file declares, else `full_scale`'s, else 16 (8 for an int32 or int64 that holds nothing larger). Floats are
    divided by `full_scale.floats`, else by 1, or by 255 where any is above 1; then rounded.

    Gives a DataWarning of kind "scale" where an image disagrees. Raises ImageError for what cannot be levels.
    """
    if levels.dtype == np.uint8:
        return levels
    if levels.dtype == np.bool_:
        return levels.astype(np.uint8) * np.uint8(255)
    if levels.ndim == 3 and levels.shape[2] == 4:
        colours = to_uint8(levels[..., :3], name, full_scale, bits)
        return np.dstack([colours, _alpha(levels[..., 3], name)])
    if np.issubdtype(levels.dtype, np.integer):
        return _integers_to_uint8(levels, name, full_scale, bits)
    if np.issubdtype(levels.dtype, np.floating):
        return _floats_to_uint8(levels, name, full_scale)
    raise ImageError(f"levels as integers, floats or bool in '{name}'", f"{levels.dtype}", "convert them to uint8")


def _integers_to_uint8(levels: np.ndarray, name: str, full_scale: FullScale | None, declared: int | None) -> np.ndarray:
    low, high = int(levels.min()), int(levels.max())
    if low < 0:
        raise ImageError(
            f"levels of at least 0 in '{name}'", f"levels from {low} to {high}", "add an offset to all your pictures"
        )
    known = _known_bits(full_scale, declared)
    bits = _natural_bits(levels.dtype, high, name) if known is None else known
    full = (1 << bits) - 1
    if known is None and full_scale is not None:
        warn("scale", name, f"has levels of more than 8 bits, which no good picture had: {bits} bits are assumed")
    elif high > full:
        warn("scale", name, f"has levels up to {high}, above full scale ({full} at {bits} bits): they are cut off")
    elif bits > LEAST_BITS and high * _DIM <= full:
        hint = "" if known is not None else "; if your camera has fewer bits, state its bit depth"
        warn("scale", name, f"has no level above {high}, of {full} at {bits} bits: it is nearly black{hint}")
    kept = levels >> (bits - LEAST_BITS) if bits > LEAST_BITS else levels
    return (kept if high <= full else np.minimum(kept, 255)).astype(np.uint8)


def _known_bits(full_scale: FullScale | None, declared: int | None) -> int | None:
    if full_scale is not None and full_scale.stated:
        return full_scale.bits
    return declared if declared is not None else None if full_scale is None else full_scale.bits


def _natural_bits(dtype: np.dtype[Any], high: int, name: str) -> int:
    """The depth of integers of which nothing is known but their format."""
    if dtype.kind == "u" and dtype.itemsize == 2:  # of either byte order
        return 16
    if high >= 1 << 16:
        raise ImageError(
            f"8-bit or 16-bit levels in '{name}', or a stated bit depth",
            f"levels from 0 to {high}",
            f"state the bit depth (--bit-depth {high.bit_length()}), or scale all pictures alike to 16 bits",
        )
    return 16 if high > 255 else LEAST_BITS


def _floats_to_uint8(levels: np.ndarray, name: str, full_scale: FullScale | None) -> np.ndarray:
    wrong = levels.size - int(np.isfinite(levels).sum())
    if wrong:
        raise ImageError(f"finite values in '{name}'", f"{wrong} that are NaN or infinite", "fill them in first")
    low, high = float(levels.min()), float(levels.max())
    known = None if full_scale is None else full_scale.floats
    full = known if known is not None else 1.0 if high <= 1 + _FLOAT_SLACK else 255.0
    is_beyond = high > full * (1 + _FLOAT_SLACK)
    if low < -_FLOAT_SLACK * full or (is_beyond and (known is None or full == 1)):
        raise ImageError(
            f"float values in [0, {1 if known is None else full:g}] in '{name}'",
            f"[{low:g}, {high:g}]",
            "divide all your pictures by the same full scale",
        )
    if is_beyond:
        warn("scale", name, f"has values up to {high:g}, above full scale ({full:g}): they are cut off")
    elif known is not None and high * _DIM <= full:
        warn("scale", name, f"has no value above {high:g}, of {full:g}: it is nearly black")
    return np.rint(np.clip(levels if full == 1 else levels / full, 0, 1) * 255).astype(np.uint8)


def _alpha(alpha: np.ndarray, name: str) -> np.ndarray:
    """Alpha `(H, W)` as uint8: opaque is the least usual full scale that it does not exceed, whatever the colours'."""
    if np.issubdtype(alpha.dtype, np.floating):
        return _floats_to_uint8(alpha, name, None)
    high = int(alpha.max())
    bits = next((b for b in CAMERA_BITS if high < 1 << b), MOST_BITS)
    return (alpha >> (bits - LEAST_BITS)).clip(0, 255).astype(np.uint8)


def _may_be_wide(image: Path | np.ndarray) -> bool:
    """Whether an image may have undeclared levels of more than 8 bits, by its type or by its file's first bytes."""
    if isinstance(image, np.ndarray):
        return image.dtype not in (np.dtype(np.uint8), np.dtype(np.bool_))
    try:
        with split_page(image)[0].open("rb") as file:
            head = file.read(26)
            if head.startswith(b"\xff\xd8"):  # JPEG has 8 bits
                return False
            if head.startswith(b"\x89PNG"):
                return len(head) == 26 and head[24] == 16
            if head.startswith(npy.MAGIC):
                return True
            file.seek(0)
            with without_pillows_limit():
                pil_image = Image.open(file, formats=FORMATS)
            tags = getattr(pil_image, "tag_v2", {})
            return is_wide(pil_image) or max(tags.get(BITS_TAG, (8,))) > LEAST_BITS
    except Exception:  # loading it will say what is wrong with it; a TIFF that Pillow does not know is worth a look
        return head.startswith(tiff.MAGIC) if "head" in locals() else False


def _undeclared_levels(image: Path | np.ndarray) -> np.ndarray | None:
    """The colours' levels of an image of more than 8 bits whose header declares no depth, None for any other."""
    if isinstance(image, np.ndarray):
        levels: np.ndarray | None = image
    else:
        try:
            decoded = decode(image)
        except Exception:
            return None
        levels = decoded.levels if decoded.bits is None else None
    if levels is None or levels.dtype == np.uint8 or levels.dtype.kind not in "uif":
        return None
    return levels[..., :3] if levels.ndim == 3 else levels
