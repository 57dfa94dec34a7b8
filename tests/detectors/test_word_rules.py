"""Rules that hold, do not, and come back from a state."""

from __future__ import annotations

import numpy as np
import torch

from blemish.detectors.word_rules import (
    Rule,
    learned_rules,
    measure_words,
    rules_as_tensor,
    rules_from_tensor,
)

SIDE = 24


def labels(*squares: tuple[int, int, int], side: int = 4) -> torch.Tensor:
    """Memberships `(SIDE, SIDE, 3)`: word 0, and squares of the words (word, top, left)."""
    found = torch.zeros(SIDE, SIDE, dtype=torch.long)
    for word, top, left in squares:
        found[top : top + side, left : left + side] = word
    return torch.nn.functional.one_hot(found, 3).float()


def test_measures_of_squares() -> None:
    found = measure_words(labels((1, 2, 2), (1, 12, 2), (2, 10, 14), side=6))
    assert found.counts.tolist() == [1, 2, 1]
    assert found.areas[1] > found.areas[2] > 0.04
    np.testing.assert_allclose(found.middles[1], (5 / SIDE, 10 / SIDE))
    np.testing.assert_allclose(found.largest[2], (17 / SIDE, 13 / SIDE))
    assert found.areas.sum() == 1


def test_only_what_is_judged_is_measured() -> None:
    judged = torch.ones(SIDE, SIDE, dtype=torch.bool)
    judged[:, :12] = False
    found = measure_words(labels((1, 2, 2), (2, 10, 14)), judged)
    assert found.counts.tolist() == [1, 0, 1]
    assert np.isnan(found.middles[1]).all()
    assert found.areas.sum() == 1


def rules_of(images: list[torch.Tensor]) -> dict[tuple[int, str], Rule]:
    found = learned_rules([measure_words(one) for one in images], range(10, 10 + len(images)))
    return {(rule.word, rule.quantity): rule for rule in found}


def test_what_is_always_so_is_a_rule_and_what_varies_is_none() -> None:
    random = np.random.default_rng(0)
    images = []
    for i in range(10):
        others = [(2, 14, 2 + 7 * j) for j in range(1 + i % 3)]  # one, two or three
        images.append(labels((1, 1, 1 + random.integers(8)), (1, 7, 14), *others))
    rules = rules_of(images)
    count, area = rules[1, "count"], rules[1, "area"]
    assert (count.low, count.high, count.images, count.is_either) == (2, 2, 10, False)
    assert area.low <= measure_words(images[0]).areas[1] <= area.high
    assert (2, "count") not in rules
    assert (2, "area") not in rules
    one, two = measure_words(labels((1, 7, 14))), measure_words(labels((1, 2, 3), (1, 12, 14)))
    assert count.is_broken(one)
    assert area.is_broken(one)
    assert not count.is_broken(two)
    assert not area.is_broken(two)
    assert 10 <= count.example < 20


def test_either_of_two_counts() -> None:
    pairs = [labels((1, 2, 2), (1, 12, 2)) if i % 2 else labels((2, 2, 2), (2, 12, 2)) for i in range(8)]
    rules = rules_of(pairs)
    assert rules[1, "count"].is_either
    assert (rules[1, "count"].low, rules[1, "count"].high) == (0, 2)
    assert rules[1, "count"].is_broken(measure_words(labels((1, 2, 2))))
    assert not rules[1, "count"].is_broken(measure_words(labels()))


def test_rules_come_back_from_a_tensor() -> None:
    rules = list(rules_of([labels((1, 2, 2), (1, 12, i)) for i in range(8)]).values())
    assert rules
    assert rules_from_tensor(rules_as_tensor(rules)) == rules
    assert rules_from_tensor(rules_as_tensor([])) == []
