"""WinCLIP: sentences about normal and damaged objects score an image and its windows; few normal images may join them.

Jeong, Zou, Kim, Zhang, Ravichandran & Dabeer, "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation", CVPR
2023 (https://arxiv.org/abs/2303.14814); no code was published by the authors.

    s(f) = softmax([cos(f, t_n), cos(f, t_a)] / τ)₂                 of the image, of windows of 2×2 and 3×3 patches
    M_k(p) = |W(p)| / Σ_{w ∋ p} 1 / s_w                             harmonic mean over the windows that hold patch p
    M_0 = 3 / (1/M_2 + 1/M_3 + 1/s(image))                          the map without normal images
    M_W = mean over patches, 2×2, 3×3 of min over references (1 − cos) / 2
    image score: s(image), with normal images ½ (s(image) + max M_W); map: M_0 + M_W
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv_transpose2d

from blemish.detectors.base import Needs, Progress
from blemish.detectors.categories import by_category, categories_of, matching_category, state_key
from blemish.detectors.language import check_prompts, class_scores, finite, margins, prototypes
from blemish.detectors.patches import numbered
from blemish.detectors.references import CollectedReferences, References, judged_rows
from blemish.detectors.settings import Configurable, Count, Positive
from blemish.encoders.text.prompts import PromptKind
from blemish.errors import NotFittedError, SettingsError
from blemish.types import RGB, WHOLE, WINDOWS, Batch, Features, PatchScores, Prompts

SCALES = ("patches", "small", "mid")  # single patches, windows of 2×2 and of 3×3
_SIDES = {"patches": 1, "small": 2, "mid": 3}  # patches a side


@dataclass(kw_only=True, eq=False, repr=False)
class WinCLIP(Configurable):
    """Language scores the image and its windows (`winclip`); with normal images it is the paper's WinCLIP+.

    `temperature` τ of the softmax over both kinds of sentences. It decides how images rank only where normal images are
    given, and what harmonic means give: .07, as the open re-implementations whose figures are known, not published.
    `prompts`: "ensemble" is the paper's, 154 normal and 88 abnormal sentences. `max_images`: of more normal images of a
    category, the first so many are references; not the paper's, which has four at most. `image_size`: that of the
    paper's encoder; others were trained at 224 or 336 pixels.
    """

    temperature: Positive = 0.07
    prompts: PromptKind = "ensemble"
    max_images: Count = 64
    image_size: Count = 240

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompts not in ("ensemble", "contrastive"):
            raise SettingsError("prompts about good and defective parts", repr(self.prompts), "set ensemble")

    @property
    def needs(self) -> Needs:
        return Needs(
            layers="deep",
            modalities=(RGB, WINDOWS, WHOLE),
            prompts=self.prompts,
            alignment="windows",
            image_size=self.image_size,
            square=True,
            score_exponent=2,  # as of cosine distances, of which one half of the score is made
            pooling="max",  # the map; images have a score of their own
        )

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Keep the patches and windows of normal images beside the sentences; one epoch over `batches`."""
        collected: dict[str, CollectedReferences] = {}
        prompts: Mapping[str, Prompts] = {}
        for batch, shown, _ in numbered(batches):
            prompts = batch.prompts or prompts
            kept = scales_of(batch.features)
            ignored = batch.features.ignored_on(kept["patches"].shape[1:3])  # (B, h, w)
            for i, (name, image) in enumerate(zip(categories_of(batch.features), shown, strict=True)):
                own = collected.setdefault(name, CollectedReferences())
                if image not in own.known and len(own.known) >= self.max_images:
                    continue
                own.known.add(image)
                for scale, vectors in kept.items():  # (B, h', w', D)
                    own.add(scale, judged_rows(vectors[i], None if ignored is None else ignored[i]), image)
        if not collected:
            raise SettingsError("at least one good picture", "none", "give good pictures, or fit by a name alone")
        check_prompts(prompts, collected)
        self.fit_zero_shot({name: prompts[name] for name in collected})
        self.references_.update({name: own.references() for name, own in collected.items()})
        return self

    def fit_zero_shot(self, prompts: Mapping[str, Prompts]) -> Self:
        """Fit to sentences alone; there are no references then."""
        if not prompts:
            raise SettingsError("sentences about a product", "none", "feed what `needs.prompts` asks for")
        self.text_: dict[str, Tensor] = {name: prototypes(own, name) for name, own in prompts.items()}  # (2, E)
        self.references_: dict[str, dict[str, References]] = {name: {} for name in prompts}
        return self

    def score(self, features: Features) -> PatchScores:
        """The map of patches `(B, h, w)`, and the image scores `(B,)`."""
        return self.score_without(features, ())

    def can_leave_out(self, category: str) -> bool:
        """Whether there are references of other images than one, and it is known which are whose."""
        own = self.references_.get(self._category_for(category), {}).get("patches")
        return own is not None and own.images is not None and len(own.images.unique()) > 1

    def score_without(self, features: Features, left_out: Collection[int]) -> PatchScores:
        """As `score`, by the references of all other images than those of these numbers (`Batch.images`)."""
        scales = scales_of(features)
        grid = tuple(scales["patches"].shape[1:3])
        ignored = features.ignored_on(grid)  # (B, h, w)
        maps, images = [], []
        for i, name in enumerate(categories_of(features)):
            category = self._category_for(name)
            text = self.text_[category].to(scales["patches"].device)  # (2, E)
            own = {scale: vectors[i : i + 1] for scale, vectors in scales.items()}  # (1, h', w', D)
            whole = class_scores(features.layers[WHOLE][0][i, 0, 0], text, self.temperature)  # ()
            found = self._language_map(own, whole, text, grid)  # (h, w)
            score = whole
            if references := self.references_[category]:
                near = self._association_map(own, references, left_out, grid)  # (h, w)
                found = found + near
                judged = near if ignored is None else near.masked_fill(ignored[i].to(near.device), 0)
                score = (whole + judged.max()) / 2
            if ignored is not None and bool(ignored[i].all()):
                score = torch.zeros_like(score)
            maps.append(found)
            images.append(score)
        return PatchScores(torch.stack(maps), torch.stack(images))

    def _language_map(self, scales: Mapping[str, Tensor], whole: Tensor, text: Tensor, grid: Sequence[int]) -> Tensor:
        """M_0 `(h, w)` of one image, whose score is `whole`."""
        inverse = 1 / whole
        for scale in ("small", "mid"):
            scores = class_scores(scales[scale], text, self.temperature)  # (1, h', w')
            inverse = inverse + 1 / harmonic_means(scores, _SIDES[scale], grid)[0]  # (h, w)
        return finite(3 / inverse)

    def _association_map(
        self,
        scales: Mapping[str, Tensor],
        references: Mapping[str, References],
        left_out: Collection[int],
        grid: Sequence[int],
    ) -> Tensor:
        """M_W `(h, w)` of one image: how far its patches and windows lie from the nearest of normal images."""
        maps = []
        for scale in SCALES:
            vectors = scales[scale]  # (1, h', w', D)
            distances = references[scale].nearest(vectors[0].flatten(0, 1), left_out).view(vectors.shape[:3])
            maps.append(harmonic_means(distances, _SIDES[scale], grid)[0])
        return torch.stack(maps).mean(0)

    def text_margins(self, features: Features) -> Tensor:
        """By how much each patch `(B, h, w)` is nearer to the abnormal sentences, the mean over its 2 × 2 windows."""
        windows = scales_of(features)["small"]  # (B, h − 1, w − 1, E)
        text = [self.text_[self._category_for(name)] for name in categories_of(features)]
        found = torch.stack([margins(own, both) for own, both in zip(windows, text, strict=True)])
        return avg_pool2d(found[:, None], 2, stride=1, padding=1, count_include_pad=False)[:, 0]

    def state(self) -> dict[str, Tensor]:
        """`text/…` `(2, E)` of every category, and `patches/…`, `small/…`, `mid/…` `(M, D)` of those with images."""
        self._check_fitted()
        state = {state_key("text", name): rows for name, rows in self.text_.items()}
        for name, scales in self.references_.items():
            state |= {state_key(scale, name): own.rows for scale, own in scales.items()}
        return {name: tensor.detach().float().contiguous() for name, tensor in state.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        self.text_ = by_category(state, "text")
        rows = {scale: by_category(state, scale) for scale in SCALES}
        self.references_ = {
            name: {scale: References(own[name]) for scale, own in rows.items() if name in own} for name in self.text_
        }
        self._check_fitted()
        return self

    def _category_for(self, name: str) -> str:
        self._check_fitted()
        return matching_category(name, self.text_)

    def _check_fitted(self) -> None:
        if not getattr(self, "text_", None):
            raise NotFittedError("sentences that were embedded", "none", "call fit or fit_zero_shot first")


def scales_of(features: Features) -> dict[str, Tensor]:
    """Patches and windows `(B, h', w', D)` by the name of their scale. Raises SettingsError where there are none."""
    if len(features.layers.get(WINDOWS, ())) != 2 or WHOLE not in features.layers:
        raise SettingsError(
            "features of an encoder that embeds windows in the space of sentences",
            f"{', '.join(features.layers)}",
            "choose an encoder that can speak: `blemish list encoders`",
        )
    small, mid = features.layers[WINDOWS]
    return {"patches": features.layers[RGB][-1], "small": small, "mid": mid}


def harmonic_means(scores: Tensor, side: int, grid: Sequence[int]) -> Tensor:
    """Scores of windows of `side` × `side` patches `(B, h − side + 1, w − side + 1)` → of patches `(B, h, w)`.

    Each patch gets the harmonic mean of the windows that hold it; 0 where one of these scores 0.
    """
    if tuple(scores.shape[1:]) != (grid[0] - side + 1, grid[1] - side + 1):
        raise SettingsError(f"windows of a grid {tuple(grid)}", f"{tuple(scores.shape[1:])}", "encode them again")
    kernel = scores.new_ones(1, 1, side, side)
    inverse = conv_transpose2d(1 / scores[:, None], kernel)  # (B, 1, h, w)
    count = conv_transpose2d(torch.ones_like(scores[:1, None]), kernel)  # (1, 1, h, w)
    return finite(count / inverse)[:, 0]
