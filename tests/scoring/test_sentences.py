"""Sentences about regions: the same keys in every language, at most 25 words whatever the numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from string import Formatter
from typing import Any

import pytest
from attribute_parts import DARK_SPOT

from blemish.errors import SettingsError
from blemish.scoring.naming import NOUNS, differences_of, noun_of, place_of
from blemish.scoring.sentences import MOST_WORDS, languages, phrases_of, sentence_of
from blemish.types import Attributes, Region, StatedRule

PLAIN = replace(
    DARK_SPOT,
    noun="unusual",
    centre=(50.0, 40.0),
    is_of_part=True,
    length=10.0,
    width=8.0,
    elongation=1.25,
    edge_distance=0.5,
    lightness=0.0,
    redness=0.0,
    yellowness=0.0,
    colour_difference=0.0,
    texture_ratio=1.0,
    edge_ratio=1.0,
)


THREE = StatedRule(
    component=2, quantity="count", low=2.0, high=2.0, found=3.0, images=20, places=((5.0, 5.0),), place="upper_left"
)


def flat(phrases: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found = {}
    for name, value in phrases.items():
        value = dict(zip(map(str, range(len(value))), value, strict=True)) if isinstance(value, list) else value
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def region(found: Attributes, **facts: Any) -> Region:
    return Region((0, 0, 9, 9), 81, 2.0, 1.0, (4.5, 4.5), attributes=found, **facts)


def test_every_language_has_the_same_keys_and_fields() -> None:
    assert {"en", "de"} <= set(languages())
    english, *others = ({**phrases_of(name), "sentence_checks": {}} for name in ("en", *languages()))  # lists differ
    english = flat(english)
    for language, phrases in zip(languages(), others, strict=True):
        other = flat(phrases)
        assert other.keys() == english.keys(), language
        for name, text in other.items():
            fields = [{field for _, field, _, _ in Formatter().parse(one) if field} for one in (text, english[name])]
            assert fields[0] == fields[1], (language, name)


def test_every_noun_and_place_has_words() -> None:
    for language in languages():
        phrases = phrases_of(language)
        assert {*NOUNS, "unusual"} == phrases["nouns"].keys()
        places = {place_of((u / 10, v / 10)) for u in range(11) for v in range(11)} | {"all_over"}
        assert places == phrases["places"].keys()


def extremes() -> Iterator[Region]:
    """Attributes at and beyond the ends of their ranges."""
    for noun, place, times in itertools.product((*NOUNS, "unusual"), ("upper", "left", "all_over"), (1.001, 1e12)):
        for edge, mm, share in itertools.product((None, -9.0, 0.05, 1.0), (None, 1e-9, 123456.789), (0.0, 1e-9, 5.0)):
            found = replace(PLAIN, noun=noun, place=place, strength=times, edge_distance=edge, area_share=share)
            found = replace(found, length_mm=mm, width_mm=mm, height_mm=None if mm is None else -mm, degrees=34.4)
            for is_known, colour in ((False, 0.0), (True, 3.0), (True, 100.0)):
                found = replace(found, is_known=is_known, colour_difference=colour, lightness=-99, redness=99)
                yield region(replace(found, texture_ratio=1e9), modalities={"points": 1.0})
    for noun, place, times, edge in itertools.product(
        (*NOUNS, "unusual"), ("upper", "left"), (1.001, 1e12), (-9, 0.05)
    ):
        for quantity, low, found in itertools.product(("count", "area"), (0.0, 3.0), (0.0, 1234.0)):
            rule = replace(THREE, quantity=quantity, low=low, found=found, place="lower", component=128, is_either=True)
            yield region(replace(PLAIN, noun=noun, place=place, strength=times, edge_distance=edge, rule=rule))


@pytest.mark.parametrize("language", languages())
def test_no_sentence_is_longer_than_promised(language: str) -> None:
    for one in extremes():
        sentence = sentence_of(one, language)
        assert 3 <= len(sentence.split()) <= MOST_WORDS, sentence
        assert "{" not in sentence
        assert sentence[0].isupper()
        assert "e-" not in sentence
        assert "  " not in sentence


def test_the_promised_sentences() -> None:
    line = replace(
        PLAIN,
        noun="line",
        place="upper_left",
        edge_distance=0.05,
        area_share=0.021,
        degrees=34.0,
        strength=3.2,
        lightness=-12.0,
        yellowness=8.0,
        colour_difference=13.0,
    )
    assert sentence_of(region(line)) == (
        "Scratch-like line at the edge, upper left, 2.1 % of the part, at 34°: "
        "darker and yellower than good parts; strength 3.2 (outlined from 1)"
    )
    assert sentence_of(region(replace(line, length_mm=12.34, width_mm=0.3)), "de") == (
        "Kratzerartige Linie am Rand, oben links, 12 mm lang, unter 34°: "
        "dunkler und gelblicher als gute Teile; Stärke 3,2 (umrandet ab 1)"
    )


def test_what_all_good_parts_have_in_common_is_said_with_its_place() -> None:
    counted = replace(PLAIN, place="upper_left", rule=THREE)
    assert sentence_of(region(counted)) == (
        "Unusual area upper left: three of component 2 where good parts always have two; strength 2.0 (outlined from 1)"
    )
    assert sentence_of(region(replace(counted, place="lower")), "de") == (
        "Auffälliger Bereich unten in der Mitte: drei von Komponente 2, gute Teile immer zwei (oben links); "
        "Stärke 2,0 (umrandet ab 1)"
    )
    either = replace(THREE, found=0.0, low=1.0, high=14.0, is_either=True)
    assert "none of component 2 where good parts always have one or 14;" in sentence_of(
        region(replace(counted, rule=either))
    )
    area = replace(THREE, quantity="area", low=0.018, high=0.023, found=0.0)
    assert "component 2 covers 0 %, usually 1.8–2.3 %;" in sentence_of(region(replace(counted, rule=area)))
    near = replace(area, found=0.1164, low=0.1192, high=1.04)  # the end of a rule may lie above all there is
    assert "component 2 covers 11.6 %, usually 11.9–100.0 %;" in sentence_of(region(replace(counted, rule=near)))


def test_no_size_reads_as_nothing() -> None:
    small = replace(PLAIN, length_mm=0.0034, width_mm=0.00096)
    assert "0.0034 × 0.00096 mm" in sentence_of(region(small))
    assert "0,0034 mm lang" in sentence_of(region(replace(small, noun="line")), "de")


def test_unknown_languages_and_regions_without_attributes_are_refused() -> None:
    with pytest.raises(SettingsError, match="de, en"):
        sentence_of(region(PLAIN), "fr")
    with pytest.raises(SettingsError):
        sentence_of(replace(region(PLAIN), attributes=None))


@pytest.mark.parametrize(
    ("facts", "noun"),
    [
        ({"presence": "missing", "edge_distance": 0.5}, "hole"),
        ({"presence": "missing", "edge_distance": 0.05}, "missing"),
        ({"presence": "extra"}, "extra"),
        ({"height_mm": -0.5}, "dent"),
        ({"height_mm": 0.5}, "bump"),
        ({"elongation": 4.0, "colour_difference": 9.0, "lightness": -9.0, "edge_ratio": 2.0}, "line"),
        ({"elongation": 2.9, "colour_difference": 9.0, "lightness": -9.0, "edge_ratio": 2.0}, "dark_spot"),
        ({"colour_difference": 9.0, "lightness": -9.0, "area_share": 0.2}, "dark_area"),
        ({"colour_difference": 9.0, "lightness": 9.0}, "bright_spot"),
        ({"colour_difference": 9.0, "lightness": 9.0, "area_share": 0.2}, "bright_area"),
        ({"colour_difference": 9.0, "lightness": 3.0, "redness": 8.0}, "discoloured"),
        ({"texture_ratio": 1.6}, "rough"),
        ({"texture_ratio": 9.0, "colour_difference": 3.0, "lightness": 3.0}, "rough"),
        ({"texture_ratio": 9.0, "colour_difference": 6.0, "lightness": 6.0}, "bright_spot"),
        ({"texture_ratio": 0.5}, "smooth"),
        ({}, "unusual"),
        ({"colour_difference": 1.9, "lightness": -1.9}, "unusual"),
        ({"colour_difference": 50.0, "lightness": -50.0, "is_known": False}, "unusual"),
    ],
)
def test_the_rules_are_those_that_are_stated(facts: dict[str, Any], noun: str) -> None:
    assert noun_of(replace(PLAIN, **facts)) == noun


def test_words_say_the_largest_difference_first() -> None:
    found = replace(PLAIN, colour_difference=20.0, lightness=-4.0, redness=15.0, yellowness=1.0)
    assert differences_of(found) == ["redder"]
    found = replace(PLAIN, colour_difference=4.0, lightness=-4.0, redness=2.5)
    assert differences_of(found) == ["slightly_darker", "slightly_redder"]
    assert differences_of(replace(PLAIN, texture_ratio=2.0)) == ["rougher"]
    assert differences_of(PLAIN) == []


def test_mirrored_places_have_mirrored_keys() -> None:
    swap = {"left": "right", "right": "left"}
    for u, v in itertools.product((0.05, 0.5, 0.95), repeat=2):
        words = place_of((u, v)).split("_")
        assert place_of((1 - u, v)).split("_") == [swap.get(word, word) for word in words]


@pytest.mark.parametrize(
    ("extent", "area_share", "expected"),
    [
        ((0.9, 0.9), 0.7, "all_over"),
        ((0.8, 0.8), 0.51, "all_over"),
        ((0.9, 0.9), 0.045, "upper"),  # specks, or a ring: its box is large, it is not
        ((0.9, 0.9), 0.49, "upper"),
        ((1.0, 0.6), 0.6, "upper"),  # a band across the part is at one side of it
    ],
)
def test_all_over_is_what_spreads_over_most_of_the_part(
    extent: tuple[float, float], area_share: float, expected: str
) -> None:
    assert place_of((0.5, 0.2), extent, area_share) == expected
