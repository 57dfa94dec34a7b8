"""The text half of CLIP (Radford et al., ICML 2021), whose vectors lie in one space with those of its image half."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from blemish.encoders.availability import hub_snapshot
from blemish.encoders.image.pretrained import read_pretrained
from blemish.encoders.text.factory import ways_out
from blemish.encoders.text.frozen import FrozenTextEncoder, folder_hash, read_tokenizer
from blemish.encoders.weights import missing


def load_clip_text(
    name: str = "clip-text", *, source: str, device: str = "cpu", licence: str = "see the model's card"
) -> FrozenTextEncoder:
    """The text half of the CLIP at `source`: a folder, or the id of a model in the local hub cache.

    Nothing is downloaded. Raises `WeightsError` when weights or tokenizer are missing or unusable.
    """
    given = Path(source).expanduser()
    folder = given if given.is_dir() else hub_snapshot(source)
    if folder is None:
        raise missing(name, f"{source} is not in the local hub cache", f"hf download {source}", ways_out("clip-text"))
    weights = folder_hash(folder)
    model = read_pretrained(folder, _text_half)
    return FrozenTextEncoder(
        model,
        read_tokenizer(folder),
        caption_vector,
        name=name,
        dims=int(model.config.projection_dim),
        longest=int(model.config.max_position_embeddings),
        licence=licence,
        weights=weights,
        device=device,
    )


def caption_vector(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """The projected end token of one sentence: `(1, T)` → `(1, D)`."""
    return model(input_ids=tokens).text_embeds


def _text_half(config: Any) -> tuple[Any, Any]:
    import transformers

    half = getattr(config, "text_config", config)
    half.projection_dim = config.projection_dim  # a two-tower config states the shared width once, outside
    return transformers.CLIPTextModelWithProjection, half
