"""Training views: the copies of normal images that a detector is fitted on, and how they are drawn and made."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from blemish.augmentation.augment import UNCHANGED, augment
from blemish.augmentation.cutpaste import synthetic_anomaly
from blemish.augmentation.rotate import rotate
from blemish.detectors.base import Needs
from blemish.preprocessing.foreground import from_pixels
from blemish.types import POINTS, ImageOrScan, Scan

MIN_POOL = 4  # views an image, however many images there are
ANOMALIES_PER_AUGMENTATION = 4  # synthetic anomalies that share one augmented normal image
PREPARED = 32  # encoder inputs that are kept between planning a batch and encoding it
Poses = tuple[tuple[float, bool], ...]  # (degrees, mirrored) of each copy of a normal image, the original first
ORIGINAL: Poses = ((0.0, False),)
Prepare = Callable[[ImageOrScan], ImageOrScan]  # an image as the encoder's input
Ignored = Callable[[ImageOrScan], np.ndarray]  # the pixels (h, w) bool of the encoder's input that are not judged


@dataclass(frozen=True)
class TrainingView:
    """One copy of the normal image at `index`: rotated by `degrees`, mirrored, augmented, with a synthetic anomaly.

    `augmentation` and `anomaly` are numbers that seed what is drawn; 0 and None stand for none.
    """

    index: int
    degrees: float = 0.0
    mirrored: bool = False
    augmentation: int = 0
    anomaly: int | None = None

    @property
    def normal(self) -> TrainingView:
        """The same copy without the anomaly."""
        return replace(self, anomaly=None)

    @property
    def plain(self) -> TrainingView:
        """The same copy without augmentation or anomaly."""
        return replace(self, augmentation=0, anomaly=None)

    def rng(self, seed: int) -> np.random.Generator:
        """Random numbers of this copy alone."""
        anomaly = 0 if self.anomaly is None else 1 + self.anomaly
        return np.random.default_rng(
            (seed, self.index, round(self.degrees * 1e3), self.mirrored, self.augmentation, anomaly)
        )


def poses_of(needs: Needs, own: Poses | None) -> Poses:
    """The poses in which an image is learned from: those that `needs` asks for, or as many of its `own` ones.

    Of these none is turned where no rotation is asked for; mirrored ones stand for other rotations.
    """
    if POINTS in needs.modalities:
        return ORIGINAL
    sides = (False, True) if needs.flips else (False,)
    if own is not None and (needs.rotations > 1 or needs.flips):
        chosen = own if needs.rotations > 1 else tuple(pose for pose in own if not pose[0])
        return chosen[: needs.rotations * len(sides)]
    return tuple((360 * k / needs.rotations, side) for side in sides for k in range(needs.rotations))


class TrainingViewPool:
    """Draws the views of an epoch: each copy has `slots` of them, used in turn first, then at random."""

    def __init__(self, needs: Needs, seed: int) -> None:
        self.needs, self.seed = needs, seed
        self._used: dict[TrainingView, int] = {}

    def draw(self, copy: TrainingView, slots: int, rng: np.random.Generator) -> TrainingView:
        """The next of the `slots` views of `copy`, or any one once all were used."""
        used = self._used.get(copy, 0)
        slot = used if used < slots else int(rng.integers(slots))
        self._used[copy] = used + 1
        augmentation = 0
        if self.needs.augmentation and POINTS not in self.needs.modalities:
            augmentation = slot % max(1, slots // ANOMALIES_PER_AUGMENTATION)
        if augmentation and replace(copy, augmentation=augmentation).rng(self.seed).random() < UNCHANGED:
            augmentation = 0
        return replace(copy, augmentation=augmentation, anomaly=slot if self.needs.synthetic_anomalies else None)


class ViewGenerator:
    """Makes the encoder's inputs of normal images.

    `images` is any sequence, also one that decodes in `__getitem__`; `prepare` makes the encoder's input of each, and
    `ignored` says which pixels of it are not judged (None: all are). The last `PREPARED` inputs are kept, so that an
    image is not decoded a second time between planning and encoding.
    """

    def __init__(
        self,
        images: Sequence[ImageOrScan],
        prepare: Sequence[Prepare],
        seed: int,
        ignored: Sequence[Ignored | None] | None = None,
    ) -> None:
        self.images, self.prepare, self.seed = images, prepare, seed
        self.ignored = [None] * len(images) if ignored is None else ignored
        self._framed: tuple[int, ImageOrScan] | None = None
        self._ignored: tuple[int, np.ndarray] | None = None
        self._prepared: OrderedDict[TrainingView, ImageOrScan] = OrderedDict()
        self._shapes: dict[TrainingView, tuple[int, ...]] = {}

    def shape(self, copy: TrainingView) -> tuple[int, ...]:
        """The shape of a plain copy as the encoder takes it."""
        if copy not in self._shapes:
            self._shapes[copy] = self.prepared(copy).shape
        return self._shapes[copy]

    def prepared(self, copy: TrainingView) -> ImageOrScan:
        """A plain copy as the encoder takes it: `(h, w, 3)` uint8, or a scan."""
        if copy in self._prepared:
            return self._prepared[copy]
        if self._framed is None or self._framed[0] != copy.index:
            self._framed = copy.index, self.prepare[copy.index](self.images[copy.index])
        image = self._framed[1]
        if not isinstance(image, Scan):
            image = rotate(image, copy.degrees) if copy.degrees else image
            image = np.ascontiguousarray(image[:, ::-1] if copy.mirrored else image)
        self._prepared[copy] = image
        if len(self._prepared) > PREPARED:
            self._prepared.popitem(last=False)
        return image

    def ignored_pixels(self, copy: TrainingView) -> np.ndarray | None:
        """The pixels `(h, w)` bool of a plain copy that are not judged; None where all are."""
        find = self.ignored[copy.index]
        if find is None:
            return None
        if self._ignored is None or self._ignored[0] != copy.index:
            self._ignored = copy.index, find(self.images[copy.index])
        pixels = self._ignored[1]
        if copy.degrees:
            levels = np.repeat(pixels[..., None].astype(np.uint8) * 255, 3, axis=2)  # as an image: (h, w, 3)
            pixels = rotate(levels, copy.degrees)[..., 0] > 127
        return np.ascontiguousarray(pixels[:, ::-1] if copy.mirrored else pixels)

    def generate(self, view: TrainingView, plain: ImageOrScan) -> tuple[ImageOrScan, np.ndarray | None]:
        """The encoder's input made of its `plain` copy, and the mask `(h, w)` of the synthetic anomaly, if any."""
        if isinstance(plain, Scan):
            if view.anomaly is None:
                return plain, None
            from blemish.augmentation.scan_defects import synthetic_scan_anomaly

            return synthetic_scan_anomaly(plain, view.rng(self.seed))
        image = plain
        if view.augmentation:
            rng = view.normal.rng(self.seed)
            while image is plain:  # the draws that change nothing are augmentation 0
                image = augment(plain, rng)
        if view.anomaly is None:
            return image, None
        return synthetic_anomaly(image, from_pixels(image), view.rng(self.seed))
