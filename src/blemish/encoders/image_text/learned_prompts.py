"""Two prompts that are learned and name no product, and the file that keeps what they embed to.

Zhou et al., "AnomalyCLIP", ICLR 2024 (arXiv 2310.18961): [V₁]…[V₁₂] object; [W₁]…[W₁₂] damaged object; four tokens more
before each of the text tower's blocks 2 to 9.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import normalize

from blemish.encoders.base import Encoder
from blemish.encoders.identity import identity
from blemish.encoders.image_text.text_tower import TextTower, with_learned
from blemish.errors import WeightsError
from blemish.types import Prompts
from blemish.utils.atomic import atomic_file

SUFFIXES = ("object.", "damaged object.")  # normal, anomalous
TOKENS, DEEP_TOKENS, DEEP_BLOCKS = 12, 4, 8  # the paper's
START = 0.02  # standard deviation of tokens before they are learned
_FACTS = "blemish"  # the entry of a file's metadata


class LearnedPrompts(nn.Module):
    """The tokens that are learned: `context` `(2, n, D)` before the words, `deep` `(blocks, m, D)` of both prompts."""

    def __init__(self, tower: TextTower, tokens: int = TOKENS, deep_tokens: int = DEEP_TOKENS) -> None:
        super().__init__()
        blocks = min(DEEP_BLOCKS, len(tower.blocks) - 1)
        self.context = nn.Parameter(START * torch.randn(2, tokens, tower.width))
        self.deep = nn.Parameter(START * torch.randn(blocks, deep_tokens, tower.width))

    def embed(self, tower: TextTower) -> torch.Tensor:
        """The embeddings of the normal and of the anomalous prompt, of unit length, `(2, E)`."""
        rows = []
        for own, suffix in zip(self.context, SUFFIXES, strict=True):
            sentence = with_learned(tower.words(suffix), own)  # (T, D)
            rows.append(tower.embed(sentence[None], tuple(self.deep)))
        return normalize(torch.cat(rows), dim=-1)


@dataclass(frozen=True)
class PromptFacts:
    """What a file of prompts says of itself: the `encoder` they were learned for, by its `weights` (sha256), at
    `image_size` pixels, from so many `images` of the `categories`, in `epochs`. `identity` is that of the encoder with
    its settings (encoders/identity.py); "" in files of earlier versions."""

    encoder: str
    weights: str
    image_size: int
    images: int
    categories: tuple[str, ...]
    epochs: int
    identity: str = ""


def write_prompts(file: Path, learned: LearnedPrompts, embeddings: torch.Tensor, facts: PromptFacts) -> None:
    """Keep learned tokens and what they embed to `(2, E)`. Raises OutputError where the file cannot be written."""
    from safetensors.torch import save_file

    tensors = {"embeddings": embeddings, "context": learned.context, "deep": learned.deep}
    with atomic_file(file) as partial:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            partial,
            metadata={_FACTS: json.dumps(asdict(facts))},
        )


def read_prompts(file: Path, encoder: Encoder) -> Prompts:
    """The two embeddings in a file as sentences. Raises WeightsError for another file, or for another encoder."""
    facts, tensors = read_file(file)
    if facts.weights != encoder.weights_sha256:
        raise WeightsError(
            f"the encoder that the prompts in '{file}' were learned for, {facts.encoder!r} (sha256 "
            f"{facts.weights[:12]}…)",
            f"{encoder.name!r} (sha256 {encoder.weights_sha256[:12]}…)",
            "name that encoder, or learn prompts for this one: blemish fit-prompts",
        )
    if facts.identity and facts.identity != identity(encoder):
        raise WeightsError(
            f"the encoder {facts.encoder!r} as the prompts in '{file}' were learned for it",
            "the same weights under another config or normalisation",
            "bring back its config and preprocessor_config.json, or learn prompts for this one: blemish fit-prompts",
        )
    rows = tensors["embeddings"]
    return Prompts(rows[:1], rows[1:])


def read_file(file: Path) -> tuple[PromptFacts, Mapping[str, torch.Tensor]]:
    """What a file of prompts holds. Raises WeightsError for one that is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as opened:
            said = json.loads((opened.metadata() or {})[_FACTS])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        facts = PromptFacts(**said | {"categories": tuple(said["categories"])})
        if tensors["embeddings"].ndim != 2 or len(tensors["embeddings"]) != 2:
            raise ValueError("not two embeddings")
        return facts, tensors
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(
            f"a file of prompts that `blemish fit-prompts` wrote at '{file}'",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            "learn some: blemish fit-prompts DATASET -o PROMPTS",
        ) from error
