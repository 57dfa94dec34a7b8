"""synthetic anomalies on scans: in the measured surface alone, in the image alone, or in both.

For learning, for choosing settings, and for what contrastive sentences are about. Shapes, depths and colours are drawn
by rules of their own, not by those of a rendered test set, so that nothing is tuned to the defects it is judged by. In
the image they are the pieces and scars of CutPaste (Li et al., CVPR 2021) and stains.

A scan is `(H, W, 6)` float32: R, G, B in 0..255, then x, y, z in metres, NaN where nothing was measured; a missing
image or surface is NaN throughout. Every defect touches only what is there, so the mask of a defect is exactly where
the scan changed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from blemish.augmentation import cutpaste
from blemish.augmentation.blob import rough_outline
from blemish.errors import SettingsError
from blemish.preprocessing.foreground import from_pixels

SHARE = (0.003, 0.05)  # of the part's area that a defect covers, drawn evenly on a log scale
LEAST_RADIUS = 2.0  # pixels
STRETCH = 2.0  # longest to shortest axis, at most
FLATNESS = (1.0, 6.0)  # from a round top to a flat one with steep sides
FAINT = 0.1  # of the full effect; what would be fainter is left as it was
DEPTH = (0.1, 0.5)  # of the radius, that a surface is pushed in or out
STEP = (0.5, 1.5)  # of the radius, that the ground of a hole lies deeper
LOST = 0.6  # of a hole's points that are missing, at most
HEIGHT = (0.3, 0.9)  # of the radius, that a lump stands out
SCAR_WIDTH = (1.0, 3.0)  # pixels, half
SCAR_LENGTH = (0.2, 0.8)  # of the part's width
SCAR_DEPTH = (1.0, 3.0)  # of the distance between two points
OPACITY = (0.3, 0.8)  # of a stain
GRAIN = 12.0  # standard deviation of a lump's own texture, grey levels
GAP = 2  # pixels, half: lost points within the part that a stain covers as well
LEAST_PART = 16  # points; with fewer the image tells where the part is
TRIES = 8

Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], None]  # a scan, changed in place; part; random numbers


def synthetic_scan_anomaly(
    scan: np.ndarray, rng: np.random.Generator, kind: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A defect of one of `KINDS`, or of the given one, on the part.

    `scan` is `(H, W, 6)` float32 with its support taken away, so that measured points are the part. Returns a new scan
    of the same shape and an `(H, W)` bool mask of what changed, with at least one pixel set.
    """
    seen, measured = np.isfinite(scan[..., :3]).all(-1), np.isfinite(scan[..., 3:]).all(-1)  # (H, W) each
    possible = kinds_for(bool(seen.any()), bool(measured.any()))
    if kind is not None and kind not in possible:
        raise SettingsError(f"a kind of defect that the scan can show: {', '.join(possible)}", repr(kind), "choose one")
    if not possible:
        raise SettingsError("a scan with a picture or with points", "one with neither", "leave such scans out")
    part = _part(scan, seen, measured)
    groups = sorted({GROUP[name] for name in possible})
    for _ in range(TRIES):
        group = groups[rng.integers(len(groups))]
        names = [name for name in possible if GROUP[name] == group]
        chosen = kind or names[rng.integers(len(names))]
        altered = scan.copy()
        KINDS[chosen](altered, part, rng)
        mask = _changed(scan, altered)
        if mask.any():
            return altered, mask
    if seen.any() and (kind is None or GROUP[kind] != "geometry"):
        return _opposite_colour(scan, seen, rng)
    return _lost_point(scan, measured, rng)


def kinds_for(image: bool, points: bool) -> list[str]:
    """The kinds of defect that a scan with an image, with points, or with both can show."""
    there = {"geometry": points, "colour": image, "both": image and points}
    return [name for name, group in GROUP.items() if there[group]]


def push(scan: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> None:
    """A dent or a bump: the surface pushed smoothly along its own normal or along the viewing axis."""
    centre, radius = _place(part, rng)
    profile = _blob(part, centre, radius, rng)
    away = _normal(scan, profile > 0) if rng.random() < 0.5 else _away(scan)
    depth = rng.uniform(*DEPTH) * radius * _spacing(scan) * rng.choice((-1.0, 1.0))
    _move(scan, profile, depth * away)


def hole(scan: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> None:
    """The surface breaks off to a deeper ground, of which some points are lost."""
    centre, radius = _place(part, rng)
    inside = _blob(part, centre, radius, rng) > 0
    _move(scan, inside.astype(float), rng.uniform(*STEP) * radius * _spacing(scan) * _away(scan))
    lost = inside & (rng.random(inside.shape) < rng.uniform(0, LOST))
    scan[lost, 3:] = np.nan


def bite(scan: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> None:
    """A piece of the rim is gone: where it was lie the points of the support, which were taken away."""
    rim = part & ~ndimage.binary_erosion(part)
    centre, _ = _place(rim, rng)
    _, radius = _place(part, rng)
    scan[_blob(part, centre, radius, rng) > 0, 3:] = np.nan


def groove(scan: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> None:
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
    _move(scan, profile, rng.uniform(*SCAR_DEPTH) * _spacing(scan) * rng.choice((-1.0, 1.0)) * _away(scan))


def paste(scan: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> None:
    """A jittered rectangle or scar from elsewhere in the image."""
    image = _image(scan)
    if rng.random() < 0.5:
        share = float(np.exp(rng.uniform(*np.log(SHARE)))) * float(part.mean())
        altered, mask = cutpaste.rectangle(image, part, rng, share)
    else:
        altered, mask = cutpaste.scar(image, part, rng)
    mask = mask & part & np.isfinite(scan[..., :3]).all(-1)
    scan[mask, :3] = altered[mask]


def stain(scan: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> None:
    """A spot that tints the part, fading out at its edge."""
    centre, radius = _place(part, rng)
    _tint(scan, _blob(part, centre, radius, rng) * rng.uniform(*OPACITY), rng.uniform(0, 255, 3))


def lump(scan: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> None:
    """Foreign material: it stands out towards the camera and has a colour and a grain of its own."""
    centre, radius = _place(part, rng)
    profile = _blob(part, centre, radius, rng)
    _move(scan, profile, -rng.uniform(*HEIGHT) * radius * _spacing(scan) * _away(scan))
    grain = GRAIN * rng.standard_normal((*part.shape, 1))
    _tint(scan, (profile > 0).astype(float), rng.uniform(0, 255, 3) + grain)


KINDS: dict[str, Change] = {
    "push": push,
    "hole": hole,
    "bite": bite,
    "groove": groove,
    "paste": paste,
    "stain": stain,
    "lump": lump,
}
GROUP = {
    "push": "geometry",
    "hole": "geometry",
    "bite": "geometry",
    "groove": "geometry",
    "paste": "colour",
    "stain": "colour",
    "lump": "both",
}


def _part(scan: np.ndarray, seen: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Where a defect may lie, `(H, W)` bool: measured points and gaps between them, else the part in the image."""
    if measured.sum() >= LEAST_PART or not seen.any():
        closed = ndimage.binary_closing(np.pad(measured, GAP), iterations=GAP)[GAP:-GAP, GAP:-GAP]
        return measured | closed
    part = from_pixels(_image(scan)) & seen
    return part if part.any() else seen


def _image(scan: np.ndarray) -> np.ndarray:
    """The image `(H, W, 3)` uint8, black where there is none."""
    return np.nan_to_num(scan[..., :3]).clip(0, 255).round().astype(np.uint8)


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


def _move(scan: np.ndarray, profile: np.ndarray, shift: np.ndarray) -> None:
    """Move points by `profile` `(H, W)` times `shift` `(3,)` metres; missing ones stay missing."""
    moved = profile > 0
    scan[moved, 3:] += (profile[moved, None] * shift).astype(np.float32)


def _tint(scan: np.ndarray, share: np.ndarray, colour: np.ndarray) -> None:
    """Mix `share` `(H, W)` of a colour `(3,)` or `(H, W, 3)` into the image."""
    tinted = share > 0
    amount, colours = share[tinted, None], np.broadcast_to(colour, (*share.shape, 3))[tinted]
    scan[tinted, :3] = ((1 - amount) * scan[tinted, :3] + amount * colours).clip(0, 255)


def _spacing(scan: np.ndarray) -> float:
    """Metres between points that lie side by side, the median; 1 mm where no two do."""
    steps = np.linalg.norm(np.diff(scan[..., 3:], axis=1), axis=-1)  # (H, W - 1)
    steps = steps[np.isfinite(steps)]
    middle = float(np.median(steps)) if len(steps) else 0.0
    return middle if middle > 0 else 1e-3


def _away(scan: np.ndarray) -> np.ndarray:
    """The direction away from the camera, `(3,)`: along z, in whose direction the part lies."""
    return np.array([0.0, 0.0, 1.0 if np.nanmedian(scan[..., 5]) >= 0 else -1.0])


def _normal(scan: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The unit normal `(3,)` of the plane through the points of `where`; the viewing axis where they span none."""
    points = scan[where, 3:].astype(np.float64)
    points = points[np.isfinite(points).all(-1)]  # (N, 3)
    if len(points) < 3:
        return _away(scan)
    return np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][-1]


def _changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Cells `(H, W)` bool in which anything differs; NaN equals NaN."""
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    return ~same.all(axis=-1)


def _opposite_colour(scan: np.ndarray, seen: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The least defect where none other leaves a trace in the image: one cell in the opposite colour."""
    altered, mask = scan.copy(), _one_of(seen, rng)
    altered[mask, :3] = np.where(scan[mask, :3] < 127.5, 255.0, 0.0)
    return altered, mask


def _lost_point(scan: np.ndarray, measured: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The least defect where none other leaves a trace in the surface: one point is missing."""
    altered, mask = scan.copy(), _one_of(measured, rng)
    altered[mask, 3:] = np.nan
    return altered, mask


def _one_of(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One cell of `places` `(H, W)` bool, as a mask."""
    mask = np.zeros(places.shape, dtype=bool)
    mask.flat[rng.choice(np.flatnonzero(places))] = True
    return mask
