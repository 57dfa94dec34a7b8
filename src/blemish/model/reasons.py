"""Reasons for an alarm that point at a place: every region compared with the good place it is matched with.

The numbers are measured by scoring/region_attributes.py, the noun and the sentence follow from stated rules
(scoring/naming.py, scoring/sentences.py): no language model takes part. No score, map or verdict depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from scipy import ndimage

from blemish.encoders.base import Encoder
from blemish.errors import SettingsError
from blemish.model.defect_names import DefectNamer, checked_names, speaking_encoder
from blemish.model.reference_image import ReferenceImage
from blemish.model.reference_images import ReferenceImages
from blemish.model.surroundings import Placement, Surroundings
from blemish.model.vlm import Describer, LocalVlm
from blemish.numeric.affine import inverse, joined
from blemish.preprocessing.crop_to_part import cut, is_coarse
from blemish.preprocessing.framing import Frame
from blemish.scoring.naming import noun_of, place_of
from blemish.scoring.part_outline import PartOutline
from blemish.scoring.region_attributes import (
    Comparison,
    Crops,
    Shape,
    compare,
    height_above,
    is_enough,
    missing_points,
    shape_of,
    surroundings,
)
from blemish.scoring.sentences import DEFAULT_LANGUAGE, phrases_of, sentence_of
from blemish.types import Attributes, BrokenRule, CropPair, Features, Match, Region, Scan, StatedRule

COMPARED = 4  # regions of an image, the strongest, that are compared; bounds the time
SIDE = 128  # pixels of a crop, the longer side
CONTEXT = 0.4  # of a region's size that is kept on each side of it, at least
LEAST_CONTEXT = 1.5  # cells
JUMP = 5.0  # times the usual distance of neighbouring points: over an edge in depth
SHIFT_PIXELS = 800  # around a region, that crops are brought to lie on one another by


@dataclass(frozen=True, kw_only=True)
class ReasonSettings:
    """How regions are described: in which `language`, at which `mm_per_pixel` of the image, and whether at all.

    Without `compare` regions keep the short words of scoring/describe.py. `namer` names them from a user's list,
    `describer` writes their sentences by a vision-language model. Raises SettingsError.
    """

    language: str = DEFAULT_LANGUAGE
    mm_per_pixel: float | None = None
    compare: bool = True
    namer: DefectNamer | None = None
    describer: Describer | None = None

    def __post_init__(self) -> None:
        phrases_of(self.language)
        scale = self.mm_per_pixel
        if scale is not None and not (scale > 0 and math.isfinite(scale)):
            raise SettingsError("a size of pixels above 0 mm", str(scale), "measure something of known length")

    @classmethod
    def of(
        cls,
        language: str = DEFAULT_LANGUAGE,
        mm_per_pixel: float | None = None,
        compare: bool = True,
        defect_names: Sequence[str] | None = None,
        names_encoder: str | Path | Encoder = "auto",
        vlm: str | Path | None = None,
        device: str = "cpu",
    ) -> Self:
        """Settings with the namer of `defect_names`, if any are given, by an encoder that reads words, and a `vlm`.

        Raises SettingsError for names that cannot be, WeightsError where no such encoder or model loads.
        """
        found = cls(language=language, mm_per_pixel=mm_per_pixel, compare=compare)
        if vlm is not None:
            found = replace(found, describer=Describer(LocalVlm(vlm, device), language))
        if defect_names is None:
            return found
        names = checked_names(defect_names)  # before anything is loaded
        return replace(found, namer=DefectNamer(names, speaking_encoder(names_encoder, device)))


@dataclass(frozen=True, eq=False)
class InspectedFrame:
    """What regions of one image are described by: its frame, features, map, and the model's kept normal images.

    `scores` `(H, W)` is the anomaly map, `threshold` what regions rise above; `references` is None for models that keep
    none, or an image of no known part. `broken_rules` are what all normal images have in common and this one has not.
    """

    frame: Frame
    features: Features
    scores: np.ndarray
    threshold: float
    references: ReferenceImages | None
    settings: ReasonSettings
    broken_rules: Sequence[BrokenRule] = ()

    @property
    def scan(self) -> Scan:
        given = self.frame.encoder_input
        return given if isinstance(given, Scan) else Scan(rgb=given)

    @cached_property
    def to_image(self) -> np.ndarray:
        """The `(2, 3)` matrix from (x, y, 1) of the frame to the image."""
        if self.frame.to_image is not None:
            return np.asarray(self.frame.to_image, dtype=np.float64)
        (height, width), (down, across) = self.frame.input_size, self.frame.original_size
        return np.array([[across / width, 0.0, 0.0], [0.0, down / height, 0.0]])

    @cached_property
    def from_image(self) -> np.ndarray:
        """The `(2, 3)` matrix from (x, y, 1) of the image to the frame."""
        return inverse(self.to_image)


def with_reasons(regions: Sequence[Region], inspected: InspectedFrame, is_known: bool = True) -> tuple[Region, ...]:
    """The regions with attributes, crops and a sentence; beyond the strongest few with what the map alone says."""
    if not regions:
        return ()
    references = inspected.references if is_known else None
    part = outline_of(inspected) if is_known else None
    cells = None if references is None else references.cells_of(inspected.features)
    rules = stated_rules(regions, inspected, part) if is_known else {}
    found = []
    for rank, region in enumerate(regions):
        if rank < COMPARED:
            attributes, crops = described(region, inspected, part, cells, is_known)
            region = replace(region, crops=crops)
            if crops is not None and references is not None and inspected.settings.namer is not None:
                name, gain = inspected.settings.namer.name_of(crops, references)
                attributes = replace(attributes, name=name, name_gain=gain)
        else:
            attributes = attributes_of(region, inspected, part, shape_of_box(region), is_known)
        region = replace(region, attributes=replace(attributes, rule=rules.get(rank)))
        found.append(
            worded(replace(region, words=sentence_of(region, inspected.settings.language)), inspected.settings)
        )
    return tuple(found)


def worded(region: Region, settings: ReasonSettings) -> Region:
    """The region with a vision-language model's sentence in place of the template's, where it passes the checks."""
    describer, found = settings.describer, region.attributes
    if describer is None or found is None or region.crops is None:
        return region
    said = describer.sentence(region.crops, found, region.words)
    return replace(region, words=said, attributes=replace(found, words_by=describer.writer.name)) if said else region


def stated_rules(
    regions: Sequence[Region], inspected: InspectedFrame, part: PartOutline | None
) -> dict[int, StatedRule]:
    """The rule that each region states, by its rank: of those that are broken the first that lies in it, or nearest.

    A rule is stated once, by the strongest region that holds one of its places, or else by the nearest one.
    """
    height, width = inspected.frame.input_size
    stated: dict[int, StatedRule] = {}
    for rule in inspected.broken_rules:
        lie = inspected.to_image @ np.array([[x * width, y * height, 1.0] for x, y in rule.places]).T  # (2, N)
        places = [(float(x), float(y)) for x, y in lie.T]
        far = [(distance_to(region.box, place), rank, place) for rank, region in enumerate(regions) for place in places]
        _, rank, place = min(far)
        facts = {one.name: getattr(rule, one.name) for one in fields(BrokenRule)} | {"places": tuple(places)}
        key = place_of(on_part_of(place, inspected, part))
        stated.setdefault(rank, StatedRule(**facts, place=key))
    return stated


def distance_to(box: Sequence[int], place: tuple[float, float]) -> float:
    """How far a place (x, y) lies outside a box (left, top, right, bottom), in pixels; 0 inside."""
    left, top, right, bottom = box
    return math.hypot(max(left - place[0], 0.0, place[0] - right), max(top - place[1], 0.0, place[1] - bottom))


def part_box(inspected: InspectedFrame, part: PartOutline | None) -> tuple[float, float, float, float]:
    """The part's upright box (left, top, right, bottom) in the image; that of the image where no part is found."""
    height, width = inspected.frame.original_size
    return (0.0, 0.0, float(width), float(height)) if part is None else part.box


def on_part_of(place: tuple[float, float], inspected: InspectedFrame, part: PartOutline | None) -> tuple[float, float]:
    """A place (x, y) of the image as (u, v) in [0, 1]² of the part's box."""
    left, top, right, bottom = part_box(inspected, part)
    x, y = (place[0] - left) / max(right - left, 1.0), (place[1] - top) / max(bottom - top, 1.0)
    return min(1.0, max(0.0, x)), min(1.0, max(0.0, y))


def outline_of(inspected: InspectedFrame) -> PartOutline | None:
    """The part's outline; None where parts fill the image, or nothing is known of them."""
    scan, references = inspected.scan, inspected.references
    if scan.xyz is not None:
        return PartOutline.of_points(scan.xyz, inspected.to_image)
    if scan.image is None or references is None or not references.show_parts:
        return None
    return PartOutline.of_image(scan.image, inspected.to_image)


def described(
    region: Region,
    inspected: InspectedFrame,
    part: PartOutline | None,
    cells: np.ndarray | None,
    is_known: bool,
) -> tuple[Attributes, CropPair | None]:
    """The attributes of a region, and its crop beside that of the place it is matched with."""
    window = Window.around(region, inspected)
    references, placement = inspected.references, None
    if cells is not None and references is not None:
        placement = references.place_of(Surroundings.of(cells, cells_of(region, inspected, cells.shape[:2])))
    is_known = is_known and (references is None or placement is not None)
    if placement is None or references is None or cells is None:
        inside = window.inside(region, inspected)
        shape = shape_of(inside, window.to_image(inspected))
        return attributes_of(region, inspected, part, shape, is_known), None
    image = references.images[placement.number]
    to_good = to_reference(placement, image, inspected, (cells.shape[0], cells.shape[1]))
    crops, to_good = window.crops(region, inspected, image, to_good)
    comparison = compare(crops, None if part is None else part.background)
    visible = None if comparison is None else comparison.visible
    shape = shape_of(crops.inside if visible is None else visible, crops.to_image)
    match = match_of(placement, image, window, to_good)
    attributes = attributes_of(region, inspected, part, shape, True, comparison, match, crops)
    pair = None if crops.found is None or crops.good is None else CropPair(crops.found, crops.good)
    return attributes, pair


@dataclass(frozen=True)
class Window:
    """A rectangle of the frame, `left`, `top` in its pixels, cut as `height` x `width` pixels of `scale` of them."""

    left: float
    top: float
    height: int
    width: int
    scale: float

    @classmethod
    def around(cls, region: Region, inspected: InspectedFrame) -> Window:
        """A region and its context, inside the frame."""
        height, width = inspected.frame.input_size
        left, top, right, bottom = region.box
        corners = np.array([[left, right, left, right], [top, top, bottom, bottom], [1, 1, 1, 1]], dtype=float)
        xs, ys = inspected.from_image @ corners
        stride = max(height, width) / 32  # of cells, about
        margin = max(LEAST_CONTEXT * stride, CONTEXT * float(max(np.ptp(xs), np.ptp(ys))))
        x0, x1 = (float(np.clip(v, 0, width)) for v in (xs.min() - margin, xs.max() + margin))
        y0, y1 = (float(np.clip(v, 0, height)) for v in (ys.min() - margin, ys.max() + margin))
        x0, y0 = math.floor(min(x0, width - 2)), math.floor(min(y0, height - 2))
        scale = max(1.0, max(x1 - x0, y1 - y0) / SIDE)
        return cls(x0, y0, max(1, round((y1 - y0) / scale)), max(1, round((x1 - x0) / scale)), scale)

    @property
    def to_frame(self) -> np.ndarray:
        """The `(2, 3)` matrix from (x, y, 1) of the crop to the frame."""
        return np.array([[self.scale, 0.0, self.left], [0.0, self.scale, self.top]])

    def to_image(self, inspected: InspectedFrame) -> np.ndarray:
        """The `(2, 3)` matrix from (x, y, 1) of the crop to the image."""
        return joined(inspected.to_image, self.to_frame)

    def inside(self, region: Region, inspected: InspectedFrame) -> np.ndarray:
        """The crop's pixels `(h, w)` bool that belong to the region; its middle where the crop is too coarse."""
        x, y = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        inside = region_at(region, inspected, self.to_image(inspected), x, y)
        labels, count = ndimage.label(inside, np.ones((3, 3)))
        if count > 1:  # of other regions whose boxes overlap
            inside = labels == 1 + int(np.argmax(ndimage.sum_labels(inside, labels, range(1, count + 1))))
        if not inside.any():
            inside[self.height // 2, self.width // 2] = True
        return inside

    def crops(
        self, region: Region, inspected: InspectedFrame, image: ReferenceImage, to_good: np.ndarray
    ) -> tuple[Crops, np.ndarray]:
        """The region's crop and its matched one, brought to lie on one another; and the way to the kept image."""
        scan, size = inspected.scan, (self.height, self.width)
        inside, crop_to_good = self.inside(region, inspected), joined(to_good, self.to_frame)
        found = None if scan.image is None else cut(scan.image, self.to_frame, size)
        good = None
        if found is not None and image.image is not None:
            reach = max(1, round(max(inspected.frame.input_size) / 40 / self.scale))
            crop_to_good, good = best_shift(found, image.image, crop_to_good, inside, reach)
        xyz = None if scan.xyz is None else nearest(scan.xyz, self.to_frame, size)
        good_xyz = None if image.xyz is None else nearest(image.xyz, crop_to_good, size)
        return Crops(found, good, inside, self.to_image(inspected), xyz, good_xyz), crop_to_good


def region_at(
    region: Region, inspected: InspectedFrame, to_image: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """At which places (x, y), mapped by `to_image`, the map rises above its threshold inside the region's box."""
    height, width = inspected.scores.shape
    columns = np.floor(to_image[0, 0] * x + to_image[0, 1] * y + to_image[0, 2]).astype(int)
    rows = np.floor(to_image[1, 0] * x + to_image[1, 1] * y + to_image[1, 2]).astype(int)
    left, top, right, bottom = region.box
    boxed = (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
    values = inspected.scores[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    found: np.ndarray = boxed & (values >= inspected.threshold)
    return found


def cells_of(region: Region, inspected: InspectedFrame, grid: Sequence[int]) -> np.ndarray:
    """The cells `(gh, gw)` bool whose middles lie in a region; the nearest one where none do."""
    height, width = inspected.frame.input_size
    x, y = np.meshgrid((np.arange(grid[1]) + 0.5) * width / grid[1], (np.arange(grid[0]) + 0.5) * height / grid[0])
    inside = region_at(region, inspected, inspected.to_image, x, y)
    if not inside.any():
        place = inspected.from_image @ np.array([*region.centroid, 1.0])
        far = np.hypot(x - place[0], y - place[1])
        inside[np.unravel_index(int(np.argmin(far)), far.shape)] = True
    return inside


def to_reference(
    placement: Placement, image: ReferenceImage, inspected: InspectedFrame, grid: tuple[int, int]
) -> np.ndarray:
    """The `(2, 3)` matrix from (x, y, 1) of the frame to the kept image, by the cells that lie on one another."""
    here = np.array(inspected.frame.input_size) / np.array(grid)  # pixels a cell (y, x)
    there = np.array(image.size) / np.array(image.cells.shape[:2])
    anchor, target = (np.array(placement.anchor) + 0.5) * here, (np.array(placement.cell) + 0.5) * there
    angle, zoom = math.radians(placement.degrees), (there / here)[::-1]  # (x, y)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) * zoom[:, None]
    return np.column_stack([turn, target[::-1] - turn @ anchor[::-1]])


def best_shift(
    found: np.ndarray, image: np.ndarray, to_good: np.ndarray, inside: np.ndarray, reach: int
) -> tuple[np.ndarray, np.ndarray]:
    """The matched crop of an image, shifted by up to `reach` pixels so that what surrounds the region agrees best.

    Returns the way `(2, 3)` to the image, and the crop `(h, w, 3)`. Cells are coarser than pixels. Agreement is the
    deviation of the difference in grey levels, at half resolution and then around its best.
    """
    height, width = inside.shape
    around = surroundings(inside)
    if not is_enough(around):
        return to_good, cut(image, to_good, (height, width))
    corner = joined(to_good, np.array([[1.0, 0.0, -float(reach)], [0.0, 1.0, -float(reach)]]))
    wide = cut(image, corner, (height + 2 * reach, width + 2 * reach))
    good, grey = (grey_of(pixels) for pixels in (wide, found))
    down, across = 0, 0
    for step, span in ((2, reach), (1, 1)):
        rows, columns = np.nonzero(around[::step, ::step])
        if not len(rows):
            continue
        every = max(1, len(rows) // SHIFT_PIXELS)
        rows, columns = rows[::every] * step, columns[::every] * step
        tried = range(-span, span + 1, step)
        shifts = [(down + y, across + x) for y in tried for x in tried]
        shifts = [shift for shift in shifts if max(abs(shift[0]), abs(shift[1])) <= reach]
        starts = np.array([(reach + y) * good.shape[1] + reach + x for y, x in shifts])  # (S,)
        apart = grey[rows, columns] - good.ravel()[starts[:, None] + (rows * good.shape[1] + columns)]  # (S, N)
        far = 1e-3 * np.hypot(*np.array(shifts).T)
        down, across = shifts[int(np.argmin(apart.std(axis=1).astype(np.float64) + far))]
    shifted = joined(to_good, np.array([[1.0, 0.0, across], [0.0, 1.0, down]]))
    if is_coarse(shifted):  # pixels of the image that a crop averages depend on where it lies
        return shifted, cut(image, shifted, (height, width))
    return shifted, wide[reach + down :, reach + across :][:height, :width]


def grey_of(pixels: np.ndarray) -> np.ndarray:
    """The mean `(h, w)` float32 of the channels of pixels `(h, w, 3)` uint8."""
    red, green, blue = (pixels[..., i].astype(np.float32) for i in range(3))
    found: np.ndarray = (red + green + blue) / np.float32(3)
    return found


def nearest(xyz: np.ndarray, to_source: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Points `(h, w, 3)` of a crop of `size`, each the nearest of the source's; NaN beyond its edge."""
    x, y = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    columns = np.floor(to_source[0, 0] * x + to_source[0, 1] * y + to_source[0, 2]).astype(int)
    rows = np.floor(to_source[1, 0] * x + to_source[1, 1] * y + to_source[1, 2]).astype(int)
    is_there = (rows >= 0) & (rows < xyz.shape[0]) & (columns >= 0) & (columns < xyz.shape[1])
    found = xyz[np.clip(rows, 0, xyz.shape[0] - 1), np.clip(columns, 0, xyz.shape[1] - 1)].astype(np.float32)
    found[~is_there] = np.nan
    return found


def match_of(placement: Placement, image: ReferenceImage, window: Window, crop_to_good: np.ndarray) -> Match:
    """The match of a crop, as results show it."""
    centre = crop_to_good @ np.array([window.width / 2, window.height / 2, 1.0])
    zoom = math.sqrt(abs(float(np.linalg.det(crop_to_good[:, :2]))))
    return Match(
        file=image.file,
        number=placement.number,
        centre=(float(centre[0]), float(centre[1])),
        size=(window.width * zoom, window.height * zoom),
        degrees=placement.degrees,
        similarity=placement.similarity,
    )


def shape_of_box(region: Region) -> Shape:
    """The shape of a region's box."""
    left, top, right, bottom = region.box
    across, down = float(right - left), float(bottom - top)
    degrees = 0.0 if across >= down else 90.0
    return Shape(region.centroid, float(region.area), max(across, down), min(across, down), degrees)


def attributes_of(
    region: Region,
    inspected: InspectedFrame,
    part: PartOutline | None,
    shape: Shape,
    is_known: bool,
    comparison: Comparison | None = None,
    match: Match | None = None,
    crops: Crops | None = None,
) -> Attributes:
    """All that was measured of a region, its noun and its place."""
    height, width = inspected.frame.original_size
    left, top, right, bottom = part_box(inspected, part)
    sides = max(right - left, 1.0), max(bottom - top, 1.0)
    on_part = on_part_of(shape.centre, inspected, part)
    extent = (region.box[2] - region.box[0]) / sides[0], (region.box[3] - region.box[1]) / sides[1]
    area_share = min(1.0, shape.area / (height * width)) if part is None else shape.area / max(part.area, 1.0)
    strength = region.peak / inspected.threshold if inspected.threshold > 0 else region.peak
    scale = inspected.settings.mm_per_pixel or (None if crops is None else mm_per_pixel(crops))
    found = Attributes(
        noun="unusual",
        place=place_of(on_part, extent, area_share),
        centre=shape.centre,
        on_part=on_part,
        is_of_part=part is not None,
        area_share=area_share,
        length=shape.length,
        width=shape.width,
        elongation=shape.elongation,
        degrees=shape.degrees,
        strength=strength,
        edge_distance=None if part is None else part.edge_distance(shape.centre),
        length_mm=None if scale is None else shape.length * scale,
        width_mm=None if scale is None else shape.width * scale,
        height_mm=None if crops is None else height_of(crops),
        is_known=is_known,
        match=match,
    )
    if comparison is not None:
        found = replace(
            found,
            lightness=comparison.lightness,
            redness=comparison.redness,
            yellowness=comparison.yellowness,
            colour_difference=comparison.colour_difference,
            texture_ratio=comparison.texture_ratio,
            edge_ratio=comparison.edge_ratio,
            presence=comparison.presence,
        )
    gone = 0.0 if crops is None or crops.xyz is None else missing_points(crops.xyz, crops.good_xyz, crops.inside)
    return replace(found, noun=noun_of(found, gone))


def height_of(crops: Crops) -> float | None:
    """How far the region's surface rises in mm, beyond what that of the matched place does; None without points."""
    if crops.xyz is None:
        return None
    own = height_above(crops.xyz, crops.inside)
    usual = None if crops.good_xyz is None else height_above(crops.good_xyz, crops.inside)
    return own if own is None or usual is None else own - usual


def mm_per_pixel(crops: Crops) -> float | None:
    """The distance of measured points, in mm an image pixel; None without points.

    In enlarged scans points repeat: steps of 0 count, those over jumps in depth do not.
    """
    if crops.xyz is None:
        return None
    steps = np.linalg.norm(np.diff(crops.xyz[..., :2].astype(np.float64), axis=1), axis=-1)
    steps = steps[np.isfinite(steps)]
    if (steps > 0).sum() < 10:
        return None
    pixel = math.sqrt(abs(float(np.linalg.det(crops.to_image[:, :2]))))
    return 1000 * float(steps[steps < JUMP * np.median(steps[steps > 0])].mean()) / pixel
