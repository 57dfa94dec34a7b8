"""Experiments see images of more than 8 bits as models do: by the full scale that good ones set."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from experiment_parts import TINY, drawn_disc

from blemish.data.full_scale import FullScale
from blemish.evaluation import CategoryData, TestResults
from blemish.research.experiments.identity_mapping import synthetic_residuals
from blemish.research.experiments.runner import configured
from blemish.types import Sample

TOOLS: Any = SimpleNamespace(progress=lambda *_: None)


def discs(bits: int) -> CategoryData:
    """The same discs at any depth, in 16 bits beyond the eighth: two to learn from, two to test on."""
    parts = []
    for seed, label in ((0, 0), (1, 0), (2, 0), (3, 1)):
        image, mask = drawn_disc(seed, bool(label))
        deep = image if bits == 8 else image.astype(np.uint16) << (bits - 8)
        parts.append(Sample(deep, label=label, mask=mask if label else None))
    return CategoryData("made", "disc", tuple(parts[:2]), tuple(parts[2:]))


def test_distances_by_area_are_those_of_8_bits() -> None:
    made: Any = configured("area-distance", TINY["area-distance"])
    assert made.measured(discs(12), "pixels", 0, TOOLS) == made.measured(discs(8), "pixels", 0, TOOLS)


def test_sentences_see_what_they_see_at_8_bits() -> None:
    made: Any = configured("zero-shot-prompts", {**TINY["zero-shot-prompts"], "device": "cpu"})
    assert made.measured(discs(12), "tiny-clip", {}, TOOLS) == made.measured(discs(8), "tiny-clip", {}, TOOLS)


def test_synthetic_defects_are_pasted_into_what_the_model_sees() -> None:
    seen: list[np.ndarray] = []

    def inspect(image: np.ndarray) -> SimpleNamespace:
        seen.append(image)
        return SimpleNamespace(map=np.ones((64, 64), np.float32))

    inspector: Any = SimpleNamespace(model_=SimpleNamespace(full_scale=FullScale(bits=12)), inspect=inspect)
    category = discs(12)
    before: Any = SimpleNamespace(map=np.zeros((64, 64), np.float32))
    tested = TestResults(category, [category.test[0]], [before])
    assert synthetic_residuals(inspector, tested, defects=1, seed=0) == (0, 1)
    (altered,) = seen
    assert (altered == drawn_disc(2, False)[0]).all(axis=2).mean() > 0.5
