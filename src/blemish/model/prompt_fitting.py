"""Learn prompts that name no product, from pictures of good and defective parts of other products, with masks.

Zhou et al., "AnomalyCLIP", ICLR 2024 (arXiv 2310.18961): both towers are frozen, tokens of two prompts are learned.
Loss: cross-entropy of images, and for each of four depths focal and Dice losses of the map against the mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, normalize

from blemish.data.full_scale import FullScale, learn_full_scale
from blemish.data.images import load_mask
from blemish.data.samples import batch_of, image_of
from blemish.detectors.base import Progress
from blemish.encoders.base import Encoder
from blemish.encoders.identity import identity
from blemish.encoders.image_text.learned_prompts import LearnedPrompts, PromptFacts
from blemish.encoders.image_text.text_tower import clip_text_tower
from blemish.errors import DatasetError, SettingsError
from blemish.numeric.segmentation_loss import dice_loss, focal_loss
from blemish.numeric.training import Training, seeded
from blemish.preprocessing.framing import PlainFraming, check_image_size
from blemish.scoring.describe import count_in_words
from blemish.types import ALIGNED, WHOLE, Sample
from blemish.utils.validation import check, check_seed, whole


@dataclass(frozen=True, kw_only=True)
class PromptTraining:
    """How prompts are learned; the defaults are the paper's. `temperature` τ of the softmax."""

    epochs: int = 15
    batch_size: int = 8
    learning_rate: float = 1e-3
    temperature: float = 0.07
    image_size: int = 518
    seed: int = 111

    def __post_init__(self) -> None:
        check(self, *whole(self, 1, "epochs", "batch_size", "image_size"))
        check_seed(self.seed)
        positive = [(name, "a number above 0", getattr(self, name) > 0) for name in ("learning_rate", "temperature")]
        check(self, *positive)
        check_image_size(self.image_size)


@dataclass(frozen=True, eq=False)
class FittedPrompts:
    """The learned tokens, what they embed to `(2, E)`, facts to keep with them, and the loss of every step."""

    learned: LearnedPrompts
    embeddings: Tensor
    facts: PromptFacts
    loss: Tensor


def fit_prompts(
    encoder: Encoder, samples: Sequence[Sample], how: PromptTraining, progress: Progress | None = None
) -> FittedPrompts:
    """Learn from labelled samples; of defective ones without a mask, from their label alone.

    `encoder` was built with the alignment v-v-layers. Raises DatasetError unless there are good and defective ones.
    """
    known = [sample for sample in samples if sample.label is not None]
    if {sample.label for sample in known} != {0, 1}:
        raise DatasetError(
            "good and defective pictures of other products, to learn prompts from",
            f"{count_in_words(len(known), 'picture')} of one kind" if known else "none",
            "give a dataset with labels, such as MVTec AD",
        )
    if getattr(encoder, "alignment", None) != "v-v-layers":
        raise SettingsError("a CLIP built with the alignment v-v-layers", repr(encoder.name), "build it so")
    tower = clip_text_tower(encoder)
    framing = PlainFraming(how.image_size, encoder.size_multiple, square=True)
    full_scale = learn_full_scale(known)
    order = epochs_of(len(known), how)
    with seeded(how.seed):
        learned = LearnedPrompts(tower).to(tower.device)

        def loss_of(step: int) -> Tensor:
            batch = [known[i] for i in order[step]]
            return batch_loss(learned.embed(tower), encoder, batch, framing, how.temperature, full_scale)

        training = Training(
            len(order), how.learning_rate, weight_decay=0, schedule="constant", warmup_steps=0, precision="fp32"
        )
        loss = training.run(learned, loss_of, progress)
    with torch.no_grad():
        embeddings = learned.embed(tower)
    names = tuple(sorted({sample.category or "" for sample in known}))
    facts = PromptFacts(
        encoder.name, encoder.weights_sha256, how.image_size, len(known), names, how.epochs, identity(encoder)
    )
    return FittedPrompts(learned, embeddings, facts, loss)


def epochs_of(count: int, how: PromptTraining) -> list[np.ndarray]:
    """The indices of every batch: each epoch shows every sample once, in a drawn order."""
    random = np.random.default_rng(how.seed)
    batches = math.ceil(count / how.batch_size)
    return [part for _ in range(how.epochs) for part in np.array_split(random.permutation(count), batches)]


def batch_loss(
    prompts: Tensor,
    encoder: Encoder,
    batch: Sequence[Sample],
    framing: PlainFraming,
    temperature: float,
    full_scale: FullScale,
) -> Tensor:
    """The loss, a scalar, of the embedded `prompts` `(2, E)` on some samples."""
    inputs = [framing.frame(image_of(sample, full_scale)).encoder_input for sample in batch]
    features = encoder.encode(batch_of(inputs))
    labels = torch.tensor([int(sample.label or 0) for sample in batch], device=prompts.device)  # (B,)
    whole = normalize(features.layers[WHOLE][0][:, 0, 0], dim=-1)  # (B, E)
    loss = cross_entropy(whole @ prompts.T / temperature, labels)
    rows = [i for i, sample in enumerate(batch) if sample.label == 0 or sample.mask is not None]
    if not rows:
        return loss
    size = inputs[0].shape[:2]
    masks = torch.stack([mask_on(batch[i], size) for i in rows]).to(prompts.device)  # (b, H, W)
    for layer in features.layers[ALIGNED]:  # (B, h, w, E)
        logits = (normalize(layer[rows], dim=-1) @ prompts.T / temperature).permute(0, 3, 1, 2)  # (b, 2, h, w)
        probabilities = interpolate(logits, size, mode="bilinear", align_corners=True).softmax(1)[:, 1]  # (b, H, W)
        loss = loss + focal_loss(probabilities, masks) + dice_loss(probabilities, masks)
        loss = loss + dice_loss(1 - probabilities, 1 - masks)
    return loss


def mask_on(sample: Sample, size: tuple[int, int]) -> Tensor:
    """The mask of a sample on the encoder's input `(H, W)`, 1 where the defect is; 0 all over for a good one."""
    if sample.label == 0 or sample.mask is None:
        return torch.zeros(size)
    mask = torch.from_numpy(load_mask(sample.mask).astype(np.float32))[None, None]
    return (interpolate(mask, size, mode="area")[0, 0] >= 0.5).float()
