"""Tiny random text models with tokenizers of a dozen words, saved as folders; no test here may touch the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "the", "nut", "bolt", "flawless", "damaged", ".")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty-hub-cache"))


def write_model(family: str, folder: Path) -> Path:
    """A model of "bert", "clip" (both halves) or "clip_text_model" at `folder`, with its tokenizer."""
    small: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"intermediate_size": 32, "max_position_embeddings": 20}
    words = {"vocab_size": len(WORDS), "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    torch.manual_seed(0)
    model: Any
    if family == "bert":
        model = transformers.BertModel(transformers.BertConfig(**small, vocab_size=len(WORDS)))
    elif family == "clip":
        vision = small | {"image_size": 16, "patch_size": 8}
        config = transformers.CLIPConfig(text_config=small | words, vision_config=vision, projection_dim=12)
        model = transformers.CLIPModel(config)
    else:
        model = transformers.CLIPTextModelWithProjection(
            transformers.CLIPTextConfig(**small, **words, projection_dim=12)
        )
    with torch.no_grad():  # spread the weights out: fresh norms hide mistakes
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """A tokenizer that splits at spaces and full stops, in the form that both families read."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    words.enable_padding(length=18, pad_id=0, pad_token="[PAD]")  # as published ones do; must change nothing
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny model, written once."""
    root = tmp_path_factory.mktemp("text-models")

    def find(family: str) -> Path:
        folder = root / family
        return folder if folder.exists() else write_model(family, folder)

    return find
