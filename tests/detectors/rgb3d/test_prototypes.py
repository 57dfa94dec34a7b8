"""Normalised distances are distributed alike over normal patches, and no rare channel dominates."""

from __future__ import annotations

import pytest
import torch

from blemish.detectors.rgb3d.prototypes import NormalPrototypes, fit_scale, normalised


@pytest.mark.parametrize("std", [0.2, 0.5, 1.0])
def test_normalised_distances_have_one_median_and_one_tail(std: float) -> None:
    distances = 7 * torch.exp(std * torch.randn(4001, generator=torch.Generator().manual_seed(0)))
    found = normalised(distances, fit_scale(distances))
    assert float(found.median()) == pytest.approx(torch.e**-1, rel=1e-3)
    assert float((found <= 1).float().mean()) == pytest.approx(0.99, abs=1e-3)
    assert torch.equal(found.argsort(), distances.argsort())


@pytest.mark.parametrize("distances", [torch.zeros(9), torch.ones(9), torch.tensor([0.0] * 8 + [3.0])])
def test_distances_that_do_not_vary_stay_finite(distances: torch.Tensor) -> None:
    found = normalised(torch.tensor([0.0, 1.0, 1e6]), fit_scale(distances))
    assert bool(found.isfinite().all())
    assert bool((found.diff() >= 0).all())
    assert bool((found * found).isfinite().all())


def test_a_rare_channel_does_not_dominate() -> None:
    """A count in a histogram bin that is empty on normal patches, against a change of all other channels."""
    random = torch.Generator().manual_seed(1)
    normal = torch.randn(400, 9, generator=random)
    normal[:, 8] = 0
    normal[:2, 8] = 1e-2
    prototypes = NormalPrototypes(64).fit({"nut": normal}, {"nut": normal})
    usual = torch.randn(50, 9, generator=random)
    usual[:, 8] = 0
    rare, other = usual.clone(), usual.clone()
    rare[:, 8] = 5.0
    other[:, :8] += 8
    assert float(prototypes.relative_distance("nut", rare).mean()) < float(
        prototypes.relative_distance("nut", other).mean()
    )
    assert float(prototypes.relative_distance("nut", usual).mean()) < float(
        prototypes.relative_distance("nut", rare).mean()
    )


def test_prototypes_are_restored_from_their_state() -> None:
    normal = torch.randn(100, 4, generator=torch.Generator().manual_seed(2))
    prototypes = NormalPrototypes(16).fit({"a/b": normal}, {"a/b": normal})
    again = NormalPrototypes(16).load_state(prototypes.state())
    assert torch.equal(again.relative_distance("a/b", normal + 1), prototypes.relative_distance("a/b", normal + 1))
    assert torch.equal(again.normalised_distance("a/b", normal), prototypes.normalised_distance("a/b", normal))
