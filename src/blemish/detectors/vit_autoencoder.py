"""Transformer auto-encoder of an encoder's patch features, or of raw pixels; the reconstruction error is the score.

One method of the reconstruction family in Ben Ammar, Mendoza, Belkhir, Manzanera, Franchi, "Foundation Models and
Transformers for Anomaly Detection: A Survey", Information Fusion 126, 2026, https://arxiv.org/abs/2507.15905, with the
cures it names for identity mapping, each a setting:

* a bottleneck, the default;
* masking: He, Chen, Xie, Li, Dollár, Girshick, "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022,
  https://arxiv.org/abs/2111.06377 (the detector vit-mae);
* prototypes: Gong, Liu, Le, Saha, Mansour, Venkatesh, van den Hengel, "Memorizing Normality to Detect Anomaly", ICCV
  2019, https://arxiv.org/abs/1904.02639;
* learned queries and neighbour-masked attention: You et al., "A Unified Model for Multi-class Anomaly Detection",
  NeurIPS 2022, https://arxiv.org/abs/2206.03687.

The encoder `patches` makes it an auto-encoder of pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from blemish.detectors.base import Needs
from blemish.detectors.settings import (
    Count,
    CountOrZero,
    Fraction,
    FractionBelowOne,
    ImageFraming,
    NotNegative,
    Pooling,
    Positive,
    check_heads,
)
from blemish.detectors.trained import BatchTrainedDetector
from blemish.encoders.base import LayerRole
from blemish.errors import SettingsError
from blemish.numeric.attention import DecoderBlock, TransformerBlock, all_but_neighbours
from blemish.numeric.masking import complementary_masks, random_mask
from blemish.numeric.pooling import SEVERAL_SHARES
from blemish.numeric.positions import sine_positions
from blemish.numeric.residual import Distance, residual
from blemish.numeric.standardise import Standardise
from blemish.numeric.whiten import Whiten
from blemish.types import RGB, Batch, Features, PatchScores
from blemish.utils.validation import Interval

QUERY_SIDE = 16  # learned queries a side, interpolated to the grid at hand
TEMPERATURE = 0.1  # of the softmax over the cosines of a token to the prototypes; MemAE's 1 leaves them near uniform
RESIDUAL_IMAGES = 3  # images of each first batch whose residuals are measured; bounds the time of it


@dataclass(frozen=True)
class Window:
    """The rectangle of a `grid` `(H, W)` that starts at `corner` and is `size` large, or what of it there is."""

    grid: tuple[int, int]
    corner: tuple[int, int] = (0, 0)
    size: tuple[int, int] | None = None

    def of(self, cells: Tensor) -> Tensor:
        """`(B, H, W, D)` → `(B, h, w, D)`."""
        (top, left), (height, width) = self.corner, self.size or self.grid
        return cells[:, top : top + height, left : left + width]


class AutoEncoder(nn.Module):
    """Linear, encoder blocks, a bottleneck, decoder blocks, linear.

    `bottleneck`: channels that a token is squeezed to (0: none). `prototypes`: how many there are to mix tokens from
    (0: none). `queries`: the decoder starts from learned queries and attends to the encoded tokens, instead of starting
    from these. `neighbourhood`: radius of the square of patches that attention is masked in, in all blocks (0: no
    mask). Positional encodings are sines of the place in the image, so any grid will do.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        depth: int,
        decoder_depth: int,
        heads: int,
        bottleneck: int = 0,
        prototypes: int = 0,
        queries: bool = False,
        neighbourhood: int = 0,
    ) -> None:
        super().__init__()
        self.standard = Standardise(dim)
        self.neighbourhood = neighbourhood
        self.enter = nn.Linear(dim, width)
        self.encoder = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.encoded = nn.LayerNorm(width, eps=1e-6)
        self.squeeze = nn.Linear(width, bottleneck) if bottleneck else nn.Identity()
        self.prototypes = Prototypes(prototypes, bottleneck or width) if prototypes else nn.Identity()
        self.widen = nn.Linear(bottleneck, width) if bottleneck else nn.Identity()
        self.hidden = nn.Parameter(torch.zeros(width))  # the mask token
        block = DecoderBlock if queries else TransformerBlock
        self.queries = nn.Parameter(torch.zeros(1, width, QUERY_SIDE, QUERY_SIDE)) if queries else None
        self.decoder = nn.ModuleList(block(width, heads) for _ in range(decoder_depth))
        self.decoded = nn.LayerNorm(width, eps=1e-6)
        self.leave = nn.Linear(width, dim)
        self.whiten = Whiten(dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for parameter in (self.hidden, self.queries):
            if parameter is not None:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, patches: Tensor, hidden: Tensor | None = None, window: Window | None = None) -> Tensor:
        """Standardised `patches` `(B, H, W, dim)` → the reconstruction of those in the `window`, `(B, N, dim)`.

        `hidden` `(N,)` bool says which patches of the window the network may not see; these are reconstructed from the
        others only. Patches beyond the window (None: all of the image) are not seen; positions are those in the image.
        """
        window = window or Window((patches.shape[1], patches.shape[2]))
        patches, device = window.of(patches), patches.device  # (B, h, w, dim)
        grid, patches = (patches.shape[1], patches.shape[2]), patches.flatten(1, 2)  # (B, N, dim)
        encodings = sine_positions(window.grid, len(self.hidden)).to(device)  # (H, W, width)
        positions = window.of(encodings[None]).flatten(0, 2)  # (N, width)
        mask = all_but_neighbours(grid, self.neighbourhood) if self.neighbourhood else None  # (N, N)
        mask = None if mask is None else mask.to(device)
        every = torch.arange(positions.shape[0], device=device)  # (N,)
        visible = every if hidden is None else (~hidden).nonzero()[:, 0]  # (V,)
        codes = self._encode(patches, positions, mask, visible)  # (B, V, width)
        source = self.hidden.expand(patches.shape[0], *positions.shape).index_copy(1, visible, codes) + positions
        return self._decode(source, positions, mask, window)

    def _encode(self, patches: Tensor, positions: Tensor, mask: Tensor | None, visible: Tensor) -> Tensor:
        """The codes of the patches at `visible` `(V,)`, after the bottleneck: `(B, V, width)`."""
        tokens = self.enter(patches[:, visible]) + positions[visible]  # (B, V, width)
        if mask is not None:
            mask = mask[visible][:, visible]  # (V, V)
            mask = mask | ~mask.any(dim=1, keepdim=True)  # a patch with none left to attend to attends to all
        for block in self.encoder if len(visible) else ():
            tokens = block(tokens, mask)  # (B, V, width)
        return self.widen(self.prototypes(self.squeeze(self.encoded(tokens)))).to(self.hidden.dtype)

    def _decode(self, source: Tensor, positions: Tensor, mask: Tensor | None, window: Window) -> Tensor:
        """From the codes of all patches `(B, N, width)` to their reconstruction, `(B, N, dim)`."""
        tokens = source
        if self.queries is not None:
            queries = interpolate(self.queries, window.grid, mode="bilinear", align_corners=False)  # (1, width, H, W)
            tokens = window.of(queries.permute(0, 2, 3, 1)).flatten(1, 2).expand_as(source) + positions
        for block in self.decoder:
            tokens = block(tokens, mask) if self.queries is None else block(tokens, source, mask)  # (B, N, width)
        return self.leave(self.decoded(tokens)).float()


class Prototypes(nn.Module):
    """A memory of `count` learned prototypes; each token becomes a sparse mixture of those it resembles.

    Softmax over cosines; weights below 1 / `count` are dropped (MemAE's hard shrinkage) and the rest adds up to 1.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.items = nn.Parameter(torch.randn(count, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """`tokens` `(B, N, width)` → the same shape, inside the convex hull of the prototypes."""
        cosines = normalize(tokens.float(), dim=-1) @ normalize(self.items, dim=-1).T  # (B, N, count)
        weights = (cosines / TEMPERATURE).softmax(dim=-1)
        weights = torch.where(weights >= 1 / len(self.items), weights, 0)
        return normalize(weights, p=1.0, dim=-1) @ self.items


@dataclass(kw_only=True, eq=False, repr=False)
class ViTAutoencoder(BatchTrainedDetector[AutoEncoder]):
    """One auto-encoder for all categories; patch score = distance between the patch and its reconstruction.

    Network (see `AutoEncoder`): `width`, `depth` encoder and `decoder_depth` decoder blocks of `heads` heads;
    `bottleneck`, `prototypes`, `queries`, `neighbourhood`. These, and masking, keep the network from copying anomalies.

    `masking`: fraction of the patches hidden in each training step, in squares of `block` patches; the loss counts the
    hidden ones. At inspection `masks` complementary masks hide every patch once. `masking` 0 is a plain auto-encoder.
    `distance`: between standardised patches, "squared" or "cosine", of the loss and of the scores. `whiten`: in the
    scores the residual is measured by how it varies on normal patches in each direction (see whiten.py).
    Most steps, a fraction of `crop_share`, train on a random square of `crop` patches' side (0: all of the image).
    `rotations`: turned copies of every normal image, at most `max_copies` of a category. `layers`, `pooling`,
    `image_size`, `framing`: see `Needs`. All other settings: see `TrainedDetector`.
    """

    width: Count = 256
    depth: CountOrZero = 4
    decoder_depth: Count = 2
    heads: Count = 4
    bottleneck: CountOrZero = 64
    prototypes: CountOrZero = 0
    queries: bool = False
    neighbourhood: CountOrZero = 0
    masking: FractionBelowOne = 0.0
    block: Count = 2
    masks: Annotated[int, Interval(2)] = 2
    distance: Distance = "squared"
    whiten: bool = True
    steps: Count = 400
    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = 0.05
    crop: CountOrZero = 12
    crop_share: Fraction = 0.95
    rotations: Count = 1
    max_copies: CountOrZero = 128
    layers: LayerRole = "deep"
    pooling: Pooling = SEVERAL_SHARES
    image_size: Count = 336
    framing: ImageFraming = "part"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.width, self.heads)

    @property
    def needs(self) -> Needs:
        return Needs(
            layers=self.layers,
            rotations=self.rotations,
            max_copies=self.max_copies,
            augmentation=True,
            image_size=self.image_size,
            square=True,
            framing=self.framing,
            score_exponent=2,  # 1 − cosine is half the squared distance of unit vectors
            pooling=self.pooling,
        )

    def build_network(self, dims: Sequence[int]) -> AutoEncoder:
        return AutoEncoder(
            sum(dims),
            self.width,
            self.depth,
            self.decoder_depth,
            self.heads,
            bottleneck=self.bottleneck,
            prototypes=self.prototypes,
            queries=self.queries,
            neighbourhood=self.neighbourhood,
        )

    def widths(self, batch: Batch) -> tuple[int, ...]:
        return (batch.features[RGB].shape[-1],)

    def fit_scales(self, network: AutoEncoder, first: Sequence[Batch]) -> None:
        rows = torch.cat([batch.features[RGB].flatten(0, 2) for batch in first])  # (N, D)
        network.standard.fit(rows, raised=True)

    def training_step(self, network: AutoEncoder, batch: Batch, step: int) -> Tensor:
        """The mean distance to the reconstruction: of the hidden patches where some are, else of all."""
        patches = network.standard(batch.features[RGB])  # (B, H, W, D)
        window = self._window((patches.shape[1], patches.shape[2]), step)
        target = window.of(patches)  # (B, h, w, D)
        grid, target = (target.shape[1], target.shape[2]), target.flatten(1, 2)  # (B, N, D)
        if not self.masking:
            return residual(network(patches, window=window), target, self.distance).mean()
        hidden = random_mask(grid, self.masking, self.block).to(patches.device)  # (N,)
        output = network(patches, hidden, window)  # (B, N, D)
        return residual(output[:, hidden], target[:, hidden], self.distance).mean()

    def kept_for_residuals(self, first: Sequence[Batch]) -> Sequence[Tensor]:
        return [batch.features[RGB][:RESIDUAL_IMAGES].clone() for batch in first] if self.whiten else []

    def fit_residuals(self, network: AutoEncoder, kept: Sequence[Tensor], stream: Iterator[Batch]) -> None:
        if self.whiten:
            network.whiten.fit(self._moments(network, kept))

    def _window(self, grid: tuple[int, int], step: int) -> Window:
        """A random square of `crop` patches' side in the cropped steps, else the whole grid."""
        if not self.crop or step >= self.crop_share * self.steps:
            return Window(grid)
        top, left = (int(torch.randint(max(0, side - self.crop) + 1, ())) for side in grid)
        return Window(grid, (top, left), (self.crop, self.crop))

    @torch.no_grad()
    def _moments(self, network: AutoEncoder, batches: Sequence[Tensor]) -> Tensor:
        """The mean of r rᵀ over the residuals r of the patches of normal images `(B, h, w, D)`, `(D, D)`."""
        images = [image[None] for batch in batches for image in batch]
        moments = []
        for output, target in (self._output_and_target(network, image) for image in images):
            rows = (output - target).flatten(0, 1)  # (N, D)
            moments.append(rows.T @ rows / len(rows))  # (D, D)
        return torch.stack(moments).mean(dim=0)

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """The reconstruction error of every patch, `(B, h, w)`; images pass one at a time, so none attends another."""
        patches = features[RGB]  # (B, h, w, D)
        network = self.trained.on(patches.device)
        return PatchScores(torch.cat([self._residual(network, image[None]) for image in patches]))

    def graph_scores(self, features: Features, category: str) -> PatchScores:
        """As `score`, of all images at once; one network holds for every category. Raises SettingsError with masks."""
        if self.masking:
            raise SettingsError(
                "an auto-encoder without masks, to be exported",
                f"masking={self.masking}",
                "fit vit-autoencoder instead",
            )
        patches = features[RGB]  # (B, h, w, D)
        return PatchScores(self._residual(self.trained.network, patches))

    def _residual(self, network: AutoEncoder, image: Tensor) -> Tensor:
        """The distance of the patches of one image `(1, h, w, D)` to their reconstruction, `(1, h, w)`."""
        output, target = self._output_and_target(network, image)  # (1, N, D) each
        if self.whiten:
            distance = residual(network.whiten(output), network.whiten(target))  # (1, N)
        else:
            distance = residual(output, target, self.distance)  # (1, N)
        return distance.view(image.shape[:3])

    def _output_and_target(self, network: AutoEncoder, image: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and standardised patches of an image `(1, h, w, D)`: `(1, N, D)` each; unit for the cosine."""
        patches = network.standard(image)  # (1, h, w, D)
        output, target = self._reconstruct(network, patches), patches.flatten(1, 2)
        return (normalize(output, dim=-1), normalize(target, dim=-1)) if self.distance == "cosine" else (output, target)

    def _reconstruct(self, network: AutoEncoder, patches: Tensor) -> Tensor:
        """The patches `(1, h, w, D)` reconstructed, `(1, h·w, D)`: each from others only where masks are used."""
        if not self.masking:
            return network(patches)
        output = torch.zeros_like(patches).flatten(1, 2)  # (1, N, D)
        for hidden in complementary_masks((patches.shape[1], patches.shape[2]), self.masks, self.block):  # (N,)
            if hidden.any():
                hidden = hidden.to(patches.device)
                output[:, hidden] = network(patches, hidden)[:, hidden]
        return output
