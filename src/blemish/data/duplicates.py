"""Which images repeat one another: exactly, by a hash of their pixels, or nearly, as JPEG copies of one image do.

Two photographs of different parts are close, too, where a fixture holds every part alike. What tells them from two
copies of one photograph is fine detail: copies share its noise, photographs do not. (The same idea identifies cameras:
Lukáš, Fridrich, Goljan: Digital camera identification from sensor pattern noise, IEEE TIFS 2006.)
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

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
# Correlation of noise where the image is flat, and how many levels of it both need for a judgement. That of independent
# noise has this standard deviation, more in images of fewer pixels than the windows (made-up parts, 32 to 1,200 pixels
# a side); copies of quality 90 that keep so much noise have 0.15 at least.
_LEAST_NOISE_CORRELATION, _LEAST_NOISE = 0.05, 0.6
_CHANCE_STD = 0.018
_WINDOWS, _WINDOW = 5, 32  # detail is compared in 5 x 5 windows of 32 pixels a side

# Images that are compared with so many others at once: 100 MB of detail. Detail is split once for the rows, and for the
# columns as often as there are blocks of rows; splitting is what takes the time.
_ROWS, _COLUMNS = 320, 64
_LEAST_SIDE = 5  # pixels of an image that has detail

Split = tuple[np.ndarray, np.ndarray, np.ndarray]  # what `_split` gives


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

    `kept = [i for i, first in enumerate(found) if i == first]` are the images that count. Where a fixture makes all
    thumbnails close the time grows with the square of their number: a thousand images take ten seconds on one core, ten
    thousand a quarter of an hour, less than to encode them.
    """
    found = list(range(len(signatures)))
    known = [i for i, one in enumerate(signatures) if one is not None]
    if len(known) < 2:
        return found
    thumbnails = np.stack([one.thumbnail for one in signatures if one is not None]) - 128  # (N, D)
    given = [one for one in signatures if one is not None]
    split_rows = lru_cache(maxsize=1)(partial(_split_of, given))
    for pairs in _close_pairs(thumbnails):
        for i, j in _repeating(given, pairs, split_rows):
            _join(found, known[i], known[j])
    return [_first(found, i) for i in range(len(found))]


def _close_pairs(thumbnails: np.ndarray) -> Iterator[list[tuple[int, int]]]:
    """Pairs i < j of thumbnails `(N, D)` float32 whose root mean square difference is at most `_CLOSEST`.

    In parts of at most `_ROWS` by `_COLUMNS`: where a fixture holds parts alike, all are close to all.
    """
    norms = (thumbnails**2).sum(axis=1)  # (N,)
    limit = _CLOSEST**2 * thumbnails.shape[1]
    for top in range(0, len(thumbnails), _ROWS):
        rows = thumbnails[top : top + _ROWS]
        squared = norms[top : top + len(rows), None] + norms[top:] - 2 * rows @ thumbnails[top:].T  # (rows, N - top)
        for left in range(top, len(thumbnails), _COLUMNS):
            close = squared[:, left - top : left - top + _COLUMNS] <= limit
            pairs = [(top + int(i), left + int(j)) for i, j in np.argwhere(close) if top + i < left + j]
            if pairs:
                yield pairs


def _repeating(
    signatures: Sequence[Signature], pairs: Sequence[tuple[int, int]], split_rows: Callable[[tuple[int, ...]], Split]
) -> list[tuple[int, int]]:
    """Those of the `pairs` of close thumbnails whose detail is the same, too.

    `split_rows` is `_split_of` these signatures, and remembers the last: many columns meet the same rows.
    """
    repeating: list[tuple[int, int]] = []
    alike: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)  # by the shape of both
    for i, j in pairs:
        if signatures[i].shape == signatures[j].shape:
            alike[signatures[i].shape].append((i, j))
        elif _same_aspect(signatures[i].shape, signatures[j].shape):  # detail of other sizes cannot be compared
            repeating.append((i, j))
    for shape, same_shape in alike.items():
        if min(shape) < _LEAST_SIDE:  # too small to have any detail
            repeating += same_shape
            continue
        rows, columns = (tuple(sorted(set(side))) for side in zip(*same_shape, strict=True))
        least = _least_noise_correlation(len(signatures), shape)
        same = _same_detail(split_rows(rows), _split_of(signatures, columns), least)
        row, column = ({k: at for at, k in enumerate(side)} for side in (rows, columns))
        repeating += [(i, j) for i, j in same_shape if same[row[i], column[j]]]
    return repeating


def _least_noise_correlation(count: int, shape: tuple[int, int]) -> float:
    """From where on two of `count` images of this `shape` (height, width) are taken to share their noise.

    The more pairs there are, the higher one of them comes by chance: that happens in about one set of ten.
    """
    seen = min(shape[0] * shape[1] / (_WINDOWS * min(_WINDOW, *shape)) ** 2, 1.0)  # pixels of the windows, each once
    return max(_LEAST_NOISE_CORRELATION, _CHANCE_STD * math.sqrt(2 * math.log(count * (count - 1) / 2) / seen))


def _same_detail(split: Split, others: Split, least_noise_correlation: float) -> np.ndarray:
    """Whether each of a images has the detail of each of b others, noise included where both have any: `(a, b)` bool.

    All are given as `_split` gives them, of one size.
    """
    (fine_a, noise_a, flat_a), (fine_b, noise_b, flat_b) = split, others  # each (a, d) and (b, d)
    # Images without any detail are drawn, not photographed: their thumbnails say all.
    drawn_a, drawn_b = (np.abs(fine).max(axis=1) < _LEAST_NOISE for fine in (fine_a, fine_b))
    lengths = np.sqrt(np.outer((fine_a**2).sum(axis=1), (fine_b**2).sum(axis=1)))
    is_alike = fine_a @ fine_b.T >= _LEAST_CORRELATION * np.maximum(lengths, 1e-9)
    # Sums over the pixels where both are flat, all `(a, b)`.
    count = np.maximum(flat_a @ flat_b.T, 1)
    power_a, power_b = noise_a**2 @ flat_b.T, flat_a @ (noise_b**2).T
    has_noise = np.minimum(power_a, power_b) >= _LEAST_NOISE**2 * count
    shares_noise = noise_a @ noise_b.T >= least_noise_correlation * np.sqrt(power_a * power_b)
    return np.outer(drawn_a, drawn_b) | (is_alike & (~has_noise | shares_noise))


def _split_of(signatures: Sequence[Signature], images: tuple[int, ...]) -> Split:
    """The details of the signatures of `images`, split a few at a time."""
    few = [images[start : start + _COLUMNS] for start in range(0, len(images), _COLUMNS)]
    fine, noise, flat = zip(*(_split(np.stack([signatures[i].detail for i in part])) for part in few), strict=True)
    return np.concatenate(fine), np.concatenate(noise), np.concatenate(flat)


def _split(details: np.ndarray) -> Split:
    """Fine detail, noise where the image is flat, and where that is, of images `(a, n, s, s)`: each `(a, d)` float32.

    Fine detail is what a 3 x 3 mean takes away. Noise is a second difference both ways, which no slope and no edge
    along an axis survives (Immerkær: Fast noise variance estimation, CVIU 1996), scaled to the noise's std. Flat is the
    half of the pixels with the smallest gradients.
    """
    levels = details.astype(np.float32)
    rows = levels[:, :, :-2] + levels[:, :, 1:-1] + levels[:, :, 2:]
    means = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9  # (a, n, s - 2, s - 2)
    fine = levels[:, :, 1:-1, 1:-1] - means
    bends = levels[:, :, :-2] - 2 * levels[:, :, 1:-1] + levels[:, :, 2:]
    noise = (bends[..., :-2] - 2 * bends[..., 1:-1] + bends[..., 2:]) / 6
    edges = np.hypot(*np.gradient(means, axis=(2, 3))).reshape(len(details), -1)
    flat = (edges <= np.median(edges, axis=1, keepdims=True)).astype(np.float32)
    return fine.reshape(len(details), -1), noise.reshape(len(details), -1) * flat, flat


def _same_aspect(size: tuple[int, int], other: tuple[int, int]) -> bool:
    return abs(size[0] * other[1] - size[1] * other[0]) <= max(*size, *other)


def _first(found: list[int], i: int) -> int:
    while found[i] != i:
        i = found[i]
    return i


def _join(found: list[int], i: int, j: int) -> None:
    low, high = sorted((_first(found, i), _first(found, j)))
    found[high] = low
