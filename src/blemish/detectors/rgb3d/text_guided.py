"""Text-guided crossmodal mapping: CFM whose modalities must also agree with sentences about normal objects.

Li, Ye, Yu, Xie & Shen, "Text-Guided Multimodal Unified Industrial Anomaly Detection", arXiv 2604.22899, 2026
(https://arxiv.org/abs/2604.22899), on top of CFM (cfm.py). One model for all categories:

    image features ── GACM (gacm.py) ──► point features          Ψ_3d   = ‖measured − predicted‖
    point features ── perceptron ──────► image features          Ψ_rgb  = ‖measured − predicted‖
    either         ── perceptron ──────► text space              Ψ_text = product of both distances to the text anchor
    sentences      ── OCTA (octa.py) ──► the category's text anchor

The published map is α Ψ_rgb ⊙ Ψ_3d + β Ψ_text. Three terms are blemish's own: γ Ψ_rgb ⊙ Ψ_proto, with the distance of a
patch's image to prototypes of normal ones (prototypes.py), δ Ψ_missing, for points that are missing where the image
shows the part (missing_points.py), and, joined by a root of squares, ε Ψ_proto²: what the image alone shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from blemish.detectors.base import Needs, Progress
from blemish.detectors.categories import state_key
from blemish.detectors.patches import pooled_scores
from blemish.detectors.rgb3d.cfm import CrossmodalMapping
from blemish.detectors.rgb3d.crossmodal import CrossmodalDetector
from blemish.detectors.rgb3d.gacm import GACM
from blemish.detectors.rgb3d.missing_points import PointPresence
from blemish.detectors.rgb3d.normalisation import MODALITIES, UNIMODAL, Distances, Scans, nothing
from blemish.detectors.rgb3d.octa import OCTA
from blemish.detectors.rgb3d.patches import scan_patches
from blemish.detectors.rgb3d.prototypes import normalised
from blemish.detectors.rgb3d.sampling import AnomalousPatches, TrainingPatches, random_indices, sample_patches
from blemish.detectors.settings import Count, FractionBelowOne, NotNegative
from blemish.detectors.trained import TrainedNetwork
from blemish.encoders.text.prompts import PromptKind
from blemish.errors import SettingsError
from blemish.numeric.perceptron import perceptron
from blemish.numeric.training import seeded
from blemish.types import POINTS, RGB, Batch, Features, Prompts

TEXT = "text"
# Kinds of distance beside those of CFM (see normalisation.py).
TO_ANCHOR = {modality: f"{TEXT}.{modality}" for modality in MODALITIES}  # the two factors of Ψ_text
MISSING = "missing"  # Ψ_missing
PROTOTYPE = "prototype"  # Ψ_proto
# Chosen as that of scan_detector.py: log scores of further good generated scans have a standard deviation of .34 to
# .43, those of the held-out ones .21, and without it 21 % of such scans are called defective.
SCORE_SPREAD = 2.0
_TEMPERATURE = 0.1  # of the softmax over anchors; chosen by hand


class TextGuidedNetwork(nn.Module):
    """What scoring needs: the crossmodal mapping, both modalities' ways to text space, the presence of points."""

    def __init__(
        self,
        mapping: CrossmodalMapping,
        image_to_text: nn.Module,
        points_to_text: nn.Module,
        presence: PointPresence | None,
    ) -> None:
        super().__init__()
        self.mapping, self.presence = mapping, presence
        self.image_to_text, self.points_to_text = image_to_text, points_to_text

    def to_text(self, modality: str, patches: Tensor) -> Tensor:
        """Standardised patches `(N, D)` of a modality in text space, `(N, Dt)`."""
        mapped: Tensor = self.image_to_text(patches) if modality == RGB else self.points_to_text(patches)
        return mapped.float()

    def standardised(self, modality: str, patches: Tensor) -> Tensor:
        """Patches `(N, D)` of a modality, standardised."""
        standard: Tensor = (self.mapping.image_standard if modality == RGB else self.mapping.points_standard)(patches)
        return standard


@dataclass(kw_only=True, eq=False, repr=False)
class TextGuided(CrossmodalDetector[TextGuidedNetwork]):
    """Text-guided crossmodal mapping (`text-guided`).

        Ψ = α Ψ_rgb ⊙ Ψ_3d + β Ψ_text + γ Ψ_rgb ⊙ Ψ_proto + δ Ψ_missing + Ψ_uni²

    Ψ_uni is the distance of a patch that has one modality only (see `unimodal`), and 0 everywhere else, as Ψ_rgb, Ψ_3d
    and Ψ_text are 0 there. Where normal scans are held out (`fit_held_out`), the map is

        √((Ψ / u)² + (ε Ψ_proto² / v)²)

    with the units u and v of the category: a soft maximum of what the modalities disagree on and of what the image
    shows by itself, so that neither hides the other.

    `crossmodal_weight` α, `text_weight` β, `prototype_weight` γ, `missing_weight` δ, `image_weight` ε: of the terms of
    the map; the published ones are 0.5, 0.5, 0, 0, 0. `prototypes`: as in `CrossmodalDetector`. `mapper`: image →
    points by the published "gacm", by "deep-gacm", whose linear embeddings are perceptrons, or by CFM's "mlp". `text`:
    whether there are text anchors, and so Ψ_text.
    `experts`, `top_k`, `dropout`: of OCTA.

    `prompts`: which sentences, see prompts.py. With "contrastive", patches under synthetic anomalies are pulled, in the
    modalities that these changed, to a second anchor made of abnormal sentences and pushed from the normal one; the
    distance d to the normal anchor then becomes d / (d + d'), d' that to the abnormal one.
    `separation_weight`: of a cross-entropy over which category's anchor a patch belongs to. The published loss (0) is
    also minimal where all categories share one anchor.
    `unimodal`: scans with one modality are scored by "prototypes" or by their distance to the "text" anchor; where
    `text` is false always by prototypes.

    All other settings are `CrossmodalDetector`. The published method is `mapper="gacm", crossmodal_weight=0.5,
    text_weight=0.5, prototype_weight=0, missing_weight=0, image_weight=0, separation_weight=0,
    normalise=False`, except that points → image has two hidden layers, as in CFM, instead of one.
    """

    # Weights, mapper and steps were chosen on synthetic anomalies of further normal scans: docs/methods/text-guided.md.
    mapper: Literal["deep-gacm", "gacm", "mlp"] = "deep-gacm"
    text: bool = True
    prompts: PromptKind = "object"
    crossmodal_weight: NotNegative = 0.8
    text_weight: NotNegative = 0.1
    prototype_weight: NotNegative = 0.3
    missing_weight: NotNegative = 1.0
    image_weight: NotNegative = 1.0
    prototypes: Count = 2048
    separation_weight: NotNegative = 1.0
    experts: Count = 4
    top_k: Count = 2
    dropout: FractionBelowOne = 0.1
    unimodal: Literal["prototypes", "text"] = "prototypes"
    steps: Count = 1500

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k > self.experts:
            raise SettingsError(f"top_k up to {self.experts}, the number of experts", f"{self.top_k}", "lower top_k")
        if self.crossmodal_weight + (self.text_weight if self.text else 0) <= 0:
            raise SettingsError("crossmodal_weight or text_weight above 0", "both 0", "give one of them some weight")

    @property
    def needs(self) -> Needs:
        prompts = self.prompts if self.text else None
        return replace(
            super().needs, prompts=prompts, synthetic_anomalies=self._is_contrastive, score_spread=SCORE_SPREAD
        )

    @property
    def _is_contrastive(self) -> bool:
        return self.text and self.prompts == "contrastive"

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Learn from normal scans, in one pass over `batches`; `loss_` keeps every step's loss."""
        prompts: dict[str, Prompts] = {}
        patches = sample_patches(
            _collecting(batches, prompts), self.reservoir_size, self.holes, self.seed, presence=self.missing_weight > 0
        )
        sentences = self._sentences(prompts, patches)
        text_dim = sentences[0].shape[-1] if sentences else 0
        with seeded(self.seed):
            network = self.build_network((*patches.dims, text_dim))
            octa = OCTA(text_dim, self.experts, self.top_k, self.dropout) if sentences else None
            trained = nn.ModuleList([network, *([octa] if octa else [])]).to(patches.image.device)
            if self.standardise:
                network.mapping.fit_standardisation(patches)
            if network.presence and patches.presence:
                network.presence.standard.fit(patches.presence[0])

            def loss_of(step: int) -> Tensor:
                return self._loss(network, patches, _anchors(octa, sentences) if octa else None)

            loss = self.training.run(trained, loss_of, progress)
        if self.whiten:
            network.mapping.fit_whitening(patches)
        self.trained_ = TrainedNetwork(network, (*patches.dims, text_dim), loss)
        self.units_: dict[str, Tensor] = {}  # (2,), see `fit_held_out`
        self.anchors_: dict[str, Tensor] = {}  # (1 or 2, Dt): normal and, for a contrast, abnormal
        if octa:
            with torch.no_grad():
                self.anchors_ = dict(zip(patches.names, _anchors(octa, sentences), strict=True))
        self.fit_normalisation(patches)
        return self

    def build_network(self, dims: Sequence[int]) -> TextGuidedNetwork:
        """A network for widths (D1, D2, Dt) of image, points and text; Dt = 0: no text."""
        image_dim, point_dim, text_dim = dims
        to_image = perceptron(point_dim, self.width, image_dim, hidden=2)
        to_points = self._mapper(image_dim, point_dim)
        mapping = CrossmodalMapping((image_dim, point_dim), to_points, to_image, self.standardise)
        to_text = self._to_text(image_dim, text_dim), self._to_text(point_dim, text_dim)
        presence = PointPresence(image_dim) if self.missing_weight else None
        return TextGuidedNetwork(mapping, to_text[0], to_text[1], presence)

    def _to_text(self, in_dim: int, text_dim: int) -> nn.Module:
        """The mapping from features of one modality to text space; none without text."""
        return perceptron(in_dim, self.width, text_dim) if text_dim else nn.Identity()

    def _mapper(self, image_dim: int, point_dim: int) -> nn.Module:
        """The mapping from image features to point features."""
        if self.mapper == "mlp":
            return perceptron(image_dim, self.width, point_dim, hidden=2)
        return GACM(image_dim, point_dim, self.width if self.mapper == "deep-gacm" else None)

    def _sentences(self, prompts: Mapping[str, Prompts], patches: TrainingPatches) -> list[Tensor]:
        """Embedded sentences about every category `(C, S, Dt)`: normal ones and, for a contrast, abnormal ones."""
        if not self.text:
            return []
        if self._is_contrastive and patches.anomalous is None:
            raise SettingsError("batches with made-up defects", "batches without", "feed what `needs` asks for")
        found: list[list[Tensor]] = []
        for name in patches.names:
            own = prompts.get(name)
            if own is None or (self._is_contrastive and own.abnormal is None):
                kind = "normal and abnormal sentences" if self._is_contrastive else "sentences"
                raise SettingsError(f"{kind} about the category {name!r}", "none", "feed what `needs.prompts` asks for")
            kinds = (own.normal, own.abnormal) if self._is_contrastive else (own.normal,)
            found.append([kind.to(patches.image.device) for kind in kinds if kind is not None])
        if len({tuple(map(len, own)) for own in found}) > 1:
            raise SettingsError("as many sentences about every category", "unlike numbers", "use the same templates")
        return [torch.stack(kind) for kind in zip(*found, strict=True)]

    def _loss(self, network: TextGuidedNetwork, patches: TrainingPatches, anchors: Tensor | None) -> Tensor:
        """Equation (11), and blemish's terms, on a random draw; a scalar. `anchors` `(C, 1 or 2, Dt)`."""
        drawn = random_indices(self.patches_per_step, patches.label)
        image_features, point_features = network.mapping.standardised(patches.image[drawn], patches.points[drawn])
        loss = network.mapping.loss(image_features, point_features)  # equation (9)
        if network.presence and patches.presence:
            all_image_features, has_points = patches.presence
            others = random_indices(self.patches_per_step, has_points)
            loss = loss + network.presence.loss(all_image_features[others], has_points[others])
        if anchors is None:
            return loss
        label = patches.label[drawn]  # (N,)
        own = anchors[label].float()  # (N, 1 or 2, Dt)
        for modality, rows in ((RGB, image_features), (POINTS, point_features)):
            loss = self._add_text_loss(loss, network.to_text(modality, rows), own, anchors[:, 0], label)
        if self._is_contrastive and patches.anomalous:
            return loss + self._anomalous_loss(network, patches.anomalous, anchors)
        return loss

    def _add_text_loss(self, loss: Tensor, mapped: Tensor, own: Tensor, normal: Tensor, label: Tensor) -> Tensor:
        """`loss`, plus how far normal patches `mapped` to text space `(N, Dt)` are from the anchors of their category.

        `own` `(N, 1 or 2, Dt)` are these, `normal` `(C, Dt)` the normal anchors of all categories.
        """
        loss = loss + (1 - cosine_similarity(mapped, own[:, 0], dim=-1)).mean()  # equation (10)
        if self.separation_weight:
            cosines = normalize(mapped, dim=-1) @ normalize(normal, dim=-1).T  # (N, C)
            loss = loss + self.separation_weight * cross_entropy(cosines.float() / _TEMPERATURE, label)
        if self._is_contrastive:
            loss = loss + _contrast(mapped, own, abnormal=False).mean()
        return loss

    def _anomalous_loss(self, network: TextGuidedNetwork, anomalous: AnomalousPatches, anchors: Tensor) -> Tensor:
        """The contrast on patches under synthetic anomalies, in the modalities that these changed; a scalar."""
        drawn = random_indices(max(1, self.patches_per_step // 4), anomalous.label)
        standardised = network.mapping.standardised(anomalous.image[drawn], anomalous.points[drawn])
        own, loss = anchors[anomalous.label[drawn]].float(), anchors.new_zeros(())
        changed = anomalous.image_changed[drawn], anomalous.points_changed[drawn]
        for modality, rows, counts in zip(MODALITIES, standardised, changed, strict=True):
            each = _contrast(network.to_text(modality, rows), own, abnormal=True)  # (N,)
            loss = loss + (each * counts).sum() / counts.sum().clamp_min(1)
        return loss

    def measure(self, image_features: Tensor, point_features: Tensor, category: str) -> Distances:
        mapping = self.trained.network.mapping
        psi_rgb, psi_3d = mapping.distances(image_features, point_features)
        found = {RGB: psi_rgb, POINTS: psi_3d}
        if self.anchors_:
            standardised = mapping.standardised(image_features, point_features)
            for modality, rows in zip(MODALITIES, standardised, strict=True):
                found[TO_ANCHOR[modality]] = self._to_anchor(modality, rows, category)
        return found

    def _to_anchor(self, modality: str, patches: Tensor, category: str) -> Tensor:
        """Distance of standardised patches `(N, D)` to the category's normal anchor in text space, `(N,)`."""
        mapped = normalize(self.trained.network.to_text(modality, patches), dim=-1)  # (N, Dt)
        anchors = normalize(self.anchors_[category].to(patches.device), dim=-1)  # (1 or 2, Dt)
        distances: Tensor = (mapped[:, None] - anchors).norm(dim=-1)  # (N, 1 or 2)
        return distances[:, 0] / distances.sum(dim=1) if self._is_contrastive else distances[:, 0]

    @torch.no_grad()
    def fit_held_out(self, features: Iterable[Features]) -> Self:
        """Fit the units of the map's two parts to normal scans that were not learned from, category by category.

        A unit is what such scans reach on average, pooled: how far the mappings fail on unseen scans, and how far
        their images lie from the prototypes, differs between products, and the part in which normal scans vary more
        would hide what the other one shows.
        """
        self.units_ = {}
        reached: dict[str, list[list[float]]] = {}
        for batch in features:
            for index, scan in enumerate(scan_patches(batch, self.trained.dims)):
                if self.image_weight and scan.has_both and scan.category in self.normalisation_.names_:
                    category, psi = self.scan_distances(scan)
                    psi = self.as_mapped(psi, category)
                    parts = torch.stack([self._joint(psi), psi[PROTOTYPE].square()])  # (2, h, w)
                    own = [
                        pooled_scores(part[None], batch.take(slice(index, index + 1)), self.pooling) for part in parts
                    ]
                    reached.setdefault(category, []).append([score for (score,) in own])
        units = {name: torch.tensor(pairs).mean(dim=0) for name, pairs in reached.items()}
        self.units_ = {name: pair for name, pair in units.items() if bool((pair > 0).all())}
        return self

    def fused(self, psi: Distances, category: str) -> Tensor:
        joint = self._joint(psi)  # (…, h, w)
        if category not in self.units_:
            return joint
        unit, image_unit = self.units_[category].tolist()
        return root_of_squares(joint / unit, self.image_weight * psi[PROTOTYPE].square() / image_unit)

    def _joint(self, psi: Distances) -> Tensor:
        """The weighted sum of the terms `(…, h, w)` that compare the modalities with each other and with text."""
        score = self.crossmodal_weight * psi[RGB] * psi[POINTS]  # (…, h, w)
        score = score + (psi[UNIMODAL[RGB]] + psi[UNIMODAL[POINTS]]).square()
        if self.anchors_:
            score = score + self.text_weight * psi[TO_ANCHOR[RGB]] * psi[TO_ANCHOR[POINTS]]
        if self.prototype_weight:
            score = score + self.prototype_weight * psi[RGB] * psi[PROTOTYPE]
        return score + self.missing_weight * psi[MISSING]

    @property
    def evidence(self) -> Mapping[str, str] | None:
        return TO_ANCHOR if self.anchors_ else None

    def parts(self, psi: Distances, category: str, image_share: Tensor) -> dict[str, Tensor]:
        """The terms of the map, of "rgb", "points" and, with anchors, "text"; their sum is `fused`.

        α Ψ_rgb ⊙ Ψ_3d is split by `image_share`; γ Ψ_rgb ⊙ Ψ_proto is the image's, δ Ψ_missing the points', β Ψ_text
        the text's. Where units are fitted, √(a² + b²) = a · a / √(a² + b²) + b · b / √(a² + b²), and b is the image's.
        """
        both = self.crossmodal_weight * psi[RGB] * psi[POINTS]
        parts = {
            RGB: both * image_share + psi[UNIMODAL[RGB]].square(),
            POINTS: both * (1 - image_share) + psi[UNIMODAL[POINTS]].square() + self.missing_weight * psi[MISSING],
        }
        if self.prototype_weight:
            parts[RGB] = parts[RGB] + self.prototype_weight * psi[RGB] * psi[PROTOTYPE]
        if self.anchors_:
            parts[TEXT] = self.text_weight * psi[TO_ANCHOR[RGB]] * psi[TO_ANCHOR[POINTS]]
        if category not in self.units_:
            return parts
        unit, image_unit = self.units_[category].tolist()
        joint, alone = self._joint(psi) / unit, self.image_weight * psi[PROTOTYPE].square() / image_unit
        root = root_of_squares(joint, alone)
        root = torch.where(root > 0, root, 1.0)
        parts = {name: part / unit * (joint / root) for name, part in parts.items()}
        parts[RGB] = parts[RGB] + alone * (alone / root)
        return parts

    def distances(self, scan: Scans, category: str) -> Distances:
        """Those of both mappings, to the text anchor where there is one, Ψ_missing, and of the image to prototypes."""
        found = super().distances(scan, category)
        if self.unimodal == "text" and self.anchors_:
            found |= self._unimodal_by_text(scan, category, found)
        found |= {MISSING: self._missing(scan)}
        if self.prototype_weight or self.image_weight:
            found[PROTOTYPE] = self.normalisation_.prototype_distance(RGB, scan, category)
        return found

    def _missing(self, scan: Scans) -> Tensor:
        """Ψ_missing `(…, h, w)` of scans with both modalities; 0 where there are points."""
        presence, has_both = self.trained.network.presence, scan.has_both
        if presence is None or has_both is False:
            return nothing(scan)
        missing = ~scan.valid & has_both
        return scan.spread(presence.anomaly_score(scan.rows(scan.image, missing)), missing)

    def _unimodal_by_text(self, scan: Scans, category: str, found: Distances) -> Distances:
        """The distances `found` of scans' only modality `(…, h, w)`, with those to the text anchor in their place."""
        network, by_text = self.trained.network, {}
        alone = scan.image_alone, scan.points_alone
        for modality, is_alone, patches in zip(MODALITIES, alone, (scan.image, scan.points), strict=True):
            if is_alone is False:
                continue
            where = (torch.ones_like(scan.valid) if modality == RGB else scan.valid) & is_alone
            rows = network.standardised(modality, scan.rows(patches, where))  # (N, D)
            scale = self.normalisation_.scales_[category][TO_ANCHOR[modality]]
            distance = scan.spread(normalised(self._to_anchor(modality, rows, category), scale), where)
            by_text[UNIMODAL[modality]] = torch.where(where, distance, found[UNIMODAL[modality]])
        return by_text

    def state(self) -> dict[str, Tensor]:
        """That of `CrossmodalDetector`, and of each category `anchor/…` and, where they were fitted, `units/…`."""
        state = super().state() | {state_key("anchor", name): anchor for name, anchor in self.anchors_.items()}
        return state | {state_key("units", name): pair for name, pair in self.units_.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Restore what `state` returned."""
        kinds = {key: key.partition("/") for key in state}
        self.anchors_ = {name: state[key] for key, (kind, _, name) in kinds.items() if kind == "anchor"}
        self.units_ = {name: state[key] for key, (kind, _, name) in kinds.items() if kind == "units"}
        return super().load_state(state)


def root_of_squares(one: Tensor, other: Tensor) -> Tensor:
    """√(a² + b²) of tensors ≥ 0 of one shape; finite where that is. Graphs have no `torch.hypot`."""
    larger = torch.maximum(one, other)
    ratio = torch.minimum(one, other) / torch.where(larger > 0, larger, 1.0)
    return larger * (1 + ratio.square()).sqrt()


def _collecting(batches: Iterable[Batch], prompts: dict[str, Prompts]) -> Iterator[Batch]:
    """The batches; their prompts by category are collected in `prompts` on the way."""
    for batch in batches:
        prompts.update(batch.prompts or {})
        yield batch


def _anchors(octa: OCTA, sentences: Iterable[Tensor]) -> Tensor:
    """The anchors of all categories `(C, 1 or 2, Dt)`."""
    return torch.stack([octa(kind) for kind in sentences], dim=1).float()


def _contrast(mapped: Tensor, anchors: Tensor, abnormal: bool) -> Tensor:
    """The cross-entropy `(N,)` of choosing the right one of `anchors` `(N, 2, Dt)` for `mapped` `(N, Dt)`."""
    logits = cosine_similarity(mapped[:, None], anchors, dim=-1) / _TEMPERATURE  # (N, 2)
    return cross_entropy(logits, torch.full((len(mapped),), int(abnormal), device=logits.device), reduction="none")
