"""Attributes of a region → one sentence of at most 25 words, in the language of a template file.

A language is one file, `languages/NAME.json`, with the keys of `en.json`. Clauses that would make a sentence too long
are left out, the least telling first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from blemish.errors import SettingsError
from blemish.scoring.describe import ratio_in_words
from blemish.scoring.naming import AT_THE_EDGE, differences_of
from blemish.types import Attributes, Region, StatedRule

DEFAULT_LANGUAGE = "en"
MOST_WORDS = 25
_MOST_DIFFERENCES = 2
_LEVEL = 15.0  # degrees from horizontal or vertical that still are called so
_MOST_STRENGTH = 1000  # that a sentence states
_DROPPED_FIRST = ("modality", "direction", "height", "comparison")

Phrases = Mapping[str, Any]


def languages() -> tuple[str, ...]:
    """The names of the languages there are."""
    folder = resources.files("blemish.scoring") / "languages"
    return tuple(sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json")))


@cache
def phrases_of(language: str) -> Phrases:
    """The phrases of a language. Raises SettingsError for one there is no file of."""
    if language not in languages():
        raise SettingsError(f"a language: {', '.join(languages())}", repr(language), "name one of them")
    file = resources.files("blemish.scoring") / "languages" / f"{language}.json"
    phrases: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return phrases


def sentence_of(region: Region, language: str = DEFAULT_LANGUAGE) -> str:
    """The sentence about a region with attributes. Raises SettingsError for an unknown language."""
    found = region.attributes
    if found is None:
        raise SettingsError("a region with attributes", "none", "inspect it with a model that compares regions")
    phrases = phrases_of(language)
    if found.rule is not None:
        return _rule_sentence(found, found.rule, phrases)
    clauses = {
        "direction": _direction(found, phrases),
        "height": _height(found, phrases),
        "comparison": _comparison(found, phrases),
        "modality": _modality(region, phrases),
    }
    whole = {"place": _place(found, phrases), "size": _size(found, phrases), "strength": _strength(found, phrases)}
    joined = {
        name: clause and phrases["comparison" if name == "comparison" else "clause"].format(clause=clause)
        for name, clause in clauses.items()
    }
    for dropped in range(len(_DROPPED_FIRST) + 1):
        left = joined | dict.fromkeys(_DROPPED_FIRST[:dropped], "")
        sentence = phrases["sentence"].format(noun=found.name or phrases["nouns"][found.noun], **whole, **left)
        if len(sentence.split()) <= MOST_WORDS:
            break
    return str(sentence[:1].upper() + sentence[1:])


def _rule_sentence(found: Attributes, rule: StatedRule, phrases: Phrases) -> str:
    """What all good parts have in common and this one does not; where it lies outside the region, the place of that."""
    said = _rule(rule, phrases)
    facts = {
        "noun": found.name or phrases["nouns"][found.noun],
        "place": _place(found, phrases),
        "strength": _strength(found, phrases),
    }
    elsewhere = phrases["rule_elsewhere"].format(rule=said, place=phrases["places"][rule.place])
    for one in (said,) if rule.place == found.place else (elsewhere, said):
        sentence = str(phrases["rule_sentence"].format(rule=one, **facts))
        if len(sentence.split()) <= MOST_WORDS:
            break
    return sentence[:1].upper() + sentence[1:]


def _rule(rule: StatedRule, phrases: Phrases) -> str:
    if rule.quantity == "area":
        for more in range(4):  # digits, until what was found reads as none of the two ends
            found, low, high = (
                _number(100 * min(1.0, value), phrases, more) if value >= 1e-4 else "0"
                for value in (rule.found, rule.low, rule.high)
            )
            if found not in (low, high):
                break
        return str(phrases["rule_area"].format(component=rule.component, found=found, low=low, high=high))
    counts = phrases["counts"]
    found, low, high = (
        counts[round(value)] if value < len(counts) else f"{value:.0f}" for value in (rule.found, rule.low, rule.high)
    )
    usual = low if rule.low == rule.high else phrases["or"].format(low=low, high=high)
    return str(phrases["rule_count"].format(component=rule.component, found=found, usual=usual))


def _place(found: Attributes, phrases: Phrases) -> str:
    place: str = phrases["places"][found.place]
    if not found.is_of_part or found.edge_distance is None or found.place == "all_over":
        return place
    form = "beside" if found.edge_distance < 0 else "at_the_edge" if found.edge_distance < AT_THE_EDGE else ""
    return phrases[form].format(place=place) if form else place


def _size(found: Attributes, phrases: Phrases) -> str:
    if found.length_mm is not None and found.width_mm is not None:
        length, width = _number(found.length_mm, phrases), _number(found.width_mm, phrases)
        name = "long_mm" if found.noun == "line" else "size_mm"
        return str(phrases[name].format(length=length, width=width))
    percent = 100 * min(1.0, found.area_share)
    name, value = ("under_percent", 0.01) if percent < 0.01 else ("percent", percent)
    share = phrases[name].format(number=_number(value, phrases))
    return str(phrases["share_of_part" if found.is_of_part else "share_of_picture"].format(share=share))


def _direction(found: Attributes, phrases: Phrases) -> str:
    if found.noun != "line":
        return ""
    degrees = found.degrees % 180
    if min(degrees, 180 - degrees) <= _LEVEL:
        return str(phrases["horizontal"])
    if abs(degrees - 90) <= _LEVEL:
        return str(phrases["vertical"])
    return str(phrases["angle"].format(degrees=round(degrees)))


def _height(found: Attributes, phrases: Phrases) -> str:
    if found.height_mm is None or found.noun not in ("dent", "bump"):
        return ""
    name = "deep_mm" if found.height_mm < 0 else "high_mm"
    return str(phrases[name].format(height=_number(abs(found.height_mm), phrases)))


def _comparison(found: Attributes, phrases: Phrases) -> str:
    if not found.is_known:
        return str(phrases["nothing_learned"])
    words = [phrases["differences"][key] for key in differences_of(found)[:_MOST_DIFFERENCES]]
    return str(phrases["than_good"].format(words=phrases["and"].join(words))) if words else ""


def _modality(region: Region, phrases: Phrases) -> str:
    name, share = max(region.modalities.items(), key=lambda item: (item[1], item[0]), default=("", 0.0))
    return str(phrases["modalities"].get(name, "")) if share > 0.5 else ""


def _strength(found: Attributes, phrases: Phrases) -> str:
    """In units of the limit of the map. Not "× the limit": that of the verdict is another one."""
    if found.strength > _MOST_STRENGTH:
        return str(phrases["over_strength"].format(strength=f"{_MOST_STRENGTH}"))
    return str(phrases["strength"].format(strength=ratio_in_words(found.strength).replace(".", phrases["decimal"])))


def _number(value: float, phrases: Phrases, more: int = 0) -> str:
    """Two or three digits, or some `more`, with the language's decimal sign; no exponent, and 0 for 0 alone."""
    digits = 2 if value < 1 else 1 if value < 10 else 0
    if 0 < value < 0.01:
        digits = 1 - math.floor(math.log10(value))
    return f"{value:.{digits + more}f}".replace(".", phrases["decimal"])
