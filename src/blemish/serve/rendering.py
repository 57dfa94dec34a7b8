"""The pictures that people look at: as it came, outlined, as heat, small."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from blemish.data.images import load_image
from blemish.report.overlays import draw_overlay, heat_image
from blemish.serve.core import Core
from blemish.serve.errors import UnknownError
from blemish.serve.records import PartRecord
from blemish.types import Prediction

THUMBNAIL = 320  # pixels of the longer side
VIEWS = ("image", "overlay", "heat", "thumbnail")
# Formats that every browser shows; others are sent as PNG.
SHOWN = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


class Renderer:
    """Draws the views of inspected parts and good pictures."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def part(self, part: PartRecord, view: str) -> tuple[bytes, str]:
        """A view of a part as file content and its media type. Raises UnknownError where it cannot be had."""
        if view not in VIEWS:
            raise UnknownError(f"one of {', '.join(VIEWS)}", repr(view), "choose one of them")
        if part.error or not part.has_picture:
            raise UnknownError("a part whose picture is kept", "one without", "see its error, or the retention")
        if view in ("image", "thumbnail"):
            return self.picture(part.sha256, is_small=view == "thumbnail")
        size = part.prediction["size"]
        anomaly_map = self._core.pictures.map(part.id, (size[0], size[1]))
        prediction = Prediction.from_dict(part.prediction, anomaly_map, part.prediction["region_threshold"])
        if view == "heat":
            return jpeg(heat_image(prediction))
        return jpeg(draw_overlay(load_image(self._core.pictures.read(part.sha256)), prediction, strip=False))

    def picture(self, sha256: str, is_small: bool = False) -> tuple[bytes, str]:
        """A stored picture as browsers show it, or a small version of it."""
        content = self._core.pictures.read(sha256)
        if not is_small:
            for head, kind in SHOWN.items():
                if content.startswith(head):
                    return content, kind
        rgb = Image.fromarray(load_image(content))
        if is_small:
            rgb.thumbnail((THUMBNAIL, THUMBNAIL))
            return jpeg(np.asarray(rgb))
        file = io.BytesIO()
        rgb.save(file, "PNG")
        return file.getvalue(), "image/png"


def jpeg(rgb: np.ndarray) -> tuple[bytes, str]:
    """An image `(H, W, 3)` uint8 as JPEG."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=88)
    return file.getvalue(), "image/jpeg"


def png(rgb: np.ndarray) -> bytes:
    """An image `(H, W, 3)` uint8 as a file without loss, quickly made."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG", compress_level=1)
    return file.getvalue()
