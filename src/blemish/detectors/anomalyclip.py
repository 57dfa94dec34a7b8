"""AnomalyCLIP: prompts learned on defects of other products, that name no product, score an image and its patches.

Zhou, Pang, Tian, He & Chen, "AnomalyCLIP: Object-Agnostic Prompt Learning for Zero-Shot Anomaly Detection", ICLR 2024
(https://arxiv.org/abs/2310.18961).

    s(f) = softmax([cos(f, g_n), cos(f, g_a)] / τ)₂,  g_n and g_a the embeddings of two learned prompts
    image score: s(image);  map: the mean over four depths of s(patch), patches aligned with text by V-V attention

The prompts are learned by model/prompt_fitting.py, and kept in a file; nothing is learned from the product inspected.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from blemish.detectors.base import Needs, Progress
from blemish.detectors.categories import by_category, categories_of, matching_category, state_key
from blemish.detectors.language import check_aligned, class_scores, margins, prompts_of, prototypes
from blemish.detectors.settings import Configurable, Count, Positive
from blemish.errors import NotFittedError, SettingsError
from blemish.types import ALIGNED, RGB, WHOLE, Batch, Features, PatchScores, Prompts


@dataclass(kw_only=True, eq=False, repr=False)
class AnomalyCLIP(Configurable):
    """Learned prompts that name no product (`anomalyclip`).

    `temperature` τ is the paper's, with which prompts are learned as well. `image_size`: the paper's, for ViT-L/14.
    """

    temperature: Positive = 0.07
    image_size: Count = 518

    @property
    def needs(self) -> Needs:
        return Needs(
            layers="deep",
            modalities=(RGB, ALIGNED, WHOLE),
            prompts="learned",
            alignment="v-v-layers",
            image_size=self.image_size,
            square=True,
            pooling="max",  # of the map; images have a score of their own
        )

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Take the prompts; of the images only what they are images of."""
        prompts, count = prompts_of(batches)
        if not count:
            raise SettingsError("at least one good picture", "none", "give good pictures, or fit by a name alone")
        return self.fit_zero_shot(prompts)

    def fit_zero_shot(self, prompts: Mapping[str, Prompts]) -> Self:
        """Take the prompts alone."""
        if not prompts:
            raise SettingsError("learned prompts", "none", "feed what `needs.prompts` asks for")
        self.text_: dict[str, Tensor] = {name: prototypes(own, name) for name, own in prompts.items()}  # (2, E)
        return self

    def score(self, features: Features) -> PatchScores:
        """The map of patches `(B, h, w)`, and the image scores `(B,)`."""
        self._check_fitted()
        check_aligned(features)
        layers = torch.stack(features.layers[ALIGNED], dim=1)  # (B, L, h, w, E)
        whole = features.layers[WHOLE][0][:, 0, 0]  # (B, E)
        text = [self.text_[matching_category(name, self.text_)].to(layers.device) for name in categories_of(features)]
        maps = torch.stack(
            [class_scores(own, both, self.temperature).mean(0) for own, both in zip(layers, text, strict=True)]
        )  # (B, h, w)
        images = torch.stack(
            [class_scores(own, both, self.temperature) for own, both in zip(whole, text, strict=True)]
        )  # (B,)
        ignored = features.ignored_on(maps.shape[1:])  # (B, h, w)
        if ignored is not None:
            images = images.masked_fill(ignored.flatten(1).all(dim=1).to(images.device), 0)
        return PatchScores(maps, images)

    def text_margins(self, features: Features) -> Tensor:
        """By how much each patch `(B, h, w)` is nearer to the abnormal prompt, the mean over the four depths."""
        self._check_fitted()
        check_aligned(features)
        layers = torch.stack(features.layers[ALIGNED], dim=1)  # (B, L, h, w, E)
        text = [self.text_[matching_category(name, self.text_)] for name in categories_of(features)]
        return torch.stack([margins(own, both).mean(0) for own, both in zip(layers, text, strict=True)])

    def can_leave_out(self, category: str) -> bool:
        """Always: nothing is learned from the images."""
        return True

    def score_without(self, features: Features, left_out: Collection[int]) -> PatchScores:
        """As `score`, which knows no image."""
        return self.score(features)

    def state(self) -> dict[str, Tensor]:
        """`text/…` `(2, E)` of every category."""
        self._check_fitted()
        return {state_key("text", name): rows.detach().float().contiguous() for name, rows in self.text_.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        self.text_ = by_category(state, "text")
        self._check_fitted()
        return self

    def _check_fitted(self) -> None:
        if not getattr(self, "text_", None):
            raise NotFittedError("learned prompts", "none", "call fit or fit_zero_shot first")
