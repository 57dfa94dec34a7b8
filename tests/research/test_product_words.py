"""Words about products: from files, from those that ship, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blemish.encoders.text.prompts import ABNORMAL_STATES, ENSEMBLE_TEMPLATES, NORMAL_STATES, check_product
from blemish.errors import SettingsError
from blemish.research.product_words import BENCHMARK_DEFECTS, ProductWords, is_phrase, read_words, words_for


def write(folder: Path, text: str) -> Path:
    file = folder / "words.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_words_become_phrases_and_sentences(tmp_path: Path) -> None:
    text = "Metal_Nut:\n  name: hex nut\n  normal: [clean]\n  abnormal: [bent tooth, 'scratched {}']\nring: [dent]\n"
    found = read_words(write(tmp_path, text))
    assert found["metal nut"] == ProductWords("hex nut", ("clean {}",), ("{} with bent tooth", "scratched {}"))
    assert found["ring"] == ProductWords("ring", (), ("{} with dent",))
    sentences = found["metal nut"].sentences()
    assert len(sentences.normal) == (len(NORMAL_STATES) + 1) * len(ENSEMBLE_TEMPLATES)
    assert len(sentences.abnormal) == (len(ABNORMAL_STATES) + 2) * len(ENSEMBLE_TEMPLATES)
    assert "a photo of a hex nut with bent tooth." in sentences.abnormal
    assert "a photo of the clean hex nut." in sentences.normal


def test_json_is_read_alike(tmp_path: Path) -> None:
    found = read_words(write(tmp_path, json.dumps({"ring": {"abnormal": ["dent"]}})))
    assert found == {"ring": ProductWords("ring", (), ("{} with dent",))}


def test_given_words_come_before_those_that_ship() -> None:
    own = ProductWords("nut", (), ("{} with dent",))
    assert words_for("metal_nut", {"metal nut": own}) == own
    shipped = words_for("metal_nut", {})
    assert shipped is not None
    assert "{} with scratch" in shipped.abnormal
    assert words_for("no_such_product", {}) is None


def test_words_that_ship_can_stand_in_sentences() -> None:
    for name, defects in BENCHMARK_DEFECTS.items():
        check_product(name)
        assert all(is_phrase(one) and "{" not in one for one in defects)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "products by name"),
        ("[dent]", "products by name"),
        ("ring: [", "YAML or JSON"),
        ("ring: dent", "name, normal, abnormal"),
        ("ring: {colour: [red]}", "name, normal, abnormal"),
        ("ring: {abnormal: dent}", "a list of words"),
        ("ring: {abnormal: ['']}", "a list of words"),
        ("ring: {abnormal: ['{} and {}']}", "a list of words"),
        (f"ring: {{abnormal: [{'x' * 81}]}}", "at most 80 characters"),
        ("ring: {name: '!!!', abnormal: [dent]}", "name in words"),
    ],
)
def test_other_files_are_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=words):
        read_words(write(tmp_path, text))
    with pytest.raises(SettingsError, match="YAML or JSON"):
        read_words(tmp_path / "none.yaml")
