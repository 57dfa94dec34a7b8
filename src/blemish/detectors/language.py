"""What detectors share that compare images with sentences: prototypes of both kinds, and their probabilities."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize

from blemish.detectors.categories import categories_of
from blemish.errors import SettingsError
from blemish.types import ALIGNED, WHOLE, Batch, Features, Prompts


def prototypes(prompts: Prompts, category: str) -> Tensor:
    """The mean of normal and that of abnormal sentences, each of unit length, `(2, E)`."""
    if prompts.abnormal is None:
        raise SettingsError(f"abnormal sentences about {category!r}", "none", "set prompts to ensemble")
    return normalize(torch.stack([prompts.normal.mean(0), prompts.abnormal.mean(0)]), dim=-1)


def class_scores(vectors: Tensor, text: Tensor, temperature: float) -> Tensor:
    """The probability that each of `vectors` `(…, E)` is better described by the second row of `text` `(2, E)`."""
    cosines = normalize(vectors.float(), dim=-1) @ text.T  # (…, 2)
    return (cosines / temperature).softmax(-1)[..., 1]


def check_aligned(features: Features) -> None:
    """Raise SettingsError for features without patches, or the image, in the space of sentences."""
    if ALIGNED not in features.layers or WHOLE not in features.layers:
        raise SettingsError(
            "features of an encoder that embeds patches in the space of sentences",
            f"{', '.join(features.layers)}",
            "choose an encoder that can speak: `blemish list encoders`",
        )


def margins(vectors: Tensor, text: Tensor) -> Tensor:
    """By how much `vectors` `(…, E)` are nearer to the second row of `text` `(2, E)`: the difference of cosines."""
    normal, abnormal = text.to(vectors.device)
    return normalize(vectors.float(), dim=-1) @ (abnormal - normal)  # (…)


def finite(scores: Tensor) -> Tensor:
    """Scores with 0 in place of what is not finite."""
    return scores.nan_to_num(0, 0, 0)


def prompts_of(batches: Iterable[Batch]) -> tuple[dict[str, Prompts], int]:
    """The sentences about the categories of some batches, and how many images these show."""
    prompts: Mapping[str, Prompts] = {}
    shown: dict[str, None] = {}
    count = 0
    for batch in batches:
        prompts = batch.prompts or prompts
        shown |= dict.fromkeys(categories_of(batch.features))
        count += len(batch.features)
    check_prompts(prompts, shown)
    return {name: prompts[name] for name in shown}, count


def check_prompts(prompts: Mapping[str, Prompts], categories: Collection[str]) -> None:
    """Raise SettingsError for categories about which there are no sentences."""
    absent = [name for name in categories if name not in prompts]
    if absent:
        raise SettingsError(
            "sentences about a product", f"none about {absent[0]!r}", "feed what Needs.prompts asks for"
        )
