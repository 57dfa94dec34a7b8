"""How far a bundle is from its model: what is a factor, what a difference, and what no export may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from blemish import Inspector
from blemish.export.parity import Compared, Parity, parity_of

THRESHOLD = 0.5  # of distances


def compared(scores: Sequence[float]) -> list[Compared]:
    """Images in a model and in a bundle that answers alike; the last one is defective."""
    patches = np.random.default_rng(0).random((8, 8), dtype=np.float32)
    return [
        Compared(
            model_score=score,
            bundle_score=score,
            graph_score=score,
            model_patches=patches,
            bundle_patches=patches,
            model_distance=0.1,
            bundle_distance=0.1,
            is_defective=row == len(scores) - 1,
        )
        for row, score in enumerate(scores)
    ]


@pytest.fixture
def alike(inspector: Inspector) -> list[Compared]:
    threshold = inspector.model_.calibrations[None].threshold
    return compared([0.3 * threshold, 0.4 * threshold, 0.5 * threshold, 3 * threshold])


def found(inspector: Inspector, both: Sequence[Compared], precision: str = "float32") -> Parity:
    return parity_of(both, inspector.model_.calibrations[None], THRESHOLD, precision)


def scaled(both: Sequence[Compared], factor: float) -> list[Compared]:
    return [replace(one, bundle_score=factor * one.bundle_score, graph_score=factor * one.graph_score) for one in both]


def test_what_answers_alike_is_kept(inspector: Inspector, alike: list[Compared]) -> None:
    parity = found(inspector, alike)
    assert parity.is_kept
    assert (parity.factor, parity.score_difference, parity.distance_difference, parity.flips) == (1, 0, 0, 0)
    assert "times" not in parity.words
    assert "at most 0.01 %, distances" in replace(parity, score_difference=4.6e-7).words
    assert "at most 0.35 %, distances" in replace(parity, score_difference=0.0035).words
    assert "at least 100 % the same, and 0 % of the verdicts" in parity.words


@pytest.mark.parametrize("factor", [2.0, 0.5, 1.01])
def test_a_factor_beyond_rounding_is_no_float32_graph_of_the_model(
    inspector: Inspector, alike: list[Compared], factor: float
) -> None:
    parity = found(inspector, scaled(alike, factor))
    assert parity.factor == pytest.approx(factor)
    assert parity.score_difference < 1e-9
    assert not parity.is_kept
    assert f"{factor:.4g} times the model's" in parity.words
    assert not found(inspector, scaled(alike, 2.0), "int8").is_kept
    assert found(inspector, scaled(alike, 1.03), "int8").is_kept


def test_a_distance_that_is_wrong_is_found(inspector: Inspector, alike: list[Compared]) -> None:
    for wrong in (0.0, 0.2):  # both known
        parity = found(inspector, [replace(one, bundle_distance=wrong) for one in alike])
        assert parity.distance_difference == pytest.approx(0.2)
        assert parity.flips == 0
        assert not parity.is_kept
    parity = found(inspector, [replace(one, bundle_distance=1.01 * THRESHOLD) for one in alike])
    assert parity.flips == 1


def test_the_score_of_the_graph_and_that_of_the_runtime_are_compared(
    inspector: Inspector, alike: list[Compared]
) -> None:
    for name in ("bundle_score", "graph_score"):
        parity = found(inspector, [*alike[:-1], replace(alike[-1], **{name: 1.1 * alike[-1].model_score})])
        assert parity.score_difference == pytest.approx(0.1)
        assert not parity.is_kept


def test_limits_are_written_by_name(inspector: Inspector, alike: list[Compared]) -> None:
    facts = found(inspector, alike).to_dict()
    assert facts["limits"].keys() == {"factor", "score_difference", "distance_difference", "map_overlap", "flips"}
    assert facts["limits"].keys() < facts.keys()
