"""What detectors share that compare images with sentences: prototypes of both kinds, and their probabilities."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize

from blemish.detectors.categories import categories_of
from blemish.errors import SettingsError
from blemish.types import Batch, Prompts


def prototypes(prompts: Prompts, category: str) -> Tensor:
    """The mean of normal and that of abnormal sentences, each of unit length, `(2, E)`."""
    if prompts.abnormal is None:
        raise SettingsError(f"abnormal sentences about {category!r}", "none", "set prompts to ensemble")
    return normalize(torch.stack([prompts.normal.mean(0), prompts.abnormal.mean(0)]), dim=-1)


def class_scores(vectors: Tensor, text: Tensor, temperature: float) -> Tensor:
    """The probability that each of `vectors` `(…, E)` is better described by the second row of `text` `(2, E)`."""
    cosines = normalize(vectors.float(), dim=-1) @ text.T  # (…, 2)
    return (cosines / temperature).softmax(-1)[..., 1]


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
