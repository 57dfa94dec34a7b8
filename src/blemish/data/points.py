"""Measured surfaces: every organised point cloud enters blemish here, as `(H, W, 3)` float32 metres.

Organised: one point for each pixel of the image taken with it, as in MVTec 3D-AD (Bergmann, Jin, Sattlegger, Steger:
The MVTec 3D-AD dataset for unsupervised 3D anomaly detection and localization, VISAPP 2022). Where nothing was measured
there is NaN; files may say so with 0, 0, 0 or with infinity too. `FORMATS` lists what is read: TIFF (three channels of
floats), .npy, .npz, PLY, PCD (clouds.py), arrays, depth images and height maps (depth_images.py), and the depth images
of Eyecandies (depth.py).

The unit is stated by whoever gives the points. Where nobody states one, metres are assumed, and points whose extent,
spacing or noise no scan of a part in metres has are refused: a part of 6 mm in millimetres is not taken for one of 6 m.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blemish.data.clouds import is_cloud_name, on_grid, read_layers
from blemish.data.depth import is_depth_image, load_depth
from blemish.data.depth_images import DEPTH_SUFFIXES, check_depth_scale, points_of_levels, read_depth_image
from blemish.data.files import shown
from blemish.data.readers.base import check_pixels, reading
from blemish.data.readers.cloud import Cloud
from blemish.data.readers.npy import MAGIC as NPY_MAGIC
from blemish.errors import ImageError
from blemish.types import UNITS, ScanGeometry, check_units
from blemish.utils.optional import need
from blemish.utils.paths import expanded

PointsSource = Path | str | np.ndarray


@dataclass(frozen=True)
class PointsFormat:
    """A kind of file that is read: its suffixes, what it holds, and what has to be stated with it."""

    name: str
    suffixes: tuple[str, ...]
    holds: str
    needs: str = ""


FORMATS: tuple[PointsFormat, ...] = (
    PointsFormat("TIFF of x, y, z", (".tif", ".tiff"), "(H, W, 3) numbers"),
    PointsFormat("NumPy array", (".npy",), "(H, W, 3) numbers, or depth (H, W)", "of depth: as depth pictures"),
    PointsFormat(
        "NumPy archive", (".npz",), "xyz or points (H, W, 3), or depth (H, W); rgb", "of depth: as depth pictures"
    ),
    PointsFormat(
        "PLY", (".ply",), "ASCII or binary; colours", "--grid, or --intrinsics, unless the header has its size"
    ),
    PointsFormat("PCD", (".pcd",), "ASCII, binary, compressed; colours", "as PLY, of HEIGHT 1"),
    PointsFormat(
        "depth picture", (".png", ".pgm", ".tif", ".tiff"), "one channel", "--intrinsics; --units or --depth-scale"
    ),
    PointsFormat("height map", (".png", ".pgm", ".tif", ".tiff", ".npy"), "one channel", "--mm-per-pixel x,y,z"),
    PointsFormat("Eyecandies depth", ("_depth.png",), "16 bits, with _info_depth.yaml beside it"),
)

TIFF_SUFFIXES = (".tif", ".tiff")
_LOOKED_AT = 20_000  # points that the unit is checked on, at most

# What points may be, in metres, whatever unit was stated. Chosen on the safe side of what is inspected: parts and their
# sensors stand on a factory floor, and steps like the removal of the background work in tenths of a millimetre.
LARGEST = 10.0  # extent
FARTHEST = 100.0  # distance from the sensor's origin
SMALLEST = 5e-4  # extent of points in a unit below the metre: a part of 0.5 m in metres called millimetres is less
# What they may be where no unit was stated. In metres taken for millimetres, each figure is a thousand times as large.
ASSUMED_LARGEST = 2.0  # extent
ASSUMED_COARSEST = 5e-3  # median distance between neighbours
ASSUMED_NOISIEST = 2e-3  # standard deviation of the depth from point to point; sensors for parts have 0.001 to 0.5 mm


@dataclass(frozen=True, eq=False)
class Surface:
    """Points `(H, W, 3)` float32 in metres, NaN where nothing was measured, and the colours `(H, W, 3)` uint8 that
    their file holds, None where it holds none."""

    points: np.ndarray
    rgb: np.ndarray | None = None


def load_points(
    source: PointsSource,
    max_pixels: int | None = None,
    units: str | None = None,
    geometry: ScanGeometry | None = None,
) -> np.ndarray:
    """The points as a writable `(H, W, 3)` float32 array in metres, NaN where nothing was measured.

    `source` is a file of one of the `FORMATS`, or an array `(H, W, 3)`, or `(H, W)` of depth or height. A cloud of more
    than `max_pixels` points (None: as for images) is refused before it is read. `units` is the unit of the source, a
    key of `blemish.types.UNITS`; None assumes metres (depth images with an info file are in metres, height maps in
    millimetres, always). `geometry` says what the levels of depth images and height maps mean, and on which grid a
    cloud lies whose file does not say so.

    Raises ImageError, which names the file, for what cannot be read, has another shape, holds no point at all, or
    cannot be in that unit; SettingsError for an unknown unit; MissingPackageError where TIFFs need a package that is
    not installed.
    """
    return load_surface(source, max_pixels, units, geometry).points


def load_surface(
    source: PointsSource,
    max_pixels: int | None = None,
    units: str | None = None,
    geometry: ScanGeometry | None = None,
) -> Surface:
    """The points as `load_points` gives them, and the colours in the same file."""
    check_units(units)
    check_depth_scale(geometry, units)
    if isinstance(source, np.ndarray):
        return Surface(_of_array(source, "array", units, geometry))
    path = expanded(source)
    name = shown(path)
    if not path.is_file():
        raise ImageError(
            f"points at '{name}'", "a folder or device" if path.exists() else "nothing there", "check the path"
        )
    if path.stat().st_size == 0:
        raise ImageError(f"points in '{name}'", "an empty file (0 bytes)", "copy or record it again")
    is_measured = geometry is not None and (geometry.camera is not None or geometry.mm_per_pixel is not None)
    if is_depth_image(path, is_stated=is_measured):
        return Surface(load_depth(path, max_pixels))
    if is_cloud_name(path.name):
        layers = read_layers(path, geometry, max_pixels)
        return Surface(_of_array(layers.measured, name, units, geometry), layers.rgb)
    return Surface(_of_array(_read_array(path, max_pixels), name, units, geometry))


def _read_array(path: Path, max_pixels: int | None) -> np.ndarray:
    """What a TIFF, a .npy file or a depth image holds."""
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        return _read_tiff(path, max_pixels)
    if suffix == ".npy":
        return _read_npy(path, max_pixels)
    if suffix in DEPTH_SUFFIXES:
        return read_depth_image(path, max_pixels)
    raise ImageError(
        f"points in '{shown(path)}' as {', '.join(dict.fromkeys(s for one in FORMATS for s in one.suffixes))}",
        f"a name that ends in '{suffix}'",
        "save the points as .npy: numpy.save(path, points) with points (H, W, 3)",
    )


def _of_array(array: np.ndarray, name: str, units: str | None, geometry: ScanGeometry | None) -> np.ndarray:
    """Points, or the points of depth, as float32 in metres with NaN in the holes."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 2 and array.shape[1] == 3 and geometry is not None:  # a cloud without its grid
        array = on_grid(Cloud(array), geometry, name).measured
    if array.ndim == 2 and array.shape[1] != 3 and 0 not in array.shape:
        points, units = points_of_levels(array, name, units, geometry)
        return _checked(points, name, units)
    return _checked(array, name, units)


def measured(points: np.ndarray) -> np.ndarray:
    """Where points `(…, 3)` were measured, `(…)` bool."""
    return np.isfinite(points).all(axis=-1)


def _read_tiff(path: Path, max_pixels: int | None) -> np.ndarray:
    tifffile = need("tifffile", "3d", "points in TIFF files")
    with reading(path, "points"), tifffile.TiffFile(path) as file:
        _check_size(file.series[0].shape, path, max_pixels)
        return np.asarray(file.asarray(series=0))


def _read_npy(path: Path, max_pixels: int | None) -> np.ndarray:
    with reading(path, "points"):
        with path.open("rb") as file:
            if file.read(len(NPY_MAGIC)) != NPY_MAGIC:  # numpy would take it for a pickle, and say how to run it
                raise ImageError(f"an array of numpy in '{shown(path)}'", "bytes of no .npy file", "save it again")
        stored = np.load(path, mmap_mode="r", allow_pickle=False)  # only its header, until its size is known
        _check_size(stored.shape, path, max_pixels)
        return np.array(stored)


def _check_size(shape: tuple[int, ...], path: Path, max_pixels: int | None) -> None:
    if len(shape) >= 2:
        check_pixels(int(shape[0]), int(shape[1]), shown(path), max_pixels)


def _checked(array: np.ndarray, name: str, units: str | None) -> np.ndarray:
    """The array as float32 points in metres with NaN in the holes, when it can be that."""
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        first = array.ndim == 3 and array.shape[0] == 3
        raise ImageError(
            f"points of shape (H, W, 3) in '{name}'",
            f"shape {array.shape}",
            "put x, y, z last: numpy.moveaxis(array, 0, -1)"
            if first
            else "give one point (x, y, z) for each pixel of the picture; a bare list of points has lost its grid:"
            " state --grid WIDTHxHEIGHT where it lies row by row",
        )
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise ImageError(f"points of a float type in '{name}'", str(array.dtype), "convert: array.astype('float32')")
    with np.errstate(over="ignore"):
        points = np.array(array, dtype=np.float32)  # a copy: holes are written into it
    hole = ~measured(points) | (points == 0).all(axis=-1)  # (H, W)
    if hole.all():
        raise ImageError(
            f"measured points in '{name}'",
            f"none: all {hole.size:,} are 0, NaN or infinite",
            "scan the part again, or give its picture alone, without points",
        )
    points[hole] = np.nan
    if units not in (None, "m"):
        points *= np.float32(UNITS[units])
    _check_unit(points, ~hole, name, units)
    return points


def _check_unit(points: np.ndarray, known: np.ndarray, name: str, units: str | None) -> None:
    """Refuse points `(H, W, 3)`, measured where `known` `(H, W)`, that cannot be in the unit stated or assumed.

    Percentiles and medians: a few points that fly far off do not count.
    """
    found = points[known]  # (N, 3)
    low, middle, high = _percentiles(found)
    extent, away = float((high - low).max()), float(np.abs(middle).max())
    if units not in (None, "m") and 0 < extent < SMALLEST:
        raise ImageError(
            f"points in '{name}' in {units}, as stated",
            f"a scan of {1e6 * extent:.3g} micrometres from edge to edge",
            "state the unit that they are in",
        )
    if extent > LARGEST or away > FARTHEST:
        raise _doubted(name, units, f"a scan that extends {extent:,.4g} m and lies {away:,.4g} m away")
    if units is not None:
        return
    spacing, noise = spacing_and_noise(points)
    if extent > ASSUMED_LARGEST:
        raise _doubted(name, units, f"a scan that extends {extent:,.4g} m")
    if spacing > ASSUMED_COARSEST:
        raise _doubted(name, units, f"points {1000 * spacing:,.4g} mm apart")
    if noise > ASSUMED_NOISIEST:
        raise _doubted(name, units, f"points with a noise of {1000 * noise:,.4g} mm")


def _doubted(name: str, units: str | None, found: str) -> ImageError:
    return ImageError(
        f"points in metres in '{name}'" + (", as no unit was stated" if units is None else f" (stated: {units})"),
        f"{found}, which looks like millimetres",
        "state the unit: units='mm' (--units mm)"
        + (", or units='m' (--units m) where it is metres" if units is None else ""),
    )


def _percentiles(found: np.ndarray) -> np.ndarray:
    """The 2nd, the 50th and the 98th along each axis of measured points `(N, 3)`: `(3, 3)`."""
    return np.asarray(np.percentile(found[:: max(1, len(found) // _LOOKED_AT)], (2, 50, 98), axis=0))


def spacing_and_extent(points: np.ndarray) -> np.ndarray:
    """How far neighbours, and the edges, of the `points` `(H, W, 3)` are apart, in their unit: `(2,)`.

    Some must be measured; the distance is 0 where no two neighbours were.
    """
    low, _, high = _percentiles(points[measured(points)])
    return np.array([spacing_and_noise(points)[0], (high - low).max()])


def spacing_and_noise(points: np.ndarray) -> tuple[float, float]:
    """The distance between neighbours along the rows of `points` `(H, W, 3)`, and the noise on top, in their unit.

    The distance is the median, 0 where too few neighbours were measured. The noise is the standard deviation σ of a
    white noise along one axis that explains the second differences: their lower quartile is 0.3186 √6 σ, and edges and
    grooves, which take up less than three quarters of a surface, hardly move it. Neighbours in the same place, as
    scaling up a cloud makes them, do not count.
    """
    rows = points[:: max(1, points.shape[0] * points.shape[1] // _LOOKED_AT)]  # some rows (h, W, 3)
    steps = np.diff(rows, axis=1)  # (h, W - 1, 3)
    steps[~steps.any(axis=-1)] = np.nan
    first, second = (np.linalg.norm(d, axis=-1) for d in (steps, np.diff(steps, axis=1)))
    return _quantile(first, 0.5), _quantile(second, 0.25) / (0.3186 * 6**0.5)


def _quantile(values: np.ndarray, share: float) -> float:
    known = values[np.isfinite(values)]
    return float(np.quantile(known, share)) if len(known) else 0.0


def resize_points(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`points` (or a mask) `(H, W, …)` at `size` `(h, w)`, each place by its nearest neighbour: none is made up."""
    height, width = points.shape[:2]
    if (height, width) == tuple(size):
        return points
    return points[nearest_places(height, size[0])[:, None], nearest_places(width, size[1])]


def nearest_places(length: int, count: int) -> np.ndarray:
    """Which of `length` pixels in a row is nearest to each of `count` evenly spaced places, `(count,)`."""
    return ((np.arange(count) + 0.5) * length / count).astype(np.int64)
