"""The contract of every registered text encoder that can load now; tiny models of each family are in tests/encoders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blemish import registry
from blemish.encoders.text.factory import TextEncoder, availability
from blemish.encoders.text.factory import build as build_text_encoder
from blemish.errors import SettingsError

pytestmark = pytest.mark.parametrize("name", registry.TEXT_ENCODERS)

SENTENCES = ("a photo of a cable gland.", "a photo of a cable gland with damage.", "part", "")
DOCS = Path(__file__).resolve().parents[2] / "docs" / "methods" / "text.md"
_BUILT: dict[str, TextEncoder] = {}


def build(name: str) -> TextEncoder:
    """The encoder, built once for all tests, or a skip that says why it cannot load."""
    found = availability(name)
    if not found.loads:
        pytest.skip(found.why)
    if name not in _BUILT:
        _BUILT[name] = build_text_encoder(name, device="cpu")
    return _BUILT[name]


def test_its_documentation_names_it_and_how_to_get_it(name: str) -> None:
    page, entry = DOCS.read_text(encoding="utf-8"), registry.TEXT_ENCODERS[name]
    assert f"`{name}`" in page
    assert entry.get in page
    assert entry.licence in page


def test_its_facts_are_there(name: str) -> None:
    encoder = build(name)
    assert isinstance(encoder, TextEncoder)
    assert encoder.name == name
    assert encoder.licence == registry.TEXT_ENCODERS[name].licence
    assert len(encoder.weights_sha256) == 64  # a sha256
    assert encoder.dims >= 1
    assert name in repr(encoder)


def test_embeddings_have_their_shape_and_unit_length(name: str) -> None:
    encoder = build(name)
    rows = encoder.embed(SENTENCES)
    assert rows.shape == (len(SENTENCES), encoder.dims)
    assert rows.dtype == torch.float32
    assert rows.device.type == "cpu"
    assert not rows.requires_grad
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(len(SENTENCES)))
    assert encoder.embed([]).shape == (0, encoder.dims)


def test_no_embedding_depends_on_the_others_and_all_differ(name: str) -> None:
    encoder = build(name)
    rows = encoder.embed(SENTENCES)
    for row, sentence in zip(rows, SENTENCES, strict=True):
        assert torch.equal(encoder.embed([sentence])[0], row)
    assert float(torch.pdist(rows).min()) > 1e-3


def test_long_sentences_are_truncated(name: str) -> None:
    encoder = build(name)
    long, longer = "a photo of " * 200, "a photo of " * 220
    assert torch.equal(encoder.embed([long]), encoder.embed([longer]))


def test_a_single_sentence_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="a list of sentences"):
        build(name).embed("a photo of a nut.")
