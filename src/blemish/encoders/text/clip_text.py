"""CLIP's text encoder, whose embeddings share a space with those of its image encoder.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021
(https://arxiv.org/abs/2103.00020).
"""

from __future__ import annotations

from typing import Any

import torch

from blemish.encoders.availability import hub_snapshot
from blemish.encoders.image.pretrained import read_pretrained
from blemish.encoders.text.factory import ways_out
from blemish.encoders.text.frozen import FrozenTextEncoder, folder_hash, read_tokenizer
from blemish.encoders.weights import missing
from blemish.utils.paths import expanded


def load_clip_text(
    name: str = "clip-text", *, source: str, device: str = "cpu", licence: str = "see the model's card"
) -> FrozenTextEncoder:
    """The text encoder of the CLIP at `source`: a folder, or the id of a model in the local hub cache.

    Nothing is downloaded. Raises `WeightsError` when weights or tokenizer are missing or unusable.
    """
    given = expanded(source)
    folder = given if given.is_dir() else hub_snapshot(source)
    if folder is None:
        raise missing(name, f"{source} is not in the local hub cache", f"hf download {source}", ways_out("clip-text"))
    weights = folder_hash(folder)
    model = read_pretrained(folder, _text_tower)
    return FrozenTextEncoder(
        model,
        read_tokenizer(folder),
        projected_end_token,
        name=name,
        dims=int(model.config.projection_dim),
        max_tokens=int(model.config.max_position_embeddings),
        licence=licence,
        weights_sha256=weights,
        device=device,
    )


def projected_end_token(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """The projected end token of one sentence: `(1, T)` → `(1, D)`."""
    embedding: torch.Tensor = model(input_ids=tokens).text_embeds
    return embedding


def _text_tower(config: Any) -> tuple[Any, Any]:
    import transformers

    text_config = getattr(config, "text_config", config)
    text_config.projection_dim = config.projection_dim  # a two-tower config states the shared width once, outside
    return transformers.CLIPTextModelWithProjection, text_config
