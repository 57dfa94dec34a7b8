"""What makes every experiment small: synthetic discs, encoders without weights, detectors that are fitted at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from blemish.detectors.base import Needs, Progress
from blemish.detectors.settings import Configurable
from blemish.evaluation import CategoryData
from blemish.research.synthetic_scans import ScanSetSpec, write_scans
from blemish.types import RGB, Batch, Features, PatchScores, Sample

SCANS: dict[str, Any] = {
    "encoder": "pixels+points-shape", "text_encoder": "few-words", "shots": [2], "image_size": 64, "steps": 2,
}  # fmt: skip
# Options with which every experiment is through in seconds.
TINY: dict[str, dict[str, Any]] = {
    "cnn-vs-attention": {"detectors": ["patchcore", "near"], "encoder": "pixels", "shots": [2], "image_size": 64},
    "pretraining": {"detectors": ["near"], "encoders": ["small-vit"], "shots": [2], "image_size": 64},
    "identity-mapping": {
        "plain": "narrow", "masked": "narrow", "encoder": "pixels", "bottlenecks": [1, 15], "maskings": [0, 0.5],
        "shots": [3], "image_size": 64, "steps": 1, "defects": 1,
    },
    "local-vs-global": {
        "detectors": ["patchcore", "near"], "encoder": "pixels", "shots": [2], "image_size": 64, "generated": False,
    },
    "logical": {
        "detectors": ["patchcore", "near"], "local": "patchcore", "encoder": "pixels", "shots": [2], "image_size": 64,
        "generated": False, "most_test": 20,
    },
    "zero-shot-prompts": {"encoders": ["tiny-clip"], "image_size": 40},
    "area-distance": {"encoders": ["pixels"], "areas": [0.02, 0.1, 0.4], "images": 2, "defects": 1, "image_size": 64},
    "foundad-encoders": {"encoders": ["pixels"], "steps": 2, "image_size": 64},
    "foundad-projector": {"encoder": "pixels", "depths": [1, 2], "mlp_depths": [1], "steps": 2, "image_size": 64},
    "foundad-layers-and-k": {"encoder": "pixels", "blocks": [0, 1], "tops": [1, 4], "steps": 2, "image_size": 64},
    "shots": {"detectors": ["near", "patchcore"], "encoder": "pixels", "shots": [1, 2, None], "image_size": 64},
    "multimodal-ablation": {**SCANS, "pruned": [0]},
    "multimodal-prompts": SCANS,
    "multimodal-weights": {**SCANS, "alphas": [0, 0.5, 1]},
    "multimodal-cost": {**SCANS, "timed": 1, "own_process": False},
}  # fmt: skip
# Every experiment's identifying columns that the tiny plan spans: how many rows it makes of one category and one seed.
ROWS = {
    "cnn-vs-attention": 2,
    "pretraining": 2,
    "identity-mapping": 4,
    "local-vs-global": 2,
    "logical": 2,
    "zero-shot-prompts": 2,  # no own words are known for discs
    "area-distance": 6,
    "foundad-encoders": 1,
    "foundad-projector": 3,
    "foundad-layers-and-k": 4,
    "shots": 6,
    "multimodal-ablation": 17,  # twelve methods, one of them seen in five more ways
    "multimodal-prompts": 4,
    "multimodal-weights": 3,
    "multimodal-cost": 6,  # three methods, as one model for all and for the category by itself
}


@dataclass(kw_only=True, eq=False, repr=False)
class Near(Configurable):
    """Distance of every patch to the mean patch; is fitted at once."""

    image_size: int = 64
    seed: int = 0

    @property
    def needs(self) -> Needs:
        return Needs(image_size=self.image_size, pooling="top:2")

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        self.patches_ = torch.cat([batch.features[RGB].flatten(0, 2) for batch in batches])  # (N, D)
        return self

    def score(self, features: Features) -> PatchScores:
        return PatchScores((features[RGB] - self.patches_.mean(0)).square().mean(-1))

    def state(self) -> dict[str, torch.Tensor]:
        return {"patches": self.patches_}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> Self:
        self.patches_ = state["patches"]
        return self


@dataclass(kw_only=True, eq=False, repr=False)
class Narrow(Near):
    """A linear auto-encoder: what the first `bottleneck` principal components of good patches do not hold.

    As wide as the patches it rebuilds whatever it sees, up to a small part that it always leaves.
    """

    bottleneck: int = 4
    masking: float = 0.0
    steps: int = 1

    def score(self, features: Features) -> PatchScores:
        mean = self.patches_.mean(0)
        axes = torch.linalg.svd(self.patches_ - mean, full_matrices=False).Vh[: self.bottleneck]  # (k, D)
        away = features[RGB] - mean
        left = (away - away @ axes.T @ axes).square().mean(-1)
        return PatchScores(left + 0.01)


class FewWords:
    """A text encoder that counts letters."""

    def __init__(self, name: str, *, device: str = "cpu") -> None:
        self.name, self.dims, self.licence, self.weights_sha256 = name, 26, "none needed", "none"

    def embed(self, sentences: Sequence[str]) -> torch.Tensor:
        """How often each letter occurs, as rows of unit length `(S, 26)`."""
        counts = [[sentence.count(chr(letter)) for letter in range(97, 123)] for sentence in sentences]
        return torch.nn.functional.normalize(torch.tensor(counts, dtype=torch.float32))


def drawn_disc(seed: int, defective: bool) -> tuple[np.ndarray, np.ndarray]:
    """A noisy disc `(64, 64, 3)` uint8, and the mask `(64, 64)` of a bright square that a defective one carries."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    image = np.where(np.hypot(y - 32, x - 32)[..., None] < 20, (180, 170, 60), (90, 90, 90))
    image = image + random.normal(0, 3, image.shape)
    mask = np.zeros((64, 64), dtype=bool)
    if defective:
        top, left = random.integers(20, 36, 2)
        mask[top : top + 8, left : left + 8] = True
        image[mask] = (250, 10, 10)
    return image.clip(0, 255).astype(np.uint8), mask


def write_dataset(root: Path, categories: Iterable[str] = ("disc",), train: int = 4, test: int = 3) -> Path:
    """Categories in MVTec layout, with masks; two kinds of defect."""
    for number, category in enumerate(categories):
        kinds = [("train", "good", train), ("test", "good", test), ("test", "dent", test), ("test", "spot", test)]
        for kind, (split, state, count) in enumerate(kinds):
            (root / category / split / state).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                image, mask = drawn_disc(1000 * number + 100 * kind + i, state != "good")
                Image.fromarray(image).save(root / category / split / state / f"{i}.png")
                if state != "good":
                    folder = root / category / "ground_truth" / state
                    folder.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(folder / f"{i}_mask.png")
    return root


def write_data(name: str, root: Path) -> Path:
    """What the experiment looks at: a category of images, or of scans."""
    if name.startswith("multimodal"):
        return write_scans(root, ScanSetSpec(classes=1, size=64, train=3, validation=0, good=2, defective=1))
    return write_dataset(root)


def untested(name: str = "disc", good: int = 2) -> CategoryData:
    """A category in memory without test images, for plans that are never carried out."""
    return CategoryData("made", name, tuple(Sample(drawn_disc(i, False)[0], label=0) for i in range(good)), ())
