"""A `TextEncoder` made of a frozen transformer and its tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from blemish.encoders.image.hub import weight_files
from blemish.encoders.precision import prepare, resolve_device
from blemish.encoders.text.factory import has_tokenizer
from blemish.encoders.weights import file_hash
from blemish.errors import SettingsError, WeightsError

# Takes the network and the token ids (1, T) of one sentence, returns its embedding (1, D).
Pool = Callable[[Any, torch.Tensor], torch.Tensor]


class FrozenTextEncoder:
    """A `TextEncoder` made of a model, a tokenizer, and how the model's tokens are pooled.

    Sentences are truncated after `max_tokens`, and filled up to so many where `is_padded`; `lower`: made lower case
    first. They go through one at a time: without padding there is nothing to mask,
    and an embedding is bit-identical whatever else is embedded. Everything is float32; sentences are few.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        pool: Pool,
        *,
        name: str,
        dims: int,
        max_tokens: int,
        licence: str,
        weights_sha256: str,
        device: str = "cpu",
        is_padded: bool = False,
        lower: bool = False,
    ) -> None:
        self.name, self.dims, self.max_tokens = name, dims, max_tokens
        self.is_padded, self.lower = is_padded, lower
        self.licence, self.weights_sha256 = licence, weights_sha256
        self.device = resolve_device(device)
        self.model = prepare(model, self.device, "fp32")
        self.tokenizer, self._pool = tokenizer, pool

    def __repr__(self) -> str:
        return f"<text encoder {self.name}, {self.dims} dimensions, {self.device}>"

    def embed(self, sentences: Sequence[str]) -> torch.Tensor:
        """Rows of unit length `(S, dims)` float32 on the CPU."""
        if isinstance(sentences, str):
            raise SettingsError("a list of sentences", f"the sentence {sentences!r} alone", "put it into a list")
        rows = [self._embed(sentence) for sentence in sentences]
        return torch.cat(rows) if rows else torch.zeros(0, self.dims)  # (S, D)

    @torch.no_grad()
    def _embed(self, sentence: str) -> torch.Tensor:
        padding = "max_length" if self.is_padded else False
        text = sentence.lower() if self.lower else sentence
        ids = self.tokenizer(text, truncation=True, max_length=self.max_tokens, padding=padding)["input_ids"]
        tokens = torch.tensor([ids], device=self.device)  # (1, T)
        return normalize(self._pool(self.model, tokens).float(), dim=-1).cpu()  # (1, D)


def read_tokenizer(folder: Path, kind: str = "AutoTokenizer") -> Any:
    """The tokenizer in a model folder, by a class of transformers. Raises WeightsError where there is none to read."""
    import transformers

    try:
        if not has_tokenizer(folder):
            raise FileNotFoundError("neither tokenizer.json nor a vocabulary")
        return getattr(transformers, kind).from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # a damaged file surfaces as one of many kinds of error
        raise WeightsError(
            f"a tokenizer beside the weights in {folder}",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            "download the whole model, or give a folder that holds its tokenizer.json",
        ) from error


def folder_hash(folder: Path) -> str:
    """sha256 of the weights in a model folder."""
    return file_hash(*weight_files(folder))
