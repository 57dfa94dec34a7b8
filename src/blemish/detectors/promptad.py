"""PromptAD: prompts about one product are learned from a few normal images of it, beside a bank of their patches.

Li, Zhang, Tan, Qiu & Xie, "PromptAD: Learning Prompts with only Normal Samples for Few-Shot Anomaly Detection", CVPR
2024 (https://arxiv.org/abs/2404.05231).

    w_n, w_a   means of the embedded normal and abnormal prompts (encoders/image_text/state_prompts.py)
    L = −log exp(z·w_n/τ) / (exp(z·w_n/τ) + Σ_a exp(z·a/τ))        every abnormal prompt a is a class of its own
        + max(0, ‖z − w_n‖ − ‖z − w_a‖ + margin) + λ ‖mean manual − mean learned‖²
    M_t = softmax(z·w_n/τ, z·w_a/τ)₂ of patches,   M_v = mean over two layers of min over normal patches (1 − cos) / 2
    map: harmonic mean of M_t and M_v;   image score: harmonic mean of the image's own softmax and max M_v

Prompts for the image (z: the whole image) and for the map (z: its patches) are learned apart, as in the paper. How many
epochs is a setting: nothing is ever chosen by a score on other images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from blemish.detectors.base import Needs, Progress
from blemish.detectors.categories import by_category, categories_of, matching_category, state_key
from blemish.detectors.language import check_aligned, check_prompts, class_scores, finite, margins
from blemish.detectors.patches import numbered
from blemish.detectors.references import CollectedReferences, References, judged_rows
from blemish.detectors.settings import Configurable, Count, NotNegative, Positive, Seed
from blemish.encoders.image_text.state_prompts import LearnablePrompts, StateEmbeddings, StatePrompts
from blemish.encoders.text.prompts import ABNORMAL_STATES
from blemish.errors import NotFittedError, SettingsError
from blemish.numeric.training import Training, seeded
from blemish.types import ALIGNED, RGB, WHOLE, Batch, Features, PatchScores, Prompts
from blemish.utils.progress import progress_within
from blemish.utils.validation import Rule

State = Annotated[
    str, Rule("a phrase with one {} for the product, such as '{} with flaw'", lambda s: s.count("{}") == 1)
]
BANKS = ("first.bank", "second.bank")  # of an earlier and a later layer; see `bank_layers`
LEVELS = ("image", "patch")  # what prompts are learned for


@dataclass
class NormalSamples:
    """What is learned from of one category: its images and patches in the space of sentences, and its banks."""

    images: list[Tensor] = field(default_factory=list)  # each (E,)
    patches: list[Tensor] = field(default_factory=list)  # each (N, E)
    banks: CollectedReferences = field(default_factory=CollectedReferences)


@dataclass(kw_only=True, eq=False, repr=False)
class PromptAD(Configurable):
    """Learned prompts and a bank of normal patches (`promptad`).

    SGD takes `epochs` steps over all images at once at `learning_rate` (falling as half a cosine), with `weight_decay`.
    `normal_prompts` prefixes of `prefix_tokens` tokens; `abnormal_suffixes` of `suffix_tokens` tokens, beside `states`
    in words, which name no kind of defect unless they are given: phrases with {} in the product's place. `margin` of
    the triplet loss, `match_weight` λ; `temperature` τ is CLIP's own. Of more images of a category the first
    `max_images` are learned from.
    """

    epochs: Count = 100
    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = 5e-4
    normal_prompts: Count = 3
    prefix_tokens: Count = 4
    abnormal_suffixes: Count = 4
    suffix_tokens: Count = 1
    states: Sequence[State] = ABNORMAL_STATES
    margin: NotNegative = 0.0
    match_weight: NotNegative = 1e-3
    temperature: Positive = 0.01
    max_images: Count = 64
    image_size: Count = 240
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.states = list(self.states)

    @property
    def needs(self) -> Needs:
        return Needs(
            layers="quarters",
            modalities=(RGB, ALIGNED, WHOLE),
            prompts="learnable",
            alignment="v-v-all",
            image_size=self.image_size,
            square=True,
            score_exponent=2,  # as of cosine distances
            pooling="max",  # the map; images have a score of their own
        )

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Collect normal images in one epoch over `batches`, then learn prompts about each category."""
        samples, prompts = self._collect(batches)
        parts = [(name, level) for name in samples for level in LEVELS]
        self.text_: dict[str, dict[str, Tensor]] = {level: {} for level in LEVELS}  # (2, E) by category
        losses: list[Tensor] = []  # each (epochs,)
        for done, (name, level) in enumerate(parts):
            own = samples[name]
            vectors = torch.stack(own.images) if level == "image" else torch.cat(own.patches)  # (N, E)
            inner = progress and progress_within(progress, done, len(parts), f"prompts of {name or 'the part'}")
            found, loss = self._learn(prompts[name], vectors, inner)
            self.text_[level][name] = found.prototypes()
            losses.append(loss)
        both = zip(losses[::2], losses[1::2], strict=True)
        self.losses_: dict[str, Tensor] = {name: torch.stack(own) for name, own in zip(samples, both, strict=True)}
        self.banks_: dict[str, dict[str, References]] = {name: own.banks.references() for name, own in samples.items()}
        return self

    def _collect(self, batches: Iterable[Batch]) -> tuple[dict[str, NormalSamples], dict[str, LearnablePrompts]]:
        """The normal samples of each category, and what prompts about it are learned with."""
        samples: dict[str, NormalSamples] = {}
        prompts: Mapping[str, Prompts] = {}
        for batch, shown, _ in numbered(batches):
            prompts = batch.prompts or prompts
            check_aligned(batch.features)
            aligned = batch.features.layers[ALIGNED][-1]  # (B, h, w, E)
            ignored = batch.features.ignored_on(aligned.shape[1:3])  # (B, h, w)
            for i, (name, image) in enumerate(zip(categories_of(batch.features), shown, strict=True)):
                own = samples.setdefault(name, NormalSamples())
                if image in own.banks.known or len(own.banks.known) >= self.max_images:
                    continue
                own.banks.known.add(image)
                gone = None if ignored is None else ignored[i]
                own.images.append(batch.features.layers[WHOLE][0][i, 0, 0])
                own.patches.append(judged_rows(aligned[i], gone))
                for bank, layer in zip(BANKS, bank_layers(batch.features), strict=True):
                    own.banks.add(bank, judged_rows(layer[i], gone), image)
        if not samples:
            raise SettingsError("at least one good picture", "none", "give good pictures")
        check_prompts(prompts, samples)
        return samples, {name: checked(prompts[name], name) for name in samples}

    def _learn(
        self, prompts: LearnablePrompts, vectors: Tensor, progress: Progress | None
    ) -> tuple[StateEmbeddings, Tensor]:
        """The prompts learned from normal `vectors` `(N, E)`, embedded, and the loss of every epoch `(epochs,)`."""
        unit = normalize(vectors.float().to(prompts.tower.device), dim=-1)  # (N, E)
        training = Training(
            self.epochs,
            self.learning_rate,
            weight_decay=self.weight_decay,
            warmup_steps=0,
            precision="fp32",
            optimiser="sgd",
        )
        with seeded(self.seed):
            model = StatePrompts(
                prompts.tower,
                prompts.product,
                self.states,
                (self.normal_prompts, self.prefix_tokens),
                (self.abnormal_suffixes, self.suffix_tokens),
            ).to(prompts.tower.device)
            loss = training.run(model, lambda _: self.loss_of(model(), unit), progress)
        with torch.no_grad():
            return model(), loss

    def loss_of(self, prompts: StateEmbeddings, vectors: Tensor) -> Tensor:
        """The loss, a scalar, of embedded prompts on normal `vectors` `(N, E)` of unit length."""
        normal, abnormal = prompts.prototypes()  # each (E,)
        logits = torch.cat([(vectors @ normal)[:, None], vectors @ prompts.abnormal.T], dim=1)  # (N, 1 + A)
        visual_to_text = cross_entropy(logits / self.temperature, vectors.new_zeros(len(vectors), dtype=torch.long))
        nearer = (vectors - normal).norm(dim=-1) - (vectors - abnormal).norm(dim=-1)  # (N,)
        triplet = (nearer + self.margin).relu().mean()
        match = (prompts.manual.mean(0) - prompts.learned.mean(0)).square().sum()
        return visual_to_text + triplet + self.match_weight * match

    def score(self, features: Features) -> PatchScores:
        """The map of patches `(B, h, w)`, and the image scores `(B,)`."""
        self._check_fitted()
        check_aligned(features)
        aligned, layers = features.layers[ALIGNED][-1], bank_layers(features)
        ignored = features.ignored_on(aligned.shape[1:3])  # (B, h, w)
        maps, images = [], []
        for i, name in enumerate(categories_of(features)):
            category = matching_category(name, self.text_["image"])
            by_text = self._probabilities("patch", category, aligned[i])  # (h, w)
            by_bank = self._distances(category, [layer[i] for layer in layers])  # (h, w)
            judged = by_bank if ignored is None else by_bank.masked_fill(ignored[i].to(by_bank.device), 0)
            image = self._probabilities("image", category, features.layers[WHOLE][0][i, 0, 0])  # ()
            maps.append(harmonic_mean(by_text, by_bank))
            images.append(harmonic_mean(image, judged.max()))
        return PatchScores(torch.stack(maps), torch.stack(images))

    def text_margins(self, features: Features) -> Tensor:
        """By how much each patch `(B, h, w)` is nearer to the learned abnormal prompts than to the normal ones."""
        self._check_fitted()
        check_aligned(features)
        text = [self.text_["patch"][matching_category(name, self.text_["patch"])] for name in categories_of(features)]
        return torch.stack([margins(own, both) for own, both in zip(features.layers[ALIGNED][-1], text, strict=True)])

    def _probabilities(self, level: str, category: str, vectors: Tensor) -> Tensor:
        """How likely `vectors` `(…, E)` are better described by the abnormal prompts, `(…)`."""
        return class_scores(vectors, self.text_[level][category].to(vectors.device), self.temperature)

    def _distances(self, category: str, layers: Sequence[Tensor]) -> Tensor:
        """How far the patches of one image, `(h, w, D)` of each bank's layer, lie from the nearest normal ones."""
        found = [
            self.banks_[category][bank].nearest(layer.flatten(0, 1)).view(layer.shape[:2])
            for bank, layer in zip(BANKS, layers, strict=True)
        ]
        return torch.stack(found).mean(0).clamp_min(0)

    def state(self) -> dict[str, Tensor]:
        """`image/…`, `patch/…` `(2, E)`, `first.bank/…`, `second.bank/…` `(M, D)`, `losses/…` of every category."""
        self._check_fitted()
        state = {state_key(level, name): rows for level in LEVELS for name, rows in self.text_[level].items()}
        state |= {state_key(bank, name): own[bank].rows for name, own in self.banks_.items() for bank in BANKS}
        state |= {state_key("losses", name): losses for name, losses in self.losses_.items()}
        return {name: tensor.detach().float().contiguous() for name, tensor in state.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        self.text_ = {level: by_category(state, level) for level in LEVELS}
        self.losses_ = by_category(state, "losses")
        rows = {bank: by_category(state, bank) for bank in BANKS}
        self.banks_ = {name: {bank: References(rows[bank][name]) for bank in BANKS} for name in self.text_["image"]}
        self._check_fitted()
        return self

    def _check_fitted(self) -> None:
        if not getattr(self, "banks_", None):
            raise NotFittedError("prompts that were learned", "none", "call fit first")


def bank_layers(features: Features) -> tuple[Tensor, Tensor]:
    """The two layers of patches `(B, h, w, D)` that banks hold: those after one and three quarters of the depth.

    Where other layers were chosen than the last of each quarter: the first and the last of them.
    """
    layers = features.layers[RGB]
    return (layers[0], layers[2]) if len(layers) == 4 else (layers[0], layers[-1])


def harmonic_mean(one: Tensor, other: Tensor) -> Tensor:
    """2 / (1/one + 1/other), 0 where one of them is 0."""
    return finite(2 / (1 / one + 1 / other))


def checked(prompts: Prompts, category: str) -> LearnablePrompts:
    """The prompts, where tokens can be learned with them; raises SettingsError elsewhere."""
    if not isinstance(prompts, LearnablePrompts):
        raise SettingsError(
            f"prompts about {category!r} with the text tower to learn tokens", "sentences", "feed what `needs` asks for"
        )
    return prompts
