"""A picture with its points, framed as one: the ground and specks taken out of the points, a square, one size.

What methods on MVTec 3D-AD do first (BTF, Horwitz and Hoshen, CVPRW 2023; CFM, Costanzino et al., CVPR 2024). The
picture stays whole: where the ground was, its points alone are gone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from PIL import Image

from blemish.datasets.scans import LAYERS
from blemish.datasets.surface import keep_clusters, pad_square, remove_plane, resize_points, square_margins
from blemish.errors import PictureError, SettingsError
from blemish.framing import Frame


class ScanFraming:
    """The whole scan in a square of `image_size`, rounded to a multiple of `multiple`. Learns nothing.

    A scan that is not square is padded: its picture's edge is drawn out, its points end. The picture is scaled
    bicubically, the points by nearest neighbour. `plane`: points within `band` metres of the plane along the border are
    taken away; `clusters`: so are small clusters of points. `square` is there because every framing is asked for it;
    a scan becomes a square either way.
    """

    def __init__(
        self,
        image_size: int = 224,
        multiple: int = 8,
        square: bool = True,
        plane: bool = True,
        band: float = 0.005,
        clusters: bool = True,
    ) -> None:
        self.image_size = image_size
        self.multiple = multiple
        self.square = square
        self.plane = plane
        self.band = band
        self.clusters = clusters

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "image_size": self.image_size,
            "multiple": self.multiple,
            "square": self.square,
            "plane": self.plane,
            "band": self.band,
            "clusters": self.clusters,
        }

    @property
    def poses(self) -> None:
        return None

    def fit(self, pictures: Iterable[np.ndarray]) -> Self:
        """Check the settings; the scans are left unread."""
        self._side()
        return self

    def frame(self, picture: np.ndarray) -> Frame:
        """The square `(S, S, 6)` float32 of a scan `(H, W, 6)`, or of a picture `(H, W, 3)` uint8 without points."""
        side = self._side()
        if picture.ndim != 3 or picture.shape[2] not in (3, LAYERS):
            raise PictureError(
                f"a scan (H, W, {LAYERS}) or a picture (H, W, 3)", f"shape {picture.shape}", "load it with load_scan"
            )
        size = (int(picture.shape[0]), int(picture.shape[1]))
        pixels = np.full((side, side, LAYERS), np.nan, dtype=np.float32)
        if np.isfinite(picture[..., :3]).all():
            pixels[..., :3] = _bicubic(pad_square(_levels(picture[..., :3])), side)
        if picture.shape[2] == LAYERS and np.isfinite(picture[..., 3:]).any():
            points = self._without_ground(picture[..., 3:])
            pixels[..., 3:] = resize_points(pad_square(points, fill=np.nan), (side, side))
        return Frame(pixels, size, _to_picture(size, side))

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        return self

    def _without_ground(self, points: np.ndarray) -> np.ndarray:
        if self.plane:
            points = remove_plane(points, self.band)
        return keep_clusters(points) if self.clusters else points

    def _side(self) -> int:
        """The square's side in pixels."""
        if self.image_size < 1 or self.multiple < 1:
            raise SettingsError(
                "image_size and multiple of at least one pixel",
                f"image_size {self.image_size}, multiple {self.multiple}",
                "correct the setting",
            )
        if not 0 < self.band < math.inf:
            raise SettingsError("a band above 0 metres", str(self.band), "raise it, or turn the plane off: plane=false")
        return max(1, int(self.image_size / self.multiple + 0.5)) * self.multiple


def _to_picture(size: tuple[int, int], side: int) -> np.ndarray | None:
    """Where the square's pixels lie in a picture of `size`, as `Frame.to_picture`; None for a square picture."""
    height, width = size
    if height == width:
        return None
    (above, _), (left, _) = square_margins(height, width)
    scale = max(height, width) / side
    return np.array([[scale, 0.0, -left], [0.0, scale, -above]])


def _levels(rgb: np.ndarray) -> np.ndarray:
    """R, G, B as uint8, whatever type a scan keeps them in."""
    return rgb if rgb.dtype == np.uint8 else np.rint(np.clip(rgb, 0, 255)).astype(np.uint8)


def _bicubic(picture: np.ndarray, side: int) -> np.ndarray:
    if picture.shape[0] == side:
        return picture
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((side, side), Image.Resampling.BICUBIC))
