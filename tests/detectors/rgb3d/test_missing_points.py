"""The presence of points is a calibrated probability, and its surprisal the score of patches without."""

from __future__ import annotations

import math

import pytest
import torch

from blemish.detectors.rgb3d.missing_points import NATS, PointPresence

KINDS, DIM = 3, 8  # kinds of patches, that have points always, in 4 of 10, and never
PROBABILITIES = torch.tensor([1.0, 0.4, 0.0])


def patches(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image features `(N, 8)`, which patches have points, and the kind of each."""
    random = torch.Generator().manual_seed(seed)
    kind = torch.randint(KINDS, (count,), generator=random)
    centres = 2 * torch.randn(KINDS, DIM, generator=torch.Generator().manual_seed(1))
    image = centres[kind] + 0.2 * torch.randn(count, DIM, generator=random)
    return image, torch.rand(count, generator=random) < PROBABILITIES[kind], kind


@pytest.fixture(scope="module")
def presence() -> PointPresence:
    torch.manual_seed(0)
    made, (image, valid, _) = PointPresence(DIM), patches(4000, 0)
    made.standard.fit(image)
    optimizer = torch.optim.AdamW(made.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        made.loss(image, valid).backward()
        optimizer.step()
    return made.eval()


def test_missing_points_score_where_the_image_shows_the_part(presence: PointPresence) -> None:
    image, _, kind = patches(1000, 1)
    always, often, never = (presence.anomaly_score(image[kind == one]) for one in range(KINDS))
    assert float(always.min()) > 1
    assert float(never.max()) < 1e-3
    surprisal = NATS * often.sqrt()  # back to nats
    assert float(surprisal.mean()) == pytest.approx(-math.log(1 - 0.4), rel=0.15)


def test_the_loss_is_the_conditional_entropy(presence: PointPresence) -> None:
    image, valid, _ = patches(20000, 2)
    entropy = -(0.4 * math.log(0.4) + 0.6 * math.log(0.6)) / KINDS  # of the middle kind
    assert float(presence.loss(image, valid).detach()) == pytest.approx(entropy, rel=0.05)


def test_four_nats_of_surprisal_score_one(presence: PointPresence) -> None:
    made = PointPresence(DIM).eval()
    last = made.logit[1][-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(math.log(math.expm1(NATS)))  # 1 − p = exp(−4)
    torch.testing.assert_close(made.anomaly_score(torch.randn(5, DIM)), torch.ones(5), rtol=1e-4, atol=1e-4)


def test_a_network_that_is_sure_beyond_what_it_saw_does_not_drown_all_else() -> None:
    made = PointPresence(DIM).eval()
    last = made.logit[1][-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(2 * NATS)  # points are missing where 3,000 to 1 speak for them
    assert float(made.anomaly_score(torch.randn(1, DIM))) == pytest.approx(4, rel=0.01)
