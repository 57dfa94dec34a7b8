"""The area of a product's images that is not judged: serial numbers, date codes, fixtures.

It is given as masks and boxes, and kept as one array `(h, w)` bool that covers the whole image at any resolution. First
of all it is filled in with the colours around it, as an encoder's patches hold something of all that lies near them or,
with attention, of the whole image; then it is laid onto what the encoder sees, wherever the framing put it, for patches
that are left out of every score.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blemish.data.images import load_mask
from blemish.errors import DatasetError, ImageError, SettingsError
from blemish.numeric.raster import gaussian_filter
from blemish.preprocessing.framing import Frame
from blemish.types import ImageOrScan, Scan
from blemish.utils.paths import expanded

AreaInput = str | Path | np.ndarray  # "x,y,width,height", the path of a mask, or a mask `(H, W)`
AreaInputs = AreaInput | Sequence[AreaInput]
IgnoreInput = AreaInputs | Mapping[str, AreaInputs] | Mapping[str | None, AreaInputs]  # by category; None: of all
Size = tuple[int, int]  # height and width in pixels

SHORT_SIDE = 512  # cells of a kept area, at most: what encoders see of an image is hardly finer
FILL_CELLS = 64  # along the long side; chosen by hand, as are the blurs: smooth, and as local as can be
FILL_BLURS = ((1.0, 1.0), (1e-3, 4.0))  # weights, and standard deviations in cells
FILL_REACH = 8  # cells around the area that give it their colours
_NUMBER = r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*"
_BOX = re.compile(",".join([_NUMBER] * 4))
_LOOKS_LIKE_A_BOX = re.compile(r"[-\d.,;%\s]+")
_FORM = "a box as x,y,width,height in pixels or percent, such as 10%,5%,20%,8%"


@dataclass(frozen=True)
class Box:
    """A rectangle: left, top, width and height, each in pixels or as a share of the image's width or height."""

    text: str
    numbers: tuple[float, float, float, float]
    is_share: tuple[bool, bool, bool, bool]

    @classmethod
    def of(cls, text: str) -> Box:
        """From "x,y,width,height", numbers with "%" being shares. Raises SettingsError for anything else."""
        found = _BOX.fullmatch(text)
        if found is None:
            raise SettingsError(_FORM, repr(text), "give four numbers, or the path of a mask")
        parts = found.groups()
        is_share = tuple(sign == "%" for sign in parts[1::2])
        numbers = tuple(float(n) / (100 if s else 1) for n, s in zip(parts[::2], is_share, strict=True))
        if not (numbers[2] > 0 and numbers[3] > 0):
            raise SettingsError("a box to ignore with a width and a height", repr(text), "give a larger one")
        return cls(text, numbers, is_share)  # type: ignore[arg-type]  # four of each

    def draw(self, area: np.ndarray, sizes: Iterable[Size]) -> None:
        """Mark the box in `area` `(h, w)` bool of images of these `sizes`, in place; cells that it touches count.

        Raises SettingsError where it lies beyond the images, or is in pixels and they differ in size.
        """
        different = sorted(set(sizes))
        if len(different) > 1 and not all(self.is_share):
            (height, width), (other_height, other_width) = different[:2]
            raise SettingsError(
                f"the box to ignore {self.text!r} in percent, for pictures of different sizes",
                f"pixels, and pictures of {width}x{height} and {other_width}x{other_height}",
                "give it in percent",
            )
        height, width = different[0]
        x, y, across, down = (
            number if share else number / side
            for number, share, side in zip(self.numbers, self.is_share, (width, height) * 2, strict=True)
        )
        if max(x + across, y + down) > 1 + 1e-6:
            raise SettingsError(
                f"a box to ignore that lies inside the pictures of {width}x{height}",
                repr(self.text),
                "give x, y, width and height, not the right and lower edge",
            )
        area[_span(y, y + down, area.shape[0]), _span(x, x + across, area.shape[1])] = True


def _span(first: float, last: float, cells: int) -> slice:
    """The cells that lie at least in part between two relative places."""
    return slice(int(first * cells + 1e-6), max(int(first * cells + 1e-6) + 1, int(np.ceil(last * cells - 1e-6))))


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask `pixels` `(H, W)` bool as it was given, and its file's `name`."""

    name: str
    pixels: np.ndarray

    @classmethod
    def of(cls, given: Path | np.ndarray) -> Mask:
        """From a file or an array: whatever is not black. Raises ImageError for what is none, or black everywhere."""
        name = "array" if isinstance(given, np.ndarray) else str(given)
        pixels = load_mask(given)
        if not pixels.any():
            raise ImageError(f"a mask of what to ignore, white there, in '{name}'", "one that is black", "paint it")
        return cls(name, pixels)

    def draw(self, area: np.ndarray, sizes: Iterable[Size]) -> None:
        """Mark in `area` `(h, w)` bool, in place, what the mask covers of images of these `sizes`.

        Raises ImageError where its aspect ratio is not theirs.
        """
        height, width = self.pixels.shape
        for down, across in sorted(set(sizes)):
            # Scaling rounds to whole pixels: one more or less, on either side, is the same aspect ratio.
            if min(abs(height * across / down - width), abs(width * down / across - height)) > 1:
                raise ImageError(
                    f"a mask of what to ignore with its pictures' aspect ratio, {across}x{down}, in '{self.name}'",
                    f"{width}x{height}",
                    "draw it on one of the pictures",
                )
        area |= resized_area(self.pixels, (area.shape[0], area.shape[1]))


GivenAreas = Mapping[str | None, Sequence[Box | Mask]]  # by category; None: of all


def read_ignored(given: IgnoreInput | None) -> GivenAreas:
    """The boxes and masks given, by category; under None those of all. Masks are read.

    Raises SettingsError for a text that is no box, ImageError for a file that is no mask.
    """
    if given is None:
        return {}
    by_name: Mapping[Any, AreaInputs] = given if isinstance(given, Mapping) else {None: given}
    return {
        name: [_read(one) for one in ([areas] if isinstance(areas, str | Path | np.ndarray) else areas)]
        for name, areas in by_name.items()
    }


def _read(given: AreaInput) -> Box | Mask:
    if isinstance(given, str) and _LOOKS_LIKE_A_BOX.fullmatch(given):
        return Box.of(given)
    return Mask.of(given if isinstance(given, np.ndarray) else expanded(given))


def ignored_areas(given: GivenAreas, sizes: Mapping[str, Sequence[Size]]) -> dict[str, np.ndarray]:
    """The ignored area `(h, w)` bool of each category that has one, from what `read_ignored` gave and image sizes.

    Raises SettingsError for a category that there is none of, DatasetError where nothing is left to judge, and as
    `Box.draw` and `Mask.draw`.
    """
    if unknown := [name for name in given if name is not None and name not in sizes]:
        names = ", ".join(name for name in sizes if name) or "one without a name"
        raise SettingsError(f"the product that an area belongs to: {names}", repr(unknown[0]), "name one of them")
    found = {}
    for name, own in sizes.items():
        shapes = [*given.get(None, ()), *given.get(name, ())]
        if not shapes:
            continue
        scale = min(1.0, SHORT_SIDE / min(own[0]))
        area = np.zeros([max(1, round(side * scale)) for side in own[0]], dtype=bool)  # (h, w)
        for shape in shapes:
            shape.draw(area, own)
        if area.all():
            raise nothing_left(name)
        found[name] = area
    return found


def nothing_left(category: str = "", image: str = "") -> DatasetError:
    """The error for an ignored area that leaves nothing to judge, of an `image` if that is the one."""
    where = f" in '{image}'" if image else f" of {category}" if category else ""
    return DatasetError(f"something left to judge{where}", "all of it is to be ignored", "ignore less")


def resized_area(area: np.ndarray, size: Size) -> np.ndarray:
    """An area `(h, w)` bool on an image of another `size`, `(H, W)` bool.

    Enlarged, a pixel belongs to the cell that holds its middle; shrunk, to the area if it touches it.
    """
    if area.shape == size:
        return area
    if area.shape[0] <= size[0] and area.shape[1] <= size[1]:
        rows, columns = (
            ((np.arange(pixels) + 0.5) * cells / pixels).astype(int)
            for cells, pixels in zip(area.shape, size, strict=True)
        )
        return np.ascontiguousarray(area.take(columns, axis=1).take(rows, axis=0))
    levels = Image.fromarray(area.astype(np.uint8) * 255)
    return np.asarray(levels.resize((size[1], size[0]), Image.Resampling.BOX)) > 0


def ignored_pixels(area: np.ndarray, frame: Frame) -> np.ndarray:
    """Which pixels `(h, w)` bool of a frame's encoder input show an image's ignored `area`.

    Beyond the image's edge, where frames mirror it, so is the area.
    """
    height, width = frame.encoder_input.shape[:2]
    if frame.to_image is None:
        return resized_area(area, (height, width))
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    (xx, xy, x0), (yx, yy, y0) = np.asarray(frame.to_image, dtype=np.float64)
    down, across = frame.original_size
    rows = _cells((yx * x + yy * y + y0) / down, area.shape[0])  # (h, w)
    columns = _cells((xx * x + xy * y + x0) / across, area.shape[1])  # (h, w)
    shown: np.ndarray = area[rows, columns]
    return shown


def fill_ignored(image: ImageOrScan, area: np.ndarray | None) -> ImageOrScan:
    """An image or scan of which nothing in an ignored `area` `(h, w)` bool is left; itself where there is none.

    The image is filled in smoothly with the colours around; points in the area count as not measured.
    """
    if area is None:
        return image
    pixels = resized_area(area, (image.shape[0], image.shape[1]))
    if not isinstance(image, Scan):
        return filled_in(image, pixels)
    return image.map(
        rgb=lambda rgb: filled_in(rgb, pixels),
        xyz=lambda xyz: np.where(pixels[..., None], np.float32(np.nan), xyz),
    )


def filled_in(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """An image `(H, W, 3)` uint8 whose `pixels` `(H, W)` bool have the mean colour of the others near them.

    Nothing of what they showed is left. Means are those of cells of a coarse grid, blurred and interpolated.
    """
    filled = image.copy()
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        return filled
    cell = max(1.0, max(pixels.shape) / FILL_CELLS)  # pixels
    reach = round(FILL_REACH * cell)
    window = (
        slice(max(0, int(rows[0]) - reach), int(rows[-1]) + 1 + reach),
        slice(max(0, int(columns[0]) - reach), int(columns[-1]) + 1 + reach),
    )
    near, gone = filled[window], pixels[window]  # (h, w, 3), (h, w)
    near[gone] = 0
    if not gone.all():
        near[gone] = _colours_around(near, gone, cell)[gone]
    return filled


def _colours_around(image: np.ndarray, gone: np.ndarray, cell: float) -> np.ndarray:
    """Mean colours `(h, w, 3)` uint8 of an image `(h, w, 3)` uint8 that is 0 where `gone` `(h, w)`, by distance."""
    height, width = gone.shape
    cells = max(1, round(width / cell)), max(1, round(height / cell))
    sums = np.asarray(Image.fromarray(image).resize(cells, Image.Resampling.BOX), np.float32)  # (rows, columns, 3)
    shares = Image.fromarray((~gone).astype(np.uint8) * 255).resize(cells, Image.Resampling.BOX)
    weights = np.asarray(shares, np.float32)[..., None] / 255  # (rows, columns, 1)
    # Where nothing is near, the mean of all.
    colours, known = 1e-6 * sums.sum(axis=(0, 1)) / max(1e-6, weights.sum()), np.full_like(weights, 1e-6)
    for share, blur in FILL_BLURS:
        colours = colours + share * gaussian_filter(sums, (blur, blur, 0))
        known += share * gaussian_filter(weights, (blur, blur, 0))
    smooth = Image.fromarray((colours / known).clip(0, 255).astype(np.uint8))
    return np.asarray(smooth.resize((width, height), Image.Resampling.BILINEAR))


def _cells(places: np.ndarray, count: int) -> np.ndarray:
    """The cells, of `count` along an axis, at relative places in it; those outside [0, 1] are mirrored back."""
    inside = 1 - np.abs(1 - places % 2)
    return np.minimum((inside * count).astype(np.int64), count - 1)
