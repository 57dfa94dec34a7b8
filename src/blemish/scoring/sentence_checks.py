"""Whether a sentence that a model wrote about a region agrees with what was measured of it; a stated list of checks.

Words are those of the language's file, under `sentence_checks`; a word counts with whatever ending follows it, and one
with a blank behind it alone. What was not measured contradicts nothing, but for heights, which are told from measured
points alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from blemish.scoring.naming import AT_THE_EDGE, HEIGHT, LINE, SLIGHT
from blemish.scoring.sentences import MOST_WORDS, languages, phrases_of
from blemish.types import Attributes


def _lies(value: float | None, sign: int, found: Attributes) -> bool:
    """Whether a colour lies on one side of the good place's, or was not measured."""
    if value is None or found.colour_difference is None:
        return True
    return found.colour_difference >= SLIGHT and sign * value > 0


def _ratio(value: float | None, sign: int) -> bool:
    return value is None or sign * (value - 1) > 0


# What must hold where a sentence uses a word of that kind.
CLAIMS: Mapping[str, Callable[[Attributes], bool]] = MappingProxyType(
    {
        "missing": lambda a: a.presence == "missing" or a.noun in ("hole", "missing"),
        "extra": lambda a: a.presence == "extra",
        "dent": lambda a: a.height_mm is not None and a.height_mm <= -HEIGHT,
        "bump": lambda a: a.height_mm is not None and a.height_mm >= HEIGHT,
        "line": lambda a: a.elongation >= LINE,
        "spot": lambda a: a.elongation < LINE,
        "darker": lambda a: _lies(a.lightness, -1, a),
        "brighter": lambda a: _lies(a.lightness, +1, a),
        "redder": lambda a: _lies(a.redness, +1, a),
        "greener": lambda a: _lies(a.redness, -1, a),
        "yellower": lambda a: _lies(a.yellowness, +1, a),
        "bluer": lambda a: _lies(a.yellowness, -1, a),
        "rougher": lambda a: _ratio(a.texture_ratio, +1),
        "smoother": lambda a: _ratio(a.texture_ratio, -1),
        "edge": lambda a: a.edge_distance is None or a.edge_distance < AT_THE_EDGE,
        "nothing": lambda a: False,  # that there is no defect
    }
)
PLACES = ("upper", "lower", "left", "right", "centre")


def refusal(sentence: str, found: Attributes, language: str) -> str:
    """Why a sentence is not kept, in a word or two: the first check that fails; "" where all hold."""
    words = re.findall(r"[^\W\d_]+|\d+", sentence.lower())
    if not words:
        return "empty"
    if len(sentence.split()) > MOST_WORDS:
        return f"over {MOST_WORDS} words"
    if re.search(r"[.!?]\s+\S|\n", sentence.strip()):
        return "more than one sentence"
    if not _is_in(words, language):
        return "another language"
    known: Mapping[str, list[str]] = phrases_of(language)["sentence_checks"]
    for claim, holds in CLAIMS.items():
        if _uses(words, known[claim]) and not holds(found):
            return claim
    parts = set(found.place.split("_"))
    allowed = parts if len(parts) > 1 or found.place == "all_over" else parts | {"centre"}
    for place in PLACES:
        if place not in allowed and _uses(words, known[place]):
            return f"place {place}"
    return "" if _counts(words, language) <= _stated(found) else "count"


def _uses(words: list[str], stems: list[str]) -> bool:
    return any(f" {stem}" in f" {' '.join(words)} " for stem in stems)


def _is_in(words: list[str], language: str) -> bool:
    """Whether more of the words are common ones of a language than of any other."""
    hits = {name: sum(word in phrases_of(name)["sentence_checks"]["common"] for word in words) for name in languages()}
    own = hits.pop(language)
    return own > 0 and own >= max(hits.values(), default=0)


def _counts(words: list[str], language: str) -> set[float]:
    """The numbers above one that a sentence names, in digits or in words."""
    spelled = {word: float(number) for number, word in enumerate(phrases_of(language)["counts"]) if number > 1}
    return {float(word) if word.isdecimal() else spelled[word] for word in words if word.isdecimal() or word in spelled}


def _stated(found: Attributes) -> set[float]:
    """The numbers a sentence may name: those of a rule about counts, and one."""
    rule = found.rule
    return {1.0} | ({rule.found, rule.low, rule.high} if rule is not None and rule.quantity == "count" else set())
