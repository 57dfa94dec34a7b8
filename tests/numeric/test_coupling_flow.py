"""The coupling flow against autograd's Jacobian, its own inverse, and the entropy of a known distribution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from blemish.numeric.coupling_flow import CLAMP, CouplingFlow, negative_log_likelihood, soft_clamped
from blemish.numeric.training import Training, seeded

CONDITION = 3


def random_flow(channels: int, blocks: int = 3) -> CouplingFlow:
    """A flow whose subnetworks are far from the identity."""
    with seeded(0):
        flow = CouplingFlow(channels, CONDITION, hidden=8, blocks=blocks)
        for parameter in flow.parameters():
            nn.init.normal_(parameter, std=0.2)
    return flow


def features(channels: int, side: int = 5, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(count, channels, side, side, generator=random)
    return x, torch.randn(count, CONDITION, side, side, generator=random)


@pytest.mark.parametrize("channels", [2, 5, 8])
def test_the_inverse_takes_back_what_the_flow_did(channels: int) -> None:
    flow = random_flow(channels).double()
    x, condition = (tensor.double() for tensor in features(channels))
    with torch.no_grad():
        z, _ = flow(x, condition)
        assert not torch.allclose(z, x, atol=0.1)
        torch.testing.assert_close(flow.inverse(z, condition), x, rtol=1e-6, atol=1e-6)


def test_the_log_determinant_is_that_of_the_jacobian() -> None:
    flow, (x, condition) = random_flow(4).double(), features(4, side=3, count=1)
    x, condition = x.double(), condition.double()

    def flat(values: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = flow(values.view(x.shape), condition)[0]
        return z.flatten()

    jacobian = torch.autograd.functional.jacobian(flat, x.flatten())
    expected = torch.linalg.slogdet(jacobian).logabsdet
    found = flow(x, condition)[1].sum()
    assert abs(float(expected)) > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_the_condition_changes_the_output() -> None:
    flow, (x, condition) = random_flow(4), features(4)
    with torch.no_grad():
        assert not torch.allclose(flow(x, condition)[0], flow(x, condition + 1)[0], atol=1e-2)


def test_an_untrained_flow_only_permutes() -> None:
    x, condition = features(6)
    with torch.no_grad():
        z, log_det = CouplingFlow(6, CONDITION, hidden=8, blocks=4)(x, condition)
    assert torch.equal(z.sort(dim=1).values, x.sort(dim=1).values)
    assert not bool(log_det.any())


def test_scales_are_clamped_and_keep_their_sign() -> None:
    x = torch.tensor([-1e6, -1.0, 0.0, 1.0, 1e6])
    clamped = soft_clamped(x)
    assert float(clamped.abs().max()) <= CLAMP + 1e-6
    assert float(clamped[-1]) > 0.99 * CLAMP
    assert torch.equal(clamped.sign(), x.sign())
    assert bool((clamped.diff() > 0).all())


def correlated(count: int) -> torch.Tensor:
    """`(count, 2, 4, 4)`: two channels that are one and the same, plus noise of standard deviation 0.3 in each."""
    return torch.randn(count, 1, 4, 4) + 0.3 * torch.randn(count, 2, 4, 4)


def test_training_brings_the_likelihood_of_correlated_channels_to_their_entropy() -> None:
    """Of samples that it has not seen: not below what their covariance says, and near it."""
    covariance = torch.tensor([[1.09, 1.0], [1.0, 1.09]])
    entropy = 1 + 0.5 * float(torch.linalg.slogdet(covariance).logabsdet)  # without the constant ln 2π

    def loss_of(flow: CouplingFlow, count: int) -> torch.Tensor:
        return negative_log_likelihood(*flow(correlated(count), torch.zeros(count, CONDITION, 4, 4))).mean()

    with seeded(0), torch.no_grad():
        flow = CouplingFlow(2, CONDITION, hidden=8, blocks=2)
        before = float(loss_of(flow, 1000))
    with seeded(1):
        Training(steps=150, learning_rate=1e-2, precision="fp32").run(flow, lambda step: loss_of(flow, 32))
    with seeded(2), torch.no_grad():
        after = float(loss_of(flow, 1000))
    assert before > entropy + 0.5
    assert entropy - 0.05 < after < entropy + 0.1
