"""What an image's levels say against it: one colour alone, two levels as a mask has, a few per cent of its range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from blemish.errors import DatasetError, DataWarning

# Chosen by eye: 12-bit levels in 16-bit files use 6 % of the range, 8-bit levels in them 0.4 %; the darkest good image
# of the public datasets at hand (bottle, screw, pill, metal_plate, …) uses more than 30 %.
LEAST_RANGE = 0.05
_OUTLIERS = 1e-4  # share of the levels left out at each end, so that a hot pixel does not count as range


@dataclass(frozen=True, kw_only=True)
class Content:
    """The levels of an image `(H, W, 3)` uint8.

    `distinct` is how many there are in the channel that has most, `range` the share of 0…255 that nearly all lie in,
    `lowest` the lowest one.
    """

    name: str
    distinct: int
    range: float
    lowest: int

    @classmethod
    def of(cls, image: np.ndarray, name: str) -> Content:
        by_channel = np.array(Image.fromarray(image).histogram()).reshape(-1, 256)  # (3, 256)
        distinct, counts = int((by_channel > 0).sum(axis=1).max()), by_channel.sum(axis=0)  # (256,)
        share = np.cumsum(counts) / counts.sum()
        low, high = int(np.argmax(share > _OUTLIERS)), int(np.argmax(share >= 1 - _OUTLIERS))
        return cls(name=name, distinct=distinct, range=(high - low) / 255, lowest=int(np.argmax(counts > 0)))

    @property
    def is_constant(self) -> bool:
        return self.distinct == 1

    @property
    def is_two_level(self) -> bool:
        return self.distinct == 2

    @property
    def warning(self) -> DataWarning | None:
        """What is to be said of it, None for an ordinary image."""
        if self.is_constant:
            words = f"is of one single colour (level {self.lowest}): was the light off, or is its bit depth another?"
            return DataWarning("constant", self.name, words)
        if self.is_two_level:
            return DataWarning("two-level", self.name, "has two levels alone, as a mask has")
        if self.range <= LEAST_RANGE:
            words = f"uses {self.range:.1%} of its range: is it far too dark, or is its bit depth another?"
            return DataWarning("range", self.name, words)
        return None


def content_warnings(image: np.ndarray, name: str) -> list[DataWarning]:
    """What is to be said of an image `(H, W, 3)` uint8; nothing of an ordinary one."""
    warning = Content.of(image, name).warning
    return [] if warning is None else [warning]


def check_normal_contents(contents: Sequence[Content], assume_good: bool = False) -> list[DataWarning]:
    """The warnings of the images to learn from, unless they must be refused.

    Raises DatasetError where all of them are constant, so that there is nothing to learn; and, without `assume_good`,
    where a few have two levels alone among others that do not: those are masks.
    """
    constant = [content for content in contents if content.is_constant]
    if contents and len(constant) == len(contents):
        raise DatasetError(
            "good pictures that show something",
            f"{len(constant)} of one single colour each, first '{constant[0].name}' (level {constant[0].lowest})",
            "check the camera and the bit depth (--bit-depth)",
        )
    masks = [content for content in contents if content.is_two_level]
    if masks and not assume_good and len(masks) + len(constant) < len(contents):
        raise DatasetError(
            "good pictures alone",
            f"{len(masks)} of {len(contents)} that have two levels alone, as masks have, first '{masks[0].name}'",
            "leave the masks out, or say that all pictures are good (--assume-good)",
        )
    return [content.warning for content in contents if content.warning is not None]
