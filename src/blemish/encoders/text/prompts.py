"""Prompts: sentences about normal and about anomalous objects of a category, and their embeddings.

States × templates as in Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation", CVPR 2023
(https://arxiv.org/abs/2303.14814). The abnormal sentences of contrastive learning come from a small grammar, blemish's
own, about kinds of defect that synthetic anomalies imitate.
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

# Which sentences about a category a detector asks for.
#   object       normal states of the named object, no abnormal ones (as in arXiv 2604.22899, section III-B)
#   ensemble     many states × many templates, normal and abnormal
#   contrastive  the same normal ones; abnormal ones about kinds of defect
#   learned      no words: two prompts learned on other products, from a file (image_text/learned_prompts.py)
#   learnable    the object's name and abnormal states, and the text tower to learn tokens with
#                (image_text/state_prompts.py)
PromptKind = Literal["object", "ensemble", "contrastive", "learned", "learnable"]

UNNAMED = "part"  # the object of a category without a name
NORMAL_STATES = (
    *("{}", "flawless {}", "perfect {}", "unblemished {}"),
    *("{} without flaw", "{} without defect", "{} without damage"),
)
ABNORMAL_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
OBJECT_TEMPLATES = ("a photo of a {}.", "a photo of the {}.")
ENSEMBLE_TEMPLATES = (
    *OBJECT_TEMPLATES,
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
LONGEST_NAME = 80  # characters of a product's name: longer ones push the state out of CLIP's 77 tokens
SENTENCES_PER_KIND = 8  # chosen by hand: 72 abnormal sentences beside 154 normal ones


@dataclass(frozen=True)
class Sentences:
    """Sentences about one category."""

    normal: tuple[str, ...]  # of normal objects
    abnormal: tuple[str, ...] = ()  # of anomalous objects


def prompts_for(category: str | None, kind: PromptKind, seed: int = 0) -> Sentences:
    """The sentences of a kind about a category; the object of one without a name is `UNNAMED`.

    Templates are those of the papers to the letter, with "a" before vowels too. `seed` chooses among the sentences of
    the grammar, the same ones for every category. Raises SettingsError for an unknown kind.
    """
    name = object_name(category)
    match kind:
        case "object":
            return Sentences(fill_templates(NORMAL_STATES, OBJECT_TEMPLATES, name))
        case "ensemble":
            normal = fill_templates(NORMAL_STATES, ENSEMBLE_TEMPLATES, name)
            return Sentences(normal, fill_templates(ABNORMAL_STATES, ENSEMBLE_TEMPLATES, name))
        case "contrastive":
            normal = fill_templates(NORMAL_STATES, ENSEMBLE_TEMPLATES, name)
            return Sentences(normal, defect_sentences(name, np.random.default_rng(seed)))
    raise SettingsError("prompts of the kind object, ensemble or contrastive", repr(kind), "choose one of them")


def check_product(name: str) -> None:
    """Raise SettingsError for a product's name that no sentence can be made with."""
    if not any(character.isalnum() for character in name):
        raise SettingsError("a product's name in words, such as 'metal nut'", repr(name), "say what the part is called")
    if len(name) > LONGEST_NAME:
        raise SettingsError(
            f"a product's name of at most {LONGEST_NAME} characters",
            f"{len(name)}: {name[:20]!r}…",
            "say in two or three words what the part is",
        )


def object_name(category: str | None) -> str:
    """A category's name as words: "cable_gland" and "CableGland" → "cable gland"; `UNNAMED` where nothing is left."""
    separated = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\W_]+", " ", category or "")
    return " ".join(separated.lower().split()) or UNNAMED


def fill_templates(states: Iterable[str], templates: Sequence[str], name: str) -> tuple[str, ...]:
    """Every state of the named object inside every template."""
    phrases = (state.replace("{}", name) for state in states)
    return tuple(template.replace("{}", phrase) for phrase in phrases for template in templates)


def defect_sentences(name: str, rng: np.random.Generator, count: int = SENTENCES_PER_KIND) -> tuple[str, ...]:
    """`count` different sentences of the grammar for every kind of defect, in the order of `DEFECTS`."""
    sentences = []
    for nouns in DEFECTS.values():
        choices = list(product(SEVERITIES, nouns, PLACES, ("a", "the")))
        for index in rng.choice(len(choices), size=min(count, len(choices)), replace=False):
            severity, noun, place, article = choices[index]
            where = f" {place}" if place else ""
            sentences.append(f"a photo of {article} {name} with a {severity} {noun}{where}.")
    return tuple(sentences)


# Embeddings are computed once per encoder and set of sentences, and dropped with the encoder.
_cache: WeakKeyDictionary[TextEncoder, dict[Sentences, Prompts]] = WeakKeyDictionary()


def embed_sentences(sentences: Sentences, encoder: TextEncoder) -> Prompts:
    """The sentences as rows of unit length; cached as long as the encoder lives."""
    cached = _cache.setdefault(encoder, {})
    if sentences not in cached:
        abnormal = encoder.embed(sentences.abnormal) if sentences.abnormal else None  # (A, D)
        cached[sentences] = Prompts(encoder.embed(sentences.normal), abnormal)  # (S, D)
    return cached[sentences]
