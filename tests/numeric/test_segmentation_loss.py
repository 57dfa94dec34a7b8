from __future__ import annotations

import math

import pytest
import torch

from blemish.numeric.segmentation_loss import dice_loss, focal_loss


def test_losses_are_their_equations() -> None:
    p, m = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 3, 4)
    m[0, 1, 1:3] = 1
    each = [
        -((1 - q) ** 2) * math.log(q)
        for q in (a if b else 1 - a for a, b in zip(p.flatten().tolist(), m.flatten().tolist(), strict=True))
    ]
    assert float(focal_loss(p, m)) == pytest.approx(sum(each) / len(each), rel=1e-5)
    dice = [
        1 - (2 * float((a * b).sum()) + 1) / (float(a.sum()) + float(b.sum()) + 1) for a, b in zip(p, m, strict=True)
    ]
    assert float(dice_loss(p, m)) == pytest.approx(sum(dice) / 2, rel=1e-5)


def test_a_perfect_map_costs_nothing_and_a_wrong_one_much() -> None:
    mask = torch.zeros(1, 4, 4)
    mask[0, :2] = 1
    assert float(focal_loss(mask, mask)) < 1e-5
    assert float(dice_loss(mask, mask)) == 0
    assert float(focal_loss(1 - mask, mask)) > 10
    assert float(dice_loss(1 - mask, mask)) > 0.9
    assert torch.isfinite(dice_loss(mask * 0, mask * 0))
