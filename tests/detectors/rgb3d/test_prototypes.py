"""Distances of good cells are alike once normalised, and channels that good cells hardly use drown no others."""

from __future__ import annotations

import pytest
import torch

from blemish.detectors.rgb3d.prototypes import NormalPrototypes, fit_scale, normalised


@pytest.mark.parametrize("scatter", [0.2, 0.5, 1.0])
def test_levelled_distances_have_one_median_and_one_tail(scatter: float) -> None:
    distances = 7 * torch.exp(scatter * torch.randn(4001, generator=torch.Generator().manual_seed(0)))
    alike = normalised(distances, fit_scale(distances))
    assert float(alike.median()) == pytest.approx(torch.e**-1, rel=1e-3)
    assert float((alike <= 1).float().mean()) == pytest.approx(0.99, abs=1e-3)
    assert torch.equal(alike.argsort(), distances.argsort())


@pytest.mark.parametrize("distances", [torch.zeros(9), torch.ones(9), torch.tensor([0.0] * 8 + [3.0])])
def test_distances_without_scatter_stay_finite(distances: torch.Tensor) -> None:
    found = normalised(torch.tensor([0.0, 1.0, 1e6]), fit_scale(distances))
    assert bool(found.isfinite().all())
    assert bool((found.diff() >= 0).all())
    assert bool((found * found).isfinite().all())


def test_a_channel_that_good_cells_hardly_use_does_not_decide() -> None:
    """A count in a histogram bin that is empty on good cells, against a change of all other channels."""
    random = torch.Generator().manual_seed(1)
    good = torch.randn(400, 9, generator=random)
    good[:, 8] = 0
    good[:2, 8] = 1e-2
    cells = NormalPrototypes(64).fit({"nut": good}, {"nut": good})
    usual = torch.randn(50, 9, generator=random)
    usual[:, 8] = 0
    rare, other = usual.clone(), usual.clone()
    rare[:, 8] = 5.0
    other[:, :8] += 8
    assert float(cells.relative_distance("nut", rare).mean()) < float(cells.relative_distance("nut", other).mean())
    assert float(cells.relative_distance("nut", usual).mean()) < float(cells.relative_distance("nut", rare).mean())


def test_cells_come_back_from_their_state() -> None:
    good = torch.randn(100, 4, generator=torch.Generator().manual_seed(2))
    cells = NormalPrototypes(16).fit({"a/b": good}, {"a/b": good})
    again = NormalPrototypes(16).load_state(cells.state())
    assert torch.equal(again.relative_distance("a/b", good + 1), cells.relative_distance("a/b", good + 1))
    assert torch.equal(again.normalised_distance("a/b", good), cells.normalised_distance("a/b", good))
