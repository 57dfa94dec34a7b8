"""PaDiM against scipy's Mahalanobis distance, on few images, on other grids."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

from blemish.detectors.padim import PaDiM, Sums, same_position, steps_between
from blemish.encoders.base import LayerRole
from blemish.errors import NotFittedError, SettingsError
from blemish.types import RGB, Batch, Features

DIM, GRID = 7, (3, 4)
PAPER = {"shrinkage": 0.0, "standardise": False}


def made(count: int, seed: int = 0, grid: tuple[int, int] = GRID) -> torch.Tensor:
    """Good images' features `(count, h, w, DIM)`: correlated channels around a mean of their own at each place."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(7))
    means = 20 * torch.randn(*grid, DIM, generator=torch.Generator().manual_seed(8))
    return means + torch.randn(count, *grid, DIM, generator=generator) @ mixing


def features(patches: torch.Tensor, categories: list[str] | None = None) -> Features:
    return Features({RGB: (patches,)}).with_categories(categories)


def learned(patches: torch.Tensor, **settings) -> PaDiM:
    return PaDiM(**settings).fit([Batch(features(part)) for part in patches.split(4)])


def test_distances_are_mahalanobis_distances():
    good, tested = made(30), made(2, seed=1)
    scores = learned(good, **PAPER, epsilon=0.01).score(features(tested)).patches
    for b, y, x in np.ndindex(2, *GRID):
        rows = good[:, y, x].double().numpy()
        covariance = np.cov(rows, rowvar=False) + 0.01 * np.eye(DIM)
        expected = mahalanobis(tested[b, y, x].double().numpy(), rows.mean(0), np.linalg.inv(covariance))
        assert float(scores[b, y, x]) == pytest.approx(expected, rel=2e-3)


def test_shrinking_and_standardising_are_as_written():
    good, tested = made(6), made(1, seed=1)
    scores = learned(good, shrinkage=3.0, epsilon=0.05).score(features(tested)).patches[0]
    rows = good.double().numpy()
    own = np.array([[np.cov(rows[:, y, x], rowvar=False) for x in range(GRID[1])] for y in range(GRID[0])])
    means = rows.mean(0)
    steps = np.concatenate([np.diff(means, axis=axis).reshape(-1, DIM) for axis in (0, 1)])
    shared = own.mean((0, 1)) + steps.T @ steps / len(steps)
    scale = np.sqrt(np.diag(own.mean((0, 1))) + means.reshape(-1, DIM).var(0))
    covariance = (own * 6 / 9 + shared * 3 / 9) / np.outer(scale, scale) + 0.05 * np.eye(DIM)
    away = (tested[0].double().numpy() - means) / scale
    expected = np.sqrt(np.einsum("hwi,hwij,hwj->hw", away, np.linalg.inv(covariance), away))
    np.testing.assert_allclose(scores.numpy(), expected, rtol=2e-3)


def test_copies_of_an_image_do_not_weaken_the_shrinkage():
    """Each image shown twice has the covariances of 12 views, shrunk as those of 6 images."""
    good, tested = made(6), made(1, seed=1)
    twice = good.repeat_interleave(2, dim=0)
    numbers = tuple(i // 2 for i in range(12))
    settings = {"shrinkage": 3.0, "epsilon": 0.05}
    shown = PaDiM(**settings).fit([Batch(features(twice), images=numbers, originals=(True, False) * 6)])
    expected = PaDiM(**settings | {"shrinkage": 6.0}).fit([Batch(features(twice))])  # 3 of 9 as 6 of 18
    torch.testing.assert_close(shown.score(features(tested)).patches, expected.score(features(tested)).patches)


def test_sums_do_not_lose_small_differences_in_large_numbers():
    rows = 1000 + made(20)
    sums = Sums.around(rows[0])
    for number, image in enumerate(rows):
        sums.add(image, number)
    exact = rows[:, 0, 0].double().numpy()
    np.testing.assert_allclose(sums.means()[0], exact.mean(0), rtol=1e-5)
    np.testing.assert_allclose(sums.covariances()[0], np.cov(exact, rowvar=False), rtol=2e-3, atol=2e-3)


def test_one_good_image_is_enough_to_rank():
    """A patch far outside what the image shows anywhere scores higher than one a little aside."""
    good = made(1, grid=(8, 8))
    detector = learned(good)
    near, far = good + 0.1, good.clone()
    far[0, 2, 2] += 100
    assert detector.score(features(good)).patches.max() == 0
    assert detector.score(features(far)).patches.argmax() == 2 * 8 + 2
    assert detector.score(features(far)).patches.max() > 5 * detector.score(features(near)).patches.max()


def test_a_place_of_its_own_matters():
    """What is good at one place is strange at another: no bag of patches could tell."""
    good = made(30)
    moved = made(1, seed=3).roll(1, dims=2)
    detector = learned(good, **PAPER)
    assert detector.score(features(moved)).patches.min() > detector.score(features(made(1, seed=4))).patches.max()


def test_another_grid_is_measured_at_the_same_relative_place():
    good, tested = made(12), made(1, seed=1)
    detector = learned(good)
    expected = detector.score(features(tested)).patches
    doubled = tested.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    scores = detector.score(features(doubled)).patches
    torch.testing.assert_close(scores, expected.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2))
    again = PaDiM().fit([Batch(features(good[:1])), Batch(features(good[1:].repeat_interleave(2, dim=1)))])
    torch.testing.assert_close(again.score(features(tested)).patches, expected)


def test_same_position():
    assert same_position((2, 2), (2, 2)).tolist() == [0, 1, 2, 3]
    assert same_position((1, 4), (1, 2)).tolist() == [0, 0, 1, 1]
    assert same_position((1, 2), (1, 5)).tolist() == [1, 3]  # quarter and three quarters of five


def test_steps_of_a_ramp():
    ramp = torch.arange(5.0)[:, None, None].expand(5, 3, 2)
    expected = torch.full((2, 2), 12 / (12 + 10))  # 12 steps of one down, 10 of none to the right
    torch.testing.assert_close(steps_between(ramp), expected)
    assert steps_between(torch.zeros(1, 1, 2)).tolist() == [[0, 0], [0, 0]]


def test_channels_are_drawn_once_for_all_categories():
    good = made(8)
    batch = Batch(features(good, ["a"] * 4 + ["b"] * 4))
    detector = PaDiM(channels=3, seed=1).fit([batch])
    chosen = detector.state()["channels"]
    assert len(set(chosen.tolist())) == 3
    assert detector.state()["whitening/a"].shape == (*GRID, 3, 3)
    others = [PaDiM(channels=3, seed=seed).fit([batch]).state()["channels"].tolist() for seed in range(8)]
    assert chosen.tolist() in others
    assert len({tuple(other) for other in others}) > 1


def test_each_category_has_its_own_gaussians():
    good = torch.cat([made(8), 50 + made(8)])
    detector = PaDiM().fit([Batch(features(good, ["a"] * 8 + ["b"] * 8))])
    alike = detector.score(features(50 + made(1, seed=5), ["b"])).patches
    assert (5 * alike < detector.score(features(50 + made(1, seed=5), ["a"])).patches).all()
    with pytest.raises(SettingsError, match="category"):
        detector.score(features(made(1), ["c"]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("channels", 0), ("channels", 1.5), ("epsilon", 0.0), ("epsilon", -1), ("epsilon", float("nan")),
        ("shrinkage", -0.1), ("shrinkage", float("inf")), ("neighbourhood_size", 2), ("grid", "middle"),
        ("rotations", 0),
        ("layers", "all"), ("framing", "tight"), ("standardise", 1), ("image_size", 0), ("seed", -1),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(name, value):
    with pytest.raises(SettingsError, match=name):
        PaDiM(**{name: value})


@pytest.mark.parametrize("role", get_args(LayerRole))
def test_every_role_of_layers_can_be_asked_for(role):
    assert PaDiM(layers=role).needs.layers == role


def test_an_epsilon_that_rounding_swallows_is_refused():
    good = 1000 * made(4)
    with pytest.raises(SettingsError, match=r"epsilon.*0\.01 beside variances of up to.*standardise=True"):
        learned(good, **PAPER, epsilon=0.01)
    assert bool(learned(good, epsilon=0.01).score(features(good)).patches.isfinite().all())


def test_wrong_use_is_explained():
    with pytest.raises(NotFittedError):
        PaDiM().state()
    with pytest.raises(SettingsError, match="good picture"):
        PaDiM().fit([])


def test_a_half_moved_category_is_moved_as_a_whole() -> None:
    """As another thread may leave it for a moment. The "meta" device stands for a GPU."""
    features = Features({RGB: (torch.rand(4, 3, 3, 5, generator=torch.Generator().manual_seed(0)),)})
    detector = PaDiM(channels=4).fit([Batch(features)])
    detector.means_[""] = detector.means_[""].to("meta")
    means, matrices = detector._moved("", torch.device("meta"))
    assert (means.device.type, matrices.device.type) == ("meta", "meta")
    assert detector.whitenings_[""] is matrices


def test_a_channel_that_never_varied_does_not_outweigh_all_others() -> None:
    """As behind a ReLU: 0 on all good images, and a twentieth of what the others vary by on the next one."""
    good = made(30)
    good[..., 0] = 0
    plain = good[:1].clone()
    shown = plain.clone()
    shown[:, 1, 2, 0] = 0.05 * float(good[..., 1:].std(0).mean())
    detector = learned(good)
    usual = detector.score(features(good)).patches.max()
    assert detector.score(features(plain)).patches.max() < detector.score(features(shown)).patches.max() < 2 * usual


def test_sums_are_begun_once_for_each_category(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are as large as all covariances: one for every image would cost more than adding it."""
    begun = []
    around = Sums.around
    monkeypatch.setattr(Sums, "around", lambda image: begun.append(image.shape) or around(image))
    PaDiM().fit([Batch(features(made(6), ["a", "b"] * 3))])
    assert len(begun) == 2
