"""Close-ups of an inspected part's region, and of the place of a good picture that it was compared with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image

from blemish.serve.errors import UnknownError
from blemish.serve.records import PartRecord
from blemish.serve.rendering import jpeg
from blemish.serve.service import Service

SIDE = 240  # pixels of a close-up's longer side
CONTEXT = 0.6  # of the region's longer side is shown around it, as the place of the good picture has about it


def region_crop(service: Service, part: PartRecord, number: int, is_good: bool) -> bytes:
    """A region (from 0) as inspected, or the good place it was compared with, as JPEG. Raises UnknownError."""
    regions = part.prediction.get("regions", [])
    if not 0 <= number < len(regions) or not part.has_picture:
        raise UnknownError("a region of a part whose picture is kept", str(number), "look at the part again")
    crop = good_crop(service, part, regions[number]) if is_good else found_crop(service, part, regions[number])
    image = Image.fromarray(crop)
    scale = SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return jpeg(np.asarray(image.resize(size, Image.Resampling.LANCZOS)))[0]


def found_crop(service: Service, part: PartRecord, region: dict[str, Any]) -> np.ndarray:
    """The region and what is around it, `(h, w, 3)` uint8."""
    image = service.renderer.image(part.sha256, part.version)
    left, top, right, bottom = region["box"]
    half = max(right - left, bottom - top) * (0.5 + CONTEXT)
    return square(image, ((left + right) / 2, (top + bottom) / 2), max(half, max(image.shape[:2]) / 24))


def good_crop(service: Service, part: PartRecord, region: dict[str, Any]) -> np.ndarray:
    """The place of a kept good picture, turned as it was compared, `(h, w, 3)` uint8. Raises UnknownError."""
    match = (region.get("attributes") or {}).get("match")
    references = None
    if match is not None:
        model = service.models.inspector(service.core.version(part.version)).model_
        references = model.references.get(part.prediction.get("category") or "")
    image = None
    if match is not None and references is not None and 0 <= match["number"] < len(references.images):
        image = references.images[match["number"]].image
    if match is None or image is None:
        raise UnknownError("a region with a good place beside it", "one without", "look at the heat instead")
    x, y = match["centre"]
    turned = Image.fromarray(image).rotate(match["degrees"], Image.Resampling.BILINEAR, center=(x, y))
    return square(np.asarray(turned), (x, y), max(match["size"]) / 2)


def square(image: np.ndarray, centre: tuple[float, float], half: float) -> np.ndarray:
    """The square of side 2 x `half` about a place (x, y) of an image `(H, W, 3)`, pushed to lie inside it."""
    height, width = image.shape[:2]
    side = max(2, min(math.ceil(2 * half), height, width))
    left = min(max(0, round(centre[0] - side / 2)), width - side)
    top = min(max(0, round(centre[1] - side / 2)), height - side)
    return image[top : top + side, left : left + side]
