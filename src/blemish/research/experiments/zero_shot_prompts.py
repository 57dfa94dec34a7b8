"""Generic sentences against those of a product's own words, without any normal image; where sentences do not separate.

Ben Ammar et al., "Foundation Models and Transformers for Anomaly Detection: A Survey", arXiv 2507.15905, 2025, question
(c). A patch with embedding f has the margin cos(f, t_a) − cos(f, t_n) to the mean abnormal and the mean normal
sentence; the similarity gap is the mean margin of patches on defects less that of patches of good images. Where it is
not above 0, no threshold or temperature makes the sentences find these defects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import ClassVar, cast, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from blemish import encoders
from blemish.data import image_of
from blemish.data.full_scale import FullScale, learn_full_scale
from blemish.data.images import load_mask
from blemish.detectors.language import class_scores, margins, prototypes
from blemish.encoders.availability import availability
from blemish.encoders.base import Alignment, Encoder, text_tower
from blemish.encoders.factory import is_folder_name
from blemish.encoders.text.prompts import Sentences, embed_sentences, object_name
from blemish.errors import SettingsError, WeightsError
from blemish.evaluation import CategoryData
from blemish.metrics import auroc, pixel_measures
from blemish.preprocessing.framing import Framing, build_framing
from blemish.registry import ENCODERS, lookup
from blemish.research.experiments.base import (
    BarChart,
    Cell,
    Chart,
    Experiment,
    Matrix,
    Row,
    Tools,
    Verdict,
    at_least,
    gathered,
    matrix,
)
from blemish.research.experiments.data import ALL, fingerprint_of
from blemish.research.experiments.row_store import digest
from blemish.research.experiments.sources import SURVEY
from blemish.research.experiments.verdicts import RULE, compared, paired, ranked
from blemish.research.product_words import ProductWords, read_words, words_for
from blemish.scoring.anomaly_map import full_map
from blemish.types import ALIGNED, WHOLE, Sample
from blemish.utils.paths import expanded
from blemish.utils.threads import quiet_numpy

AUTO = "auto"
GENERIC, NAMED, OWN = "generic: object", "the product's name", "the product's own words"
NOUN = "object"  # of the generic sentences
SEPARATES = 0.5  # standard deviations: a medium effect (Cohen, Statistical Power Analysis, 1988)
WORDS = {"image_auroc": "picture AUROC", "aupro_30": "AUPRO at 30 %"}
PAIR = ("dataset", "category", "encoder", "seed")


@dataclass
class Seen:
    """What sentences say of the test images of one category: one entry an image."""

    scores: list[float] = field(default_factory=list)
    maps: list[np.ndarray] = field(default_factory=list)  # each (h, w)
    margins: list[np.ndarray] = field(default_factory=list)  # each (h, w)


@dataclass(frozen=True, eq=False)
class Shown:
    """A test image: its sample, the (height, width) of itself and of what the encoder saw, and its mask, if any."""

    sample: Sample
    size: tuple[int, int]
    input_size: tuple[int, int]
    mask: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class ZeroShotPrompts(Experiment):
    """Sentences about an object, about the product by its name, and in its own words, by one pass of an encoder.

    `encoders`: "auto" takes the first with a text tower that loads without a download, "all" every one. `alignment`:
    how patches come into the space of sentences (encoders/base.py). `words`: a file of words about products (see
    product_words.py), beside those that ship. Of more test images than `most_test` of a kind each seed draws some.
    """

    QUESTION: ClassVar[str] = (
        "Do sentences in a product's own words find its defects better than generic ones, and where do sentences not "
        "separate defects from good parts at all?"
    )
    SOURCE: ClassVar[str] = f"Question (c) of {SURVEY}: generic prompts against those of the domain, without training."
    KEY: ClassVar[tuple[str, ...]] = (
        *("dataset", "category", "variant", "encoder", "alignment", "image_size", "seed", "data"),
    )
    MEASURES: ClassVar[tuple[str, ...]] = (
        *("image_auroc", "pixel_auroc", "aupro_30", "similarity_gap", "separation", "margin_good", "margin_defect"),
        *("picture_gap", "sentence_similarity", "n_good", "n_defective"),
    )
    AXES: ClassVar[frozenset[str]] = Experiment.AXES | {"encoders", "words"}

    seeds: tuple[int, ...] = (0,)
    encoders: tuple[str, ...] = (AUTO,)
    alignment: str = "value"
    image_size: int = 240
    temperature: float = 0.07
    words: str = ""

    def check(self) -> None:
        super().check()
        at_least("image_size", (self.image_size,), 1)
        known = [one for one in get_args(Alignment) if one != "windows"]
        if self.alignment not in known:
            raise SettingsError(f"an alignment of patches: {', '.join(known)}", repr(self.alignment), "choose one")
        if not self.temperature > 0:
            raise SettingsError("a temperature above 0", str(self.temperature), "raise it")

    def cells(self, categories: Sequence[CategoryData]) -> list[Cell]:
        given = read_words(expanded(self.words)) if self.words else {}
        return [
            Cell(
                {
                    "dataset": category.dataset,
                    "category": category.name,
                    "encoder": name,
                    "alignment": self.alignment,
                    "image_size": self.image_size,
                    "seed": seed,
                    "data": digest([fingerprint_of([category]), str(words_for(category.name, given))]),
                },
                partial(self.measured, drawn(category, self.most_test, seed), name, given),
            )
            for name in speaking_encoders(self.encoders)
            for category in categories
            for seed in self.seeds
        ]

    @quiet_numpy()
    def measured(self, category: CategoryData, name: str, given: Mapping[str, ProductWords], tools: Tools) -> list[Row]:
        """A row for each kind of sentences; every image is encoded once."""
        encoder = aligned_encoder(name, cast(Alignment, self.alignment), self.device)
        framing = build_framing("plain", image_size=self.image_size, multiple=encoder.size_multiple, square=True)
        text = {kind: embedded(own, encoder) for kind, own in sentences_about(category.name, given).items()}
        seen = {kind: Seen() for kind in text}
        full_scale, shown = learn_full_scale(category.train), []
        for done, sample in enumerate(category.test, start=1):
            shown.append(self.look(sample, full_scale, encoder, framing, text, seen))
            tools.progress(done, len(category.test), {"step": f"{category.name}, {name}"})
        return [{"variant": kind, **measures_of(shown, seen[kind], text[kind])} for kind in text]

    def look(
        self,
        sample: Sample,
        full_scale: FullScale,
        encoder: Encoder,
        framing: Framing,
        text: Mapping[str, Tensor],
        seen: Mapping[str, Seen],
    ) -> Shown:
        """Add what all kinds of sentences, by their means `text` `(2, E)`, say of one image to what was `seen`."""
        frame = framing.frame(image_of(sample, full_scale))
        features = encoder.encode(frame.encoder_input[None])
        whole, patches = (
            features.layers[WHOLE][0][0, 0, 0].cpu(),
            features.layers[ALIGNED][-1][0].cpu(),
        )  # (E,), (h, w, E)
        for kind, both in text.items():
            seen[kind].scores.append(float(class_scores(whole, both, self.temperature)))
            seen[kind].maps.append(class_scores(patches, both, self.temperature).numpy())
            seen[kind].margins.append(margins(patches, both).numpy())
        height, width = frame.input_size
        mask = load_mask(sample.mask) if sample.label and sample.mask is not None else None
        return Shown(sample, frame.original_size, (height, width), mask)

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        sentences = []
        for words, own in by_encoder(rows).items():
            if values := {key[0]: found for key, found in gathered(own, "image_auroc", "variant").items()}:
                sentences.append(f"By mean picture AUROC{words}: {ranked(values)}.")
        kinds = {str(row["variant"]) for row in rows}
        for measure, words in WORDS.items():
            for kind in [name for name in (NAMED, OWN) if name in kinds]:
                found = paired(
                    rows,
                    measure,
                    lambda row, kind=kind: row["variant"] == kind,  # type: ignore[misc]
                    lambda row: row["variant"] == GENERIC,
                    PAIR,
                )
                sentences.append(compared(kind, GENERIC, found, words))
        for kind, means in by_variant(with_encoders(rows), "separation").items():
            failing = [name for name, value in means.items() if value < SEPARATES]
            told = f"do not separate {', '.join(failing)}" if failing else "separate every product"
            sentences.append(f"Sentences of the kind '{kind}' {told}.")
        rule = (
            f"{RULE} Sentences separate a product where patches on defects are nearer to the abnormal than to the "
            f"normal sentences, compared with patches of good pictures, by {SEPARATES:g} standard deviations of these."
        )
        return Verdict(tuple(sentences), rule)

    def tables(self, rows: Sequence[Row]) -> list[Matrix]:
        rows = with_encoders(rows)
        found = [
            matrix(rows, "image_auroc", "category", "variant", "Picture AUROC"),
            matrix(rows, "pixel_auroc", "category", "variant", "Pixel AUROC"),
            matrix(rows, "aupro_30", "category", "variant", "AUPRO at 30 %"),
            matrix(rows, "similarity_gap", "category", "variant", "Similarity gap, difference of cosines"),
            matrix(rows, "separation", "category", "variant", "Similarity gap, in standard deviations of good patches"),
        ]
        return [table for table in found if table.cells]

    def charts(self, rows: Sequence[Row]) -> list[Chart]:
        return [
            BarChart(f"{words}{encoder}", {key[0]: values for key, values in found.items()})
            for measure, words in (*WORDS.items(), ("pixel_auroc", "pixel AUROC"))
            for encoder, own in by_encoder(rows).items()
            if (found := gathered(own, measure, "variant"))
        ]

    def notes(self, rows: Sequence[Row]) -> list[str]:
        known = {str(row["category"]) for row in rows if row["variant"] == OWN}
        without = sorted({str(row["category"]) for row in rows} - known)
        sentences = [
            f"A picture's score is the softmax of its two cosines (temperature {self.temperature:g}), a map that of "
            f"its patches ({self.alignment}). No picture is learned from.",
            "Own words name the kinds of defect that the test pictures show: what somebody who knows them can reach.",
        ]
        if without:
            sentences.append(f"No own words are known for {', '.join(without)}: give some with --set words=FILE.")
        if not gathered(rows, "pixel_auroc", "variant"):
            sentences.append("These pictures come without masks, so that nothing is known of patches on defects.")
        return sentences


def by_encoder(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each encoder, by the words that name it beside others; by none where there is one."""
    names = list(dict.fromkeys(str(row["encoder"]) for row in rows))
    return {f" of {name}" if names[1:] else "": [row for row in rows if row["encoder"] == name] for name in names}


def with_encoders(rows: Sequence[Row]) -> list[Row]:
    """The rows, with the encoder in the name of the category where there are several: no mean is over encoders."""
    return [{**row, "category": f"{row['category']}{words}"} for words, own in by_encoder(rows).items() for row in own]


def by_variant(rows: Sequence[Row], measure: str) -> dict[str, dict[str, float]]:
    """The mean of a measure by kind of sentences, then by category."""
    found: dict[str, dict[str, float]] = {}
    for (kind, category), values in gathered(rows, measure, "variant", "category").items():
        found.setdefault(kind, {})[category] = sum(values) / len(values)
    return found


def sentences_about(category: str, given: Mapping[str, ProductWords]) -> dict[str, Sentences]:
    """The sentences about a category by their kind; those in own words where some are known."""
    found = {
        GENERIC: ProductWords(NOUN).sentences(),
        NAMED: ProductWords(object_name(category)).sentences(),
    }
    words = words_for(category, given)
    return found if words is None else found | {OWN: words.sentences()}


def embedded(sentences: Sentences, encoder: Encoder) -> Tensor:
    """The means of normal and abnormal sentences, of unit length, `(2, E)`."""
    text = text_tower(encoder)
    assert text is not None  # an alignment was asked for
    return prototypes(embed_sentences(sentences, text), "")


def drawn(category: CategoryData, most: int | None, seed: int) -> CategoryData:
    """The category with at most `most` normal and as many defective test images, drawn at random."""
    if most is None:
        return category
    random = np.random.default_rng(seed)
    kept: list[Sample] = []
    for label in (0, 1):
        own = [sample for sample in category.test if sample.label == label]
        kept += [own[i] for i in sorted(random.permutation(len(own))[:most])]
    return replace(category, test=tuple(kept))


def measures_of(shown: Sequence[Shown], seen: Seen, text: Tensor) -> dict[str, float]:
    """All measures of one kind of sentences, whose means are `text` `(2, E)`; nan where masks are missing."""
    labels = [int(one.sample.label or 0) for one in shown]
    good, on_defects = patch_margins(shown, seen.margins)
    gap = mean(on_defects) - mean(good)
    deviation = float(good.std()) if len(good) else math.nan
    pictures = [
        np.array([float(m.mean()) for m, label in zip(seen.margins, labels, strict=True) if label == kind])
        for kind in (0, 1)
    ]
    return {
        "image_auroc": auroc(seen.scores, labels),
        **pixels_of(shown, seen.maps),
        "similarity_gap": gap,
        "separation": gap / deviation if deviation > 0 else math.nan,
        "margin_good": mean(good),
        "margin_defect": mean(on_defects),
        "picture_gap": mean(pictures[1]) - mean(pictures[0]),
        "sentence_similarity": float(text[0] @ text[1]),
        "n_good": labels.count(0),
        "n_defective": labels.count(1),
    }


def pixels_of(shown: Sequence[Shown], maps: Sequence[np.ndarray]) -> dict[str, float]:
    """Pixel AUROC and AUPRO over good images and defective ones with a mask; nan where none has one."""
    known = [i for i, one in enumerate(shown) if one.mask is not None or not one.sample.label]
    masks = [shown[i].mask for i in known]
    if all(mask is None for mask in masks):
        return {"pixel_auroc": math.nan, "aupro_30": math.nan}
    sizes = [
        shown[i].size if mask is None else (mask.shape[0], mask.shape[1]) for i, mask in zip(known, masks, strict=True)
    ]
    full = [full_map(maps[i], shown[i].input_size, size) for i, size in zip(known, sizes, strict=True)]
    found = pixel_measures(full, masks, limits=(0.3,))
    return {"pixel_auroc": found.auroc, "aupro_30": found.aupro[0.3]}


def patch_margins(shown: Sequence[Shown], found: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The margins of all patches of good images, and of those on defects, of maps `(h, w)` of margins."""
    good = [own.ravel() for one, own in zip(shown, found, strict=True) if not one.sample.label]
    bad = [own[on_defect(one.mask, own.shape)] for one, own in zip(shown, found, strict=True) if one.mask is not None]
    return np.concatenate([np.zeros(0), *good]), np.concatenate([np.zeros(0), *bad])


def on_defect(mask: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """The patches `(h, w)` bool of a grid of which a mask `(H, W)` covers a half; of a small one, the patch it covers
    most."""
    whole = torch.from_numpy(mask.astype(np.float32))[None, None]
    covered = interpolate(whole, grid, mode="area")[0, 0].numpy()  # (h, w)
    return (covered >= 0.5) | ((covered > 0) & (covered == covered.max()))


def mean(values: np.ndarray) -> float:
    """The mean, nan of nothing."""
    return float(values.mean()) if len(values) else math.nan


@lru_cache(maxsize=1)  # cells with the same encoder follow each other
def aligned_encoder(name: str, alignment: Alignment, device: str) -> Encoder:
    """The encoder, whose patches lie in the space of its sentences."""
    return encoders.build(name, alignment=alignment, device=device)


def speaking_encoders(names: Sequence[str]) -> list[str]:
    """The encoders with a text tower of these names; "auto" the first that loads without a download, "all" every one.

    Raises WeightsError where none loads, SettingsError for one without a text tower.
    """
    able = [name for name, entry in ENCODERS.items() if entry.speaks]
    found: list[str] = []
    for name in names:
        if name in (AUTO, ALL):
            loading = [one for one in able if availability(one).loads]
            found += loading[:1] if name == AUTO else loading
            continue
        if (name in ENCODERS or not is_folder_name(name)) and not lookup(name, ENCODERS, "encoder").speaks:
            raise SettingsError(f"an encoder with a text tower: {', '.join(able)}", repr(name), "name one of these")
        found.append(name)
    if not found:
        raise WeightsError(
            "an encoder with a text tower that loads without a download", "none", f"run: {ENCODERS[able[0]].get}"
        )
    return list(dict.fromkeys(found))
