"""Normal images as the batches of features that a detector asks for, iterated any number of times."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch

from blemish.detectors.base import Needs, Progress
from blemish.encoders.base import Encoder
from blemish.errors import DatasetError, SettingsError
from blemish.model.decoded_images import DecodedImages
from blemish.model.feature_store import FeatureStore, TrainingViewEncoder
from blemish.model.training_views import (
    MIN_POOL,
    ORIGINAL,
    Ignored,
    Poses,
    Prepare,
    TrainingView,
    TrainingViewPool,
    ViewGenerator,
    poses_of,
)
from blemish.types import POINTS, Batch, Features, ImageOrScan, Prompts

MEMORY = 2 << 30  # bytes of features and encoder inputs that are kept
POOL = 448  # views with augmentation and synthetic anomaly, shared out among the images


@dataclass(kw_only=True, eq=False)
class FeatureLoader:
    """What detectors are fitted on: an iterable of `Batch` over normal images; each iteration is an epoch.

    `needs` says what is made of them: rotated and mirrored copies of every image, and, newly drawn in every epoch,
    augmentations and synthetic anomalies. Only images of equal size share a batch.

    Plain copies are encoded once. Augmentations and synthetic anomalies come from a pool of `pool` views that
    fills up over the first epochs, at least `MIN_POOL` an image, and is drawn from once it is full. What does not fit
    into the store's memory is made and encoded anew in every epoch. All that is drawn depends on `seed` and the
    epochs before alone. With random augmentation, batches are always full: what does not fill a batch is carried over
    to the next epoch. Scans are never turned, mirrored or augmented, nor carried over. `prompts` by category go along
    in every batch.

    `progress` is called with (encoded, all) plain copies during the first epoch.
    """

    views: TrainingViewEncoder
    needs: Needs
    indices: tuple[int, ...]
    categories: tuple[str, ...] | None  # of all images, whatever the `indices`
    poses: Sequence[Poses]  # of all images: the copies of each that are learned from
    prompts: Mapping[str, Prompts] | None = None
    seed: int = 0
    batch_size: int = 8
    pool: int = POOL
    progress: Progress | None = None
    epochs: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not self.indices:
            raise DatasetError("at least one good picture", "an empty subset", "name at least one index")
        if self.batch_size < 1 or self.pool < 1:
            raise SettingsError("batch_size and pool of at least 1", f"{self.batch_size} and {self.pool}", "raise them")
        self._drawn = TrainingViewPool(self.needs, self.seed)
        self._waiting: dict[tuple[int, ...], list[TrainingView]] = defaultdict(list)

    @classmethod
    def of(
        cls,
        images: Sequence[ImageOrScan],
        encoder: Encoder,
        needs: Needs,
        prepare: Prepare | Sequence[Prepare],
        categories: Sequence[str] | None = None,
        seed: int = 0,
        batch_size: int = 8,
        progress: Progress | None = None,
        pool: int = POOL,
        memory: int = MEMORY,
        poses: Sequence[Poses | None] | None = None,
        prompts: Mapping[str, Prompts] | None = None,
        ignored: Sequence[Ignored | None] | None = None,
    ) -> Self:
        """A loader of all `images`, any sequence of `(H, W, 3)` uint8 arrays or scans, also one that decodes lazily.

        `prepare` makes the encoder's input `(h, w, 3)` uint8 of an image: one function for all, or one for each;
        `ignored` says for each which pixels of it are not judged, which features of plain copies then know; `poses`
        which copies of each make sense (None: those that `needs` asks for). Memory stays under `memory` bytes plus one
        batch. Raises DatasetError where a category has fewer images than `needs` asks for.
        """
        if categories is not None and len(categories) != len(images):
            raise SettingsError(
                f"one category for each of {len(images)} pictures", f"{len(categories)} categories", "name them all"
            )
        names = [""] * len(images) if categories is None else list(categories)
        check_enough(names, needs)
        limited = {name: needs.limited_to_max_copies(count) for name, count in Counter(names).items()}
        sensible = [None] * len(images) if poses is None else list(poses)
        prepares = [prepare] * len(images) if callable(prepare) else list(prepare)
        generator = ViewGenerator(images, prepares, seed, ignored)
        keep_inputs = needs.augmentation or needs.synthetic_anomalies
        return cls(
            views=TrainingViewEncoder(generator, encoder, FeatureStore(memory), keep_inputs),
            needs=needs,
            indices=tuple(range(len(images))),
            categories=None if categories is None else tuple(categories),
            poses=[poses_of(limited[name], own) for name, own in zip(names, sensible, strict=True)],
            prompts=prompts,
            seed=seed,
            batch_size=batch_size,
            pool=pool,
            progress=progress,
        )

    @property
    def images(self) -> Sequence[ImageOrScan]:
        """All images, whatever the `indices`."""
        return self.views.generator.images

    @property
    def encoder(self) -> Encoder:
        return self.views.encoder

    @property
    def store(self) -> FeatureStore:
        return self.views.store

    def __len__(self) -> int:
        """Normal images, without their copies."""
        return len(self.indices)

    def subset(self, indices: Sequence[int]) -> FeatureLoader:
        """The images at `indices` of these, sharing what is already encoded; its epochs count from 0."""
        return replace(self, indices=tuple(self.indices[i] for i in indices))

    def input_size(self, index: int) -> tuple[int, int]:
        """The (height, width) of the image at `index` as the encoder takes it, neither turned nor augmented."""
        height, width = self.views.shape(TrainingView(index))[:2]
        return height, width

    def plain_features(self, indices: Sequence[int]) -> Iterator[Features]:
        """The features `(1, h, w, D)` of the images at `indices`, one by one, neither turned nor augmented."""
        if not indices:
            return
        needs = replace(self.needs, augmentation=False, synthetic_anomalies=False)
        plain = [ORIGINAL] * len(self.poses)
        for batch in replace(self.subset(indices), needs=needs, poses=plain, batch_size=1, progress=None):
            yield batch.features

    def __iter__(self) -> Iterator[Batch]:
        epoch, self.epochs = self.epochs, self.epochs + 1
        copies = [TrainingView(i, degrees, mirrored) for i in self.indices for degrees, mirrored in self.poses[i]]
        is_random = self.needs.augmentation or self.needs.synthetic_anomalies
        rng = np.random.default_rng((self.seed, epoch))
        order = self._order(len(copies), rng) if is_random else np.arange(len(copies))
        self._decode_ahead([copies[i] for i in order])
        slots = max(MIN_POOL, -(-self.pool // len(copies)))
        # Scans come in almost as many sizes as there are scans: none waits for its like.
        carries_over = is_random and POINTS not in self.needs.modalities
        waiting = self._waiting if carries_over else defaultdict(list)
        is_done = False
        while not is_done:
            for done, i in enumerate(order, start=1):
                view = self._drawn.draw(copies[i], slots, rng) if is_random else copies[i]
                shape = self.views.shape(view.plain)
                waiting[shape].append(view)
                if len(waiting[shape]) == self.batch_size:
                    yield self._batch(waiting.pop(shape))
                    is_done = True  # an epoch that carries over gives at least one batch
                if self.progress and epoch == 0:
                    self.progress(done, len(order), {})
            is_done = is_done or not carries_over
        for rest in () if carries_over else waiting.values():
            yield self._batch(rest)

    def _order(self, copies: int, rng: np.random.Generator) -> np.ndarray:
        """A random order of all copies, repeated until it fills a batch."""
        rounds = -(-self.batch_size // copies)
        every = np.concatenate([rng.permutation(np.arange(copies)) for _ in range(rounds)])
        return every[: max(self.batch_size, copies)]

    def _decode_ahead(self, copies: Sequence[TrainingView]) -> None:
        if isinstance(self.images, DecodedImages):
            self.images.expect(copy.index for copy in copies if copy not in self.store)

    def _batch(self, views: Sequence[TrainingView]) -> Batch:
        normal = self.views.encode([one.normal for one in views])
        categories = None if self.categories is None else [self.categories[one.index] for one in views]
        features = Features.cat([found for found, _ in normal]).with_categories(categories)  # layers (B, h, w, D)
        shown = tuple(one.index for one in views), tuple(not one.degrees and not one.mirrored for one in views)
        if not self.needs.synthetic_anomalies:
            return Batch(features, None, None, self.prompts, *shown)
        altered = self.views.encode(views)
        covered = torch.stack([mask for _, mask in altered if mask is not None])  # (B, h, w)
        return Batch(
            features,
            Features.cat([found for found, _ in altered]).with_categories(categories),
            covered,
            self.prompts,
            *shown,
        )


def check_enough(categories: Sequence[str], needs: Needs) -> None:
    """Raise DatasetError for a category, of those of all normal images, with fewer images than a detector needs."""
    counts, least = Counter(categories), max(1, needs.min_images)
    name, found = min(counts.items(), key=lambda one: one[1], default=("", 0))
    if found < least:
        raise DatasetError(
            f"at least {least} good pictures{' of each product' if name else ''}",
            f"{found} of {name!r}" if name else str(found),
            "give more good pictures",
        )
