"""What people who know a product say of it: its name, and states of good and of defective ones; for sentences about it.

They come from a small YAML or JSON file, or are those that ship here: names of defects that benchmarks publish.

    metal nut:                      # a category, as its folder is called
      name: metal nut               # optional: what it is called in sentences
      normal: [clean]               # optional: before the name, or a phrase with {} in its place
      abnormal: [bent tooth, a {} that was flipped]   # after "with", or a phrase with {} in the name's place
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from blemish.encoders.text.prompts import (
    ABNORMAL_STATES,
    ENSEMBLE_TEMPLATES,
    NORMAL_STATES,
    Sentences,
    check_product,
    fill_templates,
    object_name,
)
from blemish.errors import SettingsError

LONGEST_PHRASE = 80  # characters: longer ones do not fit into CLIP's 77 tokens beside a template
_KNOWN = ("name", "normal", "abnormal")


@dataclass(frozen=True)
class ProductWords:
    """A product's `name`, and phrases with {} in its place about good (`normal`) and defective (`abnormal`) ones."""

    name: str
    normal: tuple[str, ...] = ()
    abnormal: tuple[str, ...] = ()

    def sentences(self) -> Sentences:
        """The general states and its own ones, each inside every template."""
        return Sentences(
            fill_templates((*NORMAL_STATES, *self.normal), ENSEMBLE_TEMPLATES, self.name),
            fill_templates((*ABNORMAL_STATES, *self.abnormal), ENSEMBLE_TEMPLATES, self.name),
        )


def words_for(category: str, given: Mapping[str, ProductWords]) -> ProductWords | None:
    """The words about a category: those `given`, or else those that ship; None where there are none."""
    name = object_name(category)
    if name in given:
        return given[name]
    defects = BENCHMARK_DEFECTS.get(name)
    return None if defects is None else ProductWords(name, abnormal=tuple(f"{{}} with {one}" for one in defects))


def read_words(file: Path) -> dict[str, ProductWords]:
    """The words in a YAML or JSON file, by the category's name in words. Raises SettingsError for another file."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(
            f"a YAML or JSON file of words about products at '{file}'", " ".join(str(error).split()), "correct it"
        ) from error
    if not isinstance(found, dict) or not found:
        raise SettingsError(f"products by name in '{file}'", type(found).__name__, "write one a line: NAME: {...}")
    words = [words_of(str(category), said, file) for category, said in found.items()]
    return {object_name(str(category)): own for category, own in zip(found, words, strict=True)}


def words_of(category: str, said: Any, file: Path) -> ProductWords:
    """The words about one category; a list alone names its defects."""
    facts = {"abnormal": said} if isinstance(said, list) else said
    if not isinstance(facts, dict) or not facts or set(facts) - set(_KNOWN):
        got = ", ".join(map(str, facts)) if isinstance(facts, dict) and facts else repr(said)
        raise SettingsError(f"{', '.join(_KNOWN)} of {category!r} in '{file}'", got, "use these")
    name = str(facts.get("name") or object_name(category))
    check_product(name)
    normal = phrases(facts.get("normal"), "{word} {{}}", category, file)
    abnormal = phrases(facts.get("abnormal"), "{{}} with {word}", category, file)
    return ProductWords(name, normal, abnormal)


def phrases(said: Any, pattern: str, category: str, file: Path) -> tuple[str, ...]:
    """A list of words as phrases with {}: as they are, or by the `pattern` where they have none."""
    found = [] if said is None else said
    if not isinstance(found, list) or not all(isinstance(one, str) and is_phrase(one) for one in found):
        raise SettingsError(
            f"a list of words about {category!r} in '{file}', each of at most {LONGEST_PHRASE} characters and one {{}}",
            repr(said),
            "write for example: abnormal: [scratch, bent tooth]",
        )
    return tuple(one if "{}" in one else pattern.format(word=one.strip()) for one in found)


def is_phrase(text: str) -> bool:
    """Whether sentences can be made with it."""
    is_short = len(text) <= LONGEST_PHRASE
    return is_short and any(map(str.isalnum, text)) and text.count("{}") <= 1 and "{" not in text.replace("{}", "")


# Names of the defects in the test folders of MVTec AD (Bergmann et al., CVPR 2019), and those that PromptAD (Li et al.,
# CVPR 2024) uses for VisA (Zou et al., ECCV 2022): whoever uses them knows what to look for.
BENCHMARK_DEFECTS: Mapping[str, tuple[str, ...]] = {
    "bottle": ("large breakage", "small breakage", "contamination"),
    "cable": ("bent wire", "missing wire", "missing cable", "cut insulation", "poked insulation", "swapped cables"),
    "capsule": ("crack", "faulty imprint", "poke", "scratch", "squeeze"),
    "carpet": ("colour stain", "cut", "hole", "metal contamination", "thread"),
    "grid": ("bend", "breakage", "glue", "metal contamination", "thread"),
    "hazelnut": ("crack", "cut", "hole", "print"),
    "leather": ("colour stain", "cut", "fold", "glue", "poke"),
    "metal nut": ("bend", "colour stain", "flipped orientation", "scratch"),
    "pill": ("colour stain", "contamination", "crack", "faulty imprint", "scratch", "wrong type"),
    "screw": ("manipulated front", "scratched head", "scratched neck", "damaged thread side", "damaged thread top"),
    "tile": ("crack", "glue strip", "grey stroke", "oil", "rough surface"),
    "toothbrush": ("defective bristles",),
    "transistor": ("bent lead", "cut lead", "damaged case", "misplacement"),
    "wood": ("colour stain", "hole", "liquid", "scratch"),
    "zipper": ("broken teeth", "split teeth", "squeezed teeth", "fabric border", "fabric interior", "rough surface"),
    "candle": ("melted wax", "foreign particles", "extra wax", "missing wax", "damaged corner", "colour spot"),
    "capsules": ("scratch", "discolouration", "misshape", "leak", "bubble"),
    "cashew": ("breakage", "small scratches", "burnt spot", "stuck pieces", "spot"),
    "chewinggum": ("missing corner", "scratches", "missing chunk", "colour spot", "cracks"),
    "fryum": ("breakage", "scratches", "burnt spot", "colour spot", "stuck pieces"),
    "macaroni1": ("colour spot", "small chip around edge", "small scratches", "breakage", "cracks"),
    "macaroni2": ("colour spot", "small chip around edge", "small scratches", "breakage", "cracks"),
    "pcb1": ("bend", "scratch", "missing part", "melt"),
    "pcb2": ("bend", "scratch", "missing part", "melt"),
    "pcb3": ("bend", "scratch", "missing part", "melt"),
    "pcb4": ("scratch", "extra part", "missing part", "wrong place", "damage", "burnt spot", "dirt"),
    "pipe fryum": ("breakage", "small scratches", "burnt spot", "stuck pieces", "colour spot", "cracks"),
}
