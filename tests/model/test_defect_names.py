"""Names from a user's list: what the good crop has less of, and no name under what good crops reach themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from attribute_parts import DARK_SPOT
from image_text_parts import write_model

from blemish.errors import SettingsError, WeightsError
from blemish.model import defect_names
from blemish.model.defect_names import DefectNamer, checked_names, normal_pairs, speaking_encoder
from blemish.model.reference_images import ReferenceImages
from blemish.scoring.sentences import sentence_of
from blemish.types import RGB, WHOLE, CropPair, Features, Region

GREY = (120, 120, 120)


class Words:
    """Embeds a sentence as the colour that it names."""

    def embed(self, sentences: Sequence[str]) -> torch.Tensor:
        colours = ("red", "green", "blue")
        return torch.tensor([[float(colour in sentence) for colour in colours] for sentence in sentences])


class Colours:
    """Embeds an image as its mean colour."""

    name, size_multiple, text = "colours", 16, Words()

    def encode(self, images: np.ndarray) -> Features:
        return Features({WHOLE: (torch.tensor(images).float().mean(dim=(1, 2), keepdim=True),)})


def crop(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((20, 30, 3), colour, np.uint8)


def references(*colours: tuple[int, int, int]) -> ReferenceImages:
    images = [np.full((40, 40, 3), colour, np.uint8) for colour in colours]
    features = [Features({RGB: (torch.rand(1, 8, 8, 4, generator=torch.Generator().manual_seed(0)),)})] * len(images)
    found = ReferenceImages.fit([f"{i}.png" for i in range(len(images))], images, features)
    assert found is not None
    return found


def namer(*names: str) -> DefectNamer:
    encoder: Any = Colours()
    return DefectNamer(names, encoder)


def test_the_name_is_that_which_the_defect_has_more_of_than_the_good_crop() -> None:
    kept = references(GREY, (122, 120, 120), (119, 120, 121))
    for colour, name in (((200, 90, 90), "red"), ((90, 90, 200), "blue")):
        found, gain = namer("red", "blue").name_of(CropPair(crop(colour), crop(GREY)), kept)
        assert found == name
        assert gain > 0.2
    # What both crops show cancels: a red part with a bluer place is blue.
    assert namer("red", "blue").name_of(CropPair(crop((200, 60, 140)), crop((200, 60, 60))), kept)[0] == "blue"


def test_gains_are_differences_of_cosines() -> None:
    (gain,) = namer("red", "green").gains([CropPair(crop((200, 100, 0)), crop((0, 100, 0)))])
    np.testing.assert_allclose(gain, [2 / 5**0.5, 1 / 5**0.5 - 1], atol=1e-6)


def test_what_normal_crops_reach_is_not_named() -> None:
    slightly = CropPair(crop((140, 120, 120)), crop(GREY))
    alike, unlike = references(GREY, (121, 120, 120)), references(GREY, (160, 120, 120))
    assert namer("red").name_of(slightly, alike)[0] == "red"
    assert namer("red").name_of(slightly, unlike)[0] == ""
    assert namer("red").name_of(slightly, references(GREY))[0] == ""  # one image: no margin is known
    assert namer("red").margin(references(GREY)) == float("inf")
    assert namer("red").name_of(CropPair(crop(GREY), crop((140, 120, 120))), alike)[0] == ""  # less red than good
    assert len(normal_pairs(alike)) == 2 * len(defect_names.PLACES)


def test_a_name_takes_the_place_of_the_noun() -> None:
    attributes = DARK_SPOT
    region = Region((0, 0, 9, 9), 81, 2.0, 1.0, (4.5, 4.5), attributes=attributes)
    assert sentence_of(region).startswith("Dark spot centre")
    assert sentence_of(replace(region, attributes=replace(attributes, name="oil stain"))).startswith("Oil stain centre")


def test_a_real_tower_of_random_weights_names_and_abstains(tmp_path: Path) -> None:
    write_model(tmp_path, "clip")
    found = DefectNamer(["scratch", "dent"], speaking_encoder(tmp_path))
    random = np.random.default_rng(0)
    pair = CropPair(random.integers(0, 256, (30, 30, 3), np.uint8), crop(GREY))
    gains = found.gains([pair, CropPair(pair.good, pair.found), CropPair(pair.good, pair.good)])
    assert gains.shape == (3, 2)
    np.testing.assert_allclose(gains[0], -gains[1], atol=1e-6)
    np.testing.assert_allclose(gains[2], 0, atol=1e-6)
    assert found.name_of(CropPair(pair.good, pair.good), references(GREY, GREY))[0] == ""
    best = int(gains[:2].max(axis=1).argmax())
    named = (pair, CropPair(pair.good, pair.found))[best]
    assert found.name_of(named, references(GREY, GREY))[0] in ("scratch", "dent")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "an empty list"),
        (["dent", " "], "an empty one"),
        (["a" * 300], "300 letters"),
        (["one two three four"], "4 words"),
        (["Dent", "dent"], "twice"),
        ("dent", "a list of names"),
    ],
)
def test_names_that_cannot_be_are_refused(names: Sequence[str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        checked_names(names)


def test_names_are_stripped() -> None:
    assert checked_names([" oil  stain ", "dent"]) == ("oil stain", "dent")


def test_without_an_encoder_that_reads_words_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defect_names, "availability", lambda name: SimpleNamespace(loads=False))
    with pytest.raises(WeightsError, match="run: "):
        speaking_encoder()
    with pytest.raises(SettingsError, match="list encoders"):
        speaking_encoder("pixels")
