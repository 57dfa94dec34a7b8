"""Sentences that agree with what was measured are kept, and each kind of contradiction is refused by its name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from attribute_parts import DARK_SPOT

from blemish.scoring.sentence_checks import CLAIMS, PLACES, refusal
from blemish.scoring.sentences import languages, phrases_of
from blemish.types import Attributes

DARK_LINE = replace(
    DARK_SPOT,
    noun="line",
    place="upper_left",
    on_part=(0.1, 0.1),
    is_of_part=True,
    length=40.0,
    elongation=10.0,
    edge_distance=0.5,
    lightness=-20.0,
    redness=0.0,
    yellowness=5.0,
    colour_difference=15.0,
    texture_ratio=2.0,
)
ROUND = replace(DARK_LINE, noun="bright_spot", elongation=1.1, lightness=20.0, yellowness=-5.0, redness=3.0)


@pytest.mark.parametrize(
    ("sentence", "found", "language"),
    [
        ("A dark scratch at the upper left is rougher and yellower than good parts", DARK_LINE, "en"),
        ("Eine dunkle Linie ist oben links und rauer als gute Teile", DARK_LINE, "de"),
        ("A bright, bluer and redder spot is in the top left corner.", ROUND, "en"),
        ("There is a dent of the part", replace(ROUND, height_mm=-0.5), "en"),
        ("A piece of the rim is missing", replace(ROUND, presence="missing", edge_distance=0.05), "en"),
        ("There is a mark at the centre", replace(ROUND, place="centre"), "en"),
        ("A line of reduced contrast is in the part", replace(DARK_LINE, redness=-5.0), "en"),
        ("Der Fehler ist eine dunkle Linie auf der rechteckigen Fläche", DARK_LINE, "de"),
    ],
)
def test_what_agrees_is_kept(sentence: str, found: Attributes, language: str) -> None:
    assert refusal(sentence, found, language) == ""


@pytest.mark.parametrize(
    ("sentence", "found", "language", "why"),
    [
        ("", DARK_LINE, "en", "empty"),
        ("there is a " + 23 * "very " + "dark line", DARK_LINE, "en", "over 25 words"),
        ("There is a dark line. It is bad", DARK_LINE, "en", "more than one sentence"),
        ("Eine dunkle Linie ist oben links", DARK_LINE, "en", "another language"),
        ("There is a dark line", DARK_LINE, "de", "another language"),
        ("xyz qqq", DARK_LINE, "en", "another language"),
        ("A piece of the part is missing", DARK_LINE, "en", "missing"),
        ("There is foreign debris on the part", DARK_LINE, "en", "extra"),
        ("There is a dent", DARK_LINE, "en", "dent"),
        ("There is a bump", replace(ROUND, height_mm=-0.5), "en", "bump"),
        ("There is a scratch", ROUND, "en", "line"),
        ("There is a spot", DARK_LINE, "en", "spot"),
        ("The area is darker", ROUND, "en", "darker"),
        ("The area is brighter", DARK_LINE, "en", "brighter"),
        ("The area is redder", DARK_LINE, "en", "redder"),
        ("The area is red.", replace(ROUND, redness=-3.0), "en", "redder"),
        ("The red, round area of the part", replace(ROUND, redness=-3.0), "en", "redder"),
        ("The area is greener", ROUND, "en", "greener"),
        ("The area is yellower", ROUND, "en", "yellower"),
        ("The area is bluer", DARK_LINE, "en", "bluer"),
        ("The area is darker", replace(DARK_LINE, colour_difference=1.0), "en", "darker"),
        ("The area is rougher", replace(ROUND, texture_ratio=0.5), "en", "rougher"),
        ("The area is smoother", ROUND, "en", "smoother"),
        ("There is a mark at the edge", ROUND, "en", "edge"),
        ("There is no defect in the first picture", ROUND, "en", "nothing"),
        ("Das ist kein Defekt", ROUND, "de", "nothing"),
        ("Der Bereich ist fehlerfrei", ROUND, "de", "nothing"),
        ("Auf dem Teil fehlt ein Stück", ROUND, "de", "missing"),
        ("Der Bereich ist auf der rechten Seite", ROUND, "de", "place right"),
        ("A mark at the lower left", ROUND, "en", "place lower"),
        ("A mark at the right", ROUND, "en", "place right"),
        ("There are two scratches on the part", DARK_LINE, "en", "count"),
        ("The line has 3 parts", DARK_LINE, "en", "count"),
        ("Drei Linien auf dem Teil", DARK_LINE, "de", "count"),
    ],
)
def test_what_contradicts_is_refused(sentence: str, found: Attributes, language: str, why: str) -> None:
    assert refusal(sentence, found, language) == why


def test_what_was_not_measured_contradicts_nothing_but_heights() -> None:
    unmeasured = replace(ROUND, lightness=None, colour_difference=None, texture_ratio=None, edge_distance=None)
    assert refusal("The area is darker and rough at the edge", unmeasured, "en") == ""
    assert refusal("There is a bump", unmeasured, "en") == "bump"


def test_every_language_has_words_for_every_check() -> None:
    for language in languages():
        assert set(phrases_of(language)["sentence_checks"]) == {"common", *CLAIMS, *PLACES}
