"""How an image becomes the encoder's input: which part of it, at which size, in which pose.

A framing is the one place that decides this, while learning and while inspecting alike; it also knows the way back, so
that a map lands on the image again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from PIL import Image

from blemish.data.images import fit_size, resize_image
from blemish.data.readers.base import MAX_PIXELS
from blemish.errors import SettingsError
from blemish.registry import resolve

MOST_IMAGE_SIZE = math.isqrt(MAX_PIXELS)  # no image of `MAX_PIXELS` is larger on its short side
MOST_IMAGES = 32  # normal images that a framing is fitted on, at most
SAME_SIZE = 0.02  # relative difference of image sides, and of aspect ratios, up to which they count as one; by eye
OTHER_SHAPE = 1.1  # ratio of aspect ratios from which an image is named; cuts of one line differ by 4 % (kos)
LEAST_DETAIL = 0.6  # of the resolution of normal images' frames; what has less is named (benchmarks/resolution.py)


@dataclass(frozen=True)
class Frame:
    """What the encoder sees of one image.

    `encoder_input` `(h, w, 3)` uint8, or a Scan of shape `(h, w)` (scan.py); `original_size` is the image's
    (height, width); `to_image` `(2, 3)` maps (x, y, 1) in pixels of the frame to pixels of the image (centre of the
    first pixel at ½, ½); None for a plain resize. `note` says, in words that follow the image's name, what its size
    speaks against its prediction; empty for an ordinary one.
    """

    encoder_input: Any
    original_size: tuple[int, int]
    to_image: np.ndarray | None = None
    note: str = ""

    @property
    def input_size(self) -> tuple[int, int]:
        """The (height, width) of the encoder's input."""
        height, width = self.encoder_input.shape[:2]
        return height, width


class ViewSize:
    """The size (height, width) of the images of one view; an image of the same shape in another size shows it too.

    Such an image was taken at another resolution (binning, a scaled copy). It is brought to this size before anything
    else is done with it, so that its frame hardly differs from that of the view at its own resolution: Lanczos differs
    least, under a grey level from ×1.5 to ×3 (scaled images of three products). `None`: unknown, images stay as they
    are.
    """

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        self.size = size

    @classmethod
    def common(cls, sizes: Sequence[tuple[int, int]]) -> Self:
        """The size of all of `sizes`; unknown where they differ."""
        first, last = (np.min(sizes, axis=0), np.max(sizes, axis=0)) if sizes else (np.zeros(2), np.ones(2))
        is_one = bool((last <= first * (1 + SAME_SIZE)).all())
        return cls((int(first[0]), int(first[1])) if is_one else None)

    def resolution(self, height: int, width: int) -> float:
        """Pixels a side of an image of `height` x `width` for one of the view; 1 where it is as large, or unknown."""
        if self.size is None:
            return 1.0
        down, across = height / self.size[0], width / self.size[1]
        if abs(down / across - 1) > SAME_SIZE or max(abs(down - 1), abs(across - 1)) <= SAME_SIZE:
            return 1.0
        return math.sqrt(down * across)

    def at_size(self, image: np.ndarray) -> np.ndarray:
        """`image` `(H, W, 3)` uint8 at the view's size where it has another resolution, else unchanged."""
        if self.size is None or self.resolution(*image.shape[:2]) == 1:
            return image
        height, width = self.size
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))

    def note(self, height: int, width: int, zoom: float) -> str:
        """`Frame.note` of an image of this size, of which a frame has `zoom` pixels for one of the view."""
        if self.size is None:
            return ""
        good = f"{self.size[1]}x{self.size[0]} pixels as the good pictures"
        aspect = height * self.size[1] / (width * self.size[0])  # over the view's
        if max(aspect, 1 / aspect) > OTHER_SHAPE:
            return f"has {width}x{height} pixels, another shape than {good}: its resolution is taken to be theirs"
        detail = self.resolution(height, width) / min(1.0, zoom)
        if detail > LEAST_DETAIL:
            return ""
        return f"has {width}x{height} pixels instead of {good}, {detail:.0%} of the detail: fine defects may be missed"

    def state(self) -> np.ndarray:
        return np.array(self.size or (0, 0), dtype=float)

    @classmethod
    def from_state(cls, state: np.ndarray | None) -> Self:
        """From `state`; models of earlier versions have none."""
        known = state is not None and bool(np.all(state))
        return cls((int(state[0]), int(state[1])) if known and state is not None else None)


@runtime_checkable
class Framing(Protocol):
    """The promise of every framing. What `fit` learns travels through `state` as numpy arrays by name."""

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments that rebuild this framing, unlearned."""
        ...

    @property
    def poses(self) -> tuple[tuple[float, bool], ...] | None:
        """The (degrees, mirrored) copies of a frame that make sense as references; None leaves it to the detector."""
        ...

    def fit(self, images: Iterable[Any]) -> Self:
        """Learn from normal images, each `(H, W, 3)` uint8, or from scans; what is not needed is left unread."""
        ...

    def frame(self, image: Any) -> Frame:
        """The part of an image `(H, W, 3)` uint8, or of a Scan, that the encoder sees; it depends on no other image."""
        ...

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """All sizes (height, width) that frames of images of the fitted view have; none where that is not known."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """All that was learned."""
        ...

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        """Take back what `state` gave; frames afterwards are identical."""
        ...


class PlainFraming:
    """The whole image, resized: short side to `image_size` with its aspect ratio kept, or to a square.

    `multiple` is what height and width must be a multiple of (the encoder's patch side). Fitted: `view_`, the size of
    the normal images.
    """

    def __init__(self, image_size: int = 448, multiple: int = 14, square: bool = False) -> None:
        self.image_size = image_size
        self.multiple = multiple
        self.square = square
        self.view_ = ViewSize()

    @property
    def settings(self) -> dict[str, Any]:
        return {"image_size": self.image_size, "multiple": self.multiple, "square": self.square}

    @property
    def poses(self) -> None:
        return None

    def fit(self, images: Iterable[np.ndarray]) -> Self:
        self.view_ = ViewSize.common([size_of(image) for image in islice(images, MOST_IMAGES)])
        return self

    def frame(self, image: np.ndarray) -> Frame:
        original, image = size_of(image), self.view_.at_size(image)
        size = fit_size(*size_of(image), self.image_size, self.multiple, self.square)
        return whole_frame(image, size, original, self.view_)

    def sizes(self) -> tuple[tuple[int, int], ...]:
        known = self.view_.size
        return () if known is None else (fit_size(*known, self.image_size, self.multiple, self.square),)

    def state(self) -> dict[str, np.ndarray]:
        return {"size": self.view_.state()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        self.view_ = ViewSize.from_state(state.get("size"))
        return self


def size_of(image: np.ndarray) -> tuple[int, int]:
    """Height and width of an image."""
    return int(image.shape[0]), int(image.shape[1])


def whole_frame(image: np.ndarray, size: tuple[int, int], original: tuple[int, int], view: ViewSize) -> Frame:
    """The whole of `image`, resized to `size`; `original` was its size before it was brought to that of its `view`."""
    zoom = math.sqrt(size[0] * size[1] / (image.shape[0] * image.shape[1]))
    return Frame(resize_image(image, size), original, note=view.note(*original, zoom))


def same_state(one: Framing, other: Framing) -> bool:
    """Whether two framings of the same settings have learned the same."""
    left, right = one.state(), other.state()
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


FRAMINGS: dict[str, str] = {
    "plain": "blemish.preprocessing.framing:PlainFraming",
    "part": "blemish.preprocessing.crop_to_part:PartFraming",
    "scan": "blemish.preprocessing.scan:ScanFraming",
}


def check_image_size(size: int) -> None:
    """Raise SettingsError for a short side in pixels that no encoder can be shown."""
    if not 1 <= size <= MOST_IMAGE_SIZE:
        do = "raise it" if size < 1 else "lower it"
        raise SettingsError(f"an image_size of at least 1 pixel and at most {MOST_IMAGE_SIZE}", str(size), do)


def build_framing(name: str, **settings: Any) -> Framing:
    """The framing of that name, not yet learned."""
    return resolve(FRAMINGS[name])(**settings)
