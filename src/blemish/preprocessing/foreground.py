"""Where the part is in an image of anything, without knowing its class.

Both methods compare the border with the middle, because the border of an image of a part shows background.
Where the image does not split into two (a texture, a part that fills the frame), the foreground is the whole image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from blemish.numeric import raster

# Chosen by eye on images of parts on plain backgrounds and of textures; no benchmark set them, nor the percentiles and
# sizes of the morphology in `find_part`.
BORDER = 0.05  # width of the border strip as a share of the shorter side
SHARE = (0.02, 0.85)  # of the image that a believable foreground covers
BACKGROUND_BORDER = 0.8  # of the border strip that must be background
SEPARATION = 0.55  # between-class variance over total variance, at least
CLEAR_BORDER = 0.9  # of the border strip that a part on a plain background leaves free
CONTRAST = 1.1  # distance of a part from the background at least, over the border strip's own 95th percentile
FAINTEST = 8.0  # grey levels between a part and the background at least
PIECE = 0.2  # of the largest piece's area from which another is a piece of the part as well
DOMINANCE = 0.8  # of all that differs from the background that belongs to those pieces
LEAST_CELLS = 8  # along the short side of the small copy in which a part is looked for
AGREEMENT = 0.8  # intersection over union of the masks from random halves of the patches, at least


def otsu(values: np.ndarray, bins: int = 256) -> tuple[float, float]:
    """Otsu's threshold (IEEE Trans. SMC 1979) of any array, and the share of the variance it explains, in [0, 1]."""
    counts, edges = np.histogram(values, bins=bins)
    middles = (edges[:-1] + edges[1:]) / 2
    low = np.cumsum(counts) / max(counts.sum(), 1)  # share at or under each bin
    mean = np.cumsum(counts * middles) / max(counts.sum(), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = np.nan_to_num((mean[-1] * low - mean) ** 2 / (low * (1 - low)), posinf=0.0)
    ties = np.flatnonzero(between[:-1] >= between[:-1].max() * (1 - 1e-9))  # an empty gap: its middle
    best = int(ties[len(ties) // 2])
    total = float(np.var(values))
    return float(edges[best + 1]), float(between[best] / total) if total > 0 else 0.0


@dataclass(frozen=True)
class Part:
    """A part on a plain background: `mask` `(h, w)` bool of a small copy, `shrink` image pixels for each of them.

    `debris` `(h, w)` bool is what else lies on the background, away from the image's border: crumbs, foreign bodies.
    """

    mask: np.ndarray
    shrink: float
    debris: np.ndarray


def find_part(image: np.ndarray, side: int = 224, expected: bool = False) -> Part | None:
    """The one part in `(H, W, 3)` uint8 on a plain background; None where the image shows none.

    The background is modelled as a smooth surface through the border strip (light falls off, lenses vignette); the part
    is what differs from it. It must leave most of the border free and stand out from the background's own texture,
    unless a part is `expected`: then whatever differs from the background is taken for it.

    It is looked for in a copy whose long side has `side` cells, more in strips, whose short side has `LEAST_CELLS`.
    """
    height, width = image.shape[:2]
    shrink = max(1.0, min(max(height, width) / side, min(height, width) / LEAST_CELLS))
    size = max(LEAST_CELLS, round(width / shrink)), max(LEAST_CELLS, round(height / shrink))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX), dtype=np.float32)
    edge = border(small.shape[:2])
    distance = _background_distance(small, edge)  # (h, w)
    clipped = np.minimum(distance, np.percentile(distance, 99.5))
    mask = distance > max(otsu(clipped)[0], FAINTEST)
    mask = raster.binary_closing(np.pad(mask, 6), iterations=3)[6:-6, 6:-6]
    mask = raster.binary_opening(raster.binary_fill_holes(mask))
    labels, count = raster.label(mask)
    if not count:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    outer = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    inner = ~np.isin(1 + np.arange(count), outer)  # what enters from outside is another part, or the fixture
    pieces = (inner & (sizes >= PIECE * sizes.max())) | (sizes == sizes.max())  # a broken part has several
    mask = np.isin(labels, 1 + np.flatnonzero(pieces))
    debris = np.isin(labels, 1 + np.flatnonzero(inner & ~pieces))
    texture = float(np.percentile(distance[edge], 95))
    believable = (
        SHARE[0] <= mask.mean() <= SHARE[1]
        and mask.sum() >= DOMINANCE * sizes.sum()
        and mask[edge].mean() <= 1 - CLEAR_BORDER
        and np.median(distance[mask]) >= CONTRAST * texture
    )
    return Part(mask, shrink, debris) if believable or expected else None


def from_pixels(image: np.ndarray) -> np.ndarray:
    """The foreground of `(H, W, 3)` uint8 as `(H, W)` bool: the part that `find_part` finds, or the whole image."""
    part = find_part(image)
    if part is None:
        return np.ones(image.shape[:2], dtype=bool)
    size = (image.shape[1], image.shape[0])
    return np.asarray(Image.fromarray(part.mask).resize(size, Image.Resampling.NEAREST), dtype=bool)


def _background_distance(image: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Distance of each pixel of `(h, w, 3)` from the background's colour, `(h, w)` in grey levels.

    The background is a quadratic surface a channel, fitted to the border strip `edge` by least squares; pixels beyond
    three robust standard deviations (≈ 1.5 · median) are rejected, five times: parts that touch the border, shadows.
    """
    terms = _surface_terms(edge.shape)  # (h, w, 6)
    strip, colours = terms[edge].astype(np.float64), image[edge].astype(np.float64)  # (N, 6), (N, 3)
    inliers = np.ones(len(strip), dtype=bool)
    for _ in range(5):
        chosen = strip[inliers]
        surface = np.linalg.lstsq(chosen.T @ chosen, chosen.T @ colours[inliers], rcond=None)[0]  # (6, 3)
        distance = np.linalg.norm(colours - strip @ surface, axis=-1)
        std = 1.5 * float(np.median(distance[inliers])) + 1e-3
        inliers = distance < 3 * std
    return np.linalg.norm(image - terms @ surface.astype(np.float32), axis=-1)


@lru_cache(maxsize=8)
def _surface_terms(shape: tuple[int, int]) -> np.ndarray:
    """1, x, y, xy, x², y² at every pixel, x and y in [−1, 1]: `(h, w, 6)` float32."""
    height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = 2 * y / height - 1, 2 * x / width - 1
    return np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)


def from_patches(patches: np.ndarray, seed: int = 0) -> np.ndarray:
    """The foreground of one image's features `(h, w, D)` as `(h, w)` bool, from their first principal component.

    Its sign is chosen so that the border is background. It counts as stable only when the components of random halves
    of the patches give the same mask.
    """
    grid, flat = patches.shape[:2], patches.reshape(-1, patches.shape[-1]).astype(np.float64)
    edge = border(grid)
    mask = _believed(_component(flat, flat).reshape(grid), edge)
    if mask.all():
        return mask
    rng = np.random.default_rng(seed)
    for _ in range(4):
        half = rng.permutation(len(flat))[: len(flat) // 2]
        other = _believed(_component(flat, flat[half]).reshape(grid), edge)
        if (mask & other).sum() < AGREEMENT * (mask | other).sum():
            return np.ones(grid, dtype=bool)
    return mask


def border(shape: tuple[int, ...]) -> np.ndarray:
    """The border strip of a grid `(H, W)` as bool, at least one cell wide."""
    strip = max(1, round(BORDER * min(shape)))
    edge = np.ones(shape, dtype=bool)
    edge[strip:-strip, strip:-strip] = False
    return edge


def _component(patches: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """`patches` `(N, D)` along the first principal component of `sample` `(M, D)` → `(N,)`."""
    from scipy.linalg import eigh  # here, because finding a part in pixels does without scipy

    mean = sample.mean(axis=0)
    centred = sample - mean
    wide = len(centred) < centred.shape[1]
    gram = centred @ centred.T if wide else centred.T @ centred
    last = len(gram) - 1
    vector = eigh(gram, subset_by_index=(last, last))[1][:, 0]
    vector = centred.T @ vector if wide else vector
    return (patches - mean) @ (vector / max(float(np.linalg.norm(vector)), 1e-12))


def _believed(values: np.ndarray, edge: np.ndarray | None = None) -> np.ndarray:
    """The large or the small `values` as a mask `(H, W)`, whichever leave the border out; all if neither does."""
    edge = border(values.shape) if edge is None else edge
    whole = np.ones(values.shape, dtype=bool)
    threshold, separation = otsu(values)
    mask = values > threshold
    if mask[edge].mean() > 0.5:
        mask = ~mask
    if separation < SEPARATION or 1 - mask[edge].mean() < BACKGROUND_BORDER:
        return whole
    mask = raster.binary_fill_holes(raster.binary_opening(mask, iterations=max(1, min(values.shape) // 150)))
    labels, count = raster.label(mask, diagonal=True)
    if count > 1:  # crumbs of background that look like the part
        sizes = np.bincount(labels.ravel())[1:]
        mask = np.isin(labels, 1 + np.flatnonzero(sizes >= 0.1 * sizes.max()))
    return mask if SHARE[0] <= mask.mean() <= SHARE[1] else whole
