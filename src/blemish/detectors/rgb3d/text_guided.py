"""Images, points and words: crossmodal mapping whose both ends must also agree with what a good part is called.

The text-guided, unified framework for industrial RGB-3D anomaly detection, on top of CFM (see cfm.py). A
geometry-aware mapper (GACM) goes from the image to the points, a perceptron back; two more perceptrons lead from each
of them to an anchor that an adaptor (OCTA) makes of sentences about good parts of the category. One model for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from blemish.detectors.base import Needs, Progress, TextWish, part_of, settings_of, under
from blemish.detectors.categories import key_of
from blemish.detectors.rgb3d.cfm import (
    POOLING,
    PUBLISHED,
    CrossmodalMapping,
    Resolution,
    check_learning,
    needs_of,
    shares_of,
)
from blemish.detectors.rgb3d.gacm import GeometryMapper
from blemish.detectors.rgb3d.normalisation import ALONE, Shares, laid, smoothed
from blemish.detectors.rgb3d.octa import TextAdaptor
from blemish.detectors.rgb3d.patches import Cells, Holes, cells_of
from blemish.detectors.rgb3d.presence import Presence
from blemish.detectors.rgb3d.prototypes import levelled
from blemish.detectors.rgb3d.sampling import Altered, Pool, at_random, pooled
from blemish.detectors.trained import Learned, learned_by, training_of
from blemish.encoders.base import LayerRole
from blemish.encoders.precision import Precision
from blemish.errors import SettingsError
from blemish.numeric.perceptron import perceptron
from blemish.numeric.training import seeded
from blemish.types import POINTS, RGB, Batch, Features, PatchScores, Prompts
from blemish.utils.validation import among, check, flags, is_number, is_share, whole

MapperKind = Literal["deep-gacm", "gacm", "mlp"]
AloneKind = Literal["cells", "text"]
TEXT = "text"
LOST = "lost"
_SIDES = {RGB: f"{TEXT}.{RGB}", POINTS: f"{TEXT}.{POINTS}"}  # the kinds of Ψ_text's two factors
_TEMPERATURE = 0.1  # of the contrast between anchors


class TextNetwork(nn.Module):
    """What inspection needs: the crossmodal mapping, both ways to the space of text, where points should be."""

    def __init__(
        self,
        mapping: CrossmodalMapping,
        image_to_text: nn.Module,
        points_to_text: nn.Module,
        presence: Presence | None,
    ) -> None:
        super().__init__()
        self.mapping, self.presence = mapping, presence
        self.image_to_text, self.points_to_text = image_to_text, points_to_text

    def to_text(self, modality: str, cells: Tensor) -> Tensor:
        """Standardised cells `(N, D)` of a modality in the space of text, `(N, Dt)`."""
        mapped: Tensor = self.image_to_text(cells) if modality == RGB else self.points_to_text(cells)
        return mapped.float()


class TextGuided:
    """Text-guided crossmodal mapping (`text-guided`): Ψ = α Ψ_rgb ⊙ Ψ_3d + β Ψ_text + γ Ψ_rgb ⊙ Ψ_seen + δ Ψ_lost.

    Ψ_rgb and Ψ_3d are those of CFM; Ψ_text is the product of both modalities' distances to the anchor of the category,
    all of unit vectors. Ψ_seen, which is not in the paper, is how far a cell's image lies from the prototypes of good
    cells that also judge scans without points: it knows colours that no good part has. Nor is Ψ_lost: where a scan has
    no points, how surprising that is by its image (see presence.py); all else is 0 there, but in holes (patches.py).

    `mapper`: the image's way to the points: the published "gacm", "deep-gacm", which has perceptrons in the place of
    its linear parts, or CFM's "mlp". `text` false: no words, so that no Ψ_text is left.
    `experts`, `top_k`, `dropout`: of the adaptor. `width`: of hidden layers.

    `prompts`: which sentences there are about a category, see `Needs.text`. With "contrastive", cells under made-up
    defects, where these change a modality, are drawn to a second anchor made of the abnormal sentences and away from
    the normal one; the distance d to the normal anchor then becomes d / (d + d'), d' that to the abnormal one.

    `alone`: scans with one modality alone are judged by prototypes of good "cells" or by their distance to the anchor,
    "text". `apart` weighs a cross-entropy of which category's anchor a cell belongs to; without it the published loss
    is also content with one anchor for all. The paper's way is `mapper=gacm, alpha=0.5, beta=0.5, gamma=0, delta=0,
    apart=0, scaled=false`, but for the way from points to images, which has two hidden layers, as CFM's, not one.

    All other settings are those of `CFM`.
    """

    def __init__(
        self,
        *,
        mapper: MapperKind = "deep-gacm",
        text: bool = True,
        prompts: TextWish = "object",
        alpha: float = 0.8,
        beta: float = 0.1,
        gamma: float = 0.3,
        delta: float = 1.0,
        experts: int = 4,
        top_k: int = 2,
        dropout: float = 0.1,
        apart: float = 1.0,
        width: int = 960,
        resolution: Resolution = "patch",
        steps: int = 1500,
        cells: int = 1024,
        sample: int = 131072,
        learning_rate: float = 1e-3,
        standardise: bool = True,
        whiten: bool = False,
        scaled: bool = True,
        holes: Holes = "fill",
        prototypes: int = 512,
        alone: AloneKind = "cells",
        smooth: bool = True,
        layers: LayerRole = "deep",
        pooling: str = POOLING,
        image_size: int = 224,
        framing: str = "scan",
        precision: Precision = "auto",
        seed: int = 0,
    ) -> None:
        self.mapper, self.text, self.prompts = mapper, text, prompts
        self.alpha, self.beta, self.gamma, self.delta = alpha, beta, gamma, delta
        self.experts, self.top_k, self.dropout, self.apart, self.width = experts, top_k, dropout, apart, width
        self.resolution, self.steps, self.cells, self.sample = resolution, steps, cells, sample
        self.learning_rate, self.standardise, self.whiten, self.scaled = learning_rate, standardise, whiten, scaled
        self.holes, self.prototypes, self.alone, self.smooth = holes, prototypes, alone, smooth
        self.layers, self.pooling, self.image_size, self.framing = layers, pooling, image_size, framing
        self.precision, self.seed = precision, seed
        self._check()

    @property
    def needs(self) -> Needs:
        return needs_of(self, text=self.prompts if self.text else None, synthetic_anomalies=self._contrasts)

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Learn from good scans, walked once; `loss_` `(steps,)` keeps every step's loss, NaN where it was skipped."""
        told: dict[str, Prompts] = {}
        pool = pooled(_noted(batches, told), self.sample, self.holes, self.seed, around=self.delta > 0)
        sentences = self._sentences(told, pool)
        with seeded(self.seed):
            words = sentences[0].shape[-1] if sentences else 0
            network = self._build((*pool.dims, words))
            adaptor = TextAdaptor(words, self.experts, self.top_k, self.dropout) if sentences else None
            learned = nn.ModuleList([network, *([adaptor] if adaptor else [])]).to(pool.image.device)
            if self.standardise:
                network.mapping.learn_scales(pool)
            if network.presence and pool.around:
                network.presence.standard.learn(pool.around[0])

            def loss_of(step: int) -> Tensor:
                anchors = _anchors(adaptor, sentences) if adaptor else None
                return self._loss(network, pool, anchors)

            loss = replace(training_of(self), **PUBLISHED).run(learned, loss_of, progress)
        if self.whiten:
            network.mapping.learn_residuals(pool)
        self.learned_ = Learned(network, (*pool.dims, words), loss)
        with torch.no_grad():
            anchors = _anchors(adaptor, sentences) if adaptor else None
            self.anchors_ = {} if anchors is None else dict(zip(pool.names, anchors, strict=True))
            self.shares_ = shares_of(self).learn(pool, self._measure)
        return self

    @property
    def loss_(self) -> Tensor:
        """The loss of every step `(steps,)`, NaN where it was skipped."""
        return learned_by(self).loss

    @property
    def _contrasts(self) -> bool:
        return self.text and self.prompts == "contrastive"

    def _build(self, dims: Sequence[int]) -> TextNetwork:
        image, points, words = dims
        back = perceptron(points, self.width, image, hidden=2)
        mapping = CrossmodalMapping((image, points), self._forth(image, points), back, self.standardise)
        ends = [perceptron(dim, self.width, words) if words else nn.Identity() for dim in (image, points)]
        return TextNetwork(mapping, ends[0], ends[1], Presence(image) if self.delta else None)

    def _forth(self, image: int, points: int) -> nn.Module:
        """The way from images to points."""
        if self.mapper == "mlp":
            return perceptron(image, self.width, points, hidden=2)
        return GeometryMapper(image, points, self.width if self.mapper == "deep-gacm" else None)

    def _sentences(self, told: Mapping[str, Prompts], pool: Pool) -> list[Tensor]:
        """Embedded sentences about every category `(C, S, Dt)`: normal ones and, for a contrast, abnormal ones."""
        if not self.text:
            return []
        found: list[list[Tensor]] = []
        for name in pool.names:
            own = told.get(name)
            if own is None or (self._contrasts and own.abnormal is None):
                kind = "normal and abnormal sentences" if self._contrasts else "sentences"
                raise SettingsError(f"{kind} about the category {name!r}", "none", "feed what `needs.text` asks for")
            kinds = (own.normal, own.abnormal) if self._contrasts else (own.normal,)
            found.append([kind.to(pool.image.device) for kind in kinds if kind is not None])
        if self._contrasts and pool.altered is None:
            raise SettingsError("batches with made-up defects", "batches without", "feed what `needs` asks for")
        if len({tuple(map(len, own)) for own in found}) > 1:
            raise SettingsError("as many sentences about every category", "unlike numbers", "use the same templates")
        return [torch.stack(kind) for kind in zip(*found, strict=True)]

    def _loss(self, network: TextNetwork, pool: Pool, anchors: Tensor | None) -> Tensor:
        """Equation (11) on cells drawn from the pool; `anchors` `(C, 1 or 2, Dt)`."""
        drawn = at_random(self.cells, pool.label)
        image, points = network.mapping.scaled(pool.image[drawn], pool.points[drawn])
        loss = network.mapping.loss(image, points)
        if network.presence and pool.around:
            everywhere, measured = pool.around
            drawn_there = at_random(self.cells, measured)
            loss = loss + network.presence.loss(everywhere[drawn_there], measured[drawn_there])
        if anchors is None:
            return loss
        own = anchors[pool.label[drawn]].float()  # (N, 1 or 2, Dt)
        for modality, cells in ((RGB, image), (POINTS, points)):
            mapped = network.to_text(modality, cells)
            loss = loss + (1 - cosine_similarity(mapped, own[:, 0], dim=-1)).mean()
            if self.apart:
                among_all = normalize(mapped, dim=-1) @ normalize(anchors[:, 0], dim=-1).T  # cosines (N, C)
                loss = loss + self.apart * cross_entropy(among_all.float() / _TEMPERATURE, pool.label[drawn])
            if self._contrasts:
                loss = loss + _contrast(mapped, own, abnormal=False).mean()
        return loss + self._repelled(network, pool.altered, anchors) if self._contrasts and pool.altered else loss

    def _repelled(self, network: TextNetwork, altered: Altered, anchors: Tensor) -> Tensor:
        """The contrast's other half: cells under synthetic anomalies, of the modalities that these changed."""
        drawn = at_random(max(1, self.cells // 4), altered.label)
        image, points = network.mapping.scaled(altered.image[drawn], altered.points[drawn])
        own, loss = anchors[altered.label[drawn]].float(), anchors.new_zeros(())
        changed = altered.image_changed[drawn], altered.points_changed[drawn]
        for modality, cells, counts in zip((RGB, POINTS), (image, points), changed, strict=True):
            each = _contrast(network.to_text(modality, cells), own, abnormal=True)
            loss = loss + (each * counts).sum() / counts.sum().clamp_min(1)
        return loss

    def _measure(self, image: Tensor, points: Tensor, category: str) -> dict[str, Tensor]:
        mapping = learned_by(self).network.mapping
        rgb, depth = mapping.distances(image, points)
        found = {RGB: rgb, POINTS: depth}
        if self.anchors_:
            for modality, cells in zip((RGB, POINTS), mapping.scaled(image, points), strict=True):
                found[_SIDES[modality]] = self._to_anchor(modality, cells, category)
        return found

    def _to_anchor(self, modality: str, cells: Tensor, category: str) -> Tensor:
        """How far standardised cells `(N, D)` lie from what good ones are called, `(N,)`."""
        mapped = normalize(learned_by(self).network.to_text(modality, cells), dim=-1)
        anchors = normalize(self.anchors_[category].to(cells.device), dim=-1)  # (1 or 2, Dt)
        away = (mapped[:, None] - anchors).norm(dim=-1)  # (N, 1 or 2)
        return away[:, 0] / away.sum(dim=1) if self._contrasts else away[:, 0]

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """Ψ of every cell `(B, h, w)`; scans go through one at a time."""
        maps = []
        for cells in cells_of(features, learned_by(self).dims):
            category, found = self._found(cells)
            if not self.scaled:
                found |= self.shares_.plain(found, category)
            psi = self.alpha * found[RGB] * found[POINTS] + (found[ALONE + RGB] + found[ALONE + POINTS]).square()
            if self.anchors_:
                psi = psi + self.beta * found[_SIDES[RGB]] * found[_SIDES[POINTS]]
            if self.gamma and cells.complete:
                psi = psi + self.gamma * found[RGB] * self.shares_.strange(RGB, cells, category)
            psi = psi + self.delta * found[LOST]
            maps.append(smoothed(psi) if self.smooth else psi)
        return PatchScores(torch.stack(maps))

    @torch.no_grad()
    def explain(self, features: Features) -> dict[str, Tensor]:
        """What each side has to do with the score of every cell, `(B, h, w)` by name, levelled by good cells.

        "rgb" and "points" share √(α Ψ_rgb ⊙ Ψ_3d) by how strange each looks by itself, to prototypes and to the words
        (or are what the only modality says by itself); √(δ Ψ_lost) is the points'. "text" is √(β Ψ_text).
        """
        found: dict[str, list[Tensor]] = {}
        for cells in cells_of(features, learned_by(self).dims):
            category, shares = self._found(cells)
            sides = self.shares_.blamed(shares, cells, category, _SIDES if self.anchors_ else None)
            if cells.complete:
                sides = {modality: self.alpha**0.5 * share for modality, share in sides.items()}
            sides[POINTS] = sides[POINTS] + (self.delta * shares[LOST]).sqrt()
            if self.anchors_:
                sides[TEXT] = (self.beta * shares[_SIDES[RGB]] * shares[_SIDES[POINTS]]).sqrt()
            for side, grid in sides.items():
                found.setdefault(side, []).append(grid)
        return {side: torch.stack(grids) for side, grids in found.items()}

    def _found(self, cells: Cells) -> tuple[str, Shares]:
        """The category that answers for a scan, and each Ψ, levelled by its good cells."""
        learned_by(self).on(cells.image.device)
        category = self.shares_.category_for(cells)
        found = self.shares_.of(cells, category, self._measure)
        if self.alone == "text" and self.anchors_ and not cells.complete:
            found |= self._by_text(cells, category)
        return category, found | {LOST: self._lost(cells)}

    def _lost(self, cells: Cells) -> Tensor:
        """Ψ_lost of a whole scan, `(h, w)`; 0 where there are points."""
        presence, gone = learned_by(self).network.presence, ~cells.measured
        if presence is None or not cells.complete or not gone.any():
            return torch.zeros(gone.shape, device=cells.image.device)
        return laid(presence.strangeness(cells.image[gone]), gone)

    def _by_text(self, cells: Cells, category: str) -> Shares:
        """What the one modality of a scan says by its distance to the anchor."""
        modality, where = (RGB, torch.ones_like(cells.measured)) if cells.seen else (POINTS, cells.measured)
        away = self._to_anchor(modality, self._mapped_from(cells, modality, where), category)
        return {ALONE + modality: laid(levelled(away, self.shares_.levels_[category][_SIDES[modality]]), where)}

    def _mapped_from(self, cells: Cells, modality: str, where: Tensor) -> Tensor:
        mapping = learned_by(self).network.mapping
        if modality == RGB:
            return mapping.image_standard(cells.image[where])
        return mapping.points_standard(cells.points[where])

    def state(self) -> dict[str, Tensor]:
        """The network, its widths and its loss (see trained.py), `shares.…`, and `anchor/…` of each category."""
        learned = learned_by(self).state()
        shares = under("shares", self.shares_.state())
        return {**learned, **shares, **{key_of("anchor", name): anchor for name, anchor in self.anchors_.items()}}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        kinds = {key: key.partition("/") for key in state}
        self.anchors_ = {name: state[key] for key, (kind, _, name) in kinds.items() if kind == "anchor"}
        self.learned_ = Learned.from_state(state, self._build)
        self.shares_ = shares_of(self).load_state(part_of(state, "shares"))
        return self

    def _check(self) -> None:
        check_learning(self)
        check(
            self,
            among(self, "mapper", *get_args(MapperKind)),
            among(self, "prompts", *get_args(TextWish)),
            among(self, "alone", *get_args(AloneKind)),
            *flags(self, "text"),
            *whole(self, 1, "experts", "top_k"),
            *((name, "at least 0", is_number(value) and value >= 0) for name, value in self._weights().items()),
            ("dropout", "in [0, 1)", is_share(self.dropout) and self.dropout < 1),
        )
        if self.top_k > self.experts:
            raise SettingsError(f"top_k up to {self.experts}, the number of experts", f"{self.top_k}", "lower top_k")
        if self.alpha + (self.beta if self.text else 0) <= 0:
            raise SettingsError("alpha or beta above 0", "both 0", "give one of them some weight")

    def _weights(self) -> dict[str, float]:
        return {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma, "delta": self.delta, "apart": self.apart}


def _noted(batches: Iterable[Batch], told: dict[str, Prompts]) -> Iterator[Batch]:
    """The batches, while what they say about categories is written down in `told`."""
    for batch in batches:
        told.update(batch.prompts or {})
        yield batch


def _anchors(adaptor: TextAdaptor, sentences: Iterable[Tensor]) -> Tensor:
    """The anchors of all categories `(C, 1 or 2, Dt)`."""
    return torch.stack([adaptor(kind) for kind in sentences], dim=1).float()


def _contrast(mapped: Tensor, anchors: Tensor, abnormal: bool) -> Tensor:
    """The cross-entropy `(N,)` of choosing the right one of `anchors` `(N, 2, Dt)` for `mapped` `(N, Dt)`."""
    logits = cosine_similarity(mapped[:, None], anchors, dim=-1) / _TEMPERATURE  # (N, 2)
    return cross_entropy(logits, torch.full((len(mapped),), int(abnormal), device=logits.device), reduction="none")
