"""The pictures that people look at: as it came, outlined, as heat, small.

Levels of more than 8 bits are shown as the model sees them: browsers would show 12 bits of 16 as nearly black.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from blemish.data.full_scale import FullScale, learn_full_scale
from blemish.data.images import load_image
from blemish.errors import ModelError
from blemish.model.model_folder import read_settings
from blemish.report.overlays import draw_overlay, fits_jpeg, heat_image
from blemish.serve.core import Core
from blemish.serve.errors import UnknownError
from blemish.serve.models import Models
from blemish.serve.records import PartRecord
from blemish.types import Prediction, Sample

THUMBNAIL = 320  # pixels of the longer side
VIEWS = ("image", "overlay", "heat", "thumbnail")
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


class Renderer:
    """Draws the views of inspected parts and good pictures."""

    def __init__(self, core: Core, models: Models) -> None:
        self._core, self._models = core, models
        self._full_scales: dict[str, FullScale] = {}  # by version

    def part(self, part: PartRecord, view: str) -> tuple[bytes, str]:
        """A view of a part as file content and its media type. Raises UnknownError where it cannot be had."""
        if view not in VIEWS:
            raise UnknownError(f"one of {', '.join(VIEWS)}", repr(view), "choose one of them")
        if part.error or not part.has_picture:
            raise UnknownError("a part whose picture is kept", "one without", "see its error, or the retention")
        if view in ("image", "thumbnail"):
            return self.picture(part.sha256, part.version, is_small=view == "thumbnail")
        size = part.prediction["size"]
        anomaly_map = self._core.pictures.map(part.id, (size[0], size[1]))
        prediction = Prediction.from_dict(part.prediction, anomaly_map, part.prediction["region_threshold"])
        if view == "heat":
            return jpeg(heat_image(prediction))
        return outlined(self.image(part.sha256, part.version), prediction)

    def image(self, sha256: str, version: str) -> np.ndarray:
        """A stored picture `(H, W, 3)` uint8 as a version's model sees it; where there is none (""), by its own levels.

        Raises UnknownError where it is gone.
        """
        levels = self._core.decoders.levels(self._core.pictures.read(sha256), sha256)
        full_scale = self._full_scale(version) if version else None
        if full_scale is None:
            full_scale = learn_full_scale([Sample(levels)])
        return load_image(levels, full_scale=full_scale)

    def _full_scale(self, version: str) -> FullScale | None:
        """Which level is white to a version's model, without loading it; None where it is gone."""
        if version not in self._full_scales:
            try:
                settings = read_settings(self._models.folder(version))
            except (ModelError, UnknownError):
                return None
            self._full_scales[version] = FullScale.from_dict(settings["full_scale"])
        return self._full_scales[version]

    def picture(self, sha256: str, version: str, is_small: bool = False) -> tuple[bytes, str]:
        """A stored picture as browsers show it, or a small version of it; `version` as of `image`."""
        if not is_small:
            content = self._core.pictures.read(sha256)
            if kind := shown_kind(content):
                return content, kind
        rgb = Image.fromarray(self.image(sha256, version))
        if is_small:
            rgb.thumbnail((THUMBNAIL, THUMBNAIL))
            return jpeg(np.asarray(rgb))
        file = io.BytesIO()
        rgb.save(file, "PNG")
        return file.getvalue(), "image/png"


def shown_kind(content: bytes) -> str:
    """The media type of a file that every browser shows, "" for others, which are sent as PNG: 16 bits are."""
    if content.startswith(PNG):
        return "image/png" if content[24:25] < b"\x10" else ""  # the header's bits of a channel
    return "image/jpeg" if content.startswith(JPEG) else ""


def outlined(image: np.ndarray, prediction: Prediction) -> tuple[bytes, str]:
    """An image `(H, W, 3)` uint8 with its regions, as JPEG."""
    return jpeg(draw_overlay(image, prediction, strip=False))


def jpeg(rgb: np.ndarray) -> tuple[bytes, str]:
    """An image `(H, W, 3)` uint8 as JPEG, smaller where it has more pixels a side than that holds."""
    file = io.BytesIO()
    Image.fromarray(fits_jpeg(rgb)).save(file, "JPEG", quality=88)
    return file.getvalue(), "image/jpeg"


def png(rgb: np.ndarray) -> bytes:
    """An image `(H, W, 3)` uint8 as a file without loss, quickly made."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG", compress_level=1)
    return file.getvalue()
