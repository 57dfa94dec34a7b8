"""Prompts of one product whose free tokens are learned: a normal prefix, and what makes a sentence an abnormal one.

Li et al., "PromptAD: Learning Prompts with only Normal Samples for Few-Shot Anomaly Detection", CVPR 2024 (arXiv
2404.05231), section 3.2:

    normal             [P₁]…[P_n] object.
    abnormal, manual   [P₁]…[P_n] object with flaw.           a normal prefix, and a state in words
    abnormal, learned  [P₁]…[P_n] object [A₁]…[A_m].          a normal prefix, and learned tokens as a suffix
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import normalize

from blemish.encoders.base import Encoder, text_tower
from blemish.encoders.image_text.text_tower import TextTower, clip_text_tower, with_learned
from blemish.encoders.text.prompts import ABNORMAL_STATES, Sentences, embed_sentences, object_name
from blemish.types import Prompts

START = 0.02  # standard deviation of tokens before they are learned (the paper's)


@dataclass(frozen=True, eq=False, kw_only=True)
class LearnablePrompts(Prompts):
    """The sentences about a `product` before anything is learned, and the `tower` to learn tokens with."""

    product: str
    tower: TextTower


def learnable_prompts(category: str | None, encoder: Encoder) -> LearnablePrompts:
    """What a detector learns prompts about a category from. Raises SettingsError for an encoder that is no CLIP."""
    tower, name = clip_text_tower(encoder), object_name(category)
    text = text_tower(encoder)
    assert text is not None  # it has a tower
    plain = embed_sentences(
        Sentences((f"{name}.",), tuple(f"{state.replace('{}', name)}." for state in ABNORMAL_STATES)), text
    )
    return LearnablePrompts(plain.normal, plain.abnormal, product=name, tower=tower)


@dataclass(frozen=True, eq=False)
class StateEmbeddings:
    """Embedded prompts, rows of unit length: `normal` `(P, E)`, `manual` `(P · S, E)`, `learned` `(P · A, E)`."""

    normal: torch.Tensor
    manual: torch.Tensor
    learned: torch.Tensor

    @property
    def abnormal(self) -> torch.Tensor:
        """Both kinds of abnormal prompts, `(P · (S + A), E)`."""
        return torch.cat([self.manual, self.learned])

    def prototypes(self) -> torch.Tensor:
        """The means of the normal and of the abnormal prompts, of unit length, `(2, E)`."""
        return normalize(torch.stack([self.normal.mean(0), self.abnormal.mean(0)]), dim=-1)


class StatePrompts(nn.Module):
    """The tokens that are learned: `prefixes` `(P, n, D)` of normal prompts, `suffixes` `(A, m, D)` of abnormal ones.

    `states` are phrases with {} in the place of the `product`, such as "{} with flaw".
    """

    def __init__(
        self,
        tower: TextTower,
        product: str,
        states: Sequence[str],
        prefixes: tuple[int, int],
        suffixes: tuple[int, int],
    ) -> None:
        super().__init__()
        self.prefixes = nn.Parameter(START * torch.randn(*prefixes, tower.width))
        self.suffixes = nn.Parameter(START * torch.randn(*suffixes, tower.width))
        self._tower = tower
        with torch.no_grad():
            self._words = tower.words(f"{product}.")  # (T, D)
            self._states = [tower.words(f"{state.replace('{}', product)}.") for state in states]  # each (T, D)

    def forward(self) -> StateEmbeddings:
        """All prompts, embedded."""
        normal = self._embed([with_learned(self._words, prefix) for prefix in self.prefixes])
        manual = [self._embed([with_learned(words, prefix) for prefix in self.prefixes]) for words in self._states]
        learned = self._embed(
            [with_learned(self._words, prefix, suffix) for suffix in self.suffixes for prefix in self.prefixes]
        )
        return StateEmbeddings(normal, torch.cat(manual), learned)

    def _embed(self, sentences: Sequence[torch.Tensor]) -> torch.Tensor:
        """Sentences of equal length, each `(T, D)`, as rows of unit length `(N, E)`."""
        return normalize(self._tower.embed(torch.stack(list(sentences))), dim=-1)
