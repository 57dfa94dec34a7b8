"""Which images repeat one another: exactly, by a hash of their pixels, or nearly, as JPEG copies of one image do.

Two photographs of different parts are close, too, where a fixture holds every part alike. What tells them from two
copies of one photograph is fine detail: copies share its noise, photographs do not. (The same idea identifies cameras:
Lukáš, Fridrich, Goljan: Digital camera identification from sensor pattern noise, IEEE TIFS 2006.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from blemish.types import ImageOrScan, Scan

# Set on the good images of bottle, screw, pill, transistor, leather (MVTec AD), metal_plate (MPDD), macaroni1 (VisA),
# KolektorSDD, and their JPEG copies of quality 50 and 75 (tests/data/test_duplicates.py repeats three of them): copies
# differ by 0.4 to 1.5 levels at quality 50 and by at most 1.0 at 75, different parts by 1.3 (KolektorSDD) and 2.2
# (bottle) at least.
_THUMBNAIL = 32  # pixels a side
_CLOSEST = 1.25  # root mean square difference of thumbnails, in levels of 255
# Correlation of detail: copies of quality 75 have 0.6 at least, of 50 0.44; different parts 0.5 where edges coincide.
_LEAST_CORRELATION = 0.4
# Correlation of noise where the image is flat, and how many levels of it both need for a judgement. Independent noise
# has 0 ± 0.03; copies of quality 90 that keep so much of it 0.15 at least.
_LEAST_NOISE_CORRELATION, _LEAST_NOISE = 0.05, 0.6
_WINDOWS, _WINDOW = 5, 32  # detail is compared in 5 x 5 windows of 32 pixels a side

_CHUNK = 1024  # rows of the distance matrix at once: 4 MB for each thousand images


@dataclass(frozen=True, eq=False)
class Signature:
    """What is kept of an image to find its near-duplicates, 28 KB.

    `thumbnail` is `(32 * 32 * 3,)` float32, the means of equal blocks; `detail` `(25, s, s)` uint8, grey windows at
    the image's own resolution, evenly spaced; `shape` the image's height and width.
    """

    thumbnail: np.ndarray
    detail: np.ndarray
    shape: tuple[int, int]


def fingerprint(image: ImageOrScan) -> str:
    """A short hash of an image's pixels (of a scan's points, too), the same whatever file they came from."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()[:16]


def signature(image: ImageOrScan) -> Signature | None:
    """The signature of an image `(H, W, 3)` uint8 or of a scan's image; None for a scan of points alone."""
    pixels = image.image if isinstance(image, Scan) else image
    if pixels is None:
        return None
    blocks = Image.fromarray(pixels).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    height, width = pixels.shape[:2]
    side = min(_WINDOW, height, width)
    tops, lefts = (np.linspace(0, extent - side, _WINDOWS).astype(int) for extent in (height, width))
    windows = [pixels[top : top + side, left : left + side] for top in tops for left in lefts]
    detail = np.stack(windows).mean(axis=3).astype(np.uint8)  # (25, s, s)
    return Signature(np.asarray(blocks, np.float32).reshape(-1), detail, (height, width))


def near_duplicates(signatures: Sequence[Signature | None]) -> list[int]:
    """For each image the index of the first one that it repeats, by way of others where need be; else its own index.

    `kept = [i for i, first in enumerate(found) if i == first]` are the images that count.
    """
    found = list(range(len(signatures)))
    known = [i for i, one in enumerate(signatures) if one is not None]
    if len(known) < 2:
        return found
    thumbnails = np.stack([one.thumbnail for one in signatures if one is not None]) - 128  # (N, D)
    for i, j in _close_pairs(thumbnails):
        a, b = signatures[known[i]], signatures[known[j]]
        if a is not None and b is not None and _share_detail(a, b):
            _join(found, known[i], known[j])
    return [_first(found, i) for i in range(len(found))]


def _close_pairs(thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Pairs i < j of thumbnails `(N, D)` float32 whose root mean square difference is at most `_CLOSEST`."""
    norms = (thumbnails**2).sum(axis=1)  # (N,)
    limit = _CLOSEST**2 * thumbnails.shape[1]
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(thumbnails), _CHUNK):
        rows = thumbnails[start : start + _CHUNK]
        squared = norms[start : start + len(rows), None] + norms - 2 * rows @ thumbnails.T  # (rows, N)
        pairs += [(start + int(i), int(j)) for i, j in np.argwhere(squared <= limit) if start + i < j]
    return pairs


def _share_detail(a: Signature, b: Signature) -> bool:
    """Whether two images of close thumbnails have the same fine detail, noise included where both have any."""
    if a.shape != b.shape:  # a copy of another size: detail cannot be compared, shape must do
        return abs(a.shape[0] * b.shape[1] - a.shape[1] * b.shape[0]) <= max(*a.shape, *b.shape)
    if min(a.detail.shape[1:]) < 3:
        return True
    windows_a, windows_b = a.detail.astype(np.float64), b.detail.astype(np.float64)  # (n, s, s)
    base_a, base_b = _means(windows_a), _means(windows_b)  # (n, s - 2, s - 2)
    fine_a, fine_b = windows_a[:, 1:-1, 1:-1] - base_a, windows_b[:, 1:-1, 1:-1] - base_b
    if max(np.abs(fine_a).max(), np.abs(fine_b).max()) < _LEAST_NOISE:
        return True  # neither has any detail: drawn, not photographed
    if _correlation(fine_a, fine_b) < _LEAST_CORRELATION:
        return False
    vertical, horizontal = np.gradient(base_a + base_b, axis=(1, 2))
    edges = np.hypot(vertical, horizontal)
    flat = edges <= np.median(edges)
    noise_a, noise_b = _noise(windows_a)[flat], _noise(windows_b)[flat]
    if min(np.sqrt((noise_a**2).mean()), np.sqrt((noise_b**2).mean())) < _LEAST_NOISE:
        return True
    return _correlation(noise_a, noise_b) >= _LEAST_NOISE_CORRELATION


def _means(windows: np.ndarray) -> np.ndarray:
    """The means of 3 x 3 pixels in windows `(n, s, s)`, as `(n, s - 2, s - 2)`."""
    return np.lib.stride_tricks.sliding_window_view(windows, (3, 3), axis=(1, 2)).mean(axis=(-2, -1))


def _noise(windows: np.ndarray) -> np.ndarray:
    """The noise in windows `(n, s, s)`, as `(n, s - 2, s - 2)`: second differences both ways, which no edge along an
    axis and no slope survives (Immerkær: Fast noise variance estimation, CVIU 1996), scaled to the noise's std."""
    across = windows[:, :, 2:] - 2 * windows[:, :, 1:-1] + windows[:, :, :-2]
    return (across[:, 2:] - 2 * across[:, 1:-1] + across[:, :-2]) / 6


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    product = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / product if product > 0 else 0.0


def _first(found: list[int], i: int) -> int:
    while found[i] != i:
        i = found[i]
    return i


def _join(found: list[int], i: int, j: int) -> None:
    low, high = sorted((_first(found, i), _first(found, j)))
    found[high] = low
