"""Seeds stay inside, schedules have their stated shape, averaged weights follow."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from blemish.errors import DatasetError, SettingsError
from blemish.numeric.training import forever, learning_rate, seeded


def test_seeded_gives_the_same_inside_and_changes_nothing_outside():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    draws = []
    for _ in range(2):
        with seeded(7):
            draws.append(torch.rand(4))
    assert torch.equal(*draws)
    assert torch.equal(torch.rand(2), expected)


def test_forever_walks_again_and_refuses_nothing():
    assert list(islice(forever([1, 2, 3]), 7)) == [1, 2, 3, 1, 2, 3, 1]
    with pytest.raises(DatasetError):
        next(forever([]))


def test_schedules():
    rates = [learning_rate(step, 100, 2.0, "cosine", 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == pytest.approx(2.0)
    assert rates[-1] < 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert {learning_rate(step, 100, 2.0, "constant", 0) for step in range(100)} == {2.0}
    with pytest.raises(SettingsError):
        learning_rate(0, 1, 1.0, "steps", 0)
