"""An image with its points, framed as one: the ground and specks taken out of the points, one scale, the part alone.

What methods on MVTec 3D-AD do first (BTF, Horwitz and Hoshen, CVPRW 2023; CFM, Costanzino et al., CVPR 2024) but for
the last step: what is left of the points is the part, so that nothing else need be looked at. Nothing is enlarged: the
points keep their spacing, which their descriptions are measured in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from PIL import Image

from blemish.data.points import resize_points
from blemish.data.scans import LAYERS
from blemish.errors import ImageError, SettingsError
from blemish.preprocessing.framing import Frame
from blemish.preprocessing.ground_removal import keep_clusters, pad_square, remove_plane, square_margins

MARGIN = 0.03  # of the square's side around the part's points


class ScanFraming:
    """A scan at the scale at which all of it fills a square of `image_size`. Learns nothing.

    `crop`: of that square what the part's points cover, with a margin; all of it where no points are left. Sides are
    multiples of `multiple`.

    A scan that is not square is padded: its image's edge is drawn out, its points end. The image is scaled
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
        crop: bool = True,
    ) -> None:
        self.image_size = image_size
        self.multiple = multiple
        self.square = square
        self.plane = plane
        self.band = band
        self.clusters = clusters
        self.crop = crop

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "image_size": self.image_size,
            "multiple": self.multiple,
            "square": self.square,
            "plane": self.plane,
            "band": self.band,
            "clusters": self.clusters,
            "crop": self.crop,
        }

    @property
    def poses(self) -> None:
        return None

    def fit(self, images: Iterable[np.ndarray]) -> Self:
        """Check the settings; the scans are left unread."""
        self._side()
        return self

    def frame(self, image: np.ndarray) -> Frame:
        """The part `(h, w, 6)` float32 of a scan `(H, W, 6)`, or all of an image `(H, W, 3)` uint8 without points."""
        side = self._side()
        if image.ndim != 3 or image.shape[2] not in (3, LAYERS):
            raise ImageError(
                f"a scan (H, W, {LAYERS}) or a picture (H, W, 3)", f"shape {image.shape}", "load it with load_scan"
            )
        size = (int(image.shape[0]), int(image.shape[1]))
        pixels = np.full((side, side, LAYERS), np.nan, dtype=np.float32)
        if np.isfinite(image[..., :3]).all():
            pixels[..., :3] = _bicubic(pad_square(_levels(image[..., :3])), side)
        if image.shape[2] == LAYERS and np.isfinite(image[..., 3:]).any():
            points = self._without_ground(image[..., 3:])
            pixels[..., 3:] = resize_points(pad_square(points, fill=np.nan), (side, side))
        rows, columns = self._window(pixels[..., 3:])
        to_image = _to_image(size, side, (rows.start, columns.start), (rows.stop, columns.stop))
        return Frame(np.ascontiguousarray(pixels[rows, columns]), size, to_image)

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        return self

    def _window(self, points: np.ndarray) -> tuple[slice, slice]:
        """The rows and columns of the square `points` `(S, S, 3)` to be looked at."""
        side, found = len(points), np.isfinite(points).all(axis=-1)
        if not self.crop or not found.any():
            return slice(0, side), slice(0, side)
        return self._span(found.any(axis=1)), self._span(found.any(axis=0))

    def _span(self, covered: np.ndarray) -> slice:
        """From the first to the last of the places `covered` `(S,)`, with a margin, a multiple of `multiple` long."""
        places = np.flatnonzero(covered)
        margin = round(MARGIN * len(covered))
        start, stop = max(0, places[0] - margin), min(len(covered), places[-1] + 1 + margin)
        length = -(-(stop - start) // self.multiple) * self.multiple
        start = max(0, min(start, len(covered) - length))
        return slice(int(start), int(start + length))

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


def _to_image(size: tuple[int, int], side: int, start: tuple[int, int], stop: tuple[int, int]) -> np.ndarray | None:
    """Where the pixels from `start` to `stop` of the square lie in an image of `size`, as `Frame.to_image`.

    None where they are a plain resize of all of it.
    """
    height, width = size
    if height == width and start == (0, 0) and stop == (side, side):
        return None
    (above, _), (left, _) = square_margins(height, width)
    scale = max(height, width) / side
    return np.array([[scale, 0.0, scale * start[1] - left], [0.0, scale, scale * start[0] - above]])


def _levels(rgb: np.ndarray) -> np.ndarray:
    """R, G, B as uint8, whatever type a scan keeps them in."""
    return rgb if rgb.dtype == np.uint8 else np.rint(np.clip(rgb, 0, 255)).astype(np.uint8)


def _bicubic(image: np.ndarray, side: int) -> np.ndarray:
    if image.shape[0] == side:
        return image
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((side, side), Image.Resampling.BICUBIC))
