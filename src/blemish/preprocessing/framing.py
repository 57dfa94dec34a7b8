"""How an image becomes the encoder's input: which part of it, at which size, in which pose.

A framing is the one place that decides this, while learning and while inspecting alike; it also knows the way back, so
that a map lands on the image again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from blemish.data.images import fit_size, resize_image
from blemish.registry import resolve
from blemish.types import ImageOrScan


@dataclass(frozen=True)
class Frame:
    """What the encoder sees of one image.

    `encoder_input` `(h, w, 3)` uint8, or a Scan of shape `(h, w)` (scan.py); `original_size` is the image's
    (height, width); `to_image` `(2, 3)` maps (x, y, 1) in pixels of the frame to pixels of the image (centre of the
    first pixel at ½, ½); None for a plain resize.
    """

    encoder_input: Any
    original_size: tuple[int, int]
    to_image: np.ndarray | None = None


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
        """Learn from good images, each `(H, W, 3)` uint8, or from scans; a framing that learns nothing reads none."""
        ...

    def frame(self, image: Any) -> Frame:
        """The part of an image `(H, W, 3)` uint8, or of a Scan, that the encoder sees; it depends on no other image."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """All that was learned."""
        ...

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        """Take back what `state` gave; frames afterwards are identical."""
        ...


class PlainFraming:
    """The whole image, resized: short side to `image_size` with its aspect ratio kept, or to a square.

    `multiple` is what height and width must be a multiple of (the encoder's patch side). Learns nothing.
    """

    def __init__(self, image_size: int = 448, multiple: int = 14, square: bool = False) -> None:
        self.image_size = image_size
        self.multiple = multiple
        self.square = square

    @property
    def settings(self) -> dict[str, Any]:
        return {"image_size": self.image_size, "multiple": self.multiple, "square": self.square}

    @property
    def poses(self) -> None:
        return None

    def fit(self, images: Iterable[np.ndarray]) -> Self:
        return self

    def frame(self, image: np.ndarray) -> Frame:
        height, width = int(image.shape[0]), int(image.shape[1])
        size = fit_size(height, width, self.image_size, self.multiple, self.square)
        return Frame(resize_image(image, size), (height, width))

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        return self


FRAMINGS: dict[str, str] = {
    "plain": "blemish.preprocessing.framing:PlainFraming",
    "part": "blemish.preprocessing.crop_to_part:PartFraming",
    "scan": "blemish.preprocessing.scan:ScanFraming",
}


def build_framing(name: str, **settings: Any) -> Framing:
    """The framing of that name, not yet learned."""
    return resolve(FRAMINGS[name])(**settings)


def encoder_input_of(framing: Framing, image: ImageOrScan) -> Any:
    """The encoder's input for an image, without the way back."""
    return framing.frame(image).encoder_input
