"""The scores of normal images out of scores of images of unknown state, most of which are normal.

A two-component mixture of log scores, fitted by expectation-maximisation with priors (Dempster, Laird, Rubin, "Maximum
likelihood from incomplete data via the EM algorithm", JRSS B 39, 1977): normal images follow a normal distribution
whose mean and standard deviation have the prior that few held-out scores gave; defective ones score as a normal image
plus an exponentially distributed excess (an exponentially modified Gaussian, Grushka, Analytical Chemistry 44, 1972).
The share of defects has a beta prior around what is expected. Assumed, and checked as far as scores can tell: most
images are normal, of the same part, taken as before. numpy and scipy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from blemish.errors import DatasetError
from blemish.numeric.shrinkage import shrunk_variance
from blemish.scoring.tail_model import TailModel, TailPrior, log_scores

MIN_IMAGES = 10
MOST_DEFECTIVE = 0.35  # share of defects beyond which "most are normal" is no longer safe; chosen by hand
SCATTERED = 4.0  # times the prior standard deviation that normal scores may scatter; chosen by hand
SHIFTED = 6.0  # prior standard deviations that the level of normal scores may have moved; chosen by hand
EXPECTED_WEIGHT = 10.0  # images that the expected share of defects is worth
EXCESS = 4.0  # prior mean of a defect's excess, in standard deviations of normal log scores
MIN_EXCESS = 2.5  # the same at least: defects that hardly exceed normal images cannot be told from them
# Normal scores have a heavier upper tail than a normal distribution, and the mixture takes the end of it for defects.
TAIL_FACTOR = 1.1
_STEPS = 500


@dataclass(frozen=True)
class UnlabelledFit:
    """What `images` scores of unknown state say: the tail of normal scores, and the estimated share of `defects`."""

    tail: TailModel
    defects: float
    images: int


def fit_unlabelled(
    scores: ArrayLike,
    held_out: ArrayLike,
    prior: TailPrior,
    expected_defects: float = 0.1,
    is_checked: bool = True,
) -> UnlabelledFit:
    """The distribution of normal scores from `scores` `(n,)` of unknown state, joined with `held_out` `(k,)` of normal
    images and their prior.

    `expected_defects` in [0, MOST_DEFECTIVE] is the share of defective images that is expected. Raises DatasetError for
    fewer than MIN_IMAGES scores and, where `is_checked`, for scores that contradict what is assumed: too many lie where
    defects would, or normal ones are not where the held-out scores say.
    """
    logs = np.sort(log_scores(scores))
    if len(logs) < MIN_IMAGES:
        raise DatasetError(f"at least {MIN_IMAGES} pictures of unknown state", str(len(logs)), "give more of them")
    if not 0 <= expected_defects <= MOST_DEFECTIVE:
        raise DatasetError(
            f"an expected share of defects from 0 to {MOST_DEFECTIVE:g}",
            f"{expected_defects:g}",
            "set aside what is known to be defective first",
        )
    known = TailModel.of(np.asarray(held_out, dtype=np.float64), prior)
    start_std = math.sqrt(shrunk_variance(log_scores(held_out), prior.std, prior.weight))
    mean_variance = known.scale**2 - start_std**2  # of the mean of normal scores, before any of these is seen
    expected = max(expected_defects, 1e-3)  # a share of 0 would never be left
    mean, std, share, excess = float(np.median(logs)), start_std, expected, EXCESS * start_std
    normal = np.ones_like(logs)
    for _ in range(_STEPS):
        normal = _normal_share(logs, mean, std, share, excess)  # (n,)
        count = float(normal.sum())
        share = (expected * EXPECTED_WEIGHT + len(logs) - count) / (EXPECTED_WEIGHT + len(logs))
        precision = 1 / mean_variance + count / std**2
        new_mean = (known.mean / mean_variance + float(normal @ logs) / std**2) / precision
        squares = float(normal @ (logs - new_mean) ** 2)
        new_std = math.sqrt((squares + known.freedom * start_std**2) / (count + known.freedom))
        above = float((1 - normal) @ np.maximum(logs - new_mean, 0))
        excess = max((above + 2 * EXCESS * start_std) / (len(logs) - count + 2), MIN_EXCESS * new_std)
        moved = abs(new_mean - mean) + abs(new_std - std)
        mean, std = new_mean, new_std
        if moved < 1e-9:
            break
    defects = 1.0 if std > SCATTERED * start_std else float((1 - normal).mean())
    if is_checked:
        _check(mean, defects, known, len(logs))
    scale = math.sqrt(std**2 + 1 / (1 / mean_variance + float(normal.sum()) / std**2))
    freedom = float(normal.sum()) + known.freedom - 1
    return UnlabelledFit(TailModel(mean, TAIL_FACTOR * scale, freedom), float((1 - normal).mean()), len(logs))


def _normal_share(logs: np.ndarray, mean: float, std: float, share: float, excess: float) -> np.ndarray:
    """The probability `(n,)` that each image is normal, under the mixture."""
    from scipy.stats import exponnorm, norm

    normal = math.log(1 - share) + norm.logpdf(logs, mean, std)
    defective = math.log(share) + exponnorm.logpdf(logs, excess / std, mean, std)
    return np.asarray(1 / (1 + np.exp(np.clip(defective - normal, -500, 500))))


def _check(mean: float, defects: float, known: TailModel, images: int) -> None:
    """Raise DatasetError where the fit contradicts the assumption that most images are normal and as before."""
    if defects > MOST_DEFECTIVE:
        raise DatasetError(
            "pictures most of which are good",
            f"scores of {images} that do not show which are good: too many lie where defects do",
            "set aside what is known to be defective, or give good pictures alone, without --unlabelled",
        )
    moved = (mean - known.mean) / known.scale
    if abs(moved) > SHIFTED:
        raise DatasetError(
            "pictures taken as those learned from",
            f"scores that lie {'above' if moved > 0 else 'below'} those of good parts as a whole",
            "check lamp, focus and framing; then learn again from pictures of this line",
        )
