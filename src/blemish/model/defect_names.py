"""Names for regions from a user's own list of words, by an encoder whose images share a space with sentences.

A word is as much more like a region than like the good place it is matched with, as the difference of two cosines says
(the difference cancels what both show: the object). Two good places differ, too: what these reach at most is the margin
under which nothing is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize

from blemish import encoders
from blemish.encoders.availability import availability
from blemish.encoders.base import Encoder, text_tower
from blemish.errors import SettingsError, WeightsError
from blemish.model.reference_images import ReferenceImages
from blemish.registry import ENCODERS
from blemish.types import WHOLE, CropPair

MOST_LETTERS, MOST_WORDS = 40, 3  # of a name: it takes a noun's place in a sentence of 25 words
SENTENCE = "a photo of a {name}"  # CLIP's plain prompt (Radford et al., ICML 2021)
SIDE = 224  # pixels that crops are enlarged to
PLACES = ((0.3, 0.3), (0.5, 0.5), (0.7, 0.6))  # (y, x) of normal crops in a kept image
SHARE = 0.25  # of the shorter side, that a normal crop is wide


def checked_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names without blanks around them. Raises SettingsError for none, one too long, and one that comes twice."""
    expected = "names of defects such as scratch,dent,stain"
    if isinstance(names, str):  # a sequence of letters
        raise SettingsError(f"a list of {expected}", repr(names), "put it in brackets")
    found = tuple(" ".join(name.split()) for name in names)
    if not found or not all(found):
        raise SettingsError(expected, "an empty one" if found else "an empty list", "name at least one kind of defect")
    for name in found:
        if len(name) > MOST_LETTERS or len(name.split()) > MOST_WORDS:
            got = f"{name[:MOST_LETTERS]!r}… of {len(name)} letters and {len(name.split())} words"
            raise SettingsError(f"names of at most {MOST_LETTERS} letters and {MOST_WORDS} words", got, "shorten it")
    lower = [name.casefold() for name in found]
    if twice := [name for i, name in enumerate(found) if lower[i] in lower[:i]]:
        raise SettingsError(f"{expected}, each once", f"{twice[0]!r} twice", "leave one of them out")
    return found


def speaking_encoder(name: str | Path | Encoder = "auto", device: str = "cpu") -> Encoder:
    """An encoder that embeds images and sentences in one space; "auto" the first that loads without a download.

    Raises WeightsError where there is none, SettingsError for one without a text tower.
    """
    if name == "auto":
        able = [one for one, entry in ENCODERS.items() if entry.speaks]
        name = next((one for one in able if availability(one).loads), "")
        if not name:
            raise WeightsError(
                "an encoder that reads words as well, to name defects",
                "none on this machine",
                f"run: {ENCODERS[able[0]].get}; or leave the names out: regions are described without them, too",
            )
    found = encoders.build(name, alignment="value", device=device) if isinstance(name, str | Path) else name
    if text_tower(found) is None:
        raise SettingsError(
            "an encoder that reads words as well, to name defects",
            repr(found.name),
            "`blemish list encoders` says which can speak",
        )
    return found


class DefectNamer:
    """Names crops of defects beside their matched good crops by one of some `names`, or by none.

    `encoder` embeds images as a whole, and has a text tower. Raises SettingsError as `checked_names` does.
    """

    def __init__(self, names: Sequence[str], encoder: Encoder) -> None:
        self.names, self.encoder = checked_names(names), encoder
        text = text_tower(encoder)
        assert text is not None  # see `speaking_encoder`
        self.rows = normalize(text.embed([SENTENCE.format(name=name) for name in self.names]), dim=-1)  # (n, E)
        self._margins: WeakKeyDictionary[ReferenceImages, float] = WeakKeyDictionary()

    def gains(self, pairs: Sequence[CropPair]) -> np.ndarray:
        """How much more like each name what is found is than what is good, `(P, n)`: differences of cosines."""
        multiple = self.encoder.size_multiple
        side = max(1, round(SIDE / multiple)) * multiple
        crops = [crop for pair in pairs for crop in (pair.found, pair.good)]
        images = [np.asarray(Image.fromarray(crop).resize((side, side), Image.Resampling.BICUBIC)) for crop in crops]
        whole = torch.cat([self.encoder.encode(image[None]).layers[WHOLE][0].flatten(1).cpu() for image in images])
        cosines = normalize(whole.float(), dim=-1) @ self.rows.T  # (2P, n)
        return np.asarray(cosines[::2] - cosines[1::2])

    def margin(self, references: ReferenceImages) -> float:
        """The largest gain of any name between places of two kept images; infinite where fewer are kept."""
        if references not in self._margins:
            pairs = normal_pairs(references)
            self._margins[references] = float(self.gains(pairs).max()) if pairs else float("inf")
        return self._margins[references]

    def name_of(self, pair: CropPair, references: ReferenceImages) -> tuple[str, float]:
        """The name with the largest gain, and that; "" for the name where it is not above the margin."""
        own = self.gains([pair])[0]  # (n,)
        best = int(own.argmax())
        gain = float(own[best])
        return (self.names[best] if gain > max(0.0, self.margin(references)) else ""), gain


def normal_pairs(references: ReferenceImages) -> list[CropPair]:
    """Crops of the same places of each kept image and of the next one; none where fewer than two are kept."""
    images = [one.image for one in references.images if one.image is not None]
    if len(images) < 2:
        return []
    return [
        CropPair(crop_at(one, place), crop_at(other, place))
        for one, other in zip(images, [*images[1:], images[0]], strict=True)
        for place in PLACES
    ]


def crop_at(image: np.ndarray, place: tuple[float, float]) -> np.ndarray:
    """A square of an image `(H, W, 3)` around a place (y, x) in [0, 1]², inside it."""
    height, width = image.shape[:2]
    side = max(2, round(SHARE * min(height, width)))
    top, left = (min(max(0, round(p * n - side / 2)), n - side) for p, n in zip(place, (height, width), strict=True))
    return image[top : top + side, left : left + side]
