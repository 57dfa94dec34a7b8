from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr, t

from blemish.research.experiments.verdicts import Paired, compared, paired, ranked, spearman


def rows(**by_method: list[float]) -> list[dict[str, object]]:
    return [
        {"method": name, "seed": seed, "auroc": value}
        for name, values in by_method.items()
        for seed, value in enumerate(values)
    ]


def pair(made: list[dict[str, object]]) -> Paired:
    return paired(made, "auroc", lambda r: r["method"] == "a", lambda r: r["method"] == "b", ("seed",))


def test_pairs_are_rows_of_the_same_seed() -> None:
    found = pair(rows(a=[0.9, 0.8, 0.7], b=[0.5, 0.6, float("nan")]))
    assert found.pairs == 2
    assert found.mean == pytest.approx(0.3)
    assert found.error == pytest.approx(np.std([0.4, 0.2], ddof=1) / 2**0.5)
    low, high = t.interval(0.95, 1, loc=found.mean, scale=found.error)
    assert found.margin == pytest.approx((high - low) / 2)


@pytest.mark.parametrize(
    ("a", "b", "shown", "words"),
    [
        ([0.95, 0.96, 0.94], [0.90, 0.91, 0.90], 1, "a is better than b"),
        ([0.90, 0.91, 0.90], [0.95, 0.96, 0.94], -1, "b is better than a"),
        ([0.95, 0.85, 0.90], [0.90, 0.92, 0.91], 0, "No difference between a and b"),  # the spread swallows it
        ([0.903, 0.903, 0.903], [0.9, 0.9, 0.9], 0, "No difference between a and b"),  # sure, but too small to matter
        ([0.95, 0.96], [0.90, 0.90], 0, "No difference between a and b"),  # two pairs say little, however near
        ([0.95], [0.90], 0, "one pair alone"),
        ([0.95], [], 0, "cannot be compared"),
    ],
)
def test_better_means_more_than_chance_and_enough_to_matter(
    a: list[float], b: list[float], shown: int, words: str
) -> None:
    found = pair(rows(a=a, b=b))
    assert found.shown == shown
    assert words in compared("a", "b", found, "picture AUROC")


def test_the_order_is_that_of_the_means() -> None:
    assert ranked({"low": (0.5,), "high": (0.8, 1.0)}) == "high 0.900 ± 0.141, low 0.500"


@pytest.mark.parametrize("ties", [1, 3, 20])
def test_rank_correlation_is_scipys(ties: int) -> None:
    random = np.random.default_rng(ties)
    for _ in range(20):
        x, y = random.integers(0, 60 // ties, 30), random.normal(size=30).round(1)
        assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)


def test_rank_correlation_of_what_does_not_vary_is_unknown() -> None:
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert spearman([1, 2, 3], [1, 10, 100]) == pytest.approx(1)
