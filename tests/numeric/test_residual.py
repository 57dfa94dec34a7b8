"""Residuals against their definition, and their range."""

from __future__ import annotations

import pytest
import torch

from blemish.errors import SettingsError
from blemish.numeric.residual import residual


def test_residuals_equal_their_definition():
    answer, target = torch.tensor([[1.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    assert residual(answer, target).tolist() == pytest.approx([8 / 3])
    assert residual(answer, target, "cosine").tolist() == pytest.approx([1 - 1 / 3])


@pytest.mark.parametrize("distance", ["squared", "cosine"])
def test_a_perfect_answer_has_none(distance):
    target = torch.randn(2, 3, 3, 8)
    found = residual(target.clone(), target, distance)
    assert found.shape == (2, 3, 3)
    assert (found >= 0).all()
    assert found.max() < 1e-6


def test_an_unknown_distance_is_refused():
    with pytest.raises(SettingsError, match="cosine"):
        residual(torch.ones(1, 2), torch.ones(1, 2), "far")
