"""From numbers to words: is one method better than another, does one quantity grow with another; rules, not taste."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from scipy.special import stdtrit

from blemish.research.experiments.base import Row
from blemish.scoring.describe import count_in_words

LEAST = 0.005  # a difference that matters, however sure it is: half a point of AUROC
SURE = 0.95  # confidence with which a difference must not be chance (Student, Biometrika 1908)
MONOTONIC = 0.8  # a rank correlation from which one quantity is said to grow with another
RULE = (
    f"A counts as better than B when the mean of their paired differences (same category, same good pictures, same "
    f"seed) is over {LEAST:g} and its {100 * SURE:g} % confidence interval (Student's t) leaves out 0. Pairs of one "
    "category share their test pictures: the interval is that of repeating this experiment, not of taking other parts."
)


@dataclass(frozen=True)
class Paired:
    """Mean difference over `pairs`, and its standard error, nan for fewer than two."""

    pairs: int
    mean: float
    error: float

    @property
    def margin(self) -> float:
        """Half the width of the mean's confidence interval."""
        return float(stdtrit(self.pairs - 1, (1 + SURE) / 2)) * self.error if self.pairs > 1 else math.nan

    @property
    def shown(self) -> int:
        """1 when the first is better, -1 when the second is, 0 when the numbers show no difference."""
        sure = self.pairs > 1 and abs(self.mean) > max(LEAST, self.margin)
        return 0 if not sure else 1 if self.mean > 0 else -1


def paired(
    rows: Iterable[Row], measure: str, first: Callable[[Row], bool], second: Callable[[Row], bool], by: Sequence[str]
) -> Paired:
    """The rows of `first` minus those of `second` wherever both have the measure for the same values of `by`."""
    ours: dict[tuple[str, ...], float] = {}
    theirs: dict[tuple[str, ...], float] = {}
    for row in rows:
        if math.isfinite(value := float(row[measure])):
            key = tuple(str(row[name]) for name in by)
            for values, belongs in ((ours, first), (theirs, second)):
                if belongs(row):
                    values[key] = value
    differences = [ours[key] - theirs[key] for key in ours if key in theirs]
    if not differences:
        return Paired(0, math.nan, math.nan)
    error = stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else math.nan
    return Paired(len(differences), fmean(differences), error)


def compared(first: str, second: str, found: Paired, measure: str) -> str:
    """One sentence: who is better in `measure`, by how much, over how many pairs."""
    if not found.pairs:
        return f"{first} and {second} cannot be compared in {measure}: no pair of rows has it."
    by = f"{found.mean:+.3f}"
    if found.pairs == 1:
        return f"{first} minus {second}: {by} {measure} in one pair alone, which may be chance."
    pairs = f"{by} ± {found.margin:.3f}, {count_in_words(found.pairs, 'pair')}"
    if found.shown:
        better, worse = (first, second) if found.shown > 0 else (second, first)
        return f"{better} is better than {worse} in {measure} ({first} minus {second}: {pairs})."
    return f"No difference between {first} and {second} in {measure} is shown ({pairs})."


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; nan where one side does not vary."""
    a, b = _ranks(np.asarray(x, np.float64)), _ranks(np.asarray(y, np.float64))
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else math.nan


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 `(n,)`, equal values the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[group]


def ranked(values: dict[str, tuple[float, ...]]) -> str:
    """Names by their mean, best first: "a .950 ± .010, b .900 ± .020"."""
    order = sorted(values, key=lambda name: -fmean(values[name]))
    return ", ".join(f"{name} {mean_and_std(values[name])}" for name in order)


def std_of(values: Sequence[float]) -> float:
    """The standard deviation, 0 for a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def mean_and_std(values: Sequence[float]) -> str:
    """ "0.950 ± 0.010"; the mean alone for a single value."""
    mean = fmean(values)
    return rounded(mean, mean) + (f" ± {rounded(std_of(values), mean)}" if len(values) > 1 else "")


def rounded(value: float, beside: float) -> str:
    """Three decimals for shares and the like, none for large numbers; a deviation takes those of its mean `beside`."""
    size = abs(beside)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3f}"
