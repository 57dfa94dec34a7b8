"""CLIP's text half taken apart, so that learned tokens can stand among words, and gradients reach them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from blemish.encoders.base import Encoder, text_tower
from blemish.encoders.image_text.blocks import Block
from blemish.encoders.text.frozen import FrozenTextEncoder
from blemish.errors import SettingsError


class TextTower:
    """The frozen text half of a CLIP, and its tokenizer; all of `encoder`, the text encoder it belongs to.

    `width` is that of tokens, `dims` that of embeddings, `length` the most tokens of a sentence.
    """

    def __init__(self, encoder: FrozenTextEncoder) -> None:
        half: Any = encoder.model
        if not hasattr(half, "text_model") or isinstance(getattr(half, "projection", None), nn.Identity):
            raise SettingsError("the text tower of a CLIP, to learn prompts", repr(encoder.name), "choose a CLIP")
        self._tokenizer, self._model, self._projection = encoder.tokenizer, half.text_model, half.projection
        self.blocks = [Block.of_clip(layer) for layer in self._model.encoder.layers]
        self.width, self.dims = int(self._model.config.hidden_size), encoder.dims
        self.length, self.device = encoder.max_tokens, encoder.device

    def words(self, sentence: str) -> torch.Tensor:
        """The tokens `(T, D)` of a sentence, those of its start and end included, without positions."""
        ids = self._tokenizer(sentence, truncation=True, max_length=self.length, padding=False)["input_ids"]
        tokens: torch.Tensor = self._model.embeddings.token_embedding(torch.tensor(ids, device=self.device))
        return tokens

    def embed(self, tokens: torch.Tensor, deep: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """The embeddings `(N, E)` of sentences of T tokens `(N, T, D)` from start to end; gradients pass.

        `deep`: tokens `(m, D)` for the second block, the third and so on, that take the place of those after the start.
        """
        count = tokens.shape[1]
        if count > self.length:
            raise SettingsError(f"sentences of at most {self.length} tokens", str(count), "learn fewer tokens")
        places = torch.arange(count, device=tokens.device)
        tokens = tokens + self._model.embeddings.position_embedding(places)  # (N, T, D)
        future = torch.full((count, count), -torch.inf, device=tokens.device).triu(1)
        for number, block in enumerate(self.blocks):
            if 0 < number <= len(deep):
                own = deep[number - 1].expand(len(tokens), -1, -1)
                tokens = torch.cat([tokens[:, :1], own, tokens[:, 1 + own.shape[1] :]], dim=1)
            tokens = block.feed(tokens + block.attend(tokens, bias=future))
        embedded: torch.Tensor = self._projection(self._model.final_layer_norm(tokens)[:, -1])
        return embedded


def clip_text_tower(encoder: Encoder) -> TextTower:
    """The text tower of an encoder, taken apart. Raises SettingsError for one that is no CLIP."""
    text = text_tower(encoder)
    if not isinstance(text, FrozenTextEncoder):
        raise SettingsError(
            "an encoder with the text tower of a CLIP, to learn prompts", repr(encoder.name), "name one"
        )
    return TextTower(text)


def with_learned(words: torch.Tensor, prefix: torch.Tensor, suffix: torch.Tensor | None = None) -> torch.Tensor:
    """The words `(T, D)` of a sentence with learned tokens among them, `(n + T + m, D)`.

    `prefix` `(n, D)` follows the start; `suffix` `(m, D)` stands before the last two, the full stop and the end.
    """
    if suffix is None:
        return torch.cat([words[:1], prefix, words[1:]])
    return torch.cat([words[:1], prefix, words[1:-2], suffix, words[-2:]])
