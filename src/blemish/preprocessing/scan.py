"""A scan as the encoder sees it: background and noise taken out of the points, one scale, cropped to the part.

Long parts are turned to lie along the horizontal, so that a place on one is compared with the same place on others.

What methods on MVTec 3D-AD do first (BTF: Horwitz, Hoshen: Back to the feature, CVPRW 2023; CFM: Costanzino, Zama
Ramirez, Lisanti, Di Stefano: Multimodal industrial anomaly detection by crossmodal feature mapping, CVPR 2024), and
then a crop: the points that are left are the part, so that nothing else need be encoded. Scans coarser than the frame
are not enlarged: repeated points have no distance, and descriptors measure in distances of neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from PIL import Image

from blemish.data.points import measured, nearest_places, resize_points
from blemish.errors import ImageError, SettingsError
from blemish.numeric.organised_points import resampled
from blemish.preprocessing.crop_to_part import cut, principal_axis, rotation
from blemish.preprocessing.foreground import find_part
from blemish.preprocessing.framing import Frame
from blemish.preprocessing.ground_removal import keep_clusters, pad_square, remove_plane, square_margins
from blemish.types import LEAST_MEASURED, ImageOrScan, Scan

MARGIN = 0.03  # of the square's side around the part's points; chosen by eye: an outline stays in view
TURNED_FROM = 1.12  # length over width (standard deviations) from which a part has a direction; chosen by eye
LOPSIDED = 0.05  # skewness of the points along it from which one end is told from the other; chosen by eye
# Ends that look alike are told by which is nearer to this angle. No multiple of 45°, in which fixtures hold parts: at
# 90° from it an end would come out on either side by chance.
PREFERRED_ANGLE = math.radians(20)
AT_BORDER = 0.02  # share of the border up to which points there are noise; chosen by eye
UNEQUAL = 0.1  # by which a step along columns may differ from one along rows for pixels to count as square
_ROWS = 256  # of a picture that are padded at a time
LEAST_POINTS = 16  # of a part whose direction is looked for


class ScanFraming:
    """A scan at the scale at which all of it fills a square of `image_size` pixels, or of its own size if smaller.

    `crop`: of that square the part that the remaining points cover, with a margin; all of it where no points are left.
    `turn`: a part that is longer than wide, and does not reach the border of its scan, is turned until it lies along
    the horizontal, its heavier end to the right; the points turn with it about the optical axis. Sides are multiples
    of `multiple`. Nothing is learned: scans of several categories are framed alike before their category is known.
    Where fewer than `LEAST_MEASURED` of its points are left, a scan is framed as if it lacked them all.

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
        turn: bool = True,
    ) -> None:
        self.image_size = image_size
        self.multiple = multiple
        self.square = square
        self.plane = plane
        self.band = band
        self.clusters = clusters
        self.crop = crop
        self.turn = turn
        self.enlarge = False  # True in models of earlier versions

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
            "turn": self.turn,
        }

    @property
    def poses(self) -> None:
        return None

    def fit(self, images: Iterable[ImageOrScan]) -> Self:
        """Check the settings; the scans are left unread."""
        self._check()
        return self

    def frame(self, image: ImageOrScan) -> Frame:
        """The part of a scan `(H, W)` as a scan `(h, w)`; all of an image `(H, W, 3)` uint8 without points."""
        self._check()
        scan = image if isinstance(image, Scan) else _as_scan(image)
        height, width = scan.shape
        side = self._side(max(height, width))
        scan = _without_stray_points(Scan(scan.image, None if scan.xyz is None else self._part_of(scan.xyz)))
        square = scan.map(rgb=lambda rgb: _square_image(rgb, side), xyz=lambda xyz: _square_points(xyz, side))
        part = _part_in(square) if self.turn and _can_be_turned(scan) else None
        angle = None if part is None else direction(part)
        if part is not None and angle is not None:
            crop = self.crop and _points_in(square) is not None
            to_square, size = self._turned_window(part, angle, crop)
            turned = square.map(
                rgb=lambda rgb: cut(rgb, to_square, size), xyz=lambda xyz: _turned_points(xyz, to_square, size, angle)
            )
            return Frame(turned, (height, width), _to_image((height, width), side, to_square))
        rows, columns = self._window(square)
        cropped = square.crop(rows, columns)
        if height == width and cropped.shape == square.shape:  # a plain resize
            return Frame(cropped, (height, width))
        to_square = np.array([[1.0, 0.0, columns.start], [0.0, 1.0, rows.start]])
        return Frame(cropped, (height, width), _to_image((height, width), side, to_square))

    def sizes(self) -> tuple[tuple[int, int], ...]:
        return ()

    def state(self) -> dict[str, np.ndarray]:
        return {"turn": np.array(self.turn), "enlarge": np.array(self.enlarge)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        # Models of earlier versions have no state: their scans were not turned, and coarse ones were enlarged.
        self.turn, self.enlarge = bool(state.get("turn", False)), bool(state.get("enlarge", True))
        return self

    def _turned_window(self, found: np.ndarray, angle: float, crop: bool) -> tuple[np.ndarray, tuple[int, int]]:
        """What maps (x, y, 1) of the turned frame to the square `(2, 3)`, and the frame's (height, width).

        It holds the part `found` `(S, S)` bool with a margin and, without a `crop`, is as large as the square at least.
        """
        rows, columns = np.nonzero(found)
        turn = rotation(angle)
        places = turn @ (np.stack([columns, rows]) + 0.5)  # (2, N)
        low, high = places.min(axis=1), places.max(axis=1)
        margin = round(MARGIN * len(found))
        extent = high - low + 1 + 2 * margin
        extent = extent if crop else np.maximum(extent, len(found))
        width, height = (max(1, -(-math.ceil(length) // self.multiple)) * self.multiple for length in extent)
        centre = turn.T @ ((low + high) / 2)
        return np.column_stack([turn.T, centre - turn.T @ (width / 2, height / 2)]), (height, width)

    def _window(self, square: Scan) -> tuple[slice, slice]:
        """The rows and columns of the `square` scan `(S, S)` that are encoded."""
        side = square.shape[0]
        found = _points_in(square) if self.crop else None  # (S, S)
        if found is None:
            return slice(0, side), slice(0, side)
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

    def _side(self, longest: int) -> int:
        """The side in pixels of the square for a scan whose longer side is `longest`."""
        side = max(1, int(self.image_size / self.multiple + 0.5)) * self.multiple
        if self.enlarge or side <= longest:
            return side
        return max(1, longest // self.multiple) * self.multiple  # at least one multiple

    def _check(self) -> None:
        if self.image_size < 1 or self.multiple < 1:
            raise SettingsError(
                "image_size and multiple of at least one pixel",
                f"image_size {self.image_size}, multiple {self.multiple}",
                "correct the setting",
            )
        if not 0 < self.band < math.inf:
            raise SettingsError("a band above 0 metres", str(self.band), "raise it, or turn the plane off: plane=false")


def direction(part: np.ndarray) -> float | None:
    """The angle in radians of the long axis of pixels `part` `(H, W)` bool, heavier end ahead; None of a round part."""
    rows, columns = np.nonzero(part)
    angle, elongation, skewness = principal_axis(np.stack([columns, rows]).astype(np.float64))
    if elongation < TURNED_FROM:
        return None
    if skewness > LOPSIDED:
        return angle
    return PREFERRED_ANGLE + (angle - PREFERRED_ANGLE + math.pi / 2) % math.pi - math.pi / 2


def _without_stray_points(scan: Scan) -> Scan:
    """The scan without its points where fewer than `LEAST_MEASURED` were measured; without an image none is left."""
    if scan.xyz is None or measured(scan.xyz).mean() >= LEAST_MEASURED:
        return scan
    return Scan(scan.image, np.full_like(scan.xyz, np.nan) if scan.image is None else None)


def _can_be_turned(scan: Scan) -> bool:
    """Whether the outline of what was measured is that of a part, and its pixels are square.

    Where points go on beyond the scan's border it is not; unequal pixels would shear the part.
    """
    if scan.xyz is None:
        return True
    found = measured(scan.xyz)  # (H, W)
    border = np.concatenate([found[0], found[-1], found[:, 0], found[:, -1]])
    across, down = np.abs(steps := _steps(scan.xyz)).max(axis=1)
    return bool(border.mean() <= AT_BORDER and np.isfinite(steps).all() and abs(across - down) <= UNEQUAL * across)


def _steps(points: np.ndarray) -> np.ndarray:
    """The median step in x and y from one column, and from one row, of points `(H, W, 3)` to the next: `(2, 2)`.

    NaN where no two neighbours were measured.
    """
    steps = []
    for axis in (1, 0):
        step = np.diff(points[..., :2], axis=axis).reshape(-1, 2)
        step = step[np.isfinite(step).all(axis=1)]
        steps.append(np.median(step, axis=0) if len(step) else np.full(2, np.nan))
    return np.array(steps)


def _points_in(scan: Scan) -> np.ndarray | None:
    """Where points were measured `(H, W)` bool; None without any."""
    found = None if scan.xyz is None else measured(scan.xyz)
    return found if found is not None and found.any() else None


def _part_in(square: Scan) -> np.ndarray | None:
    """The pixels of a part `(S, S)` bool: where points were measured or, without any, the image's foreground."""
    part = _points_in(square)
    if part is None and square.image is not None and (found := find_part(square.image)) is not None:
        part = resize_points(found.mask, square.shape)
    return part if part is not None and part.sum() >= LEAST_POINTS else None


def _turned_points(points: np.ndarray, to_square: np.ndarray, size: tuple[int, int], angle: float) -> np.ndarray:
    """The points `(S, S, 3)` of the square on the grid of a turned frame `(h, w, 3)`, as `resampled` gives them.

    Their coordinates turn about the optical axis, as those of a camera that is rolled by `angle`: against it where y
    grows upward.
    """
    height, width = size
    across, down = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    places = to_square[:, :2] @ np.stack([across.ravel(), down.ravel()]) + to_square[:, 2:]  # (2, h·w)
    taken = resampled(points, *(places - 0.5)).astype(np.float32)  # (h·w, 3)
    is_upward = np.linalg.det(_steps(points)) < 0
    taken[:, :2] = taken[:, :2] @ rotation(-angle if is_upward else angle).T.astype(np.float32)
    return taken.reshape(height, width, 3)


def _as_scan(image: np.ndarray) -> Scan:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ImageError(
            "a Scan, or a picture (H, W, 3) of uint8",
            f"shape {image.shape} of {image.dtype}",
            "load it with load_scan or load_image",
        )
    return Scan(rgb=image)


def _to_image(size: tuple[int, int], side: int, to_square: np.ndarray) -> np.ndarray:
    """`Frame.to_image` `(2, 3)`, of pixels that `to_square` `(2, 3)` maps to the square of an image of `size`."""
    height, width = size
    (above, _), (left, _) = square_margins(height, width)
    to_image = to_square * (max(height, width) / side)
    to_image[:, 2] -= (left, above)
    return to_image


def _square_image(image: np.ndarray, side: int) -> np.ndarray:
    """`image` `(H, W, 3)` uint8 padded to a square, then scaled bicubically to `(side, side, 3)`.

    Pillow scales rows, then columns. Here each is padded just before, so that no strip of a profiler, a hundred times
    as long as wide, is ever a whole square of its own length.
    """
    if max(image.shape[:2]) == side:
        return pad_square(image)
    (above, below), (left, right) = square_margins(*image.shape[:2])
    parts = [image[top : top + _ROWS] for top in range(0, len(image), _ROWS)]
    padded = (np.pad(part, ((0, 0), (left, right), (0, 0)), mode="edge") for part in parts)
    rows = np.concatenate([_bicubic(part, (side, len(part))) for part in padded])  # (H, side, 3)
    return _bicubic(np.pad(rows, ((above, below), (0, 0), (0, 0)), mode="edge"), (side, side))


def _bicubic(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`image` `(H, W, 3)` uint8 at another `size` (width, height)."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BICUBIC))


def _square_points(points: np.ndarray, side: int) -> np.ndarray:
    """`points` `(H, W, 3)` in the middle of a square of holes, at `(side, side, 3)`, each place by its nearest."""
    height, width = points.shape[:2]
    places = nearest_places(max(height, width), side)
    (above, _), (left, _) = square_margins(height, width)
    rows, columns = places - above, places - left
    is_row, is_column = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    square = np.full((side, side, 3), np.nan, points.dtype)
    square[np.ix_(is_row, is_column)] = points[rows[is_row][:, None], columns[is_column]]
    return square
