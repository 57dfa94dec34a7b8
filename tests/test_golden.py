"""Every detector scores a fixed set of images and scans as it did when `golden/scores.json` was made.

To the bit on one machine (`golden/make_scores.py --check`); here, on any machine, within what the order of sums
changes.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from blemish import registry
from blemish.detectors.factory import build

GOLDEN = Path(__file__).resolve().parent / "golden"
SCORES: dict[str, Any] = json.loads((GOLDEN / "scores.json").read_text(encoding="utf-8"))


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_scores", GOLDEN / "make_scores.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(found: dict[str, Any]) -> np.ndarray:
    """Thresholds, scores and map statistics of one detector."""
    limits = [value for own in found["thresholds"].values() for value in own]
    return np.array(limits + [v for one in found["predictions"] for v in (one["score"], *one["map"])])


def test_every_detector_has_golden_scores() -> None:
    """But those whose encoders have no weights without a network: they read sentences."""
    assert SCORES.keys() == registry.DETECTORS.keys() - {"winclip", "anomalyclip", "promptad"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SCORES))
def test_scores_maps_and_thresholds_are_as_they_were(name: str) -> None:
    found = maker().measured(name)
    # Learning by gradient multiplies what the order of sums changes.
    tolerance = 0.02 if "steps" in build(name).settings else 1e-3
    np.testing.assert_allclose(numbers(found), numbers(SCORES[name]), rtol=tolerance, atol=tolerance)
    for one, golden in zip(found["predictions"], SCORES[name]["predictions"], strict=True):
        assert one["category"] == golden["category"]
