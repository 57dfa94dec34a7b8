"""All that travels through blemish: Sample → image or Scan → Features → PatchScores → Prediction.

Arrays of images are numpy, `(H, W, 3)` uint8 RGB; everything between encoder and map is a torch tensor.
This module imports no torch, so that the command line and the light runtime can use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np

from blemish.errors import ImageError, SettingsError

if TYPE_CHECKING:
    import torch

RGB = "rgb"  # the key of the image's own features; further modalities bring their own keys
CONTEXT = "context"  # the same image as a second encoder sees it (encoders/composite/two_image.py)
# In the space that an encoder shares with sentences (encoders/image_text/): the image as a whole, on a grid of one
# cell; its windows, a layer for each size; its patches.
WHOLE, WINDOWS, ALIGNED = "whole", "windows", "aligned"
Verdict = Literal["good", "defective", "unsure", "unknown"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
ALARMS: tuple[Verdict, ...] = ("defective", "unknown")  # "unsure" is left to a person
POINTS = "points"  # the key of the measured surface's features
# Share of a scan's points, or of its patches, that must be measured for its points to count: a few stray ones say
# nothing of a part. Chosen by hand: without ground and holes the cable glands of MVTec 3D-AD cover 14 % of a scan at
# least, and 60 % of the patches of their crop.
LEAST_MEASURED = 0.01


# Metres in a unit that measured points may be stated in.
UNITS: Mapping[str, float] = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "in": 0.0254}


def check_units(units: str | None) -> None:
    """Raise SettingsError for a unit of points that is not known; None says that nobody stated one."""
    if units is not None and units not in UNITS:
        raise SettingsError(f"units of points: {', '.join(UNITS)}", repr(units), "name one of them")


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera and its lens: focal lengths `fx`, `fy` and optical centre `cx`, `cy`, in pixels.

    `width` and `height` are those of the images that the numbers are about, None where nobody says. `distortion` holds
    OpenCV's coefficients k1, k2, p1, p2, k3, k4, k5, k6, as many as there are; `division` is κ of the division model on
    the plane z = 1. Raises SettingsError for numbers that cannot be.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int | None = None
    height: int | None = None
    distortion: tuple[float, ...] = ()
    division: float = 0.0

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, self.division, *self.distortion)
        if not (np.isfinite(numbers).all() and min(self.fx, self.fy) > 0):
            raise SettingsError("fx and fy above 0, and finite cx and cy, in pixels", self.words(), "correct them")
        if len(self.distortion) > 8 or (self.division and any(self.distortion)):
            raise SettingsError("up to 8 coefficients of distortion, or one of division", self.words(), "give one kind")

    def words(self) -> str:
        """Its numbers, for people."""
        size = "" if self.width is None else f" at {self.width}x{self.height}"
        bent = f", distortion {', '.join(f'{one:.6g}' for one in self.distortion)}" if any(self.distortion) else ""
        bent += f", division {self.division:.6g}" if self.division else ""
        return f"fx {self.fx:.6g}, fy {self.fy:.6g}, cx {self.cx:.6g}, cy {self.cy:.6g}{size}{bent}"


@dataclass(frozen=True, kw_only=True)
class ScanGeometry:
    """How measured points follow from what files hold that have no x, y, z of their own.

    `camera` took depth images; one level of them is `depth_scale` of the unit stated with them (of a metre, where none
    is). `mm_per_pixel` (x, y, z) says of height maps, instead, how many millimetres a column, a row and a level are.
    `grid` (width, height) is that of clouds whose files do not state one. Raises SettingsError for what cannot be.
    """

    camera: Camera | None = None
    depth_scale: float | None = None
    mm_per_pixel: tuple[float, float, float] | None = None
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.camera is not None and self.mm_per_pixel is not None:
            raise SettingsError(
                "the camera of depth images (--intrinsics), or the steps of height maps (--mm-per-pixel)",
                "both",
                "give what your files are",
            )
        if self.mm_per_pixel is not None and self.depth_scale is not None:
            raise SettingsError(
                "--depth-scale with --intrinsics", "it with --mm-per-pixel", "leave it out: z states it"
            )
        steps = (*(self.mm_per_pixel or ()), *(() if self.depth_scale is None else (self.depth_scale,)))
        if not all(np.isfinite(step) and step > 0 for step in steps) or len(self.mm_per_pixel or "xyz") != 3:
            raise SettingsError("finite steps above 0 of x, y, z and depth", self.words(), "correct them")
        if self.grid is not None and min(self.grid) < 1:
            raise SettingsError("a grid of at least 1x1 points", self.words(), "write it as WIDTHxHEIGHT")

    def words(self) -> str:
        """What is stated, for people; "" where nothing is."""
        parts = [
            "" if self.camera is None else f"camera {self.camera.words()}",
            "" if self.depth_scale is None else f"depth {self.depth_scale:g} a level",
            "" if self.mm_per_pixel is None else f"{' x '.join(f'{one:g}' for one in self.mm_per_pixel)} mm per pixel",
            "" if self.grid is None else f"clouds of {self.grid[0]}x{self.grid[1]} points",
        ]
        return "; ".join(filter(None, parts))

    def contradictions(self, other: ScanGeometry) -> list[str]:
        """The fields that both state, differently."""
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        return [name for name, own, others in pairs if None not in (own, others) and own != others]

    def or_else(self, other: ScanGeometry | None) -> ScanGeometry:
        """The same, with what is not stated here as `other` states it."""
        if other is None:
            return self
        stated = {name: getattr(self, name) for name in self.__dataclass_fields__ if getattr(self, name) is not None}
        return replace(other, **stated)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """Take back what `to_dict` gave."""
        camera, steps, grid = (saved.get(name) for name in ("camera", "mm_per_pixel", "grid"))
        return cls(
            camera=None if camera is None else Camera(**camera | {"distortion": tuple(camera["distortion"])}),
            depth_scale=saved.get("depth_scale"),
            mm_per_pixel=None if steps is None else (steps[0], steps[1], steps[2]),
            grid=None if grid is None else (grid[0], grid[1]),
        )


@dataclass(frozen=True, eq=False)
class Scan:
    """An image and the points measured with it on one grid; one of the two may be missing. Compares by identity.

    `rgb` is `(H, W, 3)` uint8; between drawing a synthetic anomaly and resizing it is float32 in [0, 255], so that
    levels are rounded once. `xyz` is `(H, W, 3)` float32 in metres, NaN where nothing was measured. A missing modality
    is None. Raises ImageError for other shapes and types, and where both are missing.
    """

    rgb: np.ndarray | None = None
    xyz: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.rgb is None and self.xyz is None:
            raise ImageError("a scan with a picture, points, or both", "neither", "leave it out")
        _check_layer("a scan's picture", self.rgb, ("uint8", "float32"))
        _check_layer("a scan's points in metres", self.xyz, ("float32",))
        if self.rgb is not None and self.xyz is not None and self.rgb.shape != self.xyz.shape:
            raise ImageError(
                f"points on the grid of their picture, {self.rgb.shape[:2]}",
                f"{self.xyz.shape[:2]}",
                "load them with load_scan, which brings points to the picture's size",
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the grid."""
        height, width = self._layers[0].shape[:2]
        return height, width

    @property
    def available(self) -> tuple[str, ...]:
        """The modalities of which there is anything: `RGB`, and `POINTS` where any point was measured."""
        points = self.xyz is not None and bool(np.isfinite(self.xyz).all(axis=-1).any())
        return (RGB,) * (self.rgb is not None) + (POINTS,) * points

    @property
    def image(self) -> np.ndarray | None:
        """The image `(H, W, 3)` uint8, None where it is missing."""
        if self.rgb is None or self.rgb.dtype == np.uint8:
            return self.rgb
        return np.rint(self.rgb.clip(0, 255)).astype(np.uint8)

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        return sum(layer.nbytes for layer in self._layers)

    def tobytes(self) -> bytes:
        """All that it holds, for a hash."""
        return b"".join(b"-" if layer is None else layer.tobytes() for layer in (self.rgb, self.xyz))

    def only(self, modality: str) -> Scan:
        """The same without the other modality. Raises ImageError where this one is missing."""
        return Scan(rgb=self.rgb) if modality == RGB else Scan(xyz=self.xyz)

    def map(self, rgb: Callable[[np.ndarray], np.ndarray], xyz: Callable[[np.ndarray], np.ndarray]) -> Scan:
        """A scan of what the functions make of the modalities that are not missing."""
        return Scan(None if self.rgb is None else rgb(self.rgb), None if self.xyz is None else xyz(self.xyz))

    def crop(self, rows: slice, columns: slice) -> Scan:
        """A part of the grid, its memory contiguous."""

        def cut(layer: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(layer[rows, columns])

        return self.map(cut, cut)

    @property
    def _layers(self) -> list[np.ndarray]:
        return [layer for layer in (self.rgb, self.xyz) if layer is not None]


def _check_layer(what: str, layer: np.ndarray | None, kinds: Sequence[str]) -> None:
    if layer is None:
        return
    if layer.ndim != 3 or layer.shape[2] != 3 or 0 in layer.shape or str(layer.dtype) not in kinds:
        raise ImageError(
            f"{what} as an (H, W, 3) array of {kinds[0]}", f"shape {layer.shape} of {layer.dtype}", "convert it first"
        )


ImageOrScan = np.ndarray | Scan  # what is framed: an image `(H, W, 3)` uint8, or a scan
EncoderInput = np.ndarray | Sequence[Scan]  # a batch of them: images `(B, H, W, 3)` uint8, or B scans of one shape


@dataclass(frozen=True)
class Saturation:
    """How much of a defect counts as all of it: `amount` pixels, or, where `is_relative`, that share of its area.

    Of a part that is missing nobody can mark the pixels; what is marked is where it may lie, and its size is enough
    (Bergmann et al., "Beyond Dents and Scratches", IJCV 2022). Raises SettingsError for an amount that cannot be.
    """

    amount: float
    is_relative: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.amount <= (1 if self.is_relative else float("inf")):
            raise SettingsError("a saturation of over 0 pixels, or a share in (0, 1]", str(self.amount), "correct it")

    def pixels(self, area: int) -> float:
        """The saturation in pixels of a defect of `area` pixels: at most all of them."""
        return min(self.amount * area if self.is_relative else self.amount, area)


@dataclass(frozen=True, eq=False)
class Sample:
    """One part as it lies on disk or in memory: an image, its measured surface, or both, and what is known about it.

    `image` is a path or an `(H, W, 3)` uint8 array, None where there are points alone; `points` a path or an
    `(H, W, 3)` array of numbers (0, NaN or infinite where nothing was measured), None where there is an image alone,
    in `units` (a key of `UNITS`; None: metres are assumed, and must be plausible), of depth images and height maps
    measured as `geometry` says; `label` is 0 for good, 1 for defective, None when unknown; `mask` a path or `(H, W)`
    array of the defect, whose pixels are not 0, or a folder that holds a mask for each of several; `defect` names its
    kind. `saturations` says how much of a defect must be found, by the value that marks it in its mask; empty: all.
    Raises ImageError without either, SettingsError for an unknown unit.
    """

    image: Path | np.ndarray | None
    points: Path | np.ndarray | None = None
    label: int | None = None
    mask: Path | np.ndarray | None = None
    category: str | None = None
    defect: str = ""
    split: str = ""
    units: str | None = None
    saturations: Mapping[int, Saturation] = field(default_factory=dict)
    geometry: ScanGeometry | None = None

    def __post_init__(self) -> None:
        if self.image is None and self.points is None:
            raise ImageError("a picture, points, or both", "neither", "give a sample one of them at least")
        check_units(self.units)

    @classmethod
    def of(cls, scan: Scan, **facts: Any) -> Self:
        """A sample of a scan in memory; `facts` are further fields, such as `label`."""
        points = scan.xyz if POINTS in scan.available else None
        return cls(scan.image, points, units="m", **facts)

    def measured_by(self, units: str | None, geometry: ScanGeometry | None) -> Self:
        """The same with points in `units` and of this `geometry`, where it states none itself."""
        if self.points is None:
            return self
        own = self.geometry or geometry
        return replace(
            self,
            units=self.units or units,
            geometry=own if own is None or geometry is None else own.or_else(geometry),
        )

    @property
    def source(self) -> Path | np.ndarray:
        """The image, or the points where there is no image."""
        found = self.points if self.image is None else self.image
        assert found is not None  # one of them is there: see `__post_init__`
        return found

    @property
    def name(self) -> str:
        """The path of the image (of the points, where there is no image) as text, or "array" for one in memory."""
        return str(self.source) if isinstance(self.source, Path) else "array"


def is_available(valid: torch.Tensor) -> torch.Tensor:
    """Which images have a modality, `(B,)` bool, by its `valid` patches `(B, h, w)` bool: `LEAST_MEASURED` of them."""
    return valid.flatten(1).float().mean(1) >= LEAST_MEASURED


def resize_to_finest(layers: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Layers `(B, h, w, D)`, each on its own grid, on that of the finest (bilinear); those on it come as they are."""
    from torch.nn.functional import interpolate

    grid = max((tuple(layer.shape[1:3]) for layer in layers), key=lambda size: size[0] * size[1])
    return [
        layer
        if tuple(layer.shape[1:3]) == grid
        else interpolate(layer.permute(0, 3, 1, 2), grid, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
        for layer in layers
    ]


@dataclass(frozen=True, eq=False)
class Features:
    """What an encoder saw in a batch of B equally large images.

    `layers` maps a modality to one float32 tensor per encoder layer taken, each `(B, h, w, D)` on its own grid.
    `valid` maps a modality to a `(B, h, w)` bool tensor where that modality has holes. `categories` names the category
    of each image, where it is given or recognised. `ignored` `(B, H, W)` bool marks the pixels of the encoder's inputs
    that are not judged; None: all are.
    """

    layers: Mapping[str, tuple[torch.Tensor, ...]]
    valid: Mapping[str, torch.Tensor] = field(default_factory=dict)
    categories: tuple[str, ...] | None = None
    ignored: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.layers.values()))[0])

    def __getitem__(self, modality: str) -> torch.Tensor:
        """All layers of a modality side by side, `(B, h, w, ΣD)`, on the finest layer's grid (bilinear)."""
        layers = self.layers[modality]
        if len(layers) == 1:
            return layers[0]
        import torch

        return torch.cat(resize_to_finest(layers), dim=-1)  # (B, h, w, ΣD)

    @property
    def available(self) -> tuple[str, ...]:
        """The modalities that any of these images has: see `is_available`."""
        return tuple(m for m in self.layers if m not in self.valid or bool(is_available(self.valid[m]).any()))

    @classmethod
    def cat(cls, parts: Sequence[Features]) -> Features:
        """The images of all `parts` as one batch; raises ValueError where layers or holes differ."""
        import torch

        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        layers = {m: tuple(map(torch.cat, zip(*(p.layers[m] for p in parts), strict=True))) for m in first.layers}
        valid = {m: torch.cat([p.valid[m] for p in parts]) for m in first.valid}
        names = [p.categories for p in parts]
        categories = None if None in names else tuple(name for own in names for name in own or ())
        masks = [p.ignored for p in parts]
        known = next((mask for mask in masks if mask is not None), None)
        ignored = None
        if known is not None:
            filled = [known.new_zeros(len(p), *known.shape[1:]) if p.ignored is None else p.ignored for p in parts]
            ignored = torch.cat(filled)  # (B, H, W)
        return cls(layers=layers, valid=valid, categories=categories, ignored=ignored)

    def to(self, dtype: torch.dtype) -> Features:
        """The same with layers of another number format."""
        return replace(self, layers={m: tuple(t.to(dtype) for t in tensors) for m, tensors in self.layers.items()})

    def with_categories(self, categories: Sequence[str] | None) -> Features:
        return replace(self, categories=None if categories is None else tuple(categories))

    def with_ignored(self, pixels: np.ndarray | None) -> Features:
        """The same of images that are framed alike, where the `pixels` `(H, W)` bool of the input are not judged."""
        import torch

        return self if pixels is None else replace(self, ignored=torch.from_numpy(pixels).expand(len(self), -1, -1))

    @property
    def is_ignored(self) -> bool:
        """Whether nothing of these images is judged, on the grid of the coarsest layer of patches."""
        shapes = [tensor.shape[1:3] for name, tensors in self.layers.items() if name != WHOLE for tensor in tensors]
        ignored = self.ignored_on(min(shapes, key=lambda shape: shape[0] * shape[1]))
        return ignored is not None and bool(ignored.all())

    def ignored_on(self, grid: Sequence[int]) -> torch.Tensor | None:
        """The patches `(B, h, w)` bool of a `grid` (h, w) that are not judged; None where all are.

        They are those that ignored pixels touch, and their neighbours, which see the edge of what is filled in; of an
        image of which nothing would be left then, without the neighbours.
        """
        if self.ignored is None:
            return None
        import torch

        from blemish.numeric.raster import ignored_patches

        areas = [ignored_patches(pixels.numpy(), grid) for pixels in self.ignored.cpu()]  # (h, w) each
        return torch.from_numpy(np.stack(areas)).to(self.ignored.device)  # (B, h, w)

    def take(self, index: Any) -> Features:
        """The images that `index` (a slice or an integer/bool tensor over B) selects."""
        picked = None
        if self.categories is not None:
            rows = np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)]
            picked = tuple(self.categories[i] for i in np.atleast_1d(rows))
        return Features(
            layers={m: tuple(t[index] for t in tensors) for m, tensors in self.layers.items()},
            valid={m: t[index] for m, t in self.valid.items()},
            categories=picked,
            ignored=None if self.ignored is None else self.ignored[index],
        )


@dataclass(frozen=True, eq=False)
class Prompts:
    """Sentences about one category as a text encoder embeds them: rows of unit length, `(S, D)` float32.

    `normal` describe good parts of it; `abnormal` `(A, D)` defective ones, None where nobody asked for them.
    """

    normal: torch.Tensor
    abnormal: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """What a detector is fitted on: features of normal images and, if it asks for them, of synthetic anomalies.

    `altered` are the features of the same images after a synthetic anomaly was pasted in, `altered_mask` `(B, h, w)`
    bool says which patches it covers (finest grid). Both are None for detectors that are fitted on normal images alone.
    `prompts` maps each category to its sentences, for detectors that asked for text. `images` is the number of the
    normal image that each row shows, `originals` whether it shows it as it is, neither turned nor mirrored.
    """

    features: Features
    altered: Features | None = None
    altered_mask: torch.Tensor | None = None
    prompts: Mapping[str, Prompts] | None = None
    images: tuple[int, ...] | None = None
    originals: tuple[bool, ...] | None = None


@dataclass(frozen=True, eq=False)
class PatchScores:
    """Anomaly scores of patches: `patches` `(B, h, w)` float32 ≥ 0, larger is more anomalous.

    `images` `(B,)` is set by methods that have an image score of their own (PatchCore's re-weighting); otherwise
    the patches are pooled.
    """

    patches: torch.Tensor
    images: torch.Tensor | None = None


@dataclass(frozen=True)
class Match:
    """The place of a kept normal image that a region is compared with.

    `file` is the image's name, `number` its own among those kept of the category; `centre` (x, y) and `size` (width,
    height) are those of the place, in pixels of the kept image; `degrees` is by how much that is turned, clockwise, to
    be compared; `similarity` in [−1, 1] the mean cosine of the patches around the region to those around the place.
    """

    file: str
    number: int
    centre: tuple[float, float]
    size: tuple[float, float]
    degrees: float
    similarity: float


@dataclass(frozen=True, eq=False)
class CropPair:
    """A region's surroundings as inspected, `found`, and the place matched with it, `good`: `(h, w, 3)` uint8 each."""

    found: np.ndarray
    good: np.ndarray


Quantity = Literal["count", "area"]


@dataclass(frozen=True, kw_only=True)
class BrokenRule:
    """What holds in all of `images` normal images of a category, and not in this one.

    `quantity` of a `component` (its number, from 1): "count", how many separate areas of it there are, or "area", its
    share of what is judged of the image. It lay between `low` and `high`, both included (`is_either`: at one of the
    two, never between), and is `found` here. `places` are (x, y) in [0, 1] of the encoder's input: where the component
    lies here, or, where there is too little of it, where it usually does.
    """

    component: int
    quantity: Quantity
    low: float
    high: float
    found: float
    images: int
    places: tuple[tuple[float, float], ...]
    is_either: bool = False


@dataclass(frozen=True, kw_only=True)
class StatedRule(BrokenRule):
    """A broken rule as a region states it: its `places` in image pixels, and the key of the nearest one's `place`."""

    place: str


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """What can be measured of a region, on the part and against the matched place of a normal image.

    See docs/methods/reasons.md.

    What could not be measured is None. `noun` and `place` are keys of the language files. `centre` (x, y) in image
    pixels; `on_part` (u, v) the same in [0, 1]² of the part's upright box (of the image, where no part is found);
    `edge_distance` from the part's outline over its inscribed radius, negative beside the part. `area_share` of the
    part's area (of the image's, unless `is_of_part`). `length` and `width` in pixels along the principal axes,
    `elongation` their ratio ≥ 1, `degrees` the direction of the length in [0, 180), 0 horizontal, 90 vertical, rising
    to the right below 90. `length_mm`, `width_mm` where the scale is known.
    `lightness`, `redness`, `yellowness` are differences ΔL*, Δa*, Δb* to the matched place, `colour_difference` ΔE2000;
    `texture_ratio` and `edge_ratio` those of local variance and of gradient energy to the matched place's.
    `presence` is "missing" where good parts show the part and this one background, "extra" the other way round, else
    "". `height_mm` is how far the surface rises above its surroundings, beyond what that of the matched place does.
    `strength` is the peak over the map threshold. `match` is None where nothing that was learned looks like this.
    `rule` is what all good parts have in common and this one has not, of detectors that learn such rules, where it lies
    here.
    `name` is that of a user's own list that fits, "" where none does, and `name_gain` how much more like its name the
    region is than the matched place, as a difference of cosines. `words_by` is the vision-language model that wrote the
    region's sentence, "" where the template did.
    """

    noun: str
    place: str
    centre: tuple[float, float]
    on_part: tuple[float, float]
    is_of_part: bool
    area_share: float
    length: float
    width: float
    elongation: float
    degrees: float
    strength: float
    edge_distance: float | None = None
    length_mm: float | None = None
    width_mm: float | None = None
    lightness: float | None = None
    redness: float | None = None
    yellowness: float | None = None
    colour_difference: float | None = None
    texture_ratio: float | None = None
    edge_ratio: float | None = None
    presence: str = ""
    height_mm: float | None = None
    is_known: bool = True  # False: nothing that was learned looks like this
    match: Match | None = None
    rule: StatedRule | None = None
    name: str = ""
    name_gain: float | None = None
    words_by: str = ""

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """Take back what `to_dict` gave; what it does not know is left out."""
        known = {name: value for name, value in saved.items() if name in cls.__dataclass_fields__}
        known |= {name: tuple(known[name]) for name in ("centre", "on_part")}
        if known.get("match") is not None:
            match = known["match"]
            known["match"] = Match(**match | {name: tuple(match[name]) for name in ("centre", "size")})
        if known.get("rule") is not None:
            known["rule"] = StatedRule(**known["rule"] | {"places": tuple(map(tuple, known["rule"]["places"]))})
        return cls(**known)


@dataclass(frozen=True)
class Region:
    """One connected defective area. `box` is (left, top, right, bottom) in image pixels, right/bottom exclusive.

    `modalities` says which share of the alarm each modality raised, adding up to 1; empty where only one is used.
    `attributes` say what it looks like beside good parts, None where that was not asked; `words` say it in a sentence;
    `crops` show it, where it was matched.
    """

    box: tuple[int, int, int, int]
    area: int  # pixels
    peak: float  # largest score inside
    mean: float
    centroid: tuple[float, float]  # (x, y) in pixels
    words: str = ""
    modalities: Mapping[str, float] = field(default_factory=dict, hash=False)
    attributes: Attributes | None = None
    crops: CropPair | None = field(default=None, compare=False, repr=False)  # in memory alone

    def to_dict(self) -> dict[str, Any]:
        """Everything but the crops, ready for JSON; what is not there is left out."""
        return (
            {
                "box": list(self.box),
                "area": self.area,
                "peak": self.peak,
                "mean": self.mean,
                "centroid": list(self.centroid),
                "words": self.words,
            }
            | ({"modalities": dict(self.modalities)} if self.modalities else {})
            | ({"attributes": self.attributes.to_dict()} if self.attributes else {})
        )

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """Take back what `to_dict` gave."""
        return cls(
            box=tuple(saved["box"]),
            area=saved["area"],
            peak=saved["peak"],
            mean=saved["mean"],
            centroid=tuple(saved["centroid"]),
            words=saved["words"],
            modalities=saved.get("modalities", {}),
            attributes=Attributes.from_dict(saved["attributes"]) if saved.get("attributes") else None,
        )


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result for one image; compares and hashes by identity.

    `score` ≥ 0, larger is more anomalous; `p_value` in (0, 1] is the share of normal parts that score at least this
    much; `threshold` the score above which a part is defective, `unsure_threshold` the one up to which it is good
    (None: the same); `map` `(H, W)` float32 the anomaly map at the image's own size, `region_threshold` the value above
    which it makes a region; `category` the one recognised or given, None for a model of a single unnamed category.
    `ignored` `(h, w)` bool is the area that is not judged, of the whole image at any resolution; None: there is none.
    `verdict` is the one decision that everything downstream reads: "good"; "defective"; "unsure", which a person should
    look at; or "unknown" where the image lies far from every category the model was fitted on.
    """

    score: float
    p_value: float
    threshold: float
    verdict: Verdict
    map: np.ndarray
    regions: tuple[Region, ...] = ()
    category: str | None = None
    region_threshold: float = 0.0
    unsure_threshold: float | None = None
    seconds: float = 0.0
    source: str = "array"
    ignored: np.ndarray | None = None

    def __repr__(self) -> str:
        """One line, without the map."""
        facts = [f"score {self.score:.4g}", f"threshold {self.threshold:.4g}", f"p-value {self.p_value:.2g}"]
        count = len(self.regions)
        facts += [f"{count} region{'' if count == 1 else 's'}", f"map {self.map.shape}", f"source {self.source!r}"]
        facts += [] if self.category is None else [f"category {self.category!r}"]
        return f"<Prediction {self.verdict}: {', '.join(facts)}>"

    @property
    def is_defective(self) -> bool:
        return self.verdict == "defective"

    @property
    def is_known(self) -> bool:
        """Whether the image shows a part that the model was fitted on."""
        return self.verdict != "unknown"

    @property
    def excess(self) -> float:
        """The score in units of its threshold: above 1 where the score alone calls the part defective."""
        return self.score / self.threshold if self.threshold > 0 else self.score

    @property
    def ignored_share(self) -> float:
        """The share of the image, in [0, 1), that is not judged."""
        return 0.0 if self.ignored is None else float(self.ignored.mean())

    def to_dict(self) -> dict[str, Any]:
        """Everything but the maps, ready for JSON."""
        return {
            "file": self.source,
            "category": self.category,
            "verdict": self.verdict,
            "is_known": self.is_known,
            "score": self.score,
            "p_value": self.p_value,
            "threshold": self.threshold,
            "unsure_threshold": self.threshold if self.unsure_threshold is None else self.unsure_threshold,
            "is_defective": self.is_defective,
            "regions": [region.to_dict() for region in self.regions],
            "seconds": self.seconds,
            "ignored_share": self.ignored_share,
        }

    @classmethod
    def from_dict(
        cls,
        saved: Mapping[str, Any],
        map: np.ndarray,
        region_threshold: float = 0.0,
        ignored: np.ndarray | None = None,
    ) -> Self:
        """Take back what `to_dict` gave, with the maps and the threshold of regions, which it does not hold."""
        same = ("score", "p_value", "threshold", "verdict", "category", "unsure_threshold", "seconds")
        return cls(
            **{name: saved[name] for name in same},
            map=map,
            regions=tuple(Region.from_dict(region) for region in saved["regions"]),
            region_threshold=region_threshold,
            source=saved["file"],
            ignored=ignored,
        )


@dataclass(frozen=True)
class Failure:
    """An image that could not be inspected, and why."""

    file: str
    error: str
