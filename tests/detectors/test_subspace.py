"""SubspaceAD against scikit-learn's PCA and a plain loop; leaving images out against fitting without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from blemish.detectors.base import LeavesOut
from blemish.detectors.subspace import (
    SEPARATE_IMAGES,
    PatchSums,
    Subspace,
    SubspaceAD,
    SumsByImage,
    mean_of_layers,
)
from blemish.errors import NotFittedError, SettingsError
from blemish.types import RGB, Batch, Features

DIM, GRID = 12, (5, 6)


def made(count: int, seed: int = 0, noise: float = 0.1) -> torch.Tensor:
    """Normal images' patches `(count, h, w, DIM)`: a plane of four dimensions away from the origin, and noise."""
    generator = torch.Generator().manual_seed(seed)
    plane = torch.randn(4, DIM, generator=torch.Generator().manual_seed(7))
    inner = torch.randn(count, *GRID, 4, generator=generator) * torch.tensor([4.0, 3.0, 2.0, 1.0])
    return 5 + inner @ plane + noise * torch.randn(count, *GRID, DIM, generator=generator)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def batch(patches: torch.Tensor, images: Sequence[int] | None = None, names: Sequence[str] | None = None) -> Batch:
    return Batch(Features({RGB: (patches,)}).with_categories(names), images=None if images is None else tuple(images))


def features(patches: torch.Tensor, names: Sequence[str] | None = None) -> Features:
    return batch(patches, names=names).features


def fitted(patches: torch.Tensor, variance: float = 0.99) -> SubspaceAD:
    return SubspaceAD(variance=variance).fit([batch(part) for part in patches.split(3)])


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.99, 0.999, 1.0])
def test_scores_are_the_residuals_of_scikit_learns_pca(variance: float) -> None:
    good, tested = made(8), made(2, seed=1, noise=1.0)
    detector = fitted(good, variance)
    rows = good.flatten(0, 2).double().numpy()
    pca = PCA(n_components=None if variance == 1 else variance, svd_solver="full").fit(rows)
    assert detector.state()["basis"].shape == (DIM, pca.n_components_)
    flat = tested.flatten(0, 2).double().numpy()
    left_over = flat - pca.inverse_transform(pca.transform(flat))
    expected = (left_over**2).sum(1).reshape(2, *GRID)
    np.testing.assert_allclose(detector.score(features(tested)).patches, expected, rtol=1e-3, atol=1e-7)


def test_scores_are_those_of_a_plain_loop() -> None:
    good, tested = made(6), made(1, seed=1)
    scores = fitted(good, 0.97).score(features(tested)).patches[0]
    rows = good.flatten(0, 2).double().numpy()
    mean = rows.mean(0)
    _, singular, directions = np.linalg.svd(rows - mean, full_matrices=False)
    kept, held = 0, 0.0
    while held < 0.97 * (singular**2).sum():
        held += singular[kept] ** 2
        kept += 1
    for y, x in np.ndindex(*GRID):
        residual = tested[0, y, x].double().numpy() - mean
        for direction in directions[:kept]:
            residual = residual - (residual @ direction) * direction
        assert float(scores[y, x]) == pytest.approx(residual @ residual, rel=1e-3)


def test_nothing_is_left_over_within_the_subspace() -> None:
    good = made(8, noise=0.0)
    detector = fitted(good, 0.9999)
    basis, mean = detector.state()["basis"], detector.state()["mean"]
    assert basis.shape == (DIM, 4)
    inside = mean + 10 * drawn(1, *GRID, 4) @ basis.T  # farther out than any normal patch
    assert detector.score(features(inside)).patches.max() < 1e-6


def test_the_score_is_the_square_of_the_step_outside() -> None:
    detector = fitted(made(8))
    basis = detector.state()["basis"]
    step = drawn(DIM)
    step -= basis @ (basis.T @ step)
    step /= step.norm()
    inside = detector.state()["mean"] + drawn(1, *GRID, basis.shape[1]) @ basis.T
    scores = [float(detector.score(features(inside + length * step)).patches.mean()) for length in (0.0, 0.5, 1, 2, 20)]
    np.testing.assert_allclose(scores, [0, 0.25, 1, 4, 400], rtol=1e-3, atol=1e-6)


def test_more_variance_leaves_less_over() -> None:
    good, tested = made(8), made(1, seed=1, noise=1.0)
    scores = [fitted(good, variance).score(features(tested)).patches for variance in (0.3, 0.8, 0.95, 0.999)]
    assert all((more >= less - 1e-5).all() for more, less in pairwise(scores))
    assert scores[0].mean() > 2 * scores[-1].mean()


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_sums_over_a_stream_are_the_covariance_of_all(offset: float) -> None:
    rows = (made(20) + offset).flatten(0, 2)
    sums = SumsByImage()
    for image, part in enumerate(rows.split(37)):
        sums.add(part, image % 5)
    exact = rows.double().numpy()
    np.testing.assert_allclose(sums.total().mean, exact.mean(0), rtol=1e-12)
    np.testing.assert_allclose(sums.total().covariance, np.cov(exact, rowvar=False, bias=True), rtol=1e-6, atol=1e-8)


def test_the_order_of_images_does_not_matter() -> None:
    """Also where there are too many to be kept apart."""
    good = made(SEPARATE_IMAGES + 4)
    for count in (6, len(good)):
        forth, back = SumsByImage(), SumsByImage()
        for i in range(count):
            forth.add(good[i].flatten(0, 1), i)
            back.add(good[count - 1 - i].flatten(0, 1), count - 1 - i)
        for one, other in zip(vars(forth.total()).values(), vars(back.total()).values(), strict=True):
            torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), rtol=1e-10, atol=1e-10)
    tested = features(made(2, seed=1))
    torch.testing.assert_close(fitted(good).score(tested).patches, fitted(good.flip(0)).score(tested).patches)


@pytest.mark.parametrize("left_out", [(0,), (2,), (1, 3)])
def test_leaving_images_out_is_fitting_without_them(left_out: tuple[int, ...]) -> None:
    """With two copies of each image; and the detector itself stays as it was."""
    good, tested = made(8), features(made(2, seed=1))
    copies = [batch(part, images) for part, images in zip(good.split(4), [(0, 1, 2, 3)] * 2, strict=True)]
    detector = SubspaceAD().fit(copies)
    before = detector.score(tested).patches
    assert isinstance(detector, LeavesOut)
    assert detector.can_leave_out("")
    kept = [i for i in range(8) if i % 4 not in left_out]
    expected = SubspaceAD().fit([batch(good[kept])]).score(tested).patches
    torch.testing.assert_close(detector.score_without(tested, left_out).patches, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(expected, before, rtol=1e-3)
    assert torch.equal(detector.score(tested).patches, before)


def test_few_images_can_be_left_out_and_no_others() -> None:
    def possible(count: int) -> bool:
        return SubspaceAD().fit([batch(made(count))]).can_leave_out("")

    assert [possible(count) for count in (1, 2, SEPARATE_IMAGES, SEPARATE_IMAGES + 1)] == [False, True, True, False]
    detector = fitted(made(3))
    again = SubspaceAD().load_state(detector.state())
    assert not again.can_leave_out("")
    for left_out in (0,), (0, 1, 2):
        with pytest.raises(NotFittedError, match="can_leave_out"):
            (again if len(left_out) == 1 else detector).score_without(features(made(1)), left_out)


def test_sums_of_many_images_do_not_grow_with_them() -> None:
    sums = SumsByImage()
    for i in range(SEPARATE_IMAGES + 5):
        sums.add(made(1, seed=i).flatten(0, 2), i)
    assert not sums.images
    assert sums.total().count == (SEPARATE_IMAGES + 5) * GRID[0] * GRID[1]
    with pytest.raises(NotFittedError, match="can_leave_out"):
        sums.total([0])


def test_each_category_has_a_subspace_of_its_own() -> None:
    other = 50 - made(6, seed=2).flip(-1)
    detector = SubspaceAD().fit([batch(torch.cat([made(6), other]), names=["a"] * 6 + ["b"] * 6)])
    own = detector.score(features(other[:1], ["b"])).patches
    assert (100 * own < detector.score(features(other[:1], ["a"])).patches).all()
    torch.testing.assert_close(own, fitted(other).score(features(other[:1])).patches)
    left_out = detector.score_without(features(other[:1], ["b"]), [6]).patches
    torch.testing.assert_close(left_out, fitted(other[1:]).score(features(other[:1])).patches, rtol=1e-3, atol=1e-6)
    with pytest.raises(SettingsError, match="category"):
        detector.score(features(made(1), ["c"]))


def test_ignored_patches_are_not_learned_from() -> None:
    good = made(6)
    spoiled, ignored = good.clone(), torch.zeros(6, *GRID, dtype=torch.bool)
    spoiled[1, 2:4, 1:3] += 100
    ignored[1, 2:4, 1:3] = True
    given = replace(features(spoiled), ignored=ignored)
    dropped = given.ignored_on(GRID)  # (6, h, w): neighbours are ignored as well
    assert dropped is not None
    mean = SubspaceAD().fit([Batch(given)]).state()["mean"]
    np.testing.assert_allclose(mean, good[~dropped].double().mean(0), rtol=1e-5)
    assert not torch.allclose(fitted(spoiled).state()["mean"], mean, rtol=0.01)


def test_patches_that_are_all_alike_leave_a_point() -> None:
    same = torch.full((2, *GRID, DIM), 3.0)
    detector = fitted(same)
    assert detector.state()["basis"].shape == (DIM, 0)
    assert detector.score(features(same)).patches.max() == 0
    torch.testing.assert_close(detector.score(features(same + 1)).patches, torch.full((2, *GRID), float(DIM)))


def test_one_image_of_fewer_patches_than_channels_is_enough() -> None:
    few = drawn(1, 2, 2, DIM)
    detector = fitted(few, 0.999)
    assert detector.state()["basis"].shape == (DIM, 3)
    assert detector.score(features(few)).patches.max() < 1e-5
    assert detector.score(features(few + 1)).patches.min() > 0.1


def test_layers_of_one_width_are_averaged_and_others_joined() -> None:
    fine, coarse, wide = drawn(2, 4, 6, 3), drawn(2, 2, 3, 3), drawn(2, 4, 6, 5)
    torch.testing.assert_close(mean_of_layers([fine, fine + 2]), fine + 1)
    assert mean_of_layers([fine, coarse]).shape == (2, 4, 6, 3)
    torch.testing.assert_close(mean_of_layers([fine, wide]), torch.cat([fine, wide], dim=-1))
    two = SubspaceAD().fit([Batch(Features({RGB: (made(4), made(4) + 2)}))])
    torch.testing.assert_close(two.state()["mean"], fitted(made(4) + 1).state()["mean"])


def test_the_basis_is_orthonormal_and_as_small_as_can_be() -> None:
    sums = PatchSums.of(made(8).flatten(0, 2))
    values = torch.linalg.eigvalsh(sums.covariance).flip(0)
    for variance in (0.4, 0.8, 0.95, 0.999):
        basis = Subspace.of(sums, variance).basis
        count = basis.shape[1]
        torch.testing.assert_close(basis.T @ basis, torch.eye(count), rtol=0, atol=1e-5)
        assert values[:count].sum() >= variance * values.sum() > values[: count - 1].sum()


def test_its_needs_and_settings() -> None:
    needs = SubspaceAD(rotations=4, framing="part", image_size=336).needs
    assert (needs.layers, needs.score_exponent, needs.pooling) == ("middle", 2, "top:0.01")
    assert (needs.rotations, needs.framing, needs.image_size) == (4, "part", 336)
    for variance in (0.0, 1.01, -0.5, float("nan")):
        with pytest.raises(SettingsError, match="variance"):
            SubspaceAD(variance=variance)


def test_wrong_use_is_explained() -> None:
    with pytest.raises(NotFittedError):
        SubspaceAD().state()
    with pytest.raises(NotFittedError):
        SubspaceAD().can_leave_out("")
    with pytest.raises(SettingsError, match="good picture"):
        SubspaceAD().fit([])
    unnumbered = replace(batch(made(3)), images=None)
    assert SubspaceAD().fit([unnumbered, unnumbered]).can_leave_out("")
