"""A scan as the encoder sees it: background and noise taken out of the points, one scale, cropped to the part.

What methods on MVTec 3D-AD do first (BTF: Horwitz, Hoshen: Back to the feature, CVPRW 2023; CFM: Costanzino, Zama
Ramirez, Lisanti, Di Stefano: Multimodal industrial anomaly detection by crossmodal feature mapping, CVPR 2024), and
then a crop: the points that are left are the part, so that nothing else need be encoded. Nothing is enlarged: the
points keep their spacing, which their descriptors are measured in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from PIL import Image

from blemish.data.points import measured, resize_points
from blemish.errors import ImageError, SettingsError
from blemish.preprocessing.framing import Frame
from blemish.preprocessing.ground_removal import keep_clusters, pad_square, remove_plane, square_margins
from blemish.types import POINTS, ImageOrScan, Scan

MARGIN = 0.03  # of the square's side around the part's points; chosen by eye: an outline stays in view


class ScanFraming:
    """A scan at the scale at which all of it fills a square of `image_size` pixels. Learns nothing.

    `crop`: of that square the part that the remaining points cover, with a margin; all of it where no points are left.
    Sides are multiples of `multiple`.

    A scan that is not square is padded: its image's edge pixels are repeated, its points end. The image is scaled
    bicubically, the points by nearest neighbour. `plane`: points within `band` metres of the plane along the border are
    removed; `clusters`: so are small clusters of points. `square` is there because every framing is asked for it;
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

    def fit(self, images: Iterable[ImageOrScan]) -> Self:
        """Check the settings; the scans are left unread."""
        self._side()
        return self

    def frame(self, image: ImageOrScan) -> Frame:
        """The part of a scan `(H, W)` as a scan `(h, w)`; all of an image `(H, W, 3)` uint8 without points."""
        scan = image if isinstance(image, Scan) else _as_scan(image)
        side = self._side()
        height, width = scan.shape
        if scan.image is not None:  # points of which none was measured count as missing
            scan = Scan(scan.image, scan.xyz if POINTS in scan.available else None)
        square = scan.map(
            rgb=lambda rgb: _bicubic(pad_square(rgb), side),  # (S, S, 3) uint8
            xyz=lambda xyz: resize_points(pad_square(self._part_of(xyz), fill=np.nan), (side, side)),  # (S, S, 3)
        )
        rows, columns = self._window(square)
        to_image = _to_image((height, width), side, (rows.start, columns.start), (rows.stop, columns.stop))
        return Frame(square.crop(rows, columns), (height, width), to_image)

    def sizes(self) -> tuple[tuple[int, int], ...]:
        return ()

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        return self

    def _window(self, square: Scan) -> tuple[slice, slice]:
        """The rows and columns of the `square` scan `(S, S)` that are encoded."""
        side = square.shape[0]
        if not self.crop or POINTS not in square.available or square.xyz is None:
            return slice(0, side), slice(0, side)
        found = measured(square.xyz)  # (S, S)
        return self._span(np.asarray(found.any(axis=1))), self._span(np.asarray(found.any(axis=0)))

    def _span(self, covered: np.ndarray) -> slice:
        """From the first to the last of the places `covered` `(S,)`, with a margin, a multiple of `multiple` long."""
        places = np.flatnonzero(covered)
        margin = round(MARGIN * len(covered))
        start, stop = max(0, places[0] - margin), min(len(covered), places[-1] + 1 + margin)
        length = -(-(stop - start) // self.multiple) * self.multiple
        start = max(0, min(start, len(covered) - length))
        return slice(int(start), int(start + length))

    def _part_of(self, points: np.ndarray) -> np.ndarray:
        """The points `(H, W, 3)` without their background and without noise."""
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


def _as_scan(image: np.ndarray) -> Scan:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ImageError(
            "a Scan, or a picture (H, W, 3) of uint8",
            f"shape {image.shape} of {image.dtype}",
            "load it with load_scan or load_image",
        )
    return Scan(rgb=image)


def _to_image(size: tuple[int, int], side: int, start: tuple[int, int], stop: tuple[int, int]) -> np.ndarray | None:
    """Where the pixels from `start` to `stop` of the square lie in an image of `size`, as `Frame.to_image` `(2, 3)`.

    None where they are a plain resize of all of it.
    """
    height, width = size
    if height == width and start == (0, 0) and stop == (side, side):
        return None
    (above, _), (left, _) = square_margins(height, width)
    scale = max(height, width) / side
    return np.array([[scale, 0.0, scale * start[1] - left], [0.0, scale, scale * start[0] - above]])


def _bicubic(image: np.ndarray, side: int) -> np.ndarray:
    """The square `image` `(S, S, 3)` uint8 with another `side`."""
    if image.shape[0] == side:
        return image
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((side, side), Image.Resampling.BICUBIC))
