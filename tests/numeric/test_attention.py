"""Blocked attention against PyTorch's own, forwards and backwards."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from blemish.numeric.attention import BlockedAttention, TransformerBlock, attend


def test_it_equals_pytorchs_in_float64():
    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(5, 11, 4, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3)]
    theirs = [t.detach().clone().requires_grad_() for t in ours]
    weights = torch.randn(5, 11, 4, dtype=torch.float64, generator=generator)
    one, two = BlockedAttention.apply(*ours), scaled_dot_product_attention(*theirs)
    torch.testing.assert_close(one, two)
    (one * weights).sum().backward()
    (two * weights).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_bfloat16_on_the_way_through_a_block_stays_close():
    torch.manual_seed(0)
    block, tokens = TransformerBlock(24, 4), torch.randn(2, 30, 24)
    exact = block(tokens)
    exact.square().mean().backward()
    gradient = block.qkv.weight.grad.clone()
    block.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = block(tokens)
    rounded.float().square().mean().backward()
    assert (rounded - exact).abs().mean() < 0.02
    assert (block.qkv.weight.grad - gradient).norm() < 0.05 * gradient.norm()


def test_no_gradient_takes_pytorchs_way():
    query = torch.randn(1, 2, 6, 4, dtype=torch.bfloat16)
    assert torch.equal(attend(query, query, query), scaled_dot_product_attention(query, query, query))
