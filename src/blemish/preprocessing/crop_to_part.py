"""Crop to the part on a plain background, and rotate long parts to the horizontal.

A part that lies anywhere, in any pose, on a plain background wastes most of the encoder's input, and its patches are
compared with those of other places. Here the background is cut off, the part fills the encoder's input as far as the
image's resolution allows, and a long part lies along the horizontal. Images without a part on a plain background
(textures, parts that fill the image) are used whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Self

import numpy as np
from PIL import Image

from blemish.preprocessing.foreground import Part, find_part
from blemish.preprocessing.framing import MOST_IMAGES, SAME_SIZE, Frame, ViewSize, size_of, whole_frame

# Chosen by eye on images of parts on plain backgrounds; no benchmark set them.
LONG = 1.6  # length over width from which a part has a direction
ZOOM = 1.75  # input pixels an image pixel, at most: enlarging further adds no detail
MARGIN = 0.06  # of the part's length and width that is kept on each side
WORTH = 0.5  # share of the image that a crop may cover at most to be worth what it leaves out
GROWN = (1.0, 1.25, 1.5)  # sizes of crop, in fitted extents: the smallest that holds the part (few sizes are fast)
LEAST = 4  # patches a side
COARSE = 1.2  # image pixels along a frame pixel, from which on they are averaged first
STRIP, LONGEST = 4.0, 64.0  # aspect ratios: from which an image is a strip, and beyond which it is squeezed
WITNESSES = 2  # normal images with a clean background before debris on it counts: one may be so by chance


class PartFraming:
    """Frames the part, where normal images show one on a plain background.

    `image_size`: the input has about `image_size`² pixels, whatever its shape, so that every image costs the same.
    `multiple`: what its sides must be a multiple of. `square`: whole images become squares.

    Fitted: `view_` (the size of the normal images), `crops_` (whether there is a part to crop to), `levels_` (whether
    it is long, and laid level), `clean_` (whether nothing lies beside it; then whatever does belongs into the frame),
    `extent_` (its largest length and width in pixels of the view, margins included), `zoom_` (input pixels a pixel of
    the view), `is_strip_` (whether the images are strips).
    """

    def __init__(self, image_size: int = 448, multiple: int = 14, square: bool = False) -> None:
        self.image_size = image_size
        self.multiple = multiple
        self.square = square
        self.crops_, self.levels_, self.clean_, self.extent_, self.zoom_ = False, False, False, np.zeros(2), 1.0
        self.view_, self.is_strip_ = ViewSize(), False

    @property
    def settings(self) -> dict[str, Any]:
        return {"image_size": self.image_size, "multiple": self.multiple, "square": self.square}

    @property
    def poses(self) -> tuple[tuple[float, bool], ...] | None:
        """Which copies of a frame make sense as references: a level part has no end that must lie left or right, and a
        strip is never seen at an angle."""
        return ((0.0, False), (180.0, False), (0.0, True), (180.0, True)) if self.levels_ or self.is_strip_ else None

    def fit(self, images: Iterable[np.ndarray]) -> Self:
        """Measure the part's size, and whether it is long. All normal images must show one, or none is cropped."""
        parts: list[Part] = []
        sizes: list[tuple[int, int]] = []
        for image in islice(images, MOST_IMAGES):
            sizes.append(size_of(image))
            part = find_part(image) if len(parts) == len(sizes) - 1 else None
            parts += [] if part is None else [part]
        self.view_ = ViewSize.common(sizes)
        self.is_strip_ = not self.square and any(max(size) > STRIP * min(size) for size in sizes)
        if not parts or len(parts) < len(sizes):
            return self
        self.levels_ = min(axis(part)[1] for part in parts) > LONG
        self.clean_ = len(parts) >= WITNESSES and not any(part.debris.any() for part in parts)
        extents = np.array([box(part, axis(part)[0] if self.levels_ else 0.0)[1] for part in parts])  # (N, 2)
        if self.view_.size is None and (size := stable_size(sizes, extents)):
            self.view_ = ViewSize(size)
        scales = np.array([self.view_.resolution(*size) for size in sizes])  # (N,)
        area = float((np.prod(sizes, axis=1) / scales**2).max())
        self.extent_ = (extents / scales[:, None]).max(axis=0) * (1 + 2 * MARGIN)  # (width, height)
        self.crops_ = self.levels_ or float(self.extent_.prod()) <= WORTH * area
        self.zoom_ = min(ZOOM, self.image_size / math.sqrt(float(self.extent_.prod())))
        return self

    def frame(self, image: np.ndarray) -> Frame:
        """The part in the image; the whole image where none is to be cropped, or this one shows none."""
        original, image = size_of(image), self.view_.at_size(image)
        size = size_of(image)
        part = find_part(image, expected=True) if self.crops_ else None
        if part is None:
            return whole_frame(image, self._whole(*size), original, self.view_)
        angle = axis(part)[0] if self.levels_ else 0.0
        centre, extent = box(part, angle, debris=self.clean_)
        wanted = float((extent / self.extent_).max())
        grown = next((size for size in GROWN if wanted <= size), GROWN[-1])
        height, width = self._cropped(grown)
        if not angle:
            centre = kept_inside(centre, np.array([width, height]) / self.zoom_, np.array([size[1], size[0]]))
        turn = rotation(angle).T / self.zoom_  # (2, 2): input → view
        to_view = np.column_stack([turn, centre - turn @ np.array([width / 2, height / 2])])
        pixels = cut(image, to_view, (height, width))
        to_image = to_view * (np.array(original) / np.array(size))[::-1, None]  # (2, 3)
        return Frame(pixels, original, to_image, self.view_.note(*original, self.zoom_))

    def sizes(self) -> tuple[tuple[int, int], ...]:
        crops = [self._cropped(grown) for grown in GROWN] if self.crops_ else []
        whole = [] if self.view_.size is None else [self._whole(*self.view_.size)]
        return tuple(dict.fromkeys(crops + whole))

    def _cropped(self, grown: float) -> tuple[int, int]:
        """The input size for a crop of `grown` times the part's extent."""
        width, height = (
            max(LEAST, round(side * grown * self.zoom_ / self.multiple)) * self.multiple for side in self.extent_
        )
        return height, width

    def _whole(self, height: int, width: int) -> tuple[int, int]:
        """The input size for a whole image: its aspect ratio, about `image_size`² pixels.

        Of strips, over `STRIP` times as long as wide, the short side stays what it is at that ratio, up to `LONGEST`:
        the cost grows with their length, instead of what is seen of their width shrinking.
        """
        aspect = 1.0 if self.square else min(LONGEST, max(1 / LONGEST, height / width))
        area = max(1.0, aspect / STRIP, 1 / (aspect * STRIP))  # in image_size²
        sides = self.image_size * math.sqrt(area * aspect), self.image_size * math.sqrt(area / aspect)
        down, across = (max(1, round(side / self.multiple)) * self.multiple for side in sides)
        return down, across

    def state(self) -> dict[str, np.ndarray]:
        return {
            "crops": np.array(self.crops_),
            "levels": np.array(self.levels_),
            "clean": np.array(self.clean_),
            "extent": self.extent_,
            "zoom": np.array(self.zoom_),
            "size": self.view_.state(),
            "strip": np.array(self.is_strip_),
        }

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        self.crops_, self.levels_, self.clean_ = (bool(state[name]) for name in ("crops", "levels", "clean"))
        self.extent_, self.zoom_ = np.asarray(state["extent"]), float(state["zoom"])
        self.view_ = ViewSize.from_state(state.get("size"))  # models of earlier versions have neither
        self.is_strip_ = bool(state.get("strip", False))
        return self


def stable_size(sizes: Sequence[tuple[int, int]], extents: np.ndarray) -> tuple[int, int] | None:
    """The middle one of different `sizes` (height, width), where images of all of them show one view.

    They do where they have one shape, and the parts' `extents` `(N, 2)` differ less as shares of their images than in
    pixels: pictures of one part taken at several resolutions. None otherwise.
    """
    sides = np.array(sizes, dtype=float)  # (N, 2)
    aspects = sides[:, 0] / sides[:, 1]
    if aspects.max() > aspects.min() * (1 + SAME_SIZE):
        return None
    lengths = np.sqrt(extents.prod(axis=1))  # (N,)
    shares = lengths / np.sqrt(sides.prod(axis=1))
    if np.log(shares).std() >= np.log(lengths).std():
        return None
    return sorted(sizes)[len(sizes) // 2]


def axis(part: Part) -> tuple[float, float]:
    """The direction of a part's length in radians, and its length over its width (both as standard deviations).

    The heavier half lies towards the direction's far end, so that most parts come out the same way round.
    """
    ys, xs = np.nonzero(part.mask)
    angle, elongation, _ = principal_axis(np.stack([xs, ys]).astype(np.float64))
    return angle, elongation


def principal_axis(points: np.ndarray) -> tuple[float, float, float]:
    """The direction of the length of `points` `(2, N)` (x, y) in radians, length over width, and skewness ≥ 0 along it.

    Length and width are standard deviations; the heavier half lies towards the direction's far end.
    """
    points = points - points.mean(axis=1, keepdims=True)
    spread, directions = np.linalg.eigh(np.cov(points))
    along = directions[:, 1]
    third = float(((along @ points) ** 3).mean())
    if third < 0:
        along = -along
    length, width = math.sqrt(max(spread[1], 1e-18)), math.sqrt(max(spread[0], 1e-9))
    return math.atan2(along[1], along[0]), length / width, abs(third) / length**3


def rotation(angle: float) -> np.ndarray:
    """The `(2, 2)` matrix that turns image coordinates so that `angle` (radians) becomes the x axis."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, sine], [-sine, cosine]])


def box(part: Part, angle: float, debris: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Centre (x, y) and extent (width, height), in image pixels, of the box along `angle` that holds the part.

    With `debris` it holds what lies beside the part as well: a crumb on clean ground is a defect.
    """
    ys, xs = np.nonzero(part.mask | part.debris if debris else part.mask)
    turn = rotation(angle)
    points = turn @ ((np.stack([xs, ys]) + 0.5) * part.shrink)  # (2, N)
    low, high = points.min(axis=1), points.max(axis=1)
    return turn.T @ ((low + high) / 2), high - low


def kept_inside(centre: np.ndarray, extent: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The nearest centre (x, y) for which a frame of `extent` lies inside an image of `size`, as far as it fits."""
    half = np.minimum(extent, size) / 2
    return np.clip(centre, half, size - half)


def cut(image: np.ndarray, to_image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels `(h, w, 3)` uint8 of the frame of `size` (height, width) that `to_image` `(2, 3)` lays on an image.

    Beyond its edge the image is mirrored: drawn-out edge pixels would look like nothing that good parts show. Where
    the frame is coarser than the image, that is shrunk first: pillow's affine transform alone would skip pixels.
    """
    height, width = image.shape[:2]
    corners = to_image @ np.array([[0, size[1], 0, size[1]], [0, 0, size[0], size[0]], [1, 1, 1, 1]], dtype=float)
    (left, top), (right, bottom) = corners.min(axis=1), corners.max(axis=1)
    # Only what the frame covers is worked on; two pixels more for the resampling.
    x0, y0, x1, y1 = (math.floor(left) - 2, math.floor(top) - 2, math.ceil(right) + 2, math.ceil(bottom) + 2)
    x0, y0, x1, y1 = min(x0, width - 1), min(y0, height - 1), max(x1, 1), max(y1, 1)  # a frame beside the image
    inside = image[max(0, y0) : min(height, y1), max(0, x0) : min(width, x1)]
    beyond = ((max(0, -y0), max(0, y1 - height)), (max(0, -x0), max(0, x1 - width)), (0, 0))
    if any(map(any, beyond)):
        inside = np.pad(inside, beyond, mode="symmetric")
    source = Image.fromarray(np.ascontiguousarray(inside))
    back = to_image.copy()
    back[:, 2] -= [x0, y0]
    if is_coarse(to_image):
        coarse = zoom_of(to_image)
        small = max(1, round(source.width / coarse)), max(1, round(source.height / coarse))
        back *= np.array([[small[0] / source.width], [small[1] / source.height]])
        source = source.resize(small, Image.Resampling.BILINEAR)
    warped = source.transform((size[1], size[0]), Image.Transform.AFFINE, tuple(back.ravel()), Image.Resampling.BICUBIC)
    return np.asarray(warped)


def zoom_of(to_image: np.ndarray) -> float:
    """How many pixels of the image, along a side, a pixel of the frame that `to_image` `(2, 3)` lays on it covers."""
    return math.sqrt(abs(float(np.linalg.det(to_image[:, :2]))))


def is_coarse(to_image: np.ndarray) -> bool:
    """Whether a frame is so much coarser than its image that `cut` shrinks that first."""
    return zoom_of(to_image) > COARSE
