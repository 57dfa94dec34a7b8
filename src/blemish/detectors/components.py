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
from dataclasses import dataclass, replace
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
from blemish.detectors.shown_words import ShownWords
from blemish.detectors.word_rules import Rule, learned_rules, measure_words, rules_as_tensor, rules_from_tensor
from blemish.errors import DatasetError, NotFittedError, SettingsError
from blemish.numeric.compositions import LEVELS, CompositionBank, VisualWords, composition
from blemish.numeric.grids import box_mean, on_coarsest
from blemish.numeric.k_means import k_means
from blemish.numeric.moments import Moments
from blemish.numeric.pooling import SEVERAL_SHARES, geometric_mean
from blemish.numeric.sampling import ReservoirSample
from blemish.numeric.shrinkage import shrunk_variance
from blemish.types import RGB, Batch, BrokenRule, Features, PatchScores

MIN_IMAGES = 8  # normal images: of fewer, what they have in common is mostly chance
MIN_IMAGES_LEFT = 6  # of a category, where one or two are left out of a fit to calibrate
MEASURED_ON = 16  # normal images of a category that the bank leaves out in turn, as in `Hybrid`
WORD_PATCHES = 16384  # of a category, that words are learned from
STD_OFFSET = 1e-3  # as in patchcore.py
NEIGHBOURHOOD = 3  # side of the square of patches over which the first encoder's are averaged, as in PatchCore
PRIOR_STD, PRIOR_IMAGES = 0.1, 4.0  # of the logarithms of the bank's scores, and how many images that is worth
TINY = 1e-9
MAX_LOG = 20.0  # of a score of compositions; above, float32 could overflow
PatchDetector = Hybrid | CloseUp
BANKS: Mapping[str, type[Hybrid] | type[CloseUp]] = {"hybrid": Hybrid, "closeup": CloseUp, "closeup-vit": CloseUpViT}
_SHARED = ("rotations", "max_copies", "pooling", "image_size", "framing", "seed")


@dataclass(frozen=True)
class Unit:
    """What the bank gives left-out normal images: the geometric mean `score`, the standard deviation `std` of its
    logarithm, and how many times that the largest patch is, `peak`."""

    score: float
    std: float
    peak: float


@dataclass(kw_only=True, eq=False, repr=False)
class Components(Configurable):
    """Compositions of visual words, and their rules, joined with the patch scores of a memory bank.

    `patches`: the detector that scores patches; "hybrid" takes two joined encoders, "closeup" and "closeup-vit" one.
    Words are k-means centres of its patches; `words`: the numbers of them that are tried, the one that best tells
    made-up swaps between normal images from normal images is kept. `softness`: how far words overlap, in root mean
    squared distances of patches to their word.

    With p the pooled score of the bank, u and s the geometric mean and the standard deviation of the logarithm of
    what left-out normal images get, and z_l how many standard deviations the composition at level l (`LEVELS`) lies
    further from the nearest normal one than normal ones do, the image's score is max(p / u, exp(s · max_l z_l)).
    `rotations`, `max_copies`, `pooling`, `image_size`, `framing`, `seed`: as in the bank; words are counted in images
    as they are, never in turned copies.

    After `fit`, `rules_` holds by category what was the same in all normal images.
    """

    patches: Literal["hybrid", "closeup", "closeup-vit"] = "hybrid"
    words: Sequence[Count] = (8, 16, 32, 64)
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
        return replace(self._bank.needs, min_images=MIN_IMAGES)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Fit the bank, then words, compositions and rules; three further epochs.

        Raises DatasetError for a category of too few normal images.
        """
        self._bank.fit(batches, progress)
        self.scales_, samples = self._sampled(batches)
        shown = self._shown(batches, {name: self._words_of(rows) for name, rows in samples.items()})
        self.words_: dict[str, VisualWords] = {}
        self.compositions_: dict[str, dict[str, CompositionBank]] = {}
        self.usual_: dict[str, Tensor] = {}  # (k, h, w): how much of each word lies where, on average
        self.rules_: dict[str, list[Rule]] = {}
        self.images_: dict[str, Tensor] = {}  # (n,): the number of the normal image of each composition
        for name, options in shown.items():
            chosen = max(options, key=ShownWords.separation)  # the first, of equal ones
            self.words_[name] = chosen.words
            self.compositions_[name] = chosen.banks()
            self.usual_[name] = chosen.usual()
            self.images_[name] = torch.tensor(chosen.images)
            self.rules_[name] = learned_rules(chosen.measures, chosen.images)
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
        for name, memberships, judged in self._memberships_of(features):
            measures = measure_words(memberships, judged)
            found.append([rule.broken_by(measures) for rule in self.rules_[name] if rule.is_broken(measures)])
        return found

    def _joined(self, features: Features, patches: Tensor, left_out: Collection[int] | None) -> PatchScores:
        """The scores that the bank gave `patches` `(B, h, w)`, joined with those of compositions."""
        pooled = pooled_scores(patches, features, self.pooling)
        scores, images = [], []
        for i, (name, memberships, judged) in enumerate(self._memberships_of(features)):
            unit = self.units_[name]
            own = patches[i] / unit.score  # (h, w)
            if not bool(judged.any()):
                scores.append(own)
                images.append(0.0)
                continue
            z, place = self._deviation(name, memberships, judged, left_out)
            structural = pooled[i] / unit.score
            logical = math.exp(min(unit.std * z, MAX_LOG))
            here = interpolate(place[None, None], own.shape, mode="bilinear", align_corners=False)[0, 0]  # (h, w)
            # What single patches show by themselves changes the composition, too, and is then no place of its own.
            shown = unit.peak * logical / min(logical, max(1.0, structural))
            scores.append(torch.maximum(own, shown * here))
            images.append(max(structural, logical))
        return PatchScores(torch.stack(scores).float(), patches.new_tensor(images))

    def _deviation(
        self, name: str, memberships: Tensor, judged: Tensor, left_out: Collection[int] | None
    ) -> tuple[float, Tensor]:
        """The largest z of one image's composition, over levels, and where what it rests on lies: `(h, w)` in [0, 1].

        `memberships` `(h, w, k)`, 0 where a patch is not `judged` `(h, w)`.
        """
        stays = None
        if left_out is not None:
            stays = ~torch.isin(self.images_[name], torch.tensor(sorted(left_out)))
        compared = {
            level: bank.compared(composition(memberships, LEVELS[level]).flatten(), stays)
            for level, bank in self.compositions_[name].items()
        }
        level = max(compared, key=lambda one: compared[one][0])
        z, difference = compared[level]
        cells = difference.view(*LEVELS[level], -1)  # (rows, columns, k)
        return z, self._place(name, memberships, cells) * judged

    def _place(self, name: str, memberships: Tensor, difference: Tensor) -> Tensor:
        """Where words that are too many lie, and where those that are too few usually do: `(h, w)` in [0, 1].

        `difference` `(rows, columns, k)` is how much more of each word a cell holds than the nearest composition.
        """
        grid = memberships.shape[:2]
        usual = interpolate(self.usual_[name][None].to(memberships.device), grid, mode="bilinear")[0]  # (k, h, w)
        ys = torch.arange(grid[0], device=difference.device) * difference.shape[0] // grid[0]  # (h,)
        xs = torch.arange(grid[1], device=difference.device) * difference.shape[1] // grid[1]  # (w,)
        here = difference[ys][:, xs]  # (h, w, k)
        lacking = (usual.permute(1, 2, 0) - memberships).clamp_min(0)  # (h, w, k)
        total = torch.zeros(grid, device=memberships.device)
        for amount, where in ((here, memberships), (-here, lacking)):
            squares = amount.clamp_min(0).square()  # (h, w, k)
            evidence = box_mean((squares * where).sum(-1)[None], 3)[0]  # (h, w)
            total += evidence / evidence.max().clamp_min(1e-12) * squares.amax((0, 1)).sum().sqrt()
        return total / total.max().clamp_min(1e-12)

    def _patches(self, features: Features) -> Tensor:
        """The patches that words are made of, `(B, h, w, ΣD)`, on the coarsest grid."""
        joined = [
            concatenate_layers(features.layers[m], NEIGHBOURHOOD if m == RGB else 1, "coarsest")
            for m in self.needs.modalities
        ]
        return torch.cat(on_coarsest(joined), dim=-1)  # (B, h, w, ΣD)

    def _memberships_of(self, features: Features) -> list[tuple[str, Tensor, Tensor]]:
        """Of each image its category, its words `(h, w, k)`, 0 where not judged, and what is judged `(h, w)` bool."""
        found = []
        for name, own, inside in self._images_of(features):
            category = matching_category(name, self.words_)
            words = self.words_[category].memberships(own / self.scales_[category].to(own.device))  # (h, w, k)
            found.append((category, words * inside[..., None], inside))
        return found

    def _images_of(self, features: Features) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Of each image its category, its patches `(h, w, ΣD)`, and which of them are judged, `(h, w)` bool."""
        patches = self._patches(features)  # (B, h, w, ΣD)
        ignored = features.ignored_on(patches.shape[1:3])  # (B, h, w)
        judged = patches.new_ones(patches.shape[:3], dtype=torch.bool) if ignored is None else ~ignored
        yield from zip(categories_of(features), patches, judged.to(patches.device), strict=True)

    def _sampled(self, batches: Iterable[Batch]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Each category's scales `(ΣD,)`, and a sample of its patches `(N, ΣD)` divided by them.

        Scales are standard deviations of channels, times √D of their modality, so that modalities weigh alike.
        """
        moments: dict[str, Moments] = {}
        samples: dict[str, ReservoirSample] = {}
        roots = torch.ones(1)  # (ΣD,)
        for batch, _, originals in numbered(batches):
            roots = self._roots(batch.features)
            for (name, patches, inside), is_original in zip(self._images_of(batch.features), originals, strict=True):
                if is_original:
                    rows = patches[inside].cpu()  # (N, ΣD)
                    moments.setdefault(name, Moments()).add(rows)
                    samples.setdefault(name, ReservoirSample(WORD_PATCHES, self.seed)).add(rows)
        if not samples:
            raise SettingsError("at least one good picture", "none", "give good pictures to learn from")
        scales = {name: (one.std.float() + STD_OFFSET) * roots for name, one in moments.items()}
        return scales, {name: sample.rows() / scales[name] for name, sample in samples.items()}

    def _roots(self, features: Features) -> Tensor:
        """The square root of how many channels the modality of each channel has, `(ΣD,)`."""
        widths = [sum(layer.shape[-1] for layer in features.layers[m]) for m in self.needs.modalities]
        return torch.cat([torch.full((width,), width**0.5) for width in widths])

    def _words_of(self, rows: Tensor) -> list[VisualWords]:
        """Words of a category's patches `(N, ΣD)`, in each of the numbers that are tried, fewest first."""
        return [VisualWords.of(rows, k_means(rows, count, self.seed), self.softness) for count in sorted(self.words)]

    def _shown(self, batches: Iterable[Batch], tried: Mapping[str, list[VisualWords]]) -> dict[str, list[ShownWords]]:
        """By category, for each of the words that are `tried`, what the normal images show of them."""
        found = {name: [ShownWords(words, self.seed) for words in options] for name, options in tried.items()}
        for batch, numbers, originals in numbered(batches):
            images = self._images_of(batch.features)
            for (name, patches, inside), number, is_original in zip(images, numbers, originals, strict=True):
                for option in found[name] if is_original else ():
                    option.add(patches / self.scales_[name].to(patches.device), inside, number)
        for name, options in found.items():
            if (count := len(options[0].images)) < MIN_IMAGES_LEFT:
                raise DatasetError(
                    f"at least {MIN_IMAGES} good pictures of each product for the detector 'components'",
                    f"{count} of {name!r}" if name else str(count),
                    "give more good pictures, or choose hybrid, which takes any number of them",
                )
        return found

    def _measured_units(self, batches: Iterable[Batch]) -> dict[str, Unit]:
        """What the bank gives up to `MEASURED_ON` normal images of each category, each by a bank without it."""
        scores: dict[str, list[float]] = {name: [] for name in self.words_}
        peaks: dict[str, list[float]] = {name: [] for name in self.words_}
        for batch, numbers, originals in numbered(batches):
            for row, name in enumerate(categories_of(batch.features)):
                if originals[row] and len(scores[name]) < MEASURED_ON:
                    one = batch.features.take(slice(row, row + 1))
                    patches = self._bank.score_without(one, (numbers[row],)).patches  # (1, h, w)
                    scores[name] += pooled_scores(patches, one, self.pooling)
                    peaks[name].append(float(patches.max()))
        units = {}
        for name, own in scores.items():
            logs = torch.tensor(own, dtype=torch.float64).clamp_min(TINY).log().numpy()  # (n,)
            std = shrunk_variance(logs, PRIOR_STD, PRIOR_IMAGES) ** 0.5
            score = geometric_mean(own)
            units[name] = Unit(score, std, max(1.0, geometric_mean(peaks[name]) / score))
        return units

    def state(self) -> dict[str, Tensor]:
        """The bank under `bank.…`; for each category `scale/…` `(ΣD,)`, `words/…` `(k, ΣD)`, `usual/…` `(k, h, w)`,
        `rules/…` `(R, 11)`, `unit/…` `(4,)` and, for each level, `LEVEL/…` `(n, F)`, `LEVEL_noise/…` `(F,)` and
        `LEVEL_logs/…` `(2,)`."""
        self._check_fitted()
        state = add_prefix(self._bank.state(), "bank")
        for name, words in self.words_.items():
            unit = self.units_[name]
            own = {
                "scale": self.scales_[name],
                "words": words.centres,
                "usual": self.usual_[name],
                "rules": rules_as_tensor(self.rules_[name]),
                "unit": torch.tensor([unit.score, unit.std, unit.peak, words.width], dtype=torch.float64),
            }
            for level, bank in self.compositions_[name].items():
                logs = torch.tensor([bank.log_mean, bank.log_std], dtype=torch.float64)
                own |= {level: bank.rows, f"{level}_noise": bank.noise, f"{level}_logs": logs}
            state |= {state_key(kind, name): tensor.detach().cpu().contiguous() for kind, tensor in own.items()}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        self._bank.load_state(strip_prefix(state, "bank"))
        self.scales_, self.usual_ = by_category(state, "scale"), by_category(state, "usual")
        self.rules_ = {name: rules_from_tensor(table) for name, table in by_category(state, "rules").items()}
        self.words_, self.units_, self.compositions_, self.images_ = {}, {}, {}, {}
        for name, table in by_category(state, "unit").items():
            score, std, peak, width = table.tolist()
            self.units_[name] = Unit(score, std, peak)
            self.words_[name] = VisualWords(by_category(state, "words")[name], width)
            self.compositions_[name] = {
                level: CompositionBank(
                    by_category(state, level)[name],
                    by_category(state, f"{level}_noise")[name],
                    *by_category(state, f"{level}_logs")[name].tolist(),
                )
                for level in LEVELS
            }
        return self

    def _check_fitted(self) -> None:
        if not getattr(self, "units_", None):
            raise NotFittedError("words and a memory bank that have learned", "empty ones", "call fit first")
