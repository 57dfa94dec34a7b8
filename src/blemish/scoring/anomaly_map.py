"""Patch scores → full-size map → image score → regions: the one path from a detector's scores to an image.

Upsampling (bilinear, half-pixel centres) and Gaussian blur are linear and separable, so that both together are one
small matrix an image axis: `map = A_h @ patches @ A_wᵀ`. numpy and pillow only; the light runtime uses this file too.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np
from PIL import Image

from blemish.numeric import raster
from blemish.numeric.affine import inverse
from blemish.types import Region

BLUR = 4.0  # standard deviation in pixels of the encoder's input (PatchCore, AnomalyDINO)
SMALLEST_REGION = 1e-4  # share of the image's area; smaller specks above the threshold are not regions; chosen by eye
_WARP_ROWS = 2048  # rows warped at once, so that a huge image needs no second map of its size


def full_map(
    patches: np.ndarray,
    input_size: tuple[int, int],
    original_size: tuple[int, int],
    to_image: np.ndarray | None = None,
    blur: float = BLUR,
) -> np.ndarray:
    """The map `(H, W)` float32 at the image's own size from patch scores `(h, w)`.

    `input_size` is the (height, width) the encoder saw, `original_size` that of the image, both in pixels; `blur` a
    standard deviation in pixels of the encoder's input. `to_image` `(2, 3)` maps (x, y, 1) of the encoder's input to
    the image, where the input is no plain resize of it; what the input does not cover is 0.
    Every map value is a weighted mean of patch scores: it never leaves their range (but for that 0).
    """
    patches = np.ascontiguousarray(patches, dtype=np.float32)
    size = original_size if to_image is None else input_size
    down = axis_operator(patches.shape[0], size[0], blur * size[0] / input_size[0])  # (H, h)
    across = axis_operator(patches.shape[1], size[1], blur * size[1] / input_size[1])  # (W, w)
    flat = (down @ patches) @ across.T  # (H, W)
    return flat if to_image is None else _warp(flat, original_size, to_image)


def map_peak(patches: np.ndarray, input_size: tuple[int, int]) -> float:
    """The largest value of the map of `patches` `(h, w)` at `input_size` (height, width), what the encoder saw."""
    return float(full_map(patches, input_size, input_size).max())


def axis_operator(patches: int, pixels: int, sigma: float) -> np.ndarray:
    """The matrix `(pixels, patches)` float32 that upsamples one axis and then blurs it; each row sums to 1.

    `sigma` in output pixels; borders repeat their edge value.
    """
    return _axis_operator(patches, pixels, round(float(sigma), 6))


@lru_cache(maxsize=32)
def _axis_operator(patches: int, pixels: int, sigma: float) -> np.ndarray:
    radius = min(math.ceil(4 * sigma), 4 * pixels) if sigma > 0 else 0
    # Output rows from -radius to pixels + radius, clamped: blurring with a repeated border is then a plain sliding sum.
    rows = np.clip(np.arange(-radius, pixels + radius), 0, pixels - 1)
    place = np.clip((rows + 0.5) * patches / pixels - 0.5, 0, patches - 1)
    low = np.minimum(place.astype(np.int64), max(patches - 2, 0))
    high = np.minimum(low + 1, patches - 1)
    share = place - low
    up = np.zeros((len(rows), patches))
    every = np.arange(len(rows))
    up[every, low] += 1 - share
    up[every, high] += share
    if radius:
        kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        total = np.vstack([np.zeros((1, patches)), up])
        if len(kernel) > 256:  # a huge image: 256 steps of the kernel are as good as thousands, and far cheaper
            edges = np.unique(np.linspace(0, len(kernel), 257).round().astype(np.int64))
            sums = np.cumsum(total, axis=0)
            up = sum(kernel[a:b].mean() * (sums[b : b + pixels] - sums[a : a + pixels]) for a, b in pairwise(edges))
        else:
            up = sum(weight * up[i : i + pixels] for i, weight in enumerate(kernel))
        up /= up.sum(axis=1, keepdims=True)
    operator = np.ascontiguousarray(up, dtype=np.float32)
    operator.setflags(write=False)
    return operator


def _warp(flat: np.ndarray, original_size: tuple[int, int], to_image: np.ndarray) -> np.ndarray:
    """`flat` `(h, w)` of the encoder's input, laid where `to_image` says; 0 outside."""
    height, width = original_size
    back = inverse(to_image)  # image pixel → input pixel, which is what pillow asks for
    source = Image.fromarray(np.ascontiguousarray(flat, dtype=np.float32))
    out = np.zeros((height, width), dtype=np.float32)
    for top in range(0, height, _WARP_ROWS):
        rows = min(_WARP_ROWS, height - top)
        a, b, c, d, e, f = back.ravel()
        moved = (a, b, c + b * top, d, e, f + e * top)
        part = source.transform((width, rows), Image.Transform.AFFINE, moved, Image.Resampling.BILINEAR, fillcolor=0)
        out[top : top + rows] = np.asarray(part, dtype=np.float32)
    return out


def regions(
    scores: np.ndarray, threshold: float, peak_threshold: float | None = None, smallest: float = SMALLEST_REGION
) -> tuple[Region, ...]:
    """The connected areas (8 neighbours) of a map `(H, W)` at or above `threshold`, strongest first.

    Hysteresis thresholding: an area counts when it reaches `peak_threshold` somewhere (by default `threshold`); it must
    also cover at least the share `smallest` of the image.
    """
    needed = threshold if peak_threshold is None else peak_threshold
    above = scores >= threshold
    rows, columns = np.flatnonzero(above.any(axis=1)), np.flatnonzero(above.any(axis=0))
    if not len(rows):
        return ()
    # Only the box that holds everything above the threshold is labelled: cheap, and bounded for huge images.
    top, left = int(rows[0]), int(columns[0])
    inner = (slice(top, int(rows[-1]) + 1), slice(left, int(columns[-1]) + 1))
    labels, _ = raster.label(above[inner], diagonal=True)
    values = scores[inner]
    found = []
    for index, box in enumerate(raster.find_objects(labels), start=1):
        inside = labels[box] == index
        area = int(inside.sum())
        within = values[box][inside]
        if area < max(1.0, smallest * scores.size) or within.max() < needed:
            continue
        x, y = centroid(inside)
        y0, x0 = top + box[0].start, left + box[1].start
        found.append(
            Region(
                box=(x0, y0, left + box[1].stop, top + box[0].stop),
                area=area,
                peak=float(within.max()),
                mean=float(within.mean(dtype=np.float64)),
                centroid=(x0 + x, y0 + y),
            )
        )
    return tuple(sorted(found, key=lambda region: -region.peak))


def centroid(inside: np.ndarray) -> tuple[float, float]:
    """The mean (x, y) of the pixels `inside` `(H, W)` bool, of which there is one at least; (0, 0) is the first pixel.

    From counts a row and a column: the places of all pixels would take 16 bytes each.
    """
    rows, columns = np.count_nonzero(inside, axis=1), np.count_nonzero(inside, axis=0)  # (H,), (W,)
    area = int(rows.sum())
    x, y = (int(counts @ np.arange(len(counts))) / area for counts in (columns, rows))
    return x, y
