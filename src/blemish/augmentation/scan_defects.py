"""Synthetic anomalies on scans: in the measured surface alone, in the image alone, or in both.

For fitting, for choosing settings, and for contrastive prompts. Shapes, depths and colours are drawn by rules of their
own, not by those of a rendered test set, so that nothing is tuned to the defects it is judged by. In the image they are
the pieces and scars of CutPaste (Li, Sohn, Yoon, Pfister: CutPaste: self-supervised learning for anomaly detection and
localization, CVPR 2021) and stains; the surface's are our own.

An anomaly changes only what was measured, so that its mask is exactly where the scan changed. A dent, hole or groove
leaves the image as it is; where a piece is missing, the image shows the background.

The ranges below were chosen by eye on generated scans, and not tuned on any test set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from blemish.augmentation import cutpaste
from blemish.augmentation.blob import rough_outline
from blemish.errors import SettingsError
from blemish.preprocessing.foreground import from_pixels
from blemish.types import Scan

SHARE = (0.003, 0.05)  # of the part's area that a defect covers, drawn evenly on a log scale
LEAST_RADIUS = 2.0  # pixels
STRETCH = 2.0  # longest to shortest axis, at most
FLATNESS = (1.0, 6.0)  # from a round top to a flat one with steep sides
FAINT = 0.1  # of the full effect; where it would be fainter, nothing changes
DEPTH = (0.1, 0.5)  # of the radius, that a surface is pushed in or out
STEP = (0.5, 1.5)  # of the radius, that the bottom of a hole lies deeper
LOST = 0.6  # of a hole's points that are missing, at most
HEIGHT = (0.3, 0.9)  # of the radius, that a lump stands out
SCAR_WIDTH = (1.0, 3.0)  # pixels, half
SCAR_LENGTH = (0.2, 0.8)  # of the part's width
SCAR_DEPTH = (1.0, 3.0)  # of the distance between two points
OPACITY = (0.3, 0.8)  # of a stain
GRAIN = 12.0  # standard deviation of a lump's own texture, grey levels
GAP = 2  # pixels, half: lost points within the part that a stain covers as well
MARGIN = 2  # pixels beside the part that may show its flank, where points are lost
LEAST_PART = 16  # points; with fewer the part is segmented in the image
TRIES = 8  # draws of an anomaly that leave no trace, before a single pixel is changed


@dataclass
class Canvas:
    """A scan that is drawn on: `rgb` and `xyz` `(H, W, 3)` float32, NaN where nothing was measured or is missing."""

    rgb: np.ndarray
    xyz: np.ndarray

    @classmethod
    def of(cls, scan: Scan) -> Canvas:
        nothing = np.full((*scan.shape, 3), np.nan, dtype=np.float32)
        layers = (nothing if layer is None else layer for layer in (scan.rgb, scan.xyz))
        return cls(*(np.array(layer, dtype=np.float32) for layer in layers))

    @property
    def image(self) -> np.ndarray:
        """The image `(H, W, 3)` uint8, black where it is missing."""
        return np.nan_to_num(self.rgb).clip(0, 255).round().astype(np.uint8)

    @property
    def has_colour(self) -> np.ndarray:
        """Pixels `(H, W)` bool that the image has."""
        return np.asarray(np.isfinite(self.rgb).all(-1))

    @property
    def is_measured(self) -> np.ndarray:
        """Pixels `(H, W)` bool with a point."""
        return np.asarray(np.isfinite(self.xyz).all(-1))


Change = Callable[[Canvas, np.ndarray, np.random.Generator], None]  # a canvas to draw on, the part (H, W) bool, rng


def synthetic_scan_anomaly(scan: Scan, rng: np.random.Generator, kind: str | None = None) -> tuple[Scan, np.ndarray]:
    """An anomaly of one of `KINDS`, or of the given one, on the part.

    `scan` is without its background, so that measured points are the part. Returns a new scan, its `rgb` float32 where
    the image changed, and an `(H, W)` bool mask of what changed, with at least one pixel set. Raises SettingsError for
    a kind that the scan's modalities cannot show.
    """
    before = Canvas.of(scan)
    seen, measured = before.has_colour, before.is_measured  # (H, W) each
    possible = kinds_for(bool(seen.any()), bool(measured.any()))
    if kind is not None and kind not in possible:
        raise SettingsError(f"a kind of defect that the scan can show: {', '.join(possible)}", repr(kind), "choose one")
    if not possible:
        raise SettingsError("a scan with a picture or with points", "one with neither", "leave such scans out")
    altered, mask = _drawn(scan, before, kind, possible, rng)
    return scan.map(rgb=lambda rgb: _kept(rgb, altered.rgb), xyz=lambda _: altered.xyz), mask


def _drawn(
    scan: Scan, before: Canvas, kind: str | None, possible: list[str], rng: np.random.Generator
) -> tuple[Canvas, np.ndarray]:
    """A canvas with an anomaly, and its mask `(H, W)`: the first draw that leaves a trace, else a single pixel."""
    seen, measured = before.has_colour, before.is_measured
    part = _part(before, seen, measured)
    group_of = {name: GROUP[name] if seen.any() else "geometry" for name in possible}  # all that points alone show
    groups = sorted(set(group_of.values()))
    for _ in range(TRIES):
        group = groups[rng.integers(len(groups))]
        names = [name for name in possible if group_of[name] == group]
        chosen = kind or names[rng.integers(len(names))]
        altered = Canvas.of(scan)
        KINDS[chosen](altered, part, rng)
        mask = _changed(before, altered)
        if mask.any():
            return altered, mask
    altered = Canvas.of(scan)
    if seen.any() and (kind is None or GROUP[kind] != "geometry"):
        mask = _one_of(seen, rng)
        altered.rgb[mask] = np.where(before.rgb[mask] < 127.5, 255.0, 0.0)  # one pixel in the opposite colour
    else:
        mask = _one_of(measured, rng)
        altered.xyz[mask] = np.nan  # one point is missing
    return altered, mask


def kinds_for(image: bool, points: bool) -> list[str]:
    """The kinds of defect that a scan with an image, with points, or with both can show."""
    shows = {"geometry": points, "colour": image, "both": image and points}
    return [name for name, group in GROUP.items() if shows[group] or (name in SHOWN_BY_POINTS and points)]


def push(canvas: Canvas, part: np.ndarray, rng: np.random.Generator) -> None:
    """A dent or a bump: the surface pushed smoothly along its own normal or along the viewing axis."""
    centre, radius = _place(part, rng)
    profile = _blob(part, centre, radius, rng)
    away = _normal(canvas, profile > 0) if rng.random() < 0.5 else _away(canvas)
    depth = rng.uniform(*DEPTH) * radius * _spacing(canvas) * rng.choice((-1.0, 1.0))
    _move(canvas, profile, depth * away)


def hole(canvas: Canvas, part: np.ndarray, rng: np.random.Generator) -> None:
    """The surface breaks off to a deeper one, of which some points are not measured."""
    centre, radius = _place(part, rng)
    inside = _blob(part, centre, radius, rng) > 0
    _move(canvas, inside.astype(float), rng.uniform(*STEP) * radius * _spacing(canvas) * _away(canvas))
    lost = inside & (rng.random(inside.shape) < rng.uniform(0, LOST))
    canvas.xyz[lost] = np.nan


def bite(canvas: Canvas, part: np.ndarray, rng: np.random.Generator) -> None:
    """A piece of the rim is missing: where it was the image shows the background, whose points were removed."""
    rim = part & ~ndimage.binary_erosion(part)
    centre, _ = _place(rim, rng)
    _, radius = _place(part, rng)
    with_flank = ndimage.binary_dilation(part, iterations=MARGIN)
    piece = _blob(with_flank, centre, radius, rng) > 0
    canvas.xyz[piece] = np.nan
    seen = piece & canvas.has_colour
    canvas.rgb[seen] = _background(canvas, part)[seen]


def groove(canvas: Canvas, part: np.ndarray, rng: np.random.Generator) -> None:
    """A scar: a thin curved line, carved or raised."""
    (y, x), _ = _place(part, rng)
    length = rng.uniform(*SCAR_LENGTH) * np.sqrt(part.sum())
    heading, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.8)
    steps = np.linspace(-0.5, 0.5, 2 * int(length) + 3)  # along the line, closer than a pixel
    turned = heading + bend * steps
    down, across = (np.cumsum(wave(turned)) * length / len(steps) for wave in (np.sin, np.cos))
    middle = len(steps) // 2
    line = np.zeros(part.shape, dtype=bool)
    rows, columns = np.rint(y + down - down[middle]).astype(int), np.rint(x + across - across[middle]).astype(int)
    inside = (rows >= 0) & (rows < part.shape[0]) & (columns >= 0) & (columns < part.shape[1])
    line[rows[inside], columns[inside]] = True
    width = rng.uniform(*SCAR_WIDTH)
    profile = _clear(np.clip(1 - ndimage.distance_transform_edt(~line) / (width + 1), 0, 1) * part)
    _move(canvas, profile, rng.uniform(*SCAR_DEPTH) * _spacing(canvas) * rng.choice((-1.0, 1.0)) * _away(canvas))


def paste(canvas: Canvas, part: np.ndarray, rng: np.random.Generator) -> None:
    """A jittered rectangle or scar from elsewhere in the image."""
    image = canvas.image
    if rng.random() < 0.5:
        share = float(np.exp(rng.uniform(*np.log(SHARE)))) * float(part.mean())
        altered, mask = cutpaste.rectangle(image, part, rng, share)
    else:
        altered, mask = cutpaste.scar(image, part, rng)
    mask = mask & part & canvas.has_colour
    canvas.rgb[mask] = altered[mask]


def stain(canvas: Canvas, part: np.ndarray, rng: np.random.Generator) -> None:
    """A spot that tints the part, fading out at its edge."""
    centre, radius = _place(part, rng)
    _tint(canvas, _blob(part, centre, radius, rng) * rng.uniform(*OPACITY), rng.uniform(0, 255, 3))


def lump(canvas: Canvas, part: np.ndarray, rng: np.random.Generator) -> None:
    """Foreign material: it stands out towards the camera and has a colour and a grain of its own."""
    centre, radius = _place(part, rng)
    profile = _blob(part, centre, radius, rng)
    _move(canvas, profile, -rng.uniform(*HEIGHT) * radius * _spacing(canvas) * _away(canvas))
    grain = GRAIN * rng.standard_normal((*part.shape, 1))
    _tint(canvas, (profile > 0).astype(float), rng.uniform(0, 255, 3) + grain)


KINDS: dict[str, Change] = {
    "push": push,
    "hole": hole,
    "bite": bite,
    "groove": groove,
    "paste": paste,
    "stain": stain,
    "lump": lump,
}
GROUP = {  # what each changes in a scan with an image and points
    "push": "geometry",
    "hole": "geometry",
    "bite": "both",
    "groove": "geometry",
    "paste": "colour",
    "stain": "colour",
    "lump": "both",
}
SHOWN_BY_POINTS = frozenset({"bite"})  # of those that change both: what a scan without an image shows as well


def _part(canvas: Canvas, seen: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Where an anomaly may lie, `(H, W)` bool: measured points and gaps between them, else the image's foreground."""
    if measured.sum() >= LEAST_PART or not seen.any():
        closed = ndimage.binary_closing(np.pad(measured, GAP), iterations=GAP)[GAP:-GAP, GAP:-GAP]
        return measured | closed
    part = from_pixels(canvas.image) & seen
    return part if part.any() else seen


def _background(canvas: Canvas, part: np.ndarray) -> np.ndarray:
    """The image `(H, W, 3)` as the background would go on under the part: mirrored at its nearest pixel.

    That keeps the background's grain; where the mirror image lies on the part or outside, it is that pixel itself. The
    background is what lies around the part, without holes in it: sensors lose points at glare, too. Where the part
    fills the image it is the image's border.
    """
    height, width = part.shape
    outside = ~ndimage.binary_fill_holes(part)
    beside = ~ndimage.binary_dilation(~outside, iterations=MARGIN)
    border = np.pad(np.zeros((max(0, height - 2), max(0, width - 2)), bool), 1, constant_values=True)[:height, :width]
    ground = next(places for places in (beside, outside, border) if places.any())  # (H, W) bool
    nearest = ndimage.distance_transform_edt(~ground, return_distances=False, return_indices=True)  # (2, H, W)
    row, column = 2 * nearest - np.indices(part.shape)
    is_ground = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    is_ground[is_ground] = ground[row[is_ground], column[is_ground]]
    row, column = np.where(is_ground, (row, column), nearest)
    return np.asarray(canvas.rgb[row, column])


def _place(part: np.ndarray, rng: np.random.Generator) -> tuple[tuple[int, int], float]:
    """A place (y, x) on the part and a radius in pixels."""
    places = np.flatnonzero(part)
    y, x = divmod(int(places[rng.integers(len(places))]), part.shape[1])
    area = len(places) * np.exp(rng.uniform(*np.log(SHARE)))
    return (y, x), max(LEAST_RADIUS, float(np.sqrt(area / np.pi)))


def _blob(part: np.ndarray, centre: tuple[int, int], radius: float, rng: np.random.Generator) -> np.ndarray:
    """1 at `centre`, falling to 0 at the rough outline of a stretched disc, on the part alone: `(H, W)`."""
    y, x = np.ogrid[: part.shape[0], : part.shape[1]]
    down, across = y - centre[0], x - centre[1]
    turn, stretch = rng.uniform(0, np.pi), np.sqrt(rng.uniform(1, STRETCH))
    along = (across * np.cos(turn) + down * np.sin(turn)) / stretch
    aside = (down * np.cos(turn) - across * np.sin(turn)) * stretch
    outline = radius * rough_outline(np.arctan2(aside, along), rng)
    hill = np.clip(1 - (along**2 + aside**2) / outline**2, 0, 1) ** 2
    return _clear((1 - (1 - hill) ** rng.uniform(*FLATNESS)) * part)


def _clear(profile: np.ndarray) -> np.ndarray:
    """A profile in [0, 1] without its faint foot, which nobody could see and no mask should hold."""
    return np.where(profile < FAINT, 0.0, profile)


def _move(canvas: Canvas, profile: np.ndarray, shift: np.ndarray) -> None:
    """Move points by `profile` `(H, W)` times `shift` `(3,)` metres; missing ones stay missing."""
    moved = profile > 0
    canvas.xyz[moved] += (profile[moved, None] * shift).astype(np.float32)


def _tint(canvas: Canvas, share: np.ndarray, colour: np.ndarray) -> None:
    """Mix `share` `(H, W)` of a colour `(3,)` or `(H, W, 3)` into the image."""
    tinted = share > 0
    amount, colours = share[tinted, None], np.broadcast_to(colour, (*share.shape, 3))[tinted]
    canvas.rgb[tinted] = ((1 - amount) * canvas.rgb[tinted] + amount * colours).clip(0, 255)


def _spacing(canvas: Canvas) -> float:
    """Metres between points that lie side by side, the median; 1 mm where no two do."""
    steps = np.linalg.norm(np.diff(canvas.xyz, axis=1), axis=-1)  # (H, W - 1)
    steps = steps[np.isfinite(steps)]
    middle = float(np.median(steps)) if len(steps) else 0.0
    return middle if middle > 0 else 1e-3


def _away(canvas: Canvas) -> np.ndarray:
    """The direction along z away from the camera, `(3,)`: whither columns, rows and viewing axis are right-handed."""
    (a, b), (c, d) = _step(canvas, 1), _step(canvas, 0)
    return np.array([0.0, 0.0, 1.0 if a * d >= b * c else -1.0])


def _step(canvas: Canvas, axis: int) -> np.ndarray:
    """How x and y change from one measured point to the next along an axis, `(2,)`: their medians, 0 without any."""
    steps = np.diff(canvas.xyz[..., :2], axis=axis).reshape(-1, 2)
    steps = steps[np.isfinite(steps).all(1)]  # (N, 2)
    return np.median(steps, axis=0) if len(steps) else np.zeros(2)


def _normal(canvas: Canvas, where: np.ndarray) -> np.ndarray:
    """The unit normal `(3,)` of the plane through the points of `where`; the viewing axis where they span none."""
    points = canvas.xyz[where].astype(np.float64)
    points = points[np.isfinite(points).all(-1)]  # (N, 3)
    if len(points) < 3:
        return _away(canvas)
    return np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][-1]


def _changed(before: Canvas, after: Canvas) -> np.ndarray:
    """Pixels `(H, W)` bool in which anything differs; NaN equals NaN."""

    def differs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.asarray(~((one == other) | (np.isnan(one) & np.isnan(other))).all(axis=-1))

    return differs(before.rgb, after.rgb) | differs(before.xyz, after.xyz)


def _kept(image: np.ndarray, altered: np.ndarray) -> np.ndarray:
    """The image itself where no anomaly changed it, so that it stays uint8."""
    return image if np.array_equal(image, altered) else altered


def _one_of(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One cell of `places` `(H, W)` bool, as a mask."""
    mask = np.zeros(places.shape, dtype=bool)
    mask.flat[rng.choice(np.flatnonzero(places))] = True
    return mask
