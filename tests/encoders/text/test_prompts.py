from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from blemish.encoders.text.prompts import (
    DEFECTS,
    ENSEMBLE_TEMPLATES,
    SENTENCES_PER_KIND,
    PromptKind,
    embed_sentences,
    object_name,
    prompts_for,
)
from blemish.errors import SettingsError


class Counting:
    """A text encoder that counts what it is asked: a row tells a sentence's length."""

    name, dims, licence, weights_sha256 = "counting", 2, "none needed", ""

    def __init__(self) -> None:
        self.asked = 0

    def embed(self, sentences: Sequence[str]) -> torch.Tensor:
        self.asked += len(sentences)
        return torch.nn.functional.normalize(torch.tensor([[1.0, len(s)] for s in sentences]), dim=-1)


def test_object_sentences_are_the_papers() -> None:
    sentences = prompts_for("cable_gland", "object")
    assert sentences.abnormal == ()
    assert len(sentences.normal) == 7 * 2
    assert sentences.normal[:4] == (
        "a photo of a cable gland.",
        "a photo of the cable gland.",
        "a photo of a flawless cable gland.",
        "a photo of the flawless cable gland.",
    )
    assert "a photo of the cable gland without damage." in sentences.normal


def test_the_ensemble_is_every_state_in_every_template() -> None:
    sentences = prompts_for("bottle", "ensemble")
    assert len(ENSEMBLE_TEMPLATES) == len(set(ENSEMBLE_TEMPLATES)) == 22
    assert (len(set(sentences.normal)), len(set(sentences.abnormal))) == (7 * 22, 4 * 22)
    assert "a blurry photo of the bottle with flaw." in sentences.abnormal
    assert set(prompts_for("bottle", "object").normal) < set(sentences.normal)
    assert not set(sentences.normal) & set(sentences.abnormal)


def test_contrastive_sentences_speak_of_every_kind_of_defect() -> None:
    sentences = prompts_for("bottle", "contrastive")
    assert sentences.normal == prompts_for("bottle", "ensemble").normal
    assert len(sentences.abnormal) == len(set(sentences.abnormal)) == len(DEFECTS) * SENTENCES_PER_KIND
    for nouns in DEFECTS.values():
        assert sum(any(noun in sentence for noun in nouns) for sentence in sentences.abnormal) >= SENTENCES_PER_KIND
    assert all("bottle with a " in sentence for sentence in sentences.abnormal)


def test_a_seed_decides_the_choice_and_the_category_does_not() -> None:
    bottle, nut = (prompts_for(name, "contrastive").abnormal for name in ("bottle", "metal_nut"))
    assert tuple(sentence.replace("bottle", "metal nut") for sentence in bottle) == nut
    assert prompts_for("bottle", "contrastive", seed=0).abnormal == bottle
    assert prompts_for("bottle", "contrastive", seed=1).abnormal != bottle


@pytest.mark.parametrize(
    ("category", "words"),
    [
        ("cable_gland", "cable gland"),
        ("CableGland", "cable gland"),
        ("pcb1", "pcb1"),
        ("PCB", "pcb"),
        ("  nut {M8}/left ", "nut m8 left"),
        ("Dübel", "dübel"),
        ("{}", "part"),
        ("__", "part"),
        ("", "part"),
        (None, "part"),
    ],
)
def test_categories_are_spoken(category: str | None, words: str) -> None:
    assert object_name(category) == words
    for wish in ("object", "ensemble", "contrastive"):
        sentences = prompts_for(category, wish)  # type: ignore[arg-type]
        for sentence in (*sentences.normal, *sentences.abnormal):
            assert words in sentence
            assert sentence.endswith(".")
            assert not set("{}_") & set(sentence)


@pytest.mark.parametrize("kind", ["object", "ensemble", "contrastive"])
def test_sentences_are_made_of_names_of_any_length(kind: PromptKind) -> None:
    assert "n" * 300 in prompts_for("n" * 300, kind).normal[0]


def test_an_unknown_wish_is_refused() -> None:
    with pytest.raises(SettingsError, match="object, ensemble or contrastive"):
        prompts_for("nut", "poem")  # type: ignore[arg-type]


def test_sentences_are_embedded_once() -> None:
    encoder = Counting()
    sentences = prompts_for("bottle", "ensemble")
    prompts = embed_sentences(sentences, encoder)
    assert prompts.normal.shape == (154, 2)
    assert prompts.abnormal is not None
    assert prompts.abnormal.shape == (88, 2)
    assert embed_sentences(prompts_for("bottle", "ensemble"), encoder) is prompts
    assert encoder.asked == 154 + 88
    assert embed_sentences(prompts_for("bottle", "object"), encoder).abnormal is None
    assert embed_sentences(sentences, Counting()) is not prompts  # another encoder has other rows
