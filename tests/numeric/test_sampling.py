"""An even sample stays even and small, also when its size is lowered on the way."""

from __future__ import annotations

import torch

from blemish.numeric.sampling import ReservoirSample


def test_sample_is_even_and_bounded() -> None:
    sample = ReservoirSample(500, seed=0)
    for start in range(0, 20_000, 100):
        sample.add(torch.arange(start, start + 100)[:, None])
        assert sample.held < 1100
    kept = sample.rows()[:, 0]
    assert len(kept) == 500
    assert abs(float(kept.double().mean()) - 10_000) < 800


def test_a_sample_that_is_made_smaller_is_the_one_that_was_small_from_the_start() -> None:
    rows = torch.arange(4000)[:, None]
    small, large = ReservoirSample(100, seed=1), ReservoirSample(1000, seed=1)
    for part in rows.split(500):
        small.add(part)
        large.add(part)
    large.limit(100)
    assert torch.equal(large.rows(), small.rows())
