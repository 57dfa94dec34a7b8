"""Good images as the batches that a detector asks for: rendered, encoded once, kept, walked as often as needed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from blemish.augmentation.augment import UNCHANGED, augment
from blemish.augmentation.cutpaste import synthetic_anomaly
from blemish.augmentation.rotate import turn
from blemish.detectors.base import Needs, Progress
from blemish.encoders.base import Encoder
from blemish.errors import DatasetError, SettingsError
from blemish.preprocessing.foreground import from_pixels
from blemish.types import POINTS, Batch, Features, Prompts

MEMORY = 2 << 30  # bytes of features and prepared images that are kept
POOL = 448  # renderings with augmentation and synthetic anomaly, shared out among the images
LEAST_POOL = 4  # renderings an image, however many images there are
DEFECTS_PER_VIEW = 4  # synthetic anomalies that share one augmented good image
Poses = tuple[tuple[float, bool], ...]  # (degrees, mirrored) of each copy of a good image, the original first


@dataclass(frozen=True)
class Rendering:
    """One copy of a good image: turned, mirrored, augmented (`view` > 0), with synthetic anomaly number `defect`."""

    index: int
    degrees: float = 0.0
    mirrored: bool = False
    view: int = 0
    defect: int | None = None

    @property
    def good(self) -> Rendering:
        """The same copy without the defect."""
        return replace(self, defect=None)

    @property
    def plain(self) -> Rendering:
        """The same copy without augmentation or defect."""
        return replace(self, view=0, defect=None)

    def rng(self, seed: int) -> np.random.Generator:
        """Random numbers of this copy alone."""
        defect = 0 if self.defect is None else 1 + self.defect
        return np.random.default_rng((seed, self.index, round(self.degrees * 1e3), self.mirrored, self.view, defect))


class Store:
    """Prepared images and features of one image each by rendering, up to `memory` bytes; the rest is not kept.

    The first half of the memory holds good copies as float32; whatever comes later, and everything drawn at random, is
    rounded to float16, also for the walk that made it, so that every walk sees the same numbers.
    """

    def __init__(self, memory: int) -> None:
        self.memory, self.used = memory, 0
        self._features: dict[Rendering, tuple[Features, Tensor | None]] = {}
        self._images: dict[Rendering, np.ndarray] = {}

    def image(self, rendering: Rendering) -> np.ndarray | None:
        """The prepared image `(h, w, 3)`, if it is kept."""
        return self._images.get(rendering)

    def keep_image(self, rendering: Rendering, image: np.ndarray) -> None:
        """Keep a prepared image, if it fits."""
        if self._fits(image.nbytes):
            self._images[rendering] = image

    def features(self, rendering: Rendering) -> tuple[Features, Tensor | None] | None:
        """The features and the patches that its defect covers, if they are kept."""
        found = self._features.get(rendering)
        return found and (_cast(found[0], torch.float32), found[1])

    def keep_features(self, rendering: Rendering, features: Features, covered: Tensor | None) -> Features:
        """Keep the features of one image if they fit, and return them as they would come back."""
        size = sum(t.nbytes for tensors in features.layers.values() for t in tensors)
        if rendering != rendering.plain or self.used + size > self.memory // 2:
            features, size = _cast(features, torch.float16), size // 2
        if self._fits(size):
            self._features[rendering] = features, covered
        return _cast(features, torch.float32)

    def _fits(self, size: int) -> bool:
        fits = self.used + size <= self.memory
        self.used += size if fits else 0
        return fits


class FeatureLoader:
    """What detectors learn from: an iterable of `Batch` over good images, walked any number of times.

    `images` is any sequence of `(H, W, 3)` uint8 arrays, also one that loads in `__getitem__`; `prepare` makes the
    encoder's input of one, `(h, w, 3)` uint8 (one for all, or one for each image). `needs` says what is rendered:
    turned and mirrored copies of it, and, newly drawn in every walk, augmentations and synthetic anomalies. `poses`
    says, for each image, which copies make sense where `needs` asks for any; None leaves that to `needs`. Only
    images of equal prepared size share a batch.

    Good images are encoded once. Augmentations and synthetic anomalies come from a pool of `pool` renderings that grows
    while it is walked, at least `LEAST_POOL` an image, and is drawn from again once it is full. Memory stays under
    `memory` bytes plus one batch; images that no longer fit are prepared and encoded anew in every walk. Everything
    drawn depends on `seed` and the walks before alone. Where it is drawn, batches are always full: what is left of a
    walk waits for the next; but every walk shows all scans.

    Scans `(H, W, 6)` float32, for detectors that ask for points, are never turned, mirrored or augmented. `prompts` by
    category go along in every batch.

    `progress` is called with (encoded, all) good copies during the first walk.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        encoder: Encoder,
        needs: Needs,
        prepare: Callable[[np.ndarray], np.ndarray] | Sequence[Callable[[np.ndarray], np.ndarray]],
        categories: Sequence[str] | None = None,
        seed: int = 0,
        batch_size: int = 8,
        progress: Progress | None = None,
        pool: int = POOL,
        memory: int = MEMORY,
        poses: Sequence[Poses | None] | None = None,
        prompts: Mapping[str, Prompts] | None = None,
    ) -> None:
        if len(images) < max(1, needs.images):
            raise DatasetError(
                f"at least {max(1, needs.images)} good pictures", str(len(images)), "give more good pictures"
            )
        if categories is not None and len(categories) != len(images):
            raise SettingsError(
                f"one category for each of {len(images)} pictures", f"{len(categories)} categories", "name them all"
            )
        if batch_size < 1 or pool < 1:
            raise SettingsError("batch_size and pool of at least 1", f"{batch_size} and {pool}", "raise them")
        self.images, self.encoder, self.needs = images, encoder, needs
        self.prepare = [prepare] * len(images) if callable(prepare) else list(prepare)
        self.poses = [None] * len(images) if poses is None else list(poses)
        self.categories = None if categories is None else tuple(categories)
        self.prompts, self.of_scans = prompts, POINTS in needs.modalities
        self.seed, self.batch_size, self.progress, self.pool = seed, batch_size, progress, pool
        self.store = Store(memory)
        self.indices: tuple[int, ...] = tuple(range(len(images)))
        self.walks = 0
        self._used: dict[Rendering, int] = defaultdict(int)
        self._sizes: dict[Rendering, tuple[int, ...]] = {}
        self._loaded: tuple[int, np.ndarray] | None = None
        self._waiting: dict[tuple[int, ...], list[Rendering]] = defaultdict(list)

    def __len__(self) -> int:
        """Good images, without their copies."""
        return len(self.indices)

    def subset(self, indices: Sequence[int]) -> FeatureLoader:
        """The images at `indices` of these, sharing what is already encoded; its walks count from 0."""
        part = FeatureLoader.__new__(FeatureLoader)
        part.__dict__.update(self.__dict__)
        part.indices, part.walks = tuple(self.indices[i] for i in indices), 0
        part._used, part._waiting = defaultdict(int), defaultdict(list)
        if not part.indices:
            raise DatasetError("at least one good picture", "an empty subset", "name at least one index")
        return part

    def __iter__(self) -> Iterator[Batch]:
        walk, self.walks = self.walks, self.walks + 1
        copies = self._copies()
        order, drawn = np.arange(len(copies)), self.needs.augmentation or self.needs.synthetic_anomalies
        if drawn:
            rounds = -(-self.batch_size // len(copies))  # a walk fills at least one batch
            rng = np.random.default_rng((self.seed, walk))
            order = np.concatenate([rng.permutation(order) for _ in range(rounds)])[: max(self.batch_size, len(copies))]
        slots = max(LEAST_POOL, -(-self.pool // len(copies)))
        waits = drawn and not self.of_scans  # scans are of almost as many sizes as there are, and are walked once
        waiting = self._waiting if waits else defaultdict(list)
        full = False
        while not full:
            for done, i in enumerate(order):
                wanted = self._draw(copies[i], slots, rng) if drawn else copies[i]
                size = self._size(wanted.plain)
                waiting[size].append(wanted)
                if len(waiting[size]) == self.batch_size:
                    yield self._batch(waiting.pop(size))
                    full = True
                if self.progress and walk == 0:
                    self.progress(done + 1, len(order), {})
            full = full or not waits  # what is drawn at random waits for the next walk until its batch is full
        for rest in () if waits else waiting.values():
            yield self._batch(rest)

    def _copies(self) -> list[Rendering]:
        return [Rendering(i, degrees, mirrored) for i in self.indices for degrees, mirrored in self._poses(i)]

    def _poses(self, index: int) -> Poses:
        """In which poses the image at `index` is shown."""
        if self.of_scans:
            return ((0.0, False),)
        turns, own = self.needs.rotations, self.poses[index]
        if own is not None and (turns > 1 or self.needs.flips):
            return own
        sides = (False, True) if self.needs.flips else (False,)
        return tuple((360 * k / turns, side) for side in sides for k in range(turns))

    def _draw(self, copy: Rendering, slots: int, rng: np.random.Generator) -> Rendering:
        """The next of the `slots` renderings of `copy` in the pool, or any one once all were used."""
        used = self._used[copy]
        slot = used if used < slots else int(rng.integers(slots))
        self._used[copy] += 1
        view = slot % max(1, slots // DEFECTS_PER_VIEW) if self.needs.augmentation and not self.of_scans else 0
        if view and replace(copy, view=view).rng(self.seed).random() < UNCHANGED:
            view = 0
        return replace(copy, view=view, defect=slot if self.needs.synthetic_anomalies else None)

    def _batch(self, wanted: Sequence[Rendering]) -> Batch:
        good = self._encoded([rendering.good for rendering in wanted])
        categories = None if self.categories is None else [self.categories[r.index] for r in wanted]
        features = _joined([g[0] for g in good]).with_categories(categories)
        if not self.needs.synthetic_anomalies:
            return Batch(features, prompts=self.prompts)
        bad = self._encoded(wanted)
        covered = torch.stack([mask for _, mask in bad if mask is not None])  # (B, h, w)
        return Batch(features, _joined([b[0] for b in bad]).with_categories(categories), covered, self.prompts)

    def _encoded(self, wanted: Sequence[Rendering]) -> list[tuple[Features, Tensor | None]]:
        """Features of one image each, and which patches the defect covers; what is missing is encoded together."""
        found = {r: self.store.features(r) for r in dict.fromkeys(wanted)}
        missing = [r for r, features in found.items() if features is None]
        if missing:
            drawn = [self._drawn(r) for r in missing]
            features = self.encoder.encode(np.stack([image for image, _ in drawn]))
            for i, (rendering, (_, mask)) in enumerate(zip(missing, drawn, strict=True)):
                one = features.take(slice(i, i + 1))
                covered = None if mask is None else _on_grid(mask, one)
                found[rendering] = self.store.keep_features(rendering, one, covered), covered
        return [f for r in wanted if (f := found[r]) is not None]

    def _drawn(self, rendering: Rendering) -> tuple[np.ndarray, np.ndarray | None]:
        """The encoder's input, as `prepare` makes it, and the mask of the synthetic anomaly."""
        image = self._prepared(rendering.plain)
        if rendering.view:
            rng, plain = rendering.good.rng(self.seed), image
            while image is plain:  # the draws that change nothing are view 0
                image = augment(plain, rng)
        if rendering.defect is None:
            return image, None
        if self.of_scans:
            from blemish.augmentation.scan_defects import synthetic_scan_anomaly

            return synthetic_scan_anomaly(image, rendering.rng(self.seed))
        return synthetic_anomaly(image, from_pixels(image), rendering.rng(self.seed))

    def _size(self, copy: Rendering) -> tuple[int, ...]:
        """The shape of the prepared copy, without loading it a second time."""
        if copy not in self._sizes:
            self._sizes[copy] = self._prepared(copy).shape
        return self._sizes[copy]

    def _prepared(self, copy: Rendering) -> np.ndarray:
        """The good copy as the encoder takes it, before augmentation."""
        kept = self.store.image(copy)
        if kept is not None:
            return kept
        if self._loaded is None or self._loaded[0] != copy.index:
            self._loaded = copy.index, self.prepare[copy.index](self.images[copy.index])
        image = self._loaded[1]
        image = turn(image, copy.degrees) if copy.degrees else image
        image = np.ascontiguousarray(image[:, ::-1] if copy.mirrored else image)
        if self.needs.augmentation or self.needs.synthetic_anomalies:
            self.store.keep_image(copy, image)
        return image


def _cast(features: Features, dtype: torch.dtype) -> Features:
    layers = {m: tuple(t.to(dtype) for t in tensors) for m, tensors in features.layers.items()}
    return replace(features, layers=layers)


def _joined(parts: Sequence[Features]) -> Features:
    """Features of one image each as one batch."""
    layers = {
        m: tuple(torch.cat(same) for same in zip(*(p.layers[m] for p in parts), strict=True)) for m in parts[0].layers
    }
    vectors = [p.vector for p in parts if p.vector is not None]
    valid = {m: torch.cat([p.valid[m] for p in parts]) for m in parts[0].valid}
    return Features(layers=layers, vector=torch.cat(vectors) if vectors else None, valid=valid)


def _on_grid(mask: np.ndarray, features: Features) -> Tensor:
    """The patches `(h, w)` of the finest grid that a pixel mask `(H, W)` touches."""
    grid = max((t.shape[1:3] for tensors in features.layers.values() for t in tensors), key=lambda g: g[0] * g[1])
    return adaptive_max_pool2d(torch.from_numpy(mask)[None].float(), tuple(grid))[0] > 0
