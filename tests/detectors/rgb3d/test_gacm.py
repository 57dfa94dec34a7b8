"""GACM is its published equations; deep embeddings are not linear."""

from __future__ import annotations

import math

import torch

from blemish.detectors.rgb3d.gacm import GACM


def test_equations_1_to_4_by_hand() -> None:
    mapper = GACM(1, 2)
    with torch.no_grad():
        for linear, weight, bias in (
            (mapper.semantic, [[1.0], [0.0]], [0.0, 1.0]),
            (mapper.geometric, [[2.0], [-1.0]], [0.0, 0.0]),
            (mapper.residual, [[0.5], [1.0]], [0.1, 0.2]),
        ):
            linear.weight.copy_(torch.tensor(weight))
            linear.bias.copy_(torch.tensor(bias))
        mapper.gate.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))

    f = 3.0
    semantic, geometric = (f, 1.0), (2 * f, -f)
    gate = [1 / (1 + math.exp(-geometric[0])), 1 / (1 + math.exp(-2 * geometric[1]))]
    fused = [g * w + s * (1 - w) for s, g, w in zip(semantic, geometric, gate, strict=True)]
    mean = sum(fused) / 2
    std = math.sqrt(sum((v - mean) ** 2 for v in fused) / 2 + mapper.norm.eps)
    normed = [(v - mean) / std for v in fused]
    gelu = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in normed]
    expected = [0.5 * f + 0.1 + gelu[0], f + 0.2 + gelu[1]]
    torch.testing.assert_close(mapper(torch.tensor([[f]])), torch.tensor([expected]), rtol=1e-5, atol=1e-6)


def test_only_deep_embeddings_are_nonlinear() -> None:
    """Second differences along a line are 0 for linear φ_s and φ_g, and not for perceptrons."""
    line = torch.linspace(-3, 3, 7)[:, None] * torch.ones(1, 4)
    for width, nonlinear in ((None, False), (16, True)):
        torch.manual_seed(0)
        mapper = GACM(4, 3, width)
        assert mapper(line).shape == (7, 3)
        for part in (mapper.semantic, mapper.geometric):
            second_differences = part(line).detach().diff(n=2, dim=0).abs().max()
            assert (float(second_differences) > 1e-3) == nonlinear
