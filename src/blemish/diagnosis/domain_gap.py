"""Domain gap: the model cannot recognise what it is shown, or its encoder cannot see defects in it.

Measured by the share of normal images that lie far from all the model was fitted on, and by whether the encoder's
features alone, without the detector, separate an obvious synthetic spot from normal patches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from blemish.augmentation.perturb import slight_copies
from blemish.diagnosis.advice import advice_for
from blemish.diagnosis.material import Material, spot_where_judged
from blemish.diagnosis.signs import InspectedImage, Measure, Sign, Thresholds
from blemish.metrics import auroc
from blemish.numeric.raster import ignored_patches
from blemish.preprocessing.ignored_area import fill_ignored, ignored_pixels
from blemish.utils.indices import evenly_spaced

if TYPE_CHECKING:
    import torch

    from blemish.encoders.base import Encoder
    from blemish.model.fitted import FittedModel
    from blemish.preprocessing.framing import Frame, Framing

NAME = "domain gap"
OBVIOUS = 0.1  # share of the object that the spot covers by which the encoder alone is judged
MOST_ENCODED = 8  # images that the encoder is judged on


def domain_gap(material: Material, thresholds: Thresholds) -> Sign:
    """Whether the images are of the kind the model was fitted on, and one the encoder can see defects in."""
    inspected = material.held_out or material.training
    unknown = [one for one in inspected if not one.prediction.is_known]
    separated, least = separability(material)
    shown = [("A good picture unlike anything learned", one) for one in unknown[:1]]
    shown += [("The obvious spot that the encoder sees least", one) for one in least]
    return Sign(
        NAME,
        "What the encoder sees does not tell good from defective here, or the pictures are not of the kind learned.",
        (
            Measure(
                "good pictures unlike anything the model learned",
                len(unknown) / len(inspected) if inspected else None,
                thresholds.unknown,
                why="" if inspected else "no picture given",
            ),
            Measure(
                "encoder alone tells patches of obvious spots from good ones (AUROC)",
                separated,
                thresholds.separability,
                True,
                why="" if separated is not None else "no good picture of a known part",
            ),
        ),
        advice_for(NAME, material.model.detector),
        tuple(shown),
    )


@dataclass(frozen=True)
class SpotDistances:
    """Distances of one image's patches to the nearest patch of the other images: normal ones and those under a spot."""

    normal: np.ndarray
    spotted: np.ndarray
    image: InspectedImage

    @property
    def auroc(self) -> float:
        """How well the distances separate the two kinds."""
        return separated(self.normal, self.spotted)


def separability(material: Material) -> tuple[float | None, list[InspectedImage]]:
    """AUROC of nearest-patch distances, patches under obvious spots against normal ones, over images of the category
    that most show; and the image where it is least. (None, []) without images."""
    if not material.pairs:
        return None, []
    names = [normal.prediction.category for normal, _ in material.pairs]
    category = max(dict.fromkeys(names), key=names.count)
    normal = [one for one, _ in material.pairs if one.prediction.category == category]
    normal = [normal[i] for i in evenly_spaced(len(normal), MOST_ENCODED)]
    found = spot_distances(material, category, normal)
    overall = separated(np.concatenate([one.normal for one in found]), np.concatenate([one.spotted for one in found]))
    return overall, [min(found, key=lambda one: one.auroc).image]


def separated(normal: np.ndarray, spotted: np.ndarray) -> float:
    """AUROC of two lists of distances."""
    return auroc(np.concatenate([normal, spotted]), [0] * len(normal) + [1] * len(spotted))


def spot_distances(material: Material, category: str | None, images: list[InspectedImage]) -> list[SpotDistances]:
    """Each image's distances with an obvious spot pasted in; channels are divided by their standard deviation."""
    import torch

    from blemish.numeric.neighbours import Neighbours

    patches = PatchEncoder.of(material.model, category)
    normal = [patches.encode(one.image) for one in images]
    if len(normal) == 1:  # for want of other images, it is compared with perturbed copies of itself
        normal += [patches.encode(copy) for copy in slight_copies(images[0].image, 3, seed=material.seed)]
    every = torch.cat(normal)  # (N, D)
    scale = every.std(0, correction=0) + 1e-3 * every.std() + 1e-12  # (D,)
    found = []
    for i, one in enumerate(images):
        random = np.random.default_rng((material.seed, i))
        altered, mask = spot_where_judged(one.image, patches.area, random, (OBVIOUS, OBVIOUS))
        others = Neighbours(torch.cat(normal[:i] + normal[i + 1 :]) / scale)
        under = patches.under(altered, mask)  # (n, D)
        prediction = replace(material.inspector.inspect(altered, category), source=one.prediction.source)
        found.append(
            SpotDistances(
                normal=others.search(normal[i] / scale)[0][:, 0].cpu().numpy(),
                spotted=others.search(under / scale)[0][:, 0].cpu().numpy(),
                image=InspectedImage(altered, prediction, mask),
            )
        )
    return found


@dataclass(frozen=True)
class PatchEncoder:
    """Patches of whole images as a fitted model's encoder sees them; `area` `(h, w)` bool of images is not judged."""

    framing: Framing
    encoder: Encoder
    area: np.ndarray | None = None

    @classmethod
    def of(cls, model: FittedModel, category: str | None) -> PatchEncoder:
        """That of a category."""
        return cls(model.framing_of(category), model.encoder, model.ignored_in(category))

    def encode(self, image: np.ndarray) -> torch.Tensor:
        """The patches of an image `(H, W, 3)` that are judged: `(P, D)`."""
        import torch

        frame = self._frame(image)
        grid = self._grid(frame)
        if self.area is None:
            return grid.flatten(0, 1)
        return grid[torch.from_numpy(~ignored_patches(ignored_pixels(self.area, frame), grid.shape[:2]))]

    def under(self, image: np.ndarray, mask: np.ndarray) -> torch.Tensor:
        """The patches that a mask `(H, W)` of the image covers by half, or most of all where none is: `(n, D)`."""
        import torch
        from torch.nn.functional import adaptive_avg_pool2d

        frame = self._frame(image)
        grid = self._grid(frame)
        height, width = grid.shape[:2]
        framed = torch.from_numpy(framed_mask(mask, frame).astype(np.float32))
        share = adaptive_avg_pool2d(framed[None], (height, width))[0]  # (h, w)
        return grid[share >= min(0.5, float(share.max()))]

    def _frame(self, image: np.ndarray) -> Frame:
        return self.framing.frame(fill_ignored(image, self.area))

    def _grid(self, frame: Frame) -> torch.Tensor:
        from blemish.model.outliers import patches_of

        return patches_of(self.encoder.encode(frame.encoder_input[None]))  # (h, w, D)


def framed_mask(mask: np.ndarray, frame: Frame) -> np.ndarray:
    """A mask `(H, W)` of an image as the image was framed."""
    from PIL import Image

    size = frame.encoder_input.shape[:2]
    if frame.to_image is None:
        return np.asarray(Image.fromarray(mask).resize((size[1], size[0])))
    # pillow asks where each pixel of the frame comes from, which is what `to_image` says
    affine = tuple(np.asarray(frame.to_image, dtype=float).ravel())
    return np.asarray(Image.fromarray(mask).transform((size[1], size[0]), Image.Transform.AFFINE, affine))
