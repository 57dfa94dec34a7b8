"""The scores of normal images out of scores of images of unknown state, most of which are normal.

A mixture of log scores (McLachlan & Peel, Finite Mixture Models, 2000). Normal images follow a log-gamma distribution
(log_gamma.py), whose mean and standard deviation have the prior that few held-out scores gave and whose skewness is one
of a few. Defective ones lie further up by one of a few sizes of defect, or by any of these; their share has a beta
prior around what is expected. All parameters are integrated out over a grid, so that the p-value of a new image is a
posterior predictive one: the less the images say, the wider it is (Gelman et al., Bayesian Data Analysis, 2013, §3).

Assumed, and checked as far as scores can tell: most images are normal, of the same part, taken as before. Shapes, sizes
of defects and the weight of the expected share were set on the scores of a few products (benchmarks/unlabelled.py,
which also prints what would be chosen with each left out). numpy and scipy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from blemish.errors import DatasetError
from blemish.numeric.shrinkage import shrunk_variance
from blemish.scoring import log_gamma
from blemish.scoring.tail_model import TINY, TailModel, TailPrior, log_scores

MIN_IMAGES = 10
MOST_DEFECTIVE = 0.35  # share of defects beyond which "most are normal" is no longer safe; chosen by hand
SCATTERED = 4.0  # times the prior standard deviation that normal scores may scatter; chosen by hand
SHIFTED = 6.0  # prior standard deviations that the level of normal scores may have moved; chosen by hand
_SHARES = np.array([0.003, 0.015, 0.03, 0.06, 0.1, 0.15, 0.2, 0.27, 0.35, 0.45, 0.6])  # of defects, on the grid
_STDS = (0.3, 7.0, 16)  # lowest and highest standard deviation on the grid, in prior ones, and how many
_MEANS = 17  # for each of them
_CELL, _FURTHEST = 0.05, 30.0  # log scores are rounded to such cells, and cut so far above the median, in prior stds
_KEPT = 1e-4  # share of the posterior that the refined grid may leave out at either end
_ENDS = -6.0, 25.0  # of the tabulated tail, in posterior standard deviations
_ANYWHERE = 10.0  # standard deviation of the mean of log scores of which nothing is known beforehand
_TINY = float(np.finfo(np.float64).tiny)
_NO_DENSITY = float(np.finfo(np.float32).tiny)  # of what neither a normal nor a defective image would score


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What is assumed of log scores before the first is seen; the defaults were chosen by benchmarks/unlabelled.py.

    `shapes` are those that the log-gamma distribution of normal images may have, equally likely. `defects` are the
    sizes of defects: mean and standard deviation of their log scores above the mean of normal ones, in standard
    deviations of these. All defects are of one size, or of all sizes alike; equally likely. `expected_weight` is how
    many images the expected share of defects is worth.
    """

    shapes: tuple[float, ...] = (1.0, 2.0, 4.0, math.inf)
    defects: tuple[tuple[float, float], ...] = ((3.0, 1.3), (5.0, 2.0), (8.0, 3.0), (14.0, 6.0))
    expected_weight: float = 20.0


MIXTURE = Mixture()


@dataclass(frozen=True, eq=False)
class TabulatedTail:
    """The probability that a new normal image scores at least so much, as `log_p` `(m,)`, falling, over `logs` `(m,)`.

    Between the points log p is linear; above the last one it falls on as at the end, as of an exponential tail.
    """

    logs: np.ndarray
    log_p: np.ndarray

    def bound(self, rate: float) -> float:
        """The score that a new normal image exceeds with probability `rate`."""
        aim = math.log(rate)
        if aim < self.log_p[-1]:
            return float(math.exp(self.logs[-1] + (aim - self.log_p[-1]) / self._slope))
        return float(np.exp(np.interp(-aim, -self.log_p, self.logs)))

    def probability(self, score: float) -> float:
        """The probability, in (0, 1], that a new normal image scores at least `score`."""
        log = math.log(max(score, TINY))
        if log > self.logs[-1]:
            log_p = float(self.log_p[-1] + (log - self.logs[-1]) * self._slope)
        else:
            log_p = float(np.interp(log, self.logs, self.log_p))
        return max(math.exp(log_p), _TINY)

    @property
    def _slope(self) -> float:
        return float((self.log_p[-1] - self.log_p[-2]) / (self.logs[-1] - self.logs[-2]))


@dataclass(frozen=True)
class UnlabelledFit:
    """What `images` scores of unknown state say: the tail of normal scores, and the estimated share of `defects`.

    `is_plausible`: the fit does not contradict the assumption that most of the images are normal.
    """

    tail: TabulatedTail
    defects: float
    images: int
    is_plausible: bool = True


def fit_unlabelled(
    scores: ArrayLike,
    held_out: ArrayLike,
    prior: TailPrior,
    expected_defects: float = 0.1,
    is_checked: bool = True,
    mixture: Mixture = MIXTURE,
) -> UnlabelledFit:
    """The distribution of normal scores from `scores` `(n,)` of unknown state, joined with `held_out` `(k,)` of normal
    images and their prior.

    `expected_defects` in [0, MOST_DEFECTIVE] is the share of defective images that is expected. Raises DatasetError for
    fewer than MIN_IMAGES scores and, where `is_checked`, for scores that contradict what is assumed: too many lie where
    defects would, or normal ones are not where the held-out scores say.
    """
    logs = log_scores(scores)
    if len(logs) < MIN_IMAGES:
        raise DatasetError(f"at least {MIN_IMAGES} pictures of unknown state", str(len(logs)), "give more of them")
    check_expected(expected_defects)
    known = HeldOutPrior.of(np.asarray(held_out, dtype=np.float64), prior)
    posterior = posterior_of(logs, known, prior.std, expected_defects, mixture)
    if is_checked:
        check(posterior, known, len(logs))
    return UnlabelledFit(posterior.tail(), posterior.defects, len(logs))


def fit_without_held_out(
    scores: ArrayLike, prior: TailPrior, expected_defects: float = 0.1, mixture: Mixture = MIXTURE
) -> UnlabelledFit:
    """The distribution of normal scores from `scores` `(n,)` of unknown state alone, n ≥ 1.

    Of normal log scores the `prior` of the standard deviation is all that is known before; their mean may lie anywhere.
    Where the fit contradicts that most of them are normal, it is not plausible; nothing is raised for it. Raises
    DatasetError for an expected share of defects that cannot be.
    """
    check_expected(expected_defects)
    logs = log_scores(scores)
    known = HeldOutPrior.without_scores(float(np.median(logs)), prior)
    posterior = posterior_of(logs, known, prior.std, expected_defects, mixture)
    return UnlabelledFit(posterior.tail(), posterior.defects, len(logs), are_most_normal(posterior, known))


def check_expected(defects: float) -> None:
    """Raise DatasetError for an expected share of defects that contradicts "most are normal"."""
    if not 0 <= defects <= MOST_DEFECTIVE:
        raise DatasetError(
            f"an expected share of defects from 0 to {MOST_DEFECTIVE:g}",
            f"{defects:g}",
            "set aside what is known to be defective first",
        )


def posterior_of(
    logs: np.ndarray, known: HeldOutPrior, std: float, expected_defects: float, mixture: Mixture
) -> Posterior:
    """What log scores `(n,)` say, given what is `known` before; `std` is the prior one."""
    values, counts = rounded(logs, std)
    shares = log_share_prior(expected_defects, mixture.expected_weight)
    posterior = Posterior.of(values, counts, known, shares, mixture, Grid.over(values, counts, std))
    return Posterior.of(values, counts, known, shares, mixture, posterior.refined_grid())


def rounded(logs: np.ndarray, std: float) -> tuple[np.ndarray, np.ndarray]:
    """Log scores `(n,)` as distinct ones `(m,)` and how often each occurs `(m,)`, so that cost is bounded.

    Rounded to a fraction of the prior `std`; what lies far beyond all normal ones is cut, as it says no more.
    """
    cell, centre = _CELL * std, float(np.median(logs))
    cells, counts = np.unique(np.round(np.clip((logs - centre) / cell, -np.inf, _FURTHEST / _CELL)), return_counts=True)
    return centre + cell * cells, counts.astype(np.float64)


def log_share_prior(expected: float, weight: float) -> np.ndarray:
    """The logarithm of the prior probability of each of `_SHARES`: a beta distribution around what is `expected`."""
    from scipy.special import betainc

    mean = max(expected, 0.01)  # a share of 0 would never be left
    edges = np.concatenate([[0.0], (_SHARES[1:] + _SHARES[:-1]) / 2, [1.0]])
    return np.asarray(np.log(np.maximum(np.diff(betainc(mean * weight, (1 - mean) * weight, edges)), _TINY)))


@dataclass(frozen=True)
class HeldOutPrior:
    """What held-out scores say before any other: of the variance of normal log scores a scaled inverse-χ² distribution
    around `variance` with `freedom`; of their mean, given the variance, a normal one around `mean`, the variance of
    which is that of the mean of `count` scores, and of their bias `bias_std`².
    """

    mean: float
    variance: float
    freedom: float
    count: int
    bias_std: float
    scale: float  # of the predictive distribution, see TailModel

    @classmethod
    def of(cls, held_out: np.ndarray, prior: TailPrior) -> HeldOutPrior:
        """From held-out scores `(k,)`, k ≥ 1."""
        logs, tail = log_scores(held_out), TailModel.of(held_out, prior)
        variance = shrunk_variance(logs, prior.std, prior.weight)
        freedom = len(logs) - 1 + prior.weight
        return cls(float(logs.mean()), variance, freedom, len(logs), prior.bias_std, tail.scale)

    @classmethod
    def without_scores(cls, centre: float, prior: TailPrior) -> HeldOutPrior:
        """Where there are none: the prior standard deviation, and a mean anywhere around `centre`."""
        return cls(centre, prior.std**2, prior.weight, 1, _ANYWHERE, _ANYWHERE)

    def log_density(self, stds: np.ndarray, means: np.ndarray) -> np.ndarray:
        """Of log std and mean `(S, M)`, up to a constant; `stds` `(S, 1)`, `means` `(S, M)`."""
        of_std = -self.freedom * (np.log(stds) + self.variance / (2 * stds**2))
        mean_variance = stds**2 / self.count + self.bias_std**2
        return np.asarray(of_std - (means - self.mean) ** 2 / (2 * mean_variance) - np.log(mean_variance) / 2)


@dataclass(frozen=True, eq=False)
class Grid:
    """Means `(S, M)`, ascending, for each of the standard deviations `(S, 1)` of normal log scores, evenly spaced on a
    logarithmic scale.
    """

    stds: np.ndarray
    means: np.ndarray

    @classmethod
    def over(cls, values: np.ndarray, counts: np.ndarray, std: float) -> Grid:
        """Wide enough for any share of defects: means lie where log scores do, at their quantiles."""
        low, high, number = _STDS
        stds = np.geomspace(low * std, high * std, number)[:, None]
        quantiles = np.interp(np.linspace(0.04, 0.8, _MEANS), np.cumsum(counts) / counts.sum(), values)
        apart = quantiles + np.linspace(-1e-3, 1e-3, _MEANS) * std  # equal quantiles stay ascending
        return cls(stds, np.repeat(apart[None], number, axis=0))

    @property
    def widths(self) -> np.ndarray:
        """The width of each mean's cell, `(S, M)`."""
        return np.gradient(self.means, axis=1)


@dataclass(frozen=True, eq=False)
class Posterior:
    """The weight `(K, S, M)`, in sum 1, of each of the `shapes` `(K,)`, standard deviations and means of normal log
    scores, and the posterior mean of the share of `defects`.
    """

    shapes: tuple[float, ...]
    grid: Grid
    weights: np.ndarray
    defects: float

    @classmethod
    def of(
        cls,
        values: np.ndarray,
        counts: np.ndarray,
        known: HeldOutPrior,
        log_shares: np.ndarray,
        mixture: Mixture,
        grid: Grid,
    ) -> Posterior:
        """Given log scores `(m,)` that occur `counts` `(m,)` times, and the prior of the share of defects."""
        z = ((values - grid.means[..., None]) / grid.stds[..., None]).astype(np.float32)  # (S, M, m); twice as fast
        often = counts.astype(np.float32)
        sizes = [np.exp(log_gamma.log_density((z - mean) / std, math.inf)) / std for mean, std in mixture.defects]
        sizes.append(np.mean(sizes, axis=0))
        likelihood = np.empty(
            (len(mixture.shapes), len(_SHARES), *grid.means.shape)
        )  # logarithms, averaged over defect sizes
        for i, shape in enumerate(mixture.shapes):
            normal = np.exp(log_gamma.log_density(z, shape)) + _NO_DENSITY
            for j, share in enumerate(_SHARES.tolist()):
                of_sizes = [np.log(normal + share / (1 - share) * size) @ often for size in sizes]
                likelihood[i, j] = np.logaddexp.reduce(of_sizes) + counts.sum() * math.log(1 - share)
        likelihood += known.log_density(grid.stds, grid.means) - counts.sum() * np.log(grid.stds)
        likelihood += np.log(grid.widths) + log_shares[:, None, None]
        weights = np.exp(likelihood - likelihood.max())
        weights /= weights.sum()
        return cls(mixture.shapes, grid, weights.sum(axis=1), float(weights.sum(axis=(0, 2, 3)) @ _SHARES))

    @property
    def mean(self) -> float:
        """Of normal log scores."""
        return float((self.weights * self.grid.means).sum())

    @property
    def std(self) -> float:
        """Of normal log scores, of one image as of all."""
        return float((self.weights.sum(axis=(0, 2)) * self.grid.stds[:, 0]).sum())

    def refined_grid(self) -> Grid:
        """A grid of the same size over what the posterior leaves open."""
        stds, means = self.grid.stds[:, 0], self.grid.means
        by_std = self.weights.sum(axis=(0, 2))  # (S,)
        likely = np.flatnonzero((np.cumsum(by_std) > _KEPT) & (np.cumsum(by_std[::-1])[::-1] > _KEPT))
        low, high = stds[max(0, likely[0] - 1)], stds[min(len(stds) - 1, likely[-1] + 1)]
        by_cell = self.weights.sum(axis=0) + _TINY  # (S, M)
        by_cell /= by_cell.sum(axis=1, keepdims=True)
        centres = (by_cell * means).sum(axis=1)  # (S,)
        scatter = np.sqrt((by_cell * (means - centres[:, None]) ** 2).sum(axis=1) + (self._step / 2) ** 2)
        fine = np.geomspace(low, high, len(stds))
        centre, half = (np.interp(fine, stds, one)[:, None] for one in (centres, 3.5 * scatter))
        return Grid(fine[:, None], centre + half * np.linspace(-1, 1, _MEANS))

    @property
    def _step(self) -> np.ndarray:
        """The width of the most likely cell of each standard deviation, `(S,)`."""
        widths = self.grid.widths
        return np.asarray(widths[np.arange(len(widths)), self.weights.sum(axis=0).argmax(axis=1)])

    def tail(self) -> TabulatedTail:
        """The posterior predictive tail of a new normal image's log score."""
        low, high = _ENDS
        logs = self.mean + self.std * np.concatenate([np.linspace(low, 6, 241), np.linspace(6, high, 77)[1:]])  # (m,)
        probability = np.zeros_like(logs)
        for shape, weights in zip(self.shapes, self.weights, strict=True):
            means, stds = self.grid.means.ravel(), np.broadcast_to(self.grid.stds, weights.shape).ravel()
            counted = weights.ravel() > 1e-9
            z = (logs[:, None] - means[counted]) / stds[counted]
            probability += log_gamma.survival(z, shape) @ weights.ravel()[counted]
        return TabulatedTail(logs, np.log(np.clip(probability, _TINY, 1.0)))


def are_most_normal(posterior: Posterior, known: HeldOutPrior) -> bool:
    """Whether the fit agrees with the assumption that most images are normal."""
    return posterior.defects <= MOST_DEFECTIVE and posterior.std <= SCATTERED * math.sqrt(known.variance)


def check(posterior: Posterior, known: HeldOutPrior, images: int) -> None:
    """Raise DatasetError where the fit contradicts the assumption that most images are normal and as before."""
    if not are_most_normal(posterior, known):
        raise DatasetError(
            "pictures most of which are good",
            f"scores of {images} that do not show which are good: too many lie where defects do",
            "set aside what is known to be defective, or give good pictures alone, without --unlabelled",
        )
    moved = (posterior.mean - known.mean) / known.scale
    if abs(moved) > SHIFTED:
        raise DatasetError(
            "pictures taken as those learned from",
            f"scores that lie {'above' if moved > 0 else 'below'} those of good parts as a whole",
            "check lamp, focus and framing; then learn again from pictures of this line",
        )
