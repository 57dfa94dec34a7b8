"""Scores that stand apart are found, and where none do hardly any set is reported, however skew its scores are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from blemish.scoring.outlying_scores import LEVEL, MIN_SCORES, outlying

Draw = Callable[[np.random.Generator, int], np.ndarray]
SKEWED: dict[str, Draw] = {
    "normal": lambda random, count: random.standard_normal(count),
    "long lower tail": lambda random, count: -random.exponential(size=count),
    "uniform": lambda random, count: random.uniform(size=count),
    "two kinds of parts": lambda random, count: 0.3 * random.standard_normal(count) + 2 * (random.random(count) < 0.5),
}


@pytest.mark.parametrize("count", [MIN_SCORES, 20, 40, 200])
def test_the_level_is_kept_exactly_for_an_exponential_tail(count: int) -> None:
    random = np.random.default_rng(count)
    found = [outlying(np.exp(0.1 * random.exponential(size=count)))[0] > 0 for _ in range(4000)]
    assert np.mean(found) == pytest.approx(LEVEL, abs=0.012)


@pytest.mark.parametrize("kind", SKEWED)
@pytest.mark.parametrize("count", [MIN_SCORES, 40])
def test_no_more_sets_without_outliers_are_reported_than_the_level_says(count: int, kind: str) -> None:
    random = np.random.default_rng(count)
    found = [outlying(np.exp(0.1 * SKEWED[kind](random, count)))[0] > 0 for _ in range(1000)]
    assert np.mean(found) < LEVEL


@pytest.mark.parametrize(("count", "apart"), [(16, 1), (16, 2), (40, 1), (40, 3), (200, 5)])
def test_outliers_are_counted(count: int, apart: int) -> None:
    random = np.random.default_rng(count)
    logs = np.concatenate([random.standard_normal(count - apart), 12 + random.standard_normal(apart)])
    found = [outlying(np.exp(0.1 * random.permutation(logs))) for _ in range(3)]
    assert found == [found[0]] * 3  # in any order
    assert found[0][0] == apart
    assert found[0][1] <= LEVEL


def test_the_p_value_is_that_of_the_f_distribution() -> None:
    """One place is tried of 8 scores; four spacings make the tail."""
    logs = np.array([2.0, 0.5, 0.4, 0.3, 0.25, 0.2, 0.1, 0.0])
    spacings = np.arange(1, 5) * -np.diff(logs)[:4]
    expected = stats.f.sf(spacings[0] / spacings[1:].mean(), 2, 6)
    assert outlying(np.exp(logs)) == (1, pytest.approx(expected))
    assert outlying(np.exp(logs), level=0.99 * expected) == (0, pytest.approx(expected))


def test_the_unit_does_not_matter_and_squares_neither() -> None:
    scores = np.exp(np.random.default_rng(0).standard_normal(20))
    p = outlying(scores)[1]
    assert outlying(7 * scores)[1] == pytest.approx(p)
    assert outlying(scores**2)[1] == pytest.approx(p)


@pytest.mark.parametrize(
    "scores", [[], [5.0], [1.0] * 6 + [100.0], [1.0] * 20, [0.0] * 20], ids=["none", "one", "few", "equal", "zeros"]
)
def test_nothing_stands_apart_from_few_or_equal_scores(scores: list[float]) -> None:
    assert outlying(scores) == (0, 1.0)


def test_one_score_stands_apart_from_equal_ones() -> None:
    assert outlying([1.0] * 20 + [1.1]) == (1, 0.0)
