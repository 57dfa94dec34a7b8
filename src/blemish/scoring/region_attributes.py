"""What a region looks like beside its matched normal place: shape, colour, texture, presence, height. Pure functions.

All are measured on two crops on one grid of pixels: what was inspected, and the place of a normal image it is matched
with. Shape comes from second moments of the pixels that differ, colour is CIELAB and ΔE2000 (numeric/cielab.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from blemish.numeric.cielab import delta_e_2000, lab_of
from blemish.numeric.raster import (
    binary_closing,
    binary_dilation,
    binary_erosion,
    binary_fill_holes,
    box_around,
    window_range,
)

# Chosen by eye on made-up defects on good pictures of bottle, pill and cookie; benchmarks/reasons.py measures them.
NOTICEABLE = 2.3  # of a distance in CIELAB: a just noticeable difference (Mahy et al., 1994)
SHARE_OF_PEAK = 0.4  # of a region's strongest difference that a pixel of the defect shows at least
LEAST_PIXELS = 6  # a defect's visible outline
LEAST_PIECE = 0.25  # of the largest piece's summed difference, for another piece to belong to the same shape
ALIKE = 0.6  # of the deviation of two unrelated textures' difference, up to which two crops lie on one another
OUTERMOST = (5.0, 95.0)  # percentiles of usual colours where they do not
TOLERANCE = 5  # pixels a side of the window whose range of colours the matched place shows
GRAIN = 2.0  # pixels, standard deviation of the blur that texture is measured beside
VARIANCE_FLOOR, GRADIENT_FLOOR = 0.25, 1.0  # in units of L*: what sensors and JPEG add to plain areas
BACKGROUND_REACH = 8.0  # in CIELAB, at least, from the background's mean colour to what still counts as background
PRESENCE = 0.5  # of the differing pixels that must have changed between part and background


@dataclass(frozen=True, eq=False)
class Crops:
    """A region and its surroundings: `found` `(h, w, 3)` uint8, the matched `good` place, and where the region lies.

    `inside` `(h, w)` bool is the region; `to_image` `(2, 3)` maps (x, y, 1) in pixels of the crop to the image.
    `xyz` and `good_xyz` `(h, w, 3)` float32 in metres are measured points, NaN where there are none.
    """

    found: np.ndarray | None
    good: np.ndarray | None
    inside: np.ndarray
    to_image: np.ndarray
    xyz: np.ndarray | None = None
    good_xyz: np.ndarray | None = None


@dataclass(frozen=True)
class Shape:
    """Second moments of an area in image pixels: centre (x, y), length ≥ width, their ratio, direction in [0, 180)."""

    centre: tuple[float, float]
    area: float
    length: float
    width: float
    degrees: float

    @property
    def elongation(self) -> float:
        return self.length / self.width


@dataclass(frozen=True)
class Background:
    """The colour of what lies around parts: mean `lab` (3,), and how far from it pixels still are background."""

    lab: tuple[float, float, float]
    reach: float

    @classmethod
    def of(cls, lab: np.ndarray) -> Background:
        """Of the colours `(N, 3)` of background pixels."""
        middle = np.median(lab, axis=0)
        reach = max(BACKGROUND_REACH, float(np.percentile(np.linalg.norm(lab - middle, axis=1), 95)))
        return cls((float(middle[0]), float(middle[1]), float(middle[2])), reach)

    def shows(self, lab: np.ndarray) -> np.ndarray:
        """Which pixels `(h, w)` of `lab` `(h, w, 3)` look like it."""
        near: np.ndarray = np.linalg.norm(lab - np.array(self.lab, np.float32), axis=-1) <= self.reach
        return near


@dataclass(frozen=True)
class Comparison:
    """How a region differs from its matched place; see `types.Attributes`. `visible` `(h, w)` bool are its pixels."""

    lightness: float
    redness: float
    yellowness: float
    colour_difference: float
    texture_ratio: float
    edge_ratio: float
    presence: str
    visible: np.ndarray | None


def shape_of(weights: np.ndarray, to_image: np.ndarray) -> Shape:
    """The shape of what `weights` `(h, w)` ≥ 0, or bool, weigh; `to_image` `(2, 3)` maps (x, y, 1) to the image.

    A bar of length l and width w has the principal variances l²/12 and w²/12, its pixels' own 1/12 included.
    """
    ys, xs = np.nonzero(weights)
    mass = weights[ys, xs].astype(np.float64)
    places = to_image[:, :2] @ (np.stack([xs, ys]) + 0.5) + to_image[:, 2:]  # (2, N)
    total = mass.sum()
    middle = places @ mass / total
    apart = places - middle[:, None]
    covariance = (apart * mass) @ apart.T / total + to_image[:, :2] @ to_image[:, :2].T / 12
    variances, directions = np.linalg.eigh(covariance)
    along = directions[:, 1]
    length, width = (math.sqrt(12 * max(float(v), 1e-12)) for v in variances[::-1])
    pixel = abs(float(np.linalg.det(to_image[:, :2])))
    degrees = math.degrees(math.atan2(-along[1], along[0])) % 180  # y points down in images
    return Shape((float(middle[0]), float(middle[1])), len(xs) * pixel, length, width, degrees)


def compare(crops: Crops, background: Background | None = None) -> Comparison | None:
    """How the region differs from the matched place; None without one.

    `background` is the colour around the part, None where parts do not stand on one.
    """
    if crops.found is None or crops.good is None or not crops.inside.any():
        return None
    found, good = lab_of(crops.found), lab_of(crops.good)  # (h, w, 3)
    around = surroundings(crops.inside)
    found = found - light_shift(found, good, around)
    usual = None if lie_alike(found, good, around) else usual_colours(found, good, around, background)
    difference = beyond_range(found, good) if usual is None else beyond_colours(found, usual)  # (h, w)
    visible = visible_pixels(difference, crops.inside, around)
    where = crops.inside if visible is None else visible
    mean = found[where].mean(axis=0)  # (3,)
    expected = good[where].mean(axis=0) if usual is None else np.median(usual, axis=0)  # (3,)
    delta = mean - expected
    colour = float(delta_e_2000(mean, expected))
    texture = texture_ratio(found[..., 0], good[..., 0], crops.inside, visible if colour > NOTICEABLE else None)
    rim = binary_dilation(where, 2)
    return Comparison(
        lightness=float(delta[0]),
        redness=float(delta[1]),
        yellowness=float(delta[2]),
        colour_difference=colour,
        texture_ratio=texture,
        edge_ratio=gradient_energy(found[..., 0], rim) / gradient_energy(good[..., 0], rim),
        presence="" if background is None else presence(found, good, where, background),
        visible=visible,
    )


def surroundings(inside: np.ndarray) -> np.ndarray:
    """The pixels `(h, w)` bool of a crop that lie clear of the region `inside`."""
    return ~binary_dilation(inside, 2)


def is_enough(around: np.ndarray) -> bool:
    """Whether surroundings `(h, w)` bool say anything: a tenth of the crop at least."""
    return bool(around.sum() >= around.size / 10)


def light_shift(found: np.ndarray, good: np.ndarray, around: np.ndarray) -> np.ndarray:
    """By how much what lies `around` a region differs in colour, `(3,)`: the light, not the defect. Lab `(h, w, 3)`."""
    if not is_enough(around):
        return np.zeros(3, np.float32)
    channels = [found[..., i][around] - good[..., i][around] for i in range(3)]  # (N,) each
    return np.array([np.median(channel) for channel in channels], np.float32)


def lie_alike(found: np.ndarray, good: np.ndarray, around: np.ndarray) -> bool:
    """Whether two crops show the same thing at the same places, as far as what lies `around` the region says.

    Two textures, or two cookies, look alike and yet no pixel of one lies on its like in the other: the deviation of
    their difference is then as large as their own deviations together. Lab `(h, w, 3)` each.
    """
    if not is_enough(around):
        return True
    found_there, good_there = found[..., 0][around], good[..., 0][around]  # (N,)
    apart = float((found_there - good_there).std())
    own = math.hypot(float(found_there.std()), float(good_there.std()))
    return apart <= max(NOTICEABLE, ALIKE * own)


def usual_colours(found: np.ndarray, good: np.ndarray, around: np.ndarray, background: Background | None) -> np.ndarray:
    """The colours `(N, 3)` of the matched place and of what lies `around` the region, without the background's."""
    colours = np.concatenate([good.reshape(-1, 3), found[around]])
    of_part = np.ones(len(colours), dtype=bool) if background is None else ~background.shows(colours)
    return colours[of_part] if of_part.sum() >= LEAST_PIXELS else colours


def beyond_colours(found: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """The distance `(h, w)` in CIELAB of each pixel `(h, w, 3)` from the range of the `usual` colours `(N, 3)`."""
    low, high = np.percentile(np.ascontiguousarray(usual.T), OUTERMOST, axis=1)
    return length(found - np.clip(found, low, high))


def beyond_range(found: np.ndarray, good: np.ndarray) -> np.ndarray:
    """The distance `(h, w)` in CIELAB of each pixel from the range of colours that the good place shows around it.

    Ranges of a window forgive that two places never lie on one another exactly. Lab `(h, w, 3)` each.
    """
    return length(found - np.clip(found, *window_range(good, TOLERANCE)))


def length(vectors: np.ndarray) -> np.ndarray:
    """The Euclidean length `(h, w)` of vectors `(h, w, 3)`."""
    x, y, z = (vectors[..., i] for i in range(3))
    found: np.ndarray = np.sqrt(x * x + y * y + z * z)
    return found


def visible_pixels(difference: np.ndarray, inside: np.ndarray, around: np.ndarray) -> np.ndarray | None:
    """The pixels `(h, w)` bool of a region whose `difference` `(h, w)` shows; None where hardly any does.

    They differ by more than what lies `around` does, and by a good share of the region's strongest difference.
    """
    reach, apart = ~around, difference[around]
    usual = float(np.percentile(apart, 95)) if apart.size >= 20 else 0.0
    strongest = float(np.percentile(difference[inside], 99))
    if strongest <= max(NOTICEABLE, 1.2 * usual):
        return None
    mask = reach & (difference > max(NOTICEABLE / 2, min(usual, strongest / 2), SHARE_OF_PEAK * strongest))
    labels, count = ndimage.label(binary_dilation(mask))
    masses = ndimage.sum_labels(difference * mask, labels, range(1, count + 1))
    mask &= np.isin(labels, 1 + np.flatnonzero(masses >= LEAST_PIECE * masses.max(initial=0.0)))
    # Grain differs in both directions, here and there: what lies between belongs to it, and its mean is no colour.
    mask |= binary_fill_holes(binary_closing(np.pad(mask, 2), 2))[2:-2, 2:-2] & reach
    return mask if mask.sum() >= LEAST_PIXELS else None


def texture_ratio(found: np.ndarray, good: np.ndarray, inside: np.ndarray, visible: np.ndarray | None) -> float:
    """Local variance of lightness `(h, w)` over that of the good place, in the region.

    Of a defect of another colour only its inner pixels count: its outline is an edge, not a texture.
    """
    where = inside
    if visible is not None:
        inner = binary_erosion(visible, 3)
        where = inner if inner.sum() >= 4 * LEAST_PIXELS else binary_erosion(visible)
        if where.sum() < LEAST_PIXELS:
            return 1.0
    return (local_variance(found, where) + VARIANCE_FLOOR) / (local_variance(good, where) + VARIANCE_FLOOR)


def local_variance(lightness: np.ndarray, where: np.ndarray) -> float:
    """The mean squared difference of a picture `(h, w)` from its own blur, in an area `(h, w)` bool."""
    box = box_around(where, round(4 * GRAIN))  # what the blur reaches
    rest = lightness[box] - ndimage.gaussian_filter(lightness[box], GRAIN, truncate=4.0)
    return float((rest[where[box]] ** 2).mean())


def gradient_energy(lightness: np.ndarray, where: np.ndarray) -> float:
    """The mean squared Sobel gradient, in units of L* a pixel, of an area `(h, w)` bool; never 0."""
    box = box_around(where, 1)
    down, across = (ndimage.sobel(lightness[box], axis)[where[box]] / 8 for axis in (0, 1))  # (N,)
    return float((down**2 + across**2).mean()) + GRADIENT_FLOOR


def presence(found: np.ndarray, good: np.ndarray, where: np.ndarray, background: Background) -> str:
    """ "missing" where background lies in place of the part, "extra" the other way round, "" otherwise."""
    is_bare, was_bare = background.shows(found)[where], background.shows(good)[where]  # (N,)
    if (is_bare & ~was_bare).mean() >= PRESENCE:
        return "missing"
    return "extra" if (was_bare & ~is_bare).mean() >= PRESENCE else ""


def height_above(xyz: np.ndarray, inside: np.ndarray) -> float | None:
    """How far the points `(h, w, 3)` in metres of an area rise above the plane of those around it, in mm.

    Towards the camera is up (z grows away from it). None where too few were measured.
    """
    known = np.isfinite(xyz).all(axis=-1)
    around, within = known & surroundings(inside), known & inside
    if around.sum() < 12 or within.sum() < 3:
        return None
    points = xyz[around].astype(np.float64)  # (N, 3)
    terms = np.column_stack([points[:, :2], np.ones(len(points))])
    plane = np.linalg.lstsq(terms, points[:, 2], rcond=None)[0]  # (3,)
    rest = points[:, 2] - terms @ plane
    near = np.abs(rest - np.median(rest)) <= 3 * 1.4826 * np.median(np.abs(rest - np.median(rest))) + 1e-9
    plane = np.linalg.lstsq(terms[near], points[near, 2], rcond=None)[0]
    own = xyz[within].astype(np.float64)
    below = own[:, 2] - np.column_stack([own[:, :2], np.ones(len(own))]) @ plane
    return -1000 * float(below[np.argmax(np.abs(below))] if len(below) < 8 else _stronger_tail(below))


def _stronger_tail(below: np.ndarray) -> float:
    """The tenth or the ninetieth percentile of depths, whichever is further from 0."""
    low, high = np.percentile(below, (10, 90))
    return float(low if abs(low) > abs(high) else high)


def missing_points(xyz: np.ndarray, good_xyz: np.ndarray | None, inside: np.ndarray) -> float:
    """The share of an area's points that were not measured, though those of the good place were."""
    gone = ~np.isfinite(xyz).all(axis=-1)
    if good_xyz is not None:
        gone &= np.isfinite(good_xyz).all(axis=-1)
    return float(gone[inside].mean()) if inside.any() else 0.0
