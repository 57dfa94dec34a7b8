"""One score for an image from the scores of its patches. numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from blemish.errors import SettingsError

LONG = 4  # length over width up to which patches are pooled all together; longer images are encoded in tiles, too
SEVERAL_SHARES = "top:0.001,0.003,0.01,0.03"  # small and large defects alike


def image_score(patches: np.ndarray, pooling: str = "top:0.01") -> float:
    """One score for an image from its patch scores `(h, w)`.

    `pooling`: "top:0.01" is the mean of that share of the largest (at least one), "top:10" of that many, "max" the
    largest alone. Several, as in "top:0.001,0.01,0.1", are joined by their geometric mean, so that small and large
    defects both count.
    """
    flat = np.asarray(patches, dtype=np.float32).ravel()
    counts = pooled_counts(pooling, flat.size)
    most = max(counts)
    largest = flat if most >= flat.size else np.partition(flat, flat.size - most)[flat.size - most :]
    largest = np.sort(largest)[::-1].astype(np.float64)
    means = [float(largest[:count].mean()) for count in counts]
    return means[0] if len(means) == 1 else geometric_mean(means)


def geometric_mean(scores: Sequence[float]) -> float:
    """The geometric mean, > 0, of scores ≥ 0; of 0 next to nothing is taken."""
    return math.exp(sum(math.log(max(score, 1e-12)) for score in scores) / len(scores))


def image_scores(patches: np.ndarray, pooling: str, ignored: np.ndarray | None = None) -> list[float]:
    """One score for each image from patch scores `(B, h, w)`; `ignored` patches `(B, h, w)` bool count for nothing.

    An image of which nothing is judged scores 0. A strip scores what the most anomalous of its `windows` does: pooled
    over all of it, a defect would be a smaller share, and count for less, the longer the strip is.
    """
    places = windows(patches.shape[1:])
    scores = []
    for i, image in enumerate(patches):  # (h, w)
        pieces = [image[place] if ignored is None else image[place][~ignored[i][place]] for place in places]
        scores.append(max((image_score(piece, pooling) for piece in pieces if piece.size), default=0.0))
    return scores


def judged_scores(
    patches: np.ndarray, pooling: str, ignored: np.ndarray | None, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Image scores `(B,)` float32 and patch scores `(B, h, w)`, in which `ignored` patches `(B, h, w)` bool score 0.

    `own` `(B,)` are image scores of the detector's, which take the place of pooled ones.
    """
    if ignored is not None:
        patches = np.where(ignored, np.float32(0), patches)
    return np.asarray(image_scores(patches, pooling, ignored) if own is None else own, dtype=np.float32), patches


def windows(shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Where the patches `(h, w)` lie that are pooled together: all, or windows of `LONG` : 1 where they are longer.

    Windows are evenly spaced and overlap by half, so that a defect at the end of one lies in the middle of another.
    """
    length, window = max(shape), LONG * min(shape)
    if length <= window:
        return [(slice(None), slice(None))]
    count = math.ceil((length - window) / (window // 2)) + 1
    starts = [round(i * (length - window) / (count - 1)) for i in range(count)]
    along = [slice(start, start + window) for start in starts]
    return [(one, slice(None)) if shape[0] > shape[1] else (slice(None), one) for one in along]


def pooled_counts(pooling: str, patches: int) -> list[int]:
    """How many of `patches` patches each mean of a pooling takes. Raises SettingsError for a pooling that is none."""
    if pooling == "max":
        return [1]
    kind, _, amounts = pooling.partition(":")
    counts = [_count(amount, patches) for amount in amounts.split(",")] if kind == "top" else [0]
    if min(counts) < 1:
        raise SettingsError(
            "a pooling: 'max', 'top:SHARE' such as top:0.01, 'top:COUNT' such as top:10, or several, top:0.01,0.1",
            repr(pooling),
            "use one of these",
        )
    return counts


def _count(amount: str, patches: int) -> int:
    """How many of `patches` patches a share ("0.01") or count ("10") means; 0 for what is neither."""
    try:
        number = float(amount)
    except ValueError:
        return 0
    if "." in amount and 0 < number <= 1:
        return max(1, int(patches * number))
    return int(min(number, patches)) if amount.isdigit() and number >= 1 else 0
