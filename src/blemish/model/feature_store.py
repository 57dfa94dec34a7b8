"""Features of training views, encoded once and kept in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from blemish.data.samples import batch_of
from blemish.encoders.base import Encoder
from blemish.encoders.feature_cache import in_half
from blemish.model.decoded_images import DecodedImages
from blemish.model.training_views import TrainingView, ViewGenerator
from blemish.preprocessing.ignored_area import nothing_left
from blemish.types import Features, ImageOrScan


class FeatureStore:
    """Encoder inputs and features of one view each, up to `memory` bytes; the rest is not kept.

    Plain copies are kept as float32, for thresholds compare them with features that are float32 at inspection. What is
    drawn at random, of which there is most, is rounded to float16 (values beyond its range clamped), also for the epoch
    that encoded it, so that every epoch has the same numbers.
    """

    def __init__(self, memory: int) -> None:
        self.memory, self.used = memory, 0
        self._features: dict[TrainingView, tuple[Features, Tensor | None]] = {}
        self._inputs: dict[TrainingView, ImageOrScan] = {}

    def __contains__(self, view: TrainingView) -> bool:
        return view in self._features

    def input(self, view: TrainingView) -> ImageOrScan | None:
        """The encoder's input, if it is kept."""
        return self._inputs.get(view)

    def keep_input(self, view: TrainingView, image: ImageOrScan) -> None:
        """Keep the encoder's input, if it fits."""
        if view not in self._inputs and self._fits(image.nbytes):
            self._inputs[view] = image

    def features(self, view: TrainingView) -> tuple[Features, Tensor | None] | None:
        """The features, float32, and the patches `(h, w)` bool that the anomaly covers, if they are kept."""
        found = self._features.get(view)
        return found and (found[0].to(torch.float32), found[1])

    def keep_features(self, view: TrainingView, features: Features, covered: Tensor | None) -> Features:
        """Keep the features of one image if they fit, and return them as they would come back."""
        if view != view.plain:
            features = in_half(features)
        size = sum(tensor.nbytes for tensors in features.layers.values() for tensor in tensors)
        if self._fits(size):
            self._features[view] = features, covered
        return features.to(torch.float32)

    def take(self, other: FeatureStore, indices: Mapping[int, int]) -> None:
        """Take over the plain features of `other`, of images that have new `indices` (old → new) here."""
        for view, (features, covered) in other._features.items():
            if view == view.plain and view.index in indices:
                self.keep_features(replace(view, index=indices[view.index]), features, covered)

    def _fits(self, size: int) -> bool:
        fits = self.used + size <= self.memory
        self.used += size if fits else 0
        return fits


class TrainingViewEncoder:
    """Makes and encodes training views, each once while the `store` has room."""

    def __init__(self, generator: ViewGenerator, encoder: Encoder, store: FeatureStore, keep_inputs: bool) -> None:
        self.generator, self.encoder, self.store, self.keep_inputs = generator, encoder, store, keep_inputs

    def encode(self, views: Sequence[TrainingView]) -> list[tuple[Features, Tensor | None]]:
        """Features `(1, h, w, D)` of each of the `views` of one shape, and which patches the anomaly covers.

        What is not in the store is encoded together. Those of plain copies know what of them is ignored. Raises
        DatasetError where nothing of a normal image is left to judge.
        """
        found = {one: self.store.features(one) for one in dict.fromkeys(views)}
        missing = [one for one, features in found.items() if features is None]
        if missing:
            generated = [self.generator.generate(one, self.plain(one.plain)) for one in missing]
            features = self.encoder.encode(batch_of([image for image, _ in generated]))
            for row, (view, (_, mask)) in enumerate(zip(missing, generated, strict=True)):
                one = features.take(slice(row, row + 1))
                if view == view.plain:
                    one = one.with_ignored(self.generator.ignored_pixels(view))
                    if one.is_ignored and view == TrainingView(view.index):
                        raise nothing_left(image=name_of(self.generator.images, view.index))
                covered = None if mask is None else covered_patches(mask, one)
                found[view] = self.store.keep_features(view, one, covered), covered
        return [pair for one in views if (pair := found[one]) is not None]

    def shape(self, copy: TrainingView) -> tuple[int, ...]:
        """The shape of a plain copy as the encoder takes it."""
        return self.generator.shape(copy)

    def plain(self, copy: TrainingView) -> ImageOrScan:
        """A plain copy as the encoder takes it, from the store if it is there."""
        kept = self.store.input(copy)
        if kept is not None:
            return kept
        image = self.generator.prepared(copy)
        if self.keep_inputs:
            self.store.keep_input(copy, image)
        return image


def name_of(images: Sequence[ImageOrScan], index: int) -> str:
    """The name of the image at `index`, "" where it is not known."""
    return images.samples[index].name if isinstance(images, DecodedImages) else ""


def covered_patches(mask: np.ndarray, features: Features) -> Tensor:
    """The patches `(h, w)` bool of the finest grid that a pixel mask `(H, W)` touches."""
    grid = max((t.shape[1:3] for tensors in features.layers.values() for t in tensors), key=lambda g: g[0] * g[1])
    return adaptive_max_pool2d(torch.from_numpy(mask)[None].float(), tuple(grid))[0] > 0
