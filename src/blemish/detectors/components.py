"""Components: how many of which visual words lie where, beside a memory bank; for wrong, missing and misplaced parts.

blemish's own answer to logical anomalies (Bergmann et al., "Beyond Dents and Scratches", IJCV 130, 2022) without part
masks or a language model, from pieces of others: histograms of clustered deep features (ComAD: Liu et al., Advanced
Engineering Informatics 58, 2023), whole and in quarters (CSAD: Hsieh & Lai, BMVC 2024,
https://arxiv.org/abs/2408.15628), compared with the nearest normal image and scaled by what left-out normal images get
(PSAD: Kim et al., AAAI 2024, https://arxiv.org/abs/2312.13783). The patch scores are those of another detector, so that
structural anomalies are found as by that one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from blemish.detectors.base import Needs, Progress, add_prefix, strip_prefix
from blemish.detectors.categories import by_category, categories_of, matching_category, state_key
from blemish.detectors.closeup import CloseUp
from blemish.detectors.closeup_vit import CloseUpViT
from blemish.detectors.hybrid import Hybrid
from blemish.detectors.patches import concatenate_layers, numbered, pooled_scores
from blemish.detectors.settings import Configurable, Count, ImageFraming, Pooling, Positive, Seed
from blemish.detectors.word_rules import (
    WordMeasures,
    learned_rules,
    measure_words,
    rules_as_tensor,
    rules_from_tensor,
)
from blemish.errors import DatasetError, ModelError, NotFittedError, SettingsError
from blemish.numeric.compositions import LEVELS, CompositionBank, VisualWords, cells_along, composition
from blemish.numeric.grids import box_mean
from blemish.numeric.k_means import k_means
from blemish.numeric.moments import Moments
from blemish.numeric.pooling import SEVERAL_SHARES, geometric_mean
from blemish.numeric.sampling import ReservoirSample
from blemish.numeric.shrinkage import shrunk_variance
from blemish.numeric.standardise import STD_OFFSET
from blemish.types import RGB, Batch, BrokenRule, Features, PatchScores

# Normal images of a category; of fewer, what they have in common is mostly chance. Some may be left out to calibrate.
MIN_IMAGES, MIN_IMAGES_LEFT = 8, 6
MEASURED_ON = 16  # normal images of a category that the bank leaves out in turn, as in `Hybrid`
HELD_PATCHES = 65536  # of a category, of which those are drawn that words are learned from
WORD_PATCHES = 8192  # of a category, that words are learned from: at most, and at most half of all
NEIGHBOURHOOD = 3  # side of the square of patches over which the first encoder's are averaged, as in PatchCore
# Of the logarithms of the bank's scores, where these are distances (twice that where they are squared ones), and how
# many images that is worth.
PRIOR_STD, PRIOR_IMAGES = 0.1, 4.0
TINY = 1e-9
MAX_LOG = 20.0  # of a score of compositions; above, float32 could overflow
# Standard deviations from which on a composition counts. The largest of a new normal image's, over all vocabularies and
# levels, is .4 to 1.7 on the mean: without a margin, compositions would outrank small defects (docs).
MARGIN = 3.0
PatchDetector = Hybrid | CloseUp
BANKS: Mapping[str, type[Hybrid] | type[CloseUp]] = {"hybrid": Hybrid, "closeup": CloseUp, "closeup-vit": CloseUpViT}
_SHARED = ("rotations", "max_copies", "pooling", "image_size", "framing", "seed")


@dataclass(frozen=True)
class Unit:
    """What the bank gives left-out normal images: the geometric mean `score`, the standard deviation `std` of its
    logarithm, and how many times that the largest patch that is judged is, `peak`; and from which z on compositions
    count, `margin`, which models of earlier versions do not have."""

    score: float
    std: float
    peak: float
    margin: float = 0.0


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """One number of words: their centres, the compositions of normal images at each level (`LEVELS`), and how much of
    each word lies where on average, `usual` `(k, h, w)` in [0, 1]."""

    words: VisualWords
    compositions: Mapping[str, CompositionBank]
    usual: Tensor


@dataclass(eq=False)
class Collected:
    """What normal images of one category show of some words, image by image; `measures` where these make rules."""

    words: VisualWords
    makes_rules: bool
    images: list[int] = field(default_factory=list)
    measures: list[WordMeasures] = field(default_factory=list)
    levels: dict[str, list[Tensor]] = field(default_factory=lambda: {level: [] for level in LEVELS})  # (F,) each
    total: Tensor | None = None  # (k, h, w): the sum of all memberships, on the grid of the first image

    def add(self, patches: Tensor, judged: Tensor, image: int) -> None:
        """Take in the scaled patches `(h, w, D)` of the normal image of that number, of which some are `judged`."""
        memberships = (self.words.memberships(patches) * judged[..., None]).cpu()  # (h, w, k)
        self.images.append(image)
        if self.makes_rules:
            self.measures.append(measure_words(memberships, judged))
        for level, found in self.levels.items():
            found.append(composition(memberships, LEVELS[level]).flatten())
        planes = memberships.permute(2, 0, 1)  # (k, h, w)
        if self.total is None:
            self.total = torch.zeros_like(planes)
        self.total += interpolate(planes[None], self.total.shape[1:], mode="bilinear", align_corners=False)[0]

    def vocabulary(self) -> Vocabulary:
        """The words with all that was collected, of two images or more."""
        assert self.total is not None  # of at least one image
        banks = {level: CompositionBank.of(torch.stack(found)) for level, found in self.levels.items()}
        return Vocabulary(self.words, banks, self.total / len(self.images))


@dataclass(kw_only=True, eq=False, repr=False)
class Components(Configurable):
    """Compositions of visual words, and their rules, joined with the patch scores of a memory bank.

    `patches`: the detector that scores patches; "hybrid" takes two joined encoders, "closeup" and "closeup-vit" one.
    Words are k-means centres of its patches, of the first encoder where there are two; `words`: numbers of them, each
    a vocabulary of its own. `softness`: how far words overlap, in root mean squared distances of patches to their word.

    With p the pooled score of the bank, u and s the geometric mean and the standard deviation of the logarithm of
    what left-out normal images get, and z_l how many standard deviations the composition at level l (`LEVELS`) of a
    vocabulary lies further from the nearest normal one than normal ones do, the image's score is
    max(p / u, exp(s · (max_l z_l − `MARGIN`))), over all vocabularies.
    `rotations`, `max_copies`, `pooling`, `image_size`, `framing`, `seed`: as in the bank; words are counted in images
    as they are, never in turned copies.

    After `fit`, `rules_` holds by category what was the same in all normal images.
    """

    patches: Literal["hybrid", "closeup", "closeup-vit"] = "hybrid"
    words: Sequence[Count] = (32, 64, 128)
    softness: Positive = 0.5
    rotations: Count = 8
    max_copies: Count = 128
    pooling: Pooling = SEVERAL_SHARES
    image_size: Count = 512
    framing: ImageFraming = "part"
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.words = list(self.words)
        self._bank = BANKS[self.patches](**{name: getattr(self, name) for name in _SHARED})

    @property
    def needs(self) -> Needs:
        return replace(self._bank.needs, min_images=MIN_IMAGES, min_images_left=MIN_IMAGES_LEFT)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Fit the bank, then words, compositions and rules; three further epochs.

        Raises DatasetError for a category of too few normal images.
        """
        self._bank.fit(batches, progress)
        self.scales_, samples = self._sampled(batches)
        collected = self._collected(batches, {name: self._words_of(rows) for name, rows in samples.items()})
        self.vocabularies_ = {name: [one.vocabulary() for one in own] for name, own in collected.items()}
        self.images_ = {name: torch.tensor(own[0].images) for name, own in collected.items()}  # (n,) their numbers
        self.rules_ = {name: learned_rules(own[0].measures, own[0].images) for name, own in collected.items()}
        self.units_ = self._measured_units(batches)
        return self

    def score(self, features: Features) -> PatchScores:
        """Patch scores `(B, h, w)` and image scores `(B,)`, both in units of what left-out normal images get."""
        self._check_fitted()
        return self._joined(features, self._bank.score(features).patches, None)

    def can_leave_out(self, category: str) -> bool:
        """As of the bank."""
        return self._bank.can_leave_out(category)

    def score_without(self, features: Features, left_out: Collection[int]) -> PatchScores:
        """As `score`, by bank and compositions without the images of these numbers; words and units stay."""
        self._check_fitted()
        return self._joined(features, self._bank.score_without(features, left_out).patches, left_out)

    def broken_rules(self, features: Features) -> list[list[BrokenRule]]:
        """For each image the rules of its category that it breaks, those of counts first."""
        self._check_fitted()
        found = []
        for name, patches, judged in self._known_images_of(features):
            words = self.vocabularies_[name][0].words
            measures = measure_words(words.memberships(patches) * judged[..., None], judged)
            found.append([rule.broken_by(measures) for rule in self.rules_[name] if rule.is_broken(measures)])
        return found

    def _joined(self, features: Features, patches: Tensor, left_out: Collection[int] | None) -> PatchScores:
        """The scores that the bank gave `patches` `(B, h, w)`, joined with those of compositions."""
        pooled = pooled_scores(patches, features, self.pooling)
        scores, images = [], []
        for i, (name, own_patches, judged) in enumerate(self._known_images_of(features)):
            unit = self.units_[name]
            own = patches[i] / unit.score  # (h, w)
            if not bool(judged.any()):
                scores.append(own)
                images.append(0.0)
                continue
            z, vocabulary, memberships, difference = self._deviation(name, own_patches, judged, left_out)
            structural = pooled[i] / unit.score
            logical = math.exp(min(unit.std * (z - unit.margin), MAX_LOG))
            # What single patches show by themselves changes the composition, too, and is then no place of its own.
            if logical > (shown := max(1.0, structural)):
                place = place_of(vocabulary.usual, memberships, difference) * judged
                here = interpolate(place[None, None], own.shape, mode="bilinear", align_corners=False)[0, 0]  # (h, w)
                own = torch.maximum(own, unit.peak * logical / shown * here)
            scores.append(own)
            images.append(max(structural, logical))
        return PatchScores(torch.stack(scores).float(), patches.new_tensor(images))

    def _deviation(
        self, name: str, patches: Tensor, judged: Tensor, left_out: Collection[int] | None
    ) -> tuple[float, Vocabulary, Tensor, Tensor]:
        """The largest z of one image's composition, over vocabularies and levels, and what it rests on: vocabulary,
        memberships `(h, w, k)` and difference `(rows, columns, k)`, as `place_of` takes them. `patches` `(h, w, D)` are
        scaled, `judged` `(h, w)` says which of them count."""
        stays = None
        if left_out is not None:
            stays = ~torch.isin(self.images_[name], torch.tensor(sorted(left_out)))
        found: list[tuple[float, Vocabulary, Tensor, Tensor]] = []
        for vocabulary in self.vocabularies_[name]:
            memberships = vocabulary.words.memberships(patches) * judged[..., None]  # (h, w, k)
            for level, bank in vocabulary.compositions.items():
                z, difference = bank.compared(composition(memberships, LEVELS[level]).flatten(), stays)
                found.append((z, vocabulary, memberships, difference.view(*LEVELS[level], -1)))
        return max(found, key=lambda one: one[0])

    def _patches(self, features: Features) -> Tensor:
        """The patches that words are made of, `(B, h, w, D)`: those of the first encoder, on its coarsest grid.

        Where something lies is for the cells to say; patches of a transformer know it too, and the image around them.
        """
        modality = self.needs.modalities[0]
        return concatenate_layers(features.layers[modality], NEIGHBOURHOOD if modality == RGB else 1, "coarsest")

    def _known_images_of(self, features: Features) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Of each image its fitted category, its scaled patches `(h, w, D)`, and what is judged `(h, w)` bool."""
        for name, patches, judged in self._images_of(features):
            category = matching_category(name, self.vocabularies_)
            yield category, patches / self.scales_[category].to(patches.device), judged

    def _images_of(self, features: Features) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Of each image its category, its patches `(h, w, D)`, and which of them are judged, `(h, w)` bool."""
        patches = self._patches(features)  # (B, h, w, D)
        ignored = features.ignored_on(patches.shape[1:3])  # (B, h, w)
        judged = patches.new_ones(patches.shape[:3], dtype=torch.bool) if ignored is None else ~ignored
        yield from zip(categories_of(features), patches, judged.to(patches.device), strict=True)

    def _sampled(self, batches: Iterable[Batch]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Each category's scales `(D,)`, standard deviations of channels, and a sample of patches `(N, D)` over them.

        A patch is drawn with a probability that grows as its squared distance to the mean patch (the proposal of
        lightweight coresets: Bachem, Lucic & Krause, KDD 2018): words of the background alone tell no parts apart.
        """
        moments: dict[str, Moments] = {}
        samples: dict[str, ReservoirSample] = {}
        for batch, _, originals in numbered(batches):
            for (name, patches, inside), is_original in zip(self._images_of(batch.features), originals, strict=True):
                if is_original:
                    rows = patches[inside].cpu()  # (N, D)
                    moments.setdefault(name, Moments()).add(rows)
                    samples.setdefault(name, ReservoirSample(HELD_PATCHES, self.seed)).add(rows)
        if not samples:
            raise SettingsError("at least one good picture", "none", "give good pictures to learn from")
        scales = {name: one.std.float() + STD_OFFSET for name, one in moments.items()}
        return scales, {name: distant_rows(one.rows() / scales[name], self.seed) for name, one in samples.items()}

    def _words_of(self, rows: Tensor) -> list[VisualWords]:
        """Words of a category's patches `(N, D)`, in each of the numbers of `words`, fewest first."""
        return [VisualWords.of(rows, k_means(rows, count, self.seed), self.softness) for count in sorted(self.words)]

    def _collected(
        self, batches: Iterable[Batch], words: Mapping[str, list[VisualWords]]
    ) -> dict[str, list[Collected]]:
        """By category, for each number of words, what the normal images show of them."""
        found = {
            name: [Collected(own, makes_rules=number == 0) for number, own in enumerate(several)]
            for name, several in words.items()
        }
        for batch, numbers, originals in numbered(batches):
            images = self._images_of(batch.features)
            for (name, patches, inside), number, is_original in zip(images, numbers, originals, strict=True):
                for one in found[name] if is_original else ():
                    one.add(patches / self.scales_[name].to(patches.device), inside, number)
        for name, several in found.items():
            if (count := len(several[0].images)) < MIN_IMAGES_LEFT:
                raise DatasetError(
                    f"at least {MIN_IMAGES} good pictures of each product for the detector 'components'",
                    f"{count} of {name!r}" if name else str(count),
                    "give more good pictures, or choose hybrid, which takes any number of them",
                )
        return found

    def _measured_units(self, batches: Iterable[Batch]) -> dict[str, Unit]:
        """What the bank gives up to `MEASURED_ON` normal images of each category, each by a bank without it."""
        waiting = {name: min(MEASURED_ON, len(numbers)) for name, numbers in self.images_.items()}
        scores: dict[str, list[float]] = {name: [] for name in self.vocabularies_}
        peaks: dict[str, list[float]] = {name: [] for name in self.vocabularies_}
        for batch, numbers, originals in numbered(batches):
            for row, name in enumerate(categories_of(batch.features)):
                if originals[row] and waiting[name]:
                    waiting[name] -= 1
                    one = batch.features.take(slice(row, row + 1))
                    patches = self._bank.score_without(one, (numbers[row],)).patches  # (1, h, w)
                    scores[name] += pooled_scores(patches, one, self.pooling)
                    ignored = one.ignored_on(patches.shape[1:])  # (1, h, w)
                    judged = patches if ignored is None else patches.masked_fill(ignored.to(patches.device), 0)
                    peaks[name].append(float(judged.max()))
            if not any(waiting.values()):
                break
        units = {}
        for name, own in scores.items():
            logs = torch.tensor(own, dtype=torch.float64).clamp_min(TINY).log().numpy()  # (n,)
            std = shrunk_variance(logs, PRIOR_STD * self.needs.score_exponent, PRIOR_IMAGES) ** 0.5
            score = geometric_mean(own)
            units[name] = Unit(score, std, max(1.0, geometric_mean(peaks[name]) / score), MARGIN)
        return units

    def state(self) -> dict[str, Tensor]:
        """The bank under `bank.…`; for each category `scale/…` `(D,)`, `rules/…` `(R, 11)` and `unit/…` `(4,)`; for
        each vocabulary, V = 0, 1, …, `wordsV/…` `(k, D)`, `widthV/…` `(1,)`, `usualV/…` `(k, h, w)` and, for each
        level, `LEVELV/…` `(n, F)`, `LEVEL_noiseV/…` `(F,)` and `LEVEL_logsV/…` `(2,)`."""
        self._check_fitted()
        state = add_prefix(self._bank.state(), "bank")
        for name, vocabularies in self.vocabularies_.items():
            own = {
                "scale": self.scales_[name],
                "rules": rules_as_tensor(self.rules_[name]),
                "unit": torch.tensor(astuple(self.units_[name]), dtype=torch.float64),
            }
            for v, one in enumerate(vocabularies):
                width = torch.tensor([one.words.width], dtype=torch.float64)
                own |= {f"words{v}": one.words.centres, f"width{v}": width, f"usual{v}": one.usual}
                for level, bank in one.compositions.items():
                    logs = torch.tensor([bank.log_mean, bank.log_std], dtype=torch.float64)
                    own |= {f"{level}{v}": bank.rows, f"{level}_noise{v}": bank.noise, f"{level}_logs{v}": logs}
            state |= {state_key(kind, name): tensor.detach().cpu().contiguous() for kind, tensor in own.items()}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave. Raises ModelError for that of an earlier version, which counted otherwise."""
        if not by_category(state, "words0"):
            raise ModelError("components with words in several numbers", "one of an earlier version", "fit it again")
        self._bank.load_state(strip_prefix(state, "bank"))
        self.scales_, self.images_ = by_category(state, "scale"), {}
        self.rules_ = {name: rules_from_tensor(table) for name, table in by_category(state, "rules").items()}
        self.units_ = {name: Unit(*table.tolist()) for name, table in by_category(state, "unit").items()}
        self.vocabularies_ = {name: [] for name in self.units_}
        for v in range(len(self.words)):
            own = {kind: by_category(state, f"{kind}{v}") for kind in ("words", "width", "usual")}
            levels = {
                level: [by_category(state, f"{level}{part}{v}") for part in ("", "_noise", "_logs")] for level in LEVELS
            }
            for name, vocabularies in self.vocabularies_.items():
                banks = {
                    level: CompositionBank(rows[name], noise[name], *logs[name].tolist())
                    for level, (rows, noise, logs) in levels.items()
                }
                words = VisualWords(own["words"][name], float(own["width"][name]))
                vocabularies.append(Vocabulary(words, banks, own["usual"][name]))
        return self

    def _check_fitted(self) -> None:
        if not getattr(self, "units_", None):
            raise NotFittedError("words and a memory bank that have learned", "empty ones", "call fit first")


def place_of(usual: Tensor, memberships: Tensor, difference: Tensor) -> Tensor:
    """Where words that are too many lie, and where those that are too few usually do: `(h, w)` in [0, 1].

    `usual` `(k, h', w')` says how much of each word lies where in normal images, `memberships` `(h, w, k)` in this one,
    `difference` `(rows, columns, k)` how much more of each word a cell holds than the nearest normal composition.
    """
    grid = memberships.shape[:2]
    expected = interpolate(usual[None].to(memberships.device), grid, mode="bilinear")[0]  # (k, h, w)
    ys, xs = (cells_along(n, cells).to(difference.device) for n, cells in zip(grid, difference.shape, strict=False))
    here = difference[ys][:, xs]  # (h, w, k)
    lacking = (expected.permute(1, 2, 0) - memberships).clamp_min(0)  # (h, w, k)
    total = torch.zeros(grid, device=memberships.device)
    for amount, where in ((here, memberships), (-here, lacking)):
        squares = amount.clamp_min(0).square()  # (h, w, k)
        shown = box_mean((squares * where).sum(-1)[None], 3)[0]  # (h, w)
        total += shown / shown.max().clamp_min(1e-12) * squares.amax((0, 1)).sum().sqrt()
    return total / total.max().clamp_min(1e-12)


def distant_rows(rows: Tensor, seed: int) -> Tensor:
    """At most `WORD_PATCHES`, and at most half, of rows `(N, D)`, drawn by their squared distance to the mean."""
    weights = (rows - rows.mean(0)).square().sum(1).double() + TINY  # (N,)
    count = min(WORD_PATCHES, max(1, len(rows) // 2))
    return rows[torch.multinomial(weights, count, generator=torch.Generator().manual_seed(seed))]
