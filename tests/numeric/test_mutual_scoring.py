"""LNAMD, MSM and RsCIN against plain loops; scores depend on no block; groups; the memory that is promised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from blemish.numeric.mutual_scoring import (
    BLOCK_BYTES,
    SPARE,
    LowestDistances,
    aggregated,
    distances_to_nearest,
    layer_normalised,
    mutual_patch_scores,
    near_count,
    nearest_between,
    pairs_in_blocks,
    random_groups,
    reranked,
)


def maps(count: int, height: int = 4, width: int = 5, channels: int = 6, layers: int = 2, seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    shape = (height, width, channels)
    return [[torch.randn(shape, generator=random) * 3 + 1 for _ in range(layers)] for _ in range(count)]


def scored(images: list[list[Tensor]], **options) -> list[np.ndarray]:
    normal = [[layer_normalised(layer) for layer in own] for own in images]
    grids = [[(layer.shape[0], layer.shape[1]) for layer in own] for own in normal]
    return mutual_patch_scores(grids, lambda image, layer: normal[image][layer], **options)


def lnamd(layer: np.ndarray, side: int) -> np.ndarray:
    """The patches of one layer, by loops."""
    normal = (layer - layer.mean()) / np.sqrt(layer.var() + 1e-5)
    height, width, channels = normal.shape
    rows = np.zeros((height, width, channels))
    half = side // 2
    for y in range(height):
        for x in range(width):
            for dy in range(-half, half + 1):
                for dx in range(-half, half + 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        rows[y, x] += normal[y + dy, x + dx] / side**2
    flat = rows.reshape(-1, channels)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def musc(images: list[list[np.ndarray]], sides: tuple[int, ...], share: float = 0.3) -> list[np.ndarray]:
    """The patch scores of every image as the paper defines them, by loops."""
    found = []
    for i, image in enumerate(images):
        by_side = []
        for side in sides:
            by_layer = []
            for number, layer in enumerate(image):
                own = lnamd(layer, side)
                others = [lnamd(other[number], side) for j, other in enumerate(images) if j != i]
                scores = []
                for patch in own:
                    distances = sorted(min(np.linalg.norm(patch - one) for one in other) for other in others)
                    near = max(1, int(share * len(others)))
                    scores.append(np.mean(distances[:near]))
                by_layer.append(np.reshape(scores, layer.shape[:2]))
            by_side.append(np.mean(by_layer, axis=0))
        found.append(np.mean(by_side, axis=0))
    return found


@pytest.mark.parametrize("side", [1, 3, 5])
def test_aggregation_is_the_mean_of_the_neighbourhood_with_zeros_around(side: int) -> None:
    ((layer,),) = maps(1, layers=1)
    found = aggregated(layer_normalised(layer), side).numpy()
    assert np.abs(found - lnamd(layer.numpy().astype(np.float64), side)).max() <= 1e-5


def test_a_layer_is_normalised_over_all_its_values() -> None:
    normal = layer_normalised(maps(1)[0][0])
    assert float(normal.mean()) == pytest.approx(0, abs=1e-6)
    assert float(normal.var(correction=0)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("count", "sides"), [(7, (1, 3, 5)), (12, (1, 3)), (2, (1,)), (5, (5,))])
def test_patch_scores_are_those_of_a_plain_loop(count: int, sides: tuple[int, ...]) -> None:
    images = maps(count, 3, 3, 4)
    wanted = musc([[layer.numpy().astype(np.float64) for layer in own] for own in images], sides)
    for one, other in zip(scored(images, neighbourhoods=sides), wanted, strict=True):
        assert one.dtype == np.float32
        assert np.abs(one - other).max() <= 1e-5


def test_images_may_have_different_grids() -> None:
    images = maps(4, 4, 5) + maps(4, 3, 7, seed=1)
    wanted = musc([[layer.numpy().astype(np.float64) for layer in own] for own in images], (1, 3))
    for one, other in zip(scored(images, neighbourhoods=(1, 3)), wanted, strict=True):
        assert np.abs(one - other).max() <= 1e-5


def test_layers_on_a_coarser_grid_count_on_the_finest() -> None:
    fine, coarse = maps(6, 4, 4, layers=1), maps(6, 2, 2, layers=1, seed=1)
    both = scored([[a[0], b[0]] for a, b in zip(fine, coarse, strict=True)], neighbourhoods=(1,))
    alone = scored(fine, neighbourhoods=(1,)), scored(coarse, neighbourhoods=(1,))
    for one, a, b in zip(both, *alone, strict=True):
        assert one.shape == (4, 4)
        assert np.allclose(one.mean(), (a.mean() + b.mean()) / 2, atol=1e-6)  # bilinear by 2 keeps the mean


def test_scores_do_not_depend_on_the_size_of_blocks() -> None:
    images = maps(30, 2, 3, layers=1)  # more than the distances that are gathered before the largest are dropped
    whole = scored(images, neighbourhoods=(1, 3))
    for block in (1, 3 * 6 * 6 * 4, 1 << 30):
        found = scored(images, neighbourhoods=(1, 3), block_bytes=block)
        assert all(np.array_equal(a, b) for a, b in zip(found, whole, strict=True))


@pytest.mark.parametrize("block", [1, 4 * 8, 10**9])
def test_every_pair_comes_once_whatever_the_block(block: int) -> None:
    asked: list[int] = []

    def rows_of(image: int) -> Tensor:
        asked.append(image)
        return torch.full((2, 1), float(image))  # 8 bytes

    found = [(i, j, float(a[0, 0]), float(b[0, 0])) for i, j, a, b, _ in pairs_in_blocks(9, rows_of, block)]
    assert sorted(found) == [(i, j, i, j) for i in range(9) for j in range(i + 1, 9)]
    blocks = -(-9 // max(1, min(9, block // 8)))
    assert len(asked) <= 9 * blocks


def test_distances_both_ways_are_those_of_one() -> None:
    left, right = (torch.nn.functional.normalize(torch.randn(n, 7), dim=1) for n in (9, 13))
    forth, back = nearest_between(left, right)
    squares = (left**2).sum(1), (right**2).sum(1)
    assert torch.allclose(forth, distances_to_nearest(left, right, *squares), atol=1e-5)
    assert torch.allclose(back, torch.cdist(right, left).amin(1), atol=1e-5)


def test_the_lowest_distances_are_kept_in_bounded_memory_whatever_the_order() -> None:
    values = torch.rand(3, 100)
    for order in (range(100), reversed(range(100))):
        lowest = LowestDistances(3, 7)
        for column in order:
            lowest.add(values[:, column])
        assert torch.equal(lowest.mean(), values.sort(1).values[:, :7].mean(1))
        assert lowest._values.shape == (3, 7 + SPARE)


@pytest.mark.parametrize(("others", "near"), [(1, 1), (3, 1), (4, 1), (6, 1), (7, 2), (10, 3), (99, 29), (100, 30)])
def test_a_patch_is_scored_by_the_nearest_third_of_the_others(others: int, near: int) -> None:
    assert near_count(others) == near


def rscin(scores: np.ndarray, features: np.ndarray, ranks: tuple[int, ...]) -> np.ndarray:
    """Re-scored as the paper defines it, by loops, from scores brought to [0, 1]."""
    low, high = scores.min(), scores.max()
    scaled = (scores - low) / (high - low)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    total = np.zeros(len(scores))
    for k in ranks:
        for i in range(len(scores)):
            cosines = [float(unit[i] @ other) for other in unit]
            near = sorted(range(len(scores)), key=lambda j: -cosines[j])[:k]
            weight = sum(cosines[j] for j in near)
            total[i] += sum(cosines[j] / weight * scaled[j] for j in near) / len(ranks)
    return total


@pytest.mark.parametrize("ranks", [(1, 2, 3), (1, 8, 9), (2,)])
def test_reranked_scores_are_those_of_a_plain_loop_but_for_their_unit(ranks: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    scores, features = random.uniform(2, 5, 20), random.uniform(0, 1, (20, 8))
    found = reranked(scores, features, ranks)
    assert np.abs((found - scores.min()) / np.ptp(scores) - rscin(scores, features, ranks)).max() <= 1e-9
    assert scores.min() <= found.min() <= found.max() <= scores.max()


def test_no_ranks_or_the_first_alone_change_nothing() -> None:
    random = np.random.default_rng(0)
    scores, features = random.uniform(2, 5, 9), random.uniform(0, 1, (9, 4))
    assert np.array_equal(reranked(scores, features, ()), scores)
    assert np.allclose(reranked(scores, features, (1,)), scores)
    assert np.isfinite(reranked(scores[:2], features[:2], (1, 2, 3))).all()  # fewer images than ranks


def test_groups_are_even_drawn_by_seed_and_whole_where_they_fit() -> None:
    assert random_groups(100, 100) == [list(range(100))]
    groups = random_groups(250, 100)
    assert sorted(map(len, groups)) == [83, 83, 84]
    assert sorted(i for group in groups for i in group) == list(range(250))
    assert groups == random_groups(250, 100)
    assert groups != random_groups(250, 100, seed=1)


def test_a_defect_that_every_second_image_has_looks_normal() -> None:
    """What musc cannot see: of twelve images six share an odd patch, so each finds it in five of eleven others."""
    images = maps(12, layers=1)
    base, odd = images[0][0], torch.full((6,), 9.0)
    rare, repeated = [], []
    for number in range(12):
        noisy = base + 0.1 * images[number][0]
        for some, share in ((rare, 1), (repeated, 6)):
            changed = noisy.clone()
            if number < share:
                changed[2, 2] = odd * torch.tensor([1, -1, 1, -1, 1, -1])
            some.append([changed])
    seen = [scored(some, neighbourhoods=(1,))[0] for some in (rare, repeated)]
    assert seen[0][2, 2] > 5 * np.median(seen[0])
    assert seen[1][2, 2] < 2 * np.median(seen[1])


def working_bytes(images: int, patches: int, width: int) -> int:
    """Memory in bytes, at most, that `mutual_patch_scores` takes beside the features it is given.

    For `images` of `patches` patches with `width` channels: the lowest distances of all of them, one block, the copies
    of one image while it is aggregated, and the product of two.
    """
    one = patches * width * 4
    lowest = images * patches * (near_count(images - 1) + SPARE) * 4
    return lowest + images * patches * 4 + max(BLOCK_BYTES, one) + 4 * one + 2 * patches * patches * 4


def test_five_hundred_images_at_518_pixels_take_less_than_two_gigabytes() -> None:
    """By computation: ViT-S/14, 37 × 37 patches of 384 channels; features in memory are bounded beside this."""
    from blemish.model.mutual_inspection import MEMORY

    working = working_bytes(500, 37 * 37, 384)
    assert working < 650 << 20
    assert working + MEMORY < 1.3 * (1 << 30)  # what is left is for the encoder and the program
    assert working_bytes(100, 37 * 37, 384) < 200 << 20
    assert working > BLOCK_BYTES
