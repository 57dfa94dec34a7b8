"""Files of points with colours of their own, laid on the grid of the scan: PLY, PCD and NPZ.

A cloud that has lost its grid is laid on one again where it is stated (`ScanGeometry.grid`) and has as many points, or
where the camera is: then each pixel takes the nearest point that it sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blemish.data.camera import projected
from blemish.data.files import CLOUD_SUFFIXES, shown
from blemish.data.readers import npz, pcd, ply
from blemish.data.readers.base import check_pixels, reading
from blemish.data.readers.cloud import Cloud
from blemish.errors import BlemishError, ImageError
from blemish.types import ScanGeometry

_HEAD = 8  # bytes that tell one kind of file from another


@dataclass(frozen=True, eq=False)
class Layers:
    """What a file holds on its grid: `points` `(H, W, 3)`, or `depth` `(H, W)`; `rgb` `(H, W, 3)` uint8, or None."""

    points: np.ndarray | None
    depth: np.ndarray | None = None
    rgb: np.ndarray | None = None

    @property
    def measured(self) -> np.ndarray:
        """The points, or the depth."""
        found = self.depth if self.points is None else self.points
        assert found is not None  # a file has one of the two
        return found


def is_cloud_name(name: str) -> bool:
    """Whether a file of that name holds points, whatever else lies beside it."""
    return not name.startswith(".") and name.lower().endswith(tuple(CLOUD_SUFFIXES))


def read_layers(path: Path, geometry: ScanGeometry | None, max_pixels: int | None = None) -> Layers:
    """What a PLY, PCD or NPZ file holds. Raises ImageError, which names the file."""
    name = shown(path)

    def check_count(count: int) -> None:
        check_pixels(1, count, name, max_pixels)

    with reading(path, "a point cloud"):
        if _kind(path) is npz:
            stored = npz.read_npz(path, name, check_count)
            return _of_arrays(stored, geometry, name)
        with path.open("rb") as file:
            read = ply.read_ply if _kind(path) is ply else pcd.read_pcd
            return on_grid(read(file, name, check_count), geometry, name)


def has_colours(path: Path) -> bool:
    """Whether a file of points holds colours as well, by its header; False for one that cannot be read."""
    if not is_cloud_name(path.name):
        return False
    try:
        kind = _kind(path)
        if kind is npz:
            return npz.has_colours(path)
        reads: Callable[..., bool] = ply.has_colours if kind is ply else pcd.has_colours
        with path.open("rb") as file:
            return reads(file, shown(path))
    except Exception:  # loading it will say what is wrong with it
        return False


def on_grid(cloud: Cloud, geometry: ScanGeometry | None, name: str) -> Layers:
    """A cloud on its own grid, on the one stated, or as the camera stated sees it. Raises ImageError."""
    count = len(cloud.points)
    if not count:
        raise ImageError(f"points in '{name}'", "a cloud without any", "export or record it again")
    stated = geometry or ScanGeometry()
    own = cloud.grid if cloud.grid is not None and cloud.grid[0] * cloud.grid[1] == count else None
    given = None if stated.grid is None else (stated.grid[1], stated.grid[0])
    camera = stated.camera
    if own is not None and given not in (None, own):
        raise ImageError(f"a grid of {_size(given)} points, as stated, in '{name}'", _size(own), "leave --grid out")
    if camera is not None and camera.width and camera.height:
        given = given or (camera.height, camera.width)
    grid = own or (given if given is not None and given[0] * given[1] == count else None)
    if grid is not None:
        colours = cloud.colours
        return Layers(cloud.points.reshape(*grid, 3), rgb=None if colours is None else colours.reshape(*grid, 3).copy())
    if camera is not None and given is None:
        raise ImageError(
            f"the size of the camera's pictures, to lay the cloud in '{name}' on its pixels",
            f"{count:,} points that are no grid, and a camera without width and height",
            "state it: --grid WIDTHxHEIGHT, or width and height in the file of --intrinsics",
        )
    if camera is None or given is None:
        raise ImageError(
            f"an organised cloud, one point for each pixel, in '{name}'",
            f"{count:,} points that are no grid" + ("" if given is None else f" of {_size(given)}"),
            "export it organised (ordered), with its empty points; or state its size, --grid WIDTHxHEIGHT, if its"
            " points lie row by row; or add its camera, --intrinsics FILE, or fx,fy,cx,cy beside --grid, to lay it on"
            " its pixels",
        )
    return _as_seen(cloud, stated, given, name)


def _as_seen(cloud: Cloud, geometry: ScanGeometry, grid: tuple[int, int], name: str) -> Layers:
    assert geometry.camera is not None  # asked for by the caller
    numbers = projected(cloud.points, geometry.camera, *grid, name)  # (H, W)
    holes = numbers < 0
    if holes.all():
        raise ImageError(
            f"points that the camera stated can see in '{name}'",
            f"none of {len(cloud.points):,} in its {_size(grid)} pixels",
            "give the points in the camera's frame (z away from it), and its own intrinsics",
        )
    points = cloud.points[numbers].astype(np.float64)
    points[holes] = np.nan
    rgb = None
    if cloud.colours is not None:
        rgb = np.where(holes[..., None], np.uint8(0), cloud.colours[numbers])
    return Layers(points, rgb=rgb)


def _of_arrays(stored: npz.StoredScan, geometry: ScanGeometry | None, name: str) -> Layers:
    """The arrays of an NPZ file on their grid."""
    points, colours = stored.points, stored.colours
    if points is not None and points.ndim == 2 and points.shape[1] == 3:
        flat = None if colours is None or colours.shape != points.shape else _as_rgb(colours, name)
        return on_grid(Cloud(points, flat), geometry, name)
    measured = points if points is not None else stored.depth
    if colours is not None and measured is not None and colours.shape[:2] != measured.shape[:2]:
        raise ImageError(
            f"colours on the grid of the points in '{name}'",
            f"{colours.shape[:2]} and {measured.shape[:2]}",
            "save both on one grid, or the picture in a file of its own",
        )
    return Layers(points, stored.depth, None if colours is None else _as_rgb(colours, name))


def _as_rgb(colours: np.ndarray, name: str) -> np.ndarray:
    """An array of colours as uint8 `(…, 3)`."""
    from blemish.data.images import load_image

    flat = colours.reshape(1, *colours.shape) if colours.ndim == 2 and colours.shape[-1] == 3 else colours
    try:
        return load_image(flat).reshape(*colours.shape[:2], 3) if flat is colours else load_image(flat)[0]
    except BlemishError as error:
        raise ImageError(f"colours in '{name}' as a picture: {error.expected}", error.got, error.do) from error


def _kind(path: Path) -> object:
    """The reader that a file's first bytes call for. Raises ImageError."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for reader in (ply, pcd, npz):
        if head.startswith(reader.MAGIC):
            return reader
    if path.suffix.lower() == ".pcd" and head[:1] in (b"#", b"V", b"F"):
        return pcd
    raise ImageError(
        f"a PLY, PCD or NPZ file in '{shown(path)}'", f"one that begins with {head!r}", "export or record it again"
    )


def _size(grid: tuple[int, int] | None) -> str:
    return "" if grid is None else f"{grid[1]}x{grid[0]}"
