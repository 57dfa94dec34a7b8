"""A vision-language model's sentence takes the template's place where it agrees; a tiny one of random weights runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from attribute_parts import DARK_SPOT
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from blemish.errors import MissingPackageError, SettingsError, WeightsError
from blemish.model.reasons import ReasonSettings, worded
from blemish.model.vlm import Describer, LocalVlm, find_vlm
from blemish.types import CropPair, Region

FOUND = replace(
    DARK_SPOT,
    lightness=-9.0,
    colour_difference=8.0,
)
PAIR = CropPair(np.zeros((20, 30, 3), np.uint8), np.full((20, 30, 3), 200, np.uint8))
REGION = Region((0, 0, 9, 9), 81, 2.0, 1.0, (4.5, 4.5), words="Dark spot centre", attributes=FOUND, crops=PAIR)
TEMPLATE = "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}"
TEMPLATE += "{% endif %}{% endfor %}{% endfor %}"


class Stub:
    name = "stub"

    def __init__(self, sentence: str) -> None:
        self.sentence, self.prompts = sentence, list[str]()

    def write(self, pair: CropPair, prompt: str) -> str:
        self.prompts.append(prompt)
        return self.sentence


def settings(stub: Stub, language: str = "en") -> ReasonSettings:
    return ReasonSettings(language=language, describer=Describer(stub, language))


def test_a_sentence_that_agrees_takes_the_place_of_the_template() -> None:
    stub = Stub(' "there is a dark spot in the centre." ')
    found = worded(REGION, settings(stub))
    assert found.words == "There is a dark spot in the centre"
    assert found.attributes is not None
    assert found.attributes.words_by == "stub"
    assert "Dark spot centre" in stub.prompts[0]
    assert "English" in stub.prompts[0]


def test_one_that_contradicts_leaves_the_template() -> None:
    assert worded(REGION, settings(Stub("There is a bright spot in the centre"))) == REGION
    assert worded(REGION, settings(Stub("There is a dark spot in the centre"), "de")) == REGION
    stub = Stub("There is a dark spot")
    assert worded(replace(REGION, crops=None), settings(stub)).words == "Dark spot centre"
    assert not stub.prompts  # nothing to look at: nothing is asked


def write_llava(folder: Path) -> Path:
    """A tiny Llava of random weights with a processor that needs no torchvision."""
    words = ["[PAD]", "[UNK]", "[END]", "<image>", "a", "dark", "spot", "is", "there", "the", "picture"]
    vocabulary = {word: number for number, word in enumerate(words)}
    base = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    base.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=base,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[END]",
        additional_special_tokens=["<image>"],
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    transformers.LlavaProcessor(
        images,
        fast,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**small, image_size=16, patch_size=8),
        text_config=transformers.LlamaConfig(
            **small, vocab_size=len(words), bos_token_id=None, eos_token_id=2, pad_token_id=0
        ),
        image_token_index=3,
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_a_tiny_model_writes_the_same_each_time_and_not_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blemish.model.vlm.MOST_TOKENS", 5)
    vlm = LocalVlm(write_llava(tmp_path))
    assert vlm._loaded is None  # nothing is read before there is something to say
    first = vlm.write(PAIR, "the picture")
    assert first == vlm.write(PAIR, "the picture")
    assert len(first.split()) <= 5
    swapped = CropPair(PAIR.good, PAIR.found)
    assert isinstance(Describer(vlm, "en").sentence(swapped, FOUND, "Dark spot"), str)


def test_a_model_that_takes_no_two_pictures_is_named(tmp_path: Path) -> None:
    folder = write_llava(tmp_path)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}<image> the picture{% endfor %}")
    with pytest.raises(SettingsError, match=r"takes two pictures and a question; got .*leave --vlm out"):
        LocalVlm(folder).write(PAIR, "the picture")


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="hf download no/such"):
        find_vlm("no/such")
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    with pytest.raises(SettingsError, match="'bert', which takes none"):
        LocalVlm(tmp_path)
    folder = write_llava(tmp_path / "llava")

    def lacks(*args: object, **more: object) -> None:
        raise ImportError("requires torchvision")

    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", lacks)
    with pytest.raises(MissingPackageError, match=r"blemish\[vlm\]"):
        LocalVlm(folder).write(PAIR, "the picture")
