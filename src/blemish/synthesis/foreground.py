"""Where the part is in a picture of anything, without knowing its class.

Both ways look at how the border differs from the middle, because the border of a picture of a part shows background.
Where the picture does not split into two (a texture, a part that fills the frame), the answer is the whole picture.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.linalg import eigh

BORDER = 0.05  # width of the border strip as a share of the shorter side
SHARE = (0.02, 0.85)  # of the picture that a believable foreground covers
BACKGROUND_BORDER = 0.8  # of the border strip that must be background
SEPARATION = 0.55  # between-class variance over total variance, at least
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


def from_pixels(picture: np.ndarray) -> np.ndarray:
    """The foreground of `(H, W, 3)` uint8 as `(H, W)` bool: what differs from the colours of the border strip."""
    small = ndimage.uniform_filter(picture.astype(np.float32), size=(5, 5, 1))
    strip = small[border(picture.shape[:2])]
    spread = np.maximum(1.4826 * np.median(np.abs(strip - np.median(strip, axis=0)), axis=0), 4.0)
    distance = np.sqrt((((small - np.median(strip, axis=0)) / spread) ** 2).mean(axis=-1))  # (H, W)
    return _believed(np.log1p(distance))


def from_patches(patches: np.ndarray, seed: int = 0) -> np.ndarray:
    """The foreground of one picture's features `(h, w, D)` as `(h, w)` bool, from their first principal component.

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
    mask = ndimage.binary_fill_holes(ndimage.binary_opening(mask, iterations=max(1, min(values.shape) // 150)))
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count > 1:  # crumbs of background that look like the part
        sizes = np.bincount(labels.ravel())[1:]
        mask = np.isin(labels, 1 + np.flatnonzero(sizes >= 0.1 * sizes.max()))
    return mask if SHARE[0] <= mask.mean() <= SHARE[1] else whole
