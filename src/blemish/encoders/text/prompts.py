"""What to say of good and of defective parts of a category, and the same embedded.

States × templates as in WinCLIP (Jeong et al., CVPR 2023); abnormal sentences for contrastive learning come from a
small grammar about the kinds of defect that are made up while learning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

import numpy as np

from blemish.errors import SettingsError
from blemish.types import Prompts

if TYPE_CHECKING:
    from blemish.encoders.text.factory import TextEncoder

# Which sentences about a category a detector wants.
#   object       normal states of the named object, and nothing abnormal
#   ensemble     many states × many templates, normal and abnormal
#   contrastive  the same, the abnormal ones about the kinds of defect that are made up while learning
TextWish = Literal["object", "ensemble", "contrastive"]

UNNAMED = "part"  # what a category without a name is called
NORMAL_STATES = (
    *("{}", "flawless {}", "perfect {}", "unblemished {}"),
    *("{} without flaw", "{} without defect", "{} without damage"),
)
ABNORMAL_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
PLAIN = ("a photo of a {}.", "a photo of the {}.")
ENSEMBLE = (
    *PLAIN,
    *(
        f"a {view} photo of {article} {{}}."
        for view in ("cropped", "close-up", "bright", "dark", "blurry", "jpeg corrupted")
        for article in ("a", "the")
    ),
    *(f"a photo of {article} {size} {{}}." for size in ("small", "large") for article in ("a", "the")),
    *(
        f"a photo of {article} {{}} for {purpose}."
        for purpose in ("visual inspection", "anomaly detection")
        for article in ("a", "the")
    ),
)

# The grammar: [severity] [noun] [place] for each kind of defect.
DEFECTS: dict[str, tuple[str, ...]] = {
    "dent": ("dent", "dimple", "pressed-in spot"),
    "bump": ("bump", "swelling", "raised spot"),
    "hole": ("hole", "puncture", "open gap"),
    "bend": ("bend", "warped edge", "twisted section"),
    "missing piece": ("missing piece", "broken-off corner", "chipped edge"),
    "stain": ("stain", "smudge", "discoloured spot"),
    "wrong colour": ("wrongly coloured area", "patch of another colour", "faded area"),
    "contamination": ("foreign particle", "lump of foreign material", "speck of dirt"),
    "crack": ("crack", "fracture", "deep scratch"),
}
SEVERITIES = ("small", "slight", "clear", "large", "severe")
PLACES = ("", "on its surface", "near its edge", "at its centre", "on one side", "at one end")
SENTENCES_PER_KIND = 8


@dataclass(frozen=True)
class Sentences:
    """Sentences about one category: `normal` ones of good parts, `abnormal` ones of defective parts, maybe none."""

    normal: tuple[str, ...]
    abnormal: tuple[str, ...] = ()


def prompts_for(category: str | None, wish: TextWish, seed: int = 0) -> Sentences:
    """The sentences that `wish` names, about a category; one without a name is called `UNNAMED`.

    Templates are those of the papers to the letter, with "a" before vowels too. `seed` picks among the generated
    sentences, the same ones for every category.
    """
    name = spoken(category)
    match wish:
        case "object":
            return Sentences(filled(NORMAL_STATES, PLAIN, name))
        case "ensemble":
            return Sentences(filled(NORMAL_STATES, ENSEMBLE, name), filled(ABNORMAL_STATES, ENSEMBLE, name))
        case "contrastive":
            return Sentences(filled(NORMAL_STATES, ENSEMBLE, name), generated(name, np.random.default_rng(seed)))
    raise SettingsError("a wish for text: object, ensemble or contrastive", repr(wish), "choose one of them")


def spoken(category: str | None) -> str:
    """A category's name as words: "cable_gland" and "CableGland" → "cable gland"; `UNNAMED` where nothing is left."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\W_]+", " ", category or "")
    return " ".join(apart.lower().split()) or UNNAMED


def filled(states: Iterable[str], templates: Sequence[str], name: str) -> tuple[str, ...]:
    """Every state of the named object inside every template."""
    phrases = (state.replace("{}", name) for state in states)
    return tuple(template.replace("{}", phrase) for phrase in phrases for template in templates)


def generated(name: str, rng: np.random.Generator, count: int = SENTENCES_PER_KIND) -> tuple[str, ...]:
    """`count` different sentences of the grammar for every kind of defect, in the order of `DEFECTS`."""
    sentences = []
    for nouns in DEFECTS.values():
        choices = list(product(SEVERITIES, nouns, PLACES, ("a", "the")))
        for index in rng.choice(len(choices), size=min(count, len(choices)), replace=False):
            severity, noun, place, article = choices[index]
            where = f" {place}" if place else ""
            sentences.append(f"a photo of {article} {name} with a {severity} {noun}{where}.")
    return tuple(sentences)


_embedded: WeakKeyDictionary[TextEncoder, dict[Sentences, Prompts]] = WeakKeyDictionary()


def embedded(sentences: Sentences, encoder: TextEncoder) -> Prompts:
    """The sentences as rows of unit length; remembered as long as the encoder lives."""
    known = _embedded.setdefault(encoder, {})
    if sentences not in known:
        abnormal = encoder.embed(sentences.abnormal) if sentences.abnormal else None  # (A, D)
        known[sentences] = Prompts(encoder.embed(sentences.normal), abnormal)  # (S, D)
    return known[sentences]
