"""The open text tower against transformers', and the file that keeps learned prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from image_text_parts import DIMS, WIDTH, WORDS, model_of
from torch.nn.functional import normalize

from blemish import encoders
from blemish.encoders.identity import identity
from blemish.encoders.image_text.learned_prompts import (
    LearnedPrompts,
    PromptFacts,
    read_file,
    read_prompts,
    write_prompts,
)
from blemish.encoders.image_text.text_tower import TextTower
from blemish.errors import SettingsError, WeightsError

Folder = Callable[[str], Path]


def built(folder: Path) -> Any:
    return encoders.build(folder, alignment="v-v-layers", precision="fp32")


@pytest.mark.parametrize("family", ["clip", "open_clip"])
def test_words_alone_embed_as_ever(family: str, folder_of: Folder) -> None:
    encoder = built(folder_of(family))
    tower, sentence = TextTower(encoder.text), "a photo of a damaged bolt."
    with torch.no_grad():
        row = normalize(tower.embed(tower.words(sentence)[None]), dim=-1)
    torch.testing.assert_close(row, encoder.text.embed([sentence]), rtol=1e-5, atol=1e-5)


def test_deep_tokens_take_the_place_of_those_after_the_start(folder_of: Folder) -> None:
    """Against a hook in transformers' own tower that puts them there before its second block."""
    tower, model = TextTower(built(folder_of("clip")).text), model_of("clip")
    ids = torch.tensor([[2, 4, 5, 6, 7, 8, len(WORDS) - 1]])
    deep = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))

    def put(module: Any, args: Any, kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        changed = torch.cat([hidden[:, :1], deep[None], hidden[:, 4:]], dim=1)
        return ((changed, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": changed})

    model.text_model.encoder.layers[1].register_forward_pre_hook(put, with_kwargs=True)
    with torch.no_grad():
        expected = model.get_text_features(ids).pooler_output
        words = model.text_model.embeddings.token_embedding(ids[0])
        torch.testing.assert_close(tower.embed(words[None], [deep]), expected, rtol=1e-5, atol=1e-5)


def test_gradients_reach_every_learned_token_and_nothing_else(folder_of: Folder) -> None:
    encoder = built(folder_of("clip"))
    tower = TextTower(encoder.text)
    learned = LearnedPrompts(tower, tokens=3, deep_tokens=2)
    rows = learned.embed(tower)
    assert rows.shape == (2, DIMS)
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(2))
    (rows[0] @ rows[1]).backward()
    assert all(bool((parameter.grad != 0).any()) for parameter in learned.parameters() if parameter.grad is not None)
    assert learned.context.grad is not None
    assert learned.deep.grad is not None
    assert not any(parameter.requires_grad for parameter in encoder.text.model.parameters())


def test_a_file_of_prompts_comes_back_and_knows_its_encoder(folder_of: Folder, tmp_path: Path) -> None:
    encoder, other = built(folder_of("clip")), built(folder_of("open_clip"))
    tower = TextTower(encoder.text)
    learned = LearnedPrompts(tower)
    rows = learned.embed(tower)
    facts = PromptFacts("clip", encoder.weights_sha256, 40, 12, ("disc", "ring"), 2)
    write_prompts(tmp_path / "prompts", learned, rows, facts)
    prompts = read_prompts(tmp_path / "prompts", encoder)
    assert prompts.abnormal is not None
    assert torch.equal(torch.cat([prompts.normal, prompts.abnormal]), rows)
    assert read_file(tmp_path / "prompts")[0] == facts
    with pytest.raises(WeightsError, match="that the prompts in"):
        read_prompts(tmp_path / "prompts", other)
    write_prompts(tmp_path / "prompts", learned, rows, replace(facts, identity=identity(encoder)))
    read_prompts(tmp_path / "prompts", encoder)
    encoder.mean = (0.0, 0.0, 0.0)
    with pytest.raises(WeightsError, match="another config or normalisation"):
        read_prompts(tmp_path / "prompts", encoder)
    (tmp_path / "none").write_bytes(b"no prompts")
    for name in ("none", "absent"):
        with pytest.raises(WeightsError, match="a file of prompts"):
            read_prompts(tmp_path / name, encoder)


@pytest.mark.parametrize("family", ["tipsv2", "siglip"])
def test_prompts_are_learned_for_a_clip_alone(family: str, folder_of: Folder) -> None:
    encoder: Any = encoders.build(folder_of(family), alignment="value", precision="fp32")
    with pytest.raises(SettingsError, match="the text tower of a CLIP"):
        TextTower(encoder.text)


def test_too_many_tokens_are_refused(folder_of: Folder) -> None:
    tower = TextTower(built(folder_of("clip")).text)
    with pytest.raises(SettingsError, match="at most 20 tokens"):
        LearnedPrompts(tower, tokens=30).embed(tower)
