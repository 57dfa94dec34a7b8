"""A bounded list against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.report.shortlist import Shortlist


@pytest.mark.parametrize("most", [0, 1, 7, 500])
def test_it_keeps_what_sorting_all_would(most: int) -> None:
    scores = np.random.default_rng(0).integers(0, 60, 400) / 10  # with many ties
    kept: Shortlist[int] = Shortlist(most)
    for i, score in enumerate(scores):
        full, smallest = len(kept) == most, min((scores[j] for j in kept.largest_first()), default=-1.0)
        assert kept.takes(score) == (most > 0 and (not full or score > smallest))
        kept.add(score, i)
        assert len(kept) <= most
    assert kept.largest_first() == sorted(range(400), key=lambda i: -scores[i])[:most]
