"""Blocked attention against PyTorch's own, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import elu, scaled_dot_product_attention

from blemish.errors import SettingsError
from blemish.numeric.attention import (
    Attention,
    BlockedAttention,
    DecoderBlock,
    TransformerBlock,
    all_but_neighbours,
    attend,
    attend_linearly,
)


@pytest.mark.parametrize("hidden", [False, True])
def test_it_equals_pytorchs_in_float64(hidden):
    seen = ~torch.eye(11, dtype=torch.bool) if hidden else None
    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(5, 11, 4, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3)]
    theirs = [t.detach().clone().requires_grad_() for t in ours]
    weights = torch.randn(5, 11, 4, dtype=torch.float64, generator=generator)
    one, two = BlockedAttention.apply(*ours, seen), scaled_dot_product_attention(*theirs, attn_mask=seen)
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


def test_float32_takes_pytorchs_way():
    query = torch.randn(1, 2, 6, 4)
    assert torch.equal(attend(query, query, query), scaled_dot_product_attention(query, query, query))


@pytest.mark.parametrize("offset", [0, 20])
def test_rounding_to_bfloat16_does_not_grow_with_what_all_keys_share(offset):
    """Logits of ± 2 beside a part of up to ± 500 that all keys of a query have in common, as in trained encoders."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 200, 64, generator=generator)
    key = key + offset * torch.randn(64, generator=generator)
    halves = [t.bfloat16() for t in (query, key, value)]
    exact = scaled_dot_product_attention(*(t.float() for t in halves))
    own = attend(*halves).float()
    theirs = scaled_dot_product_attention(*halves).float()
    assert (own - exact).norm() <= 3 * (theirs - exact).norm()


def test_linear_attention_equals_the_sum_over_all_pairs():
    query, key, value = torch.randn(3, 2, 1, 7, 4).unbind()  # each (B, heads, N, d)
    pairs = (elu(query) + 1) @ (elu(key) + 1).transpose(-2, -1)  # (B, heads, N, N)
    expected = (pairs / pairs.sum(-1, keepdim=True)) @ value
    torch.testing.assert_close(attend_linearly(query, key, value), expected)


@pytest.mark.parametrize(("grid", "radius"), [((4, 5), 0), ((4, 5), 1), ((6, 6), 2)])
def test_neighbours_are_those_within_the_square(grid, radius):
    seen = all_but_neighbours(grid, radius)
    places = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    for i, (y, x) in enumerate(places):
        for j, (v, u) in enumerate(places):
            assert seen[i, j] == (max(abs(y - v), abs(x - u)) > radius)


def test_a_patch_whose_neighbourhood_fills_the_grid_sees_all():
    assert all_but_neighbours((3, 3), 2) is None
    seen = all_but_neighbours((3, 3), 1)
    assert seen[4].all()  # the centre
    assert not seen[0, 0]


def test_what_is_not_seen_has_no_influence():
    torch.manual_seed(0)
    attention = Attention(8, 2)
    tokens = torch.randn(1, 9, 8)
    seen = all_but_neighbours((3, 3), 0)
    source = tokens.clone()
    source[0, 4] += 5
    before, after = attention(tokens, seen=seen), attention(tokens, source, seen)
    torch.testing.assert_close(before[0, 4], after[0, 4])
    assert (before[0, 0] - after[0, 0]).abs().max() > 1e-3


def test_a_decoder_block_looks_at_another_sequence():
    tokens, source = torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    for kind in ("softmax", "linear"):
        assert DecoderBlock(8, 2, kind)(tokens, source).shape == tokens.shape
    with pytest.raises(SettingsError, match="heads"):
        Attention(8, 3)
    with pytest.raises(SettingsError, match="attention"):
        Attention(8, 2, "quick")
