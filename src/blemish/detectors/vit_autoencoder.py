"""Transformer auto-encoders, plain and masked: good patches are learned by heart, what is not rebuilt is strange.

The registry's `vit-autoencoder` has a bottleneck, `vit-mae` hides patches (He et al., "Masked Autoencoders Are Scalable
Vision Learners", CVPR 2022) and rebuilds each of them from others. Both work on an encoder's features and, beside
the encoder `patches`, on raw pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from blemish.detectors.autoencoder import AutoEncoder, Window
from blemish.detectors.base import Needs, Progress, settings_of
from blemish.detectors.trained import Learned, learned_by, training_of
from blemish.encoders.base import LayerRole
from blemish.encoders.precision import Precision
from blemish.numeric.masking import complementary_masks, random_mask
from blemish.numeric.pooling import SEVERAL_SHARES, pooled_counts
from blemish.numeric.residual import Distance, residual
from blemish.numeric.training import Schedule, begun, forever, seeded
from blemish.types import RGB, Batch, Features, PatchScores
from blemish.utils.validation import check, is_share, is_whole, whole

_FIRST = 8  # batches whose features set the network's scale
_MEASURED = 3  # images of each of them that tell what is left of good patches


class ViTAutoencoder:
    """One auto-encoder for all categories; a patch scores the distance between itself and what was rebuilt.

    Network (see autoencoder.py): `width`, `depth` encoder and `decoder_depth` decoder blocks of `heads` heads;
    `bottleneck` channels a token is squeezed to (0: none); `prototypes` that tokens are mixed from (0: none);
    `queries`: the decoder starts from learned ones; `neighbourhood`: radius of the patches attention may not look at
    (0: none). These, and masking, keep the network from copying what it has never seen.

    `masking`: share of the patches hidden in each step of learning, in squares of `block` patches; the loss counts the
    hidden ones. At inspection `masks` complementary masks hide every patch once. `masking` 0 is a plain auto-encoder.
    `distance`: between standardised patches, "squared" or "cosine", of the loss and of the scores. `whiten`: in the
    scores what is left is measured by how it varies on good patches in each direction (see whiten.py).
    Most steps, a share of `crop_share`, learn a random square of `crop` patches' side (0: all of the image).
    `rotations`: turned copies of every good image, at most `most_copies` of a category. `average`: decay of an
    exponential moving average of the weights (0: the last ones). `precision` "auto" learns under bfloat16 autocast
    where the hardware has it; scores are float32. `layers`, `pooling`, `image_size`, `framing`: see `Needs`.
    """

    def __init__(
        self,
        *,
        width: int = 256,
        depth: int = 4,
        decoder_depth: int = 2,
        heads: int = 4,
        bottleneck: int = 64,
        prototypes: int = 0,
        queries: bool = False,
        neighbourhood: int = 0,
        masking: float = 0.0,
        block: int = 2,
        masks: int = 2,
        distance: Distance = "squared",
        whiten: bool = True,
        steps: int = 400,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.05,
        schedule: Schedule = "cosine",
        warmup: int = 20,
        average: float = 0.0,
        crop: int = 12,
        crop_share: float = 0.95,
        rotations: int = 1,
        most_copies: int = 128,
        layers: LayerRole = "deep",
        pooling: str = SEVERAL_SHARES,
        image_size: int = 336,
        framing: str = "part",
        precision: Precision = "auto",
        seed: int = 0,
    ) -> None:
        self.width, self.depth, self.decoder_depth, self.heads = width, depth, decoder_depth, heads
        self.bottleneck, self.prototypes = bottleneck, prototypes
        self.queries, self.neighbourhood = queries, neighbourhood
        self.masking, self.block, self.masks, self.distance = masking, block, masks, distance
        self.whiten = whiten
        self.steps, self.learning_rate, self.weight_decay = steps, learning_rate, weight_decay
        self.schedule, self.warmup, self.average = schedule, warmup, average
        self.crop, self.crop_share = crop, crop_share
        self.rotations, self.most_copies, self.layers = rotations, most_copies, layers
        self.pooling, self.image_size, self.framing = pooling, image_size, framing
        self.precision, self.seed = precision, seed
        check(
            self,
            *whole(self, 2, "masks"),
            *whole(self, 1, "width", "decoder_depth", "block", "rotations", "image_size"),
            *whole(self, 0, "depth", "bottleneck", "prototypes", "neighbourhood", "crop", "most_copies"),
            ("heads", "a whole number that divides the width", is_whole(heads) and width % heads == 0),
            ("queries", "true or false", isinstance(queries, bool)),
            ("whiten", "true or false", isinstance(whiten, bool)),
            ("masking", "a share in [0, 1)", is_share(masking) and masking < 1),
            ("distance", "squared or cosine", distance in ("squared", "cosine")),
            ("crop_share", "a share in [0, 1]", is_share(crop_share)),
            ("layers", f"one of {', '.join(get_args(LayerRole))}", layers in get_args(LayerRole)),
            ("framing", "plain or part", framing in ("plain", "part")),
        )
        pooled_counts(pooling, 1)
        training_of(self).check()

    @property
    def needs(self) -> Needs:
        return Needs(
            layers=self.layers,
            rotations=self.rotations,
            most_copies=self.most_copies,
            augmentation=True,
            image_size=self.image_size,
            square=True,
            framing=self.framing,
            squared=True,  # 1 − cosine is half the squared distance of unit vectors
            pooling=self.pooling,
        )

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self)

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        """Learn `steps` steps; `loss_` `(steps,)` keeps the loss of every step."""
        first, walk = begun(forever(batches), _FIRST)
        good = torch.cat([batch.features[RGB].flatten(0, 2) for batch in first])  # (N, D)
        with seeded(self.seed):
            dims = (good.shape[-1],)
            network = self._build(dims).to(good.device)
            network.standard.learn(good)

            def loss_of(step: int) -> Tensor:
                patches = network.standard(next(walk).features[RGB])  # (B, H, W, D)
                window = self._window((patches.shape[1], patches.shape[2]), step)
                target = window.of(patches)  # (B, h, w, D)
                grid, target = (target.shape[1], target.shape[2]), target.flatten(1, 2)
                if not self.masking:
                    return residual(network(patches, window=window), target, self.distance).mean()
                hidden = random_mask(grid, self.masking, self.block).to(patches.device)  # (N,)
                answer = network(patches, hidden, window)
                return residual(answer[:, hidden], target[:, hidden], self.distance).mean()

            loss = training_of(self).run(network, loss_of, progress)
        if self.whiten:
            network.whiten.learn(self._moments(network, first))
        self.learned_ = Learned(network, dims, loss)
        return self

    @property
    def loss_(self) -> Tensor:
        """The loss of every step `(steps,)`."""
        return learned_by(self).loss

    def _window(self, grid: tuple[int, int], step: int) -> Window:
        """A random square of `crop` patches' side while crops are learned, else the whole grid."""
        if not self.crop or step >= self.crop_share * self.steps:
            return Window(grid)
        top, left = (int(torch.randint(max(0, side - self.crop) + 1, ())) for side in grid)
        return Window(grid, (top, left), (self.crop, self.crop))

    @torch.no_grad()
    def _moments(self, network: AutoEncoder, batches: Iterable[Batch]) -> Tensor:
        """The mean of r rᵀ over what is left, r, of the patches of good images, `(D, D)`."""
        images = [image[None] for batch in batches for image in batch.features[RGB][:_MEASURED]]
        moments = []
        for answer, target in (self._answered(network, image) for image in images):
            left = (answer - target).flatten(0, 1)  # (N, D)
            moments.append(left.T @ left / len(left))
        return torch.stack(moments).mean(dim=0)

    def _build(self, dims: Sequence[int]) -> AutoEncoder:
        return AutoEncoder(
            sum(dims), self.width, self.depth, self.decoder_depth, self.heads,
            self.bottleneck, self.prototypes, self.queries, self.neighbourhood,
        )  # fmt: skip

    @torch.no_grad()
    def score(self, features: Features) -> PatchScores:
        """What was not rebuilt of every patch, `(B, h, w)`; images go through one at a time, so none sees another."""
        patches = features[RGB]  # (B, h, w, D)
        network = learned_by(self).on(patches.device)
        return PatchScores(torch.cat([self._residual(network, image[None]) for image in patches]))

    def _residual(self, network: AutoEncoder, image: Tensor) -> Tensor:
        """The distance of the patches of one image `(1, h, w, D)` to what they should be, `(1, h, w)`."""
        answer, target = self._answered(network, image)
        if self.whiten:
            left = residual(network.whiten(answer), network.whiten(target))
        else:
            left = residual(answer, target, self.distance)
        return left.view(image.shape[:3])

    def _answered(self, network: AutoEncoder, image: Tensor) -> tuple[Tensor, Tensor]:
        """What the patches `(1, h, w, D)` should be and what they are, `(1, N, D)`; unit vectors for the cosine."""
        patches = network.standard(image)
        pair = self._answer(network, patches), patches.flatten(1, 2)
        return (normalize(pair[0], dim=-1), normalize(pair[1], dim=-1)) if self.distance == "cosine" else pair

    def _answer(self, network: AutoEncoder, patches: Tensor) -> Tensor:
        """What the patches `(1, h, w, D)` should be, `(1, h·w, D)`: each from others alone where masks are learned."""
        if not self.masking:
            return network(patches)
        answer = torch.zeros_like(patches).flatten(1, 2)
        for hidden in complementary_masks((patches.shape[1], patches.shape[2]), self.masks, self.block):
            if hidden.any():
                hidden = hidden.to(patches.device)
                answer[:, hidden] = network(patches, hidden)[:, hidden]
        return answer

    def state(self) -> dict[str, Tensor]:
        """The network, its width and its loss (see trained.py)."""
        return learned_by(self).state()

    def load_state(self, state: Mapping[str, Tensor]) -> Self:
        """Take back what `state` gave."""
        self.learned_ = Learned.from_state(state, self._build)
        return self
