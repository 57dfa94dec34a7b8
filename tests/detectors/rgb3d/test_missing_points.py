"""How surprising it is that points are missing: a probability that is right, and what is made of it."""

from __future__ import annotations

import math

import pytest
import torch

from blemish.detectors.rgb3d.missing_points import NATS, PointPresence

KINDS, SIDE = 3, 8  # kinds of cells: points are always, in 4 of 10, and never measured there
SHARES = torch.tensor([1.0, 0.4, 0.0])


def cells(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images `(N, 8)`, whether points were measured, and the kind of each."""
    random = torch.Generator().manual_seed(seed)
    kind = torch.randint(KINDS, (count,), generator=random)
    centres = 2 * torch.randn(KINDS, SIDE, generator=torch.Generator().manual_seed(1))
    image = centres[kind] + 0.2 * torch.randn(count, SIDE, generator=random)
    return image, torch.rand(count, generator=random) < SHARES[kind], kind


@pytest.fixture(scope="module")
def presence() -> PointPresence:
    torch.manual_seed(0)
    made, (image, measured, _) = PointPresence(SIDE), cells(4000, 0)
    made.standard.learn(image)
    optimizer = torch.optim.AdamW(made.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        made.loss(image, measured).backward()
        optimizer.step()
    return made.eval()


def test_a_gap_surprises_where_the_image_shows_the_part(presence: PointPresence) -> None:
    image, _, kind = cells(1000, 1)
    always, often, never = (presence.anomaly_score(image[kind == one]) for one in range(KINDS))
    assert float(always.min()) > 1
    assert float(never.max()) < 1e-3
    surprise = NATS * often.pow(0.25)  # back to nats
    assert float(surprise.mean()) == pytest.approx(-math.log(1 - 0.4), rel=0.15)


def test_the_loss_is_the_entropy_that_cannot_be_foretold(presence: PointPresence) -> None:
    image, measured, _ = cells(20000, 2)
    entropy = -(0.4 * math.log(0.4) + 0.6 * math.log(0.6)) / KINDS  # of the middle kind
    assert float(presence.loss(image, measured).detach()) == pytest.approx(entropy, rel=0.05)


def test_four_nats_make_one(presence: PointPresence) -> None:
    made = PointPresence(SIDE).eval()
    last = made.logit[1][-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(math.log(math.expm1(NATS)))  # 1 − p = exp(−4)
    torch.testing.assert_close(made.anomaly_score(torch.randn(5, SIDE)), torch.ones(5), rtol=1e-4, atol=1e-4)
