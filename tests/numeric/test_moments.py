"""Running moments are those of all rows at once."""

from __future__ import annotations

import torch

from blemish.numeric.moments import Moments


def test_moments_of_a_stream_are_those_of_all_rows() -> None:
    rows = 5 + 3 * torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
    rows[:, 3] = 7.0
    moments = Moments()
    for part in rows.split([1, 0, 599, 400]):
        moments.add(part)
    assert moments.mean.dtype == moments.std.dtype == torch.float64
    torch.testing.assert_close(moments.mean, rows.double().mean(0))
    torch.testing.assert_close(moments.std, rows.double().std(0, correction=0), atol=1e-6, rtol=1e-9)


def test_no_rows_have_no_moments() -> None:
    moments = Moments()
    moments.add(torch.zeros(0, 3))
    assert moments.mean.tolist() == moments.std.tolist() == [0, 0, 0]
