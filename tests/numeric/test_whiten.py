"""Whitened lengths are Mahalanobis distances."""

from __future__ import annotations

import torch

from blemish.numeric.whiten import LEAST, Whiten


def test_it_does_nothing_until_it_learns():
    vectors = torch.randn(4, 3)
    assert torch.equal(Whiten(3)(vectors), vectors)


def test_lengths_are_mahalanobis_distances():
    torch.manual_seed(0)
    good = torch.randn(500, 4) @ torch.randn(4, 4)
    moments = good.T @ good / len(good)
    whiten, vectors = Whiten(4), torch.randn(7, 4)
    whiten.fit(moments)
    inverse = (moments + LEAST * moments.trace() / 4 * torch.eye(4)).inverse()
    torch.testing.assert_close(
        whiten(vectors).square().sum(-1), torch.einsum("ni,ij,nj->n", vectors, inverse, vectors), rtol=1e-4, atol=1e-4
    )


def test_a_direction_that_never_varies_stays_finite():
    whiten = Whiten(2)
    whiten.fit(torch.diag(torch.tensor([1.0, 0.0])))
    assert torch.isfinite(whiten(torch.ones(2))).all()
    whiten.fit(torch.zeros(2, 2))
    assert torch.isfinite(whiten(torch.ones(2))).all()
