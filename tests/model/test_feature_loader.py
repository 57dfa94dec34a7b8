"""Good images as batches: walked again, rendered as asked, encoded once, bounded in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blemish.detectors.base import Needs
from blemish.errors import DatasetError, SettingsError
from blemish.model.feature_loader import FeatureLoader
from blemish.model.training_views import MIN_POOL
from blemish.types import RGB, Features

PLAIN, LEARNING = Needs(), Needs(augmentation=True, synthetic_anomalies=True, square=True)


class Averages:
    """An encoder whose patches are the mean colours of 7 px squares; counts the images it sees."""

    name, modalities, layers, stride, size_multiple, dims, licence, weights_sha256 = (
        "averages",
        (RGB,),
        (0,),
        7,
        7,
        (3,),
        "",
        "",
    )

    def __init__(self) -> None:
        self.seen = 0

    def encode(self, images: np.ndarray) -> Features:
        self.seen += len(images)
        pixels = torch.from_numpy(images).float().permute(0, 3, 1, 2)
        patches = torch.nn.functional.avg_pool2d(pixels, 7).permute(0, 2, 3, 1)
        return Features({RGB: (patches.contiguous(),)})


class Lazy:
    """A sequence that makes its images when asked, and counts how often."""

    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        self.sizes, self.loads = sizes, 0

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> np.ndarray:
        self.loads += 1
        return np.random.default_rng(index).integers(0, 256, (*self.sizes[index], 3), dtype=np.uint8)


def normal_samples(needs: Needs, count: int = 5, **settings) -> FeatureLoader:
    return FeatureLoader.of(Lazy([(28, 28)] * count), Averages(), needs, lambda image: image, **settings)


def everything(batches) -> list[tuple]:
    return [(b.features[RGB], None if b.altered is None else b.altered[RGB], b.altered_mask) for b in batches]


def same(one, two) -> bool:
    flat = [[t for row in rows for t in row] for rows in (one, two)]
    return len(flat[0]) == len(flat[1]) and all(
        (a is None and b is None) or torch.equal(a, b) for a, b in zip(*flat, strict=True)
    )


def test_plain_walks_are_equal_and_encode_once():
    images = normal_samples(PLAIN, batch_size=2)
    first, second = everything(images), everything(images)
    assert [len(row[0]) for row in first] == [2, 2, 1]
    assert same(first, second)
    assert images.encoder.seen == 5
    expected = Averages().encode(np.stack([images.images[i] for i in range(5)]))[RGB]
    assert torch.equal(torch.cat([row[0] for row in first]), expected)


def test_rotations_and_flips_start_with_the_original():
    images = normal_samples(Needs(rotations=4, flips=True), count=2, batch_size=8)
    first, second = [row[0] for row in everything(images)]
    one = images.images[0]
    copies = [np.rot90(side, k) for side in (one, one[:, ::-1]) for k in range(4)]
    assert len(first) == len(second) == 8
    assert torch.equal(first[0], Averages().encode(one[None])[RGB][0])
    ours = {tuple(patches.flatten().tolist()) for patches in first}
    theirs = {tuple(Averages().encode(np.ascontiguousarray(c)[None])[RGB].flatten().tolist()) for c in copies}
    assert ours == theirs


def test_synthetic_anomalys_change_the_patches_of_the_mask_only():
    for batch in normal_samples(LEARNING, batch_size=8):
        assert len(batch.features) == len(batch.altered) == 8
        assert batch.altered_mask.shape == batch.features[RGB].shape[:3]
        difference = (batch.altered[RGB] - batch.features[RGB]).abs().amax(-1)
        assert difference[~batch.altered_mask].max() < 0.13  # float16 of at most 255
        assert (difference.flatten(1).amax(1) > 1).all()


def test_what_is_drawn_stays_finite_beyond_the_range_of_float16():
    class Huge(Averages):
        def encode(self, images: np.ndarray) -> Features:
            return Features({RGB: tuple(1e5 * layer for layer in super().encode(images).layers[RGB])})

    images = FeatureLoader.of(Lazy([(28, 28)] * 5), Huge(), LEARNING, lambda image: image, batch_size=8)
    for batch in images:
        for found in (batch.features, batch.altered):
            assert torch.isfinite(found[RGB]).all()
            assert found[RGB].max() > 6e4
            assert found[RGB].min() >= 0


def test_walks_that_draw_differ_but_repeat_with_the_seed():
    one, two, other = normal_samples(LEARNING), normal_samples(LEARNING), normal_samples(LEARNING, seed=1)
    walks = [everything(one) for _ in range(3)]
    assert all(same(walk, everything(two)) for walk in walks)
    assert not same(walks[0], walks[1])
    assert not same(walks[0], everything(other))


def test_the_pool_is_reused_and_bounded():
    images = normal_samples(LEARNING, count=2, batch_size=4, pool=16)
    for _ in range(30):
        list(images)
    at_most = 2 * (8 + 2 + 1)  # defects, views, originals
    assert images.encoder.seen <= at_most
    before = images.encoder.seen
    for _ in range(5):
        list(images)
    assert images.encoder.seen == before
    crowd = normal_samples(LEARNING, count=40, pool=1)
    for _ in range(MIN_POOL + 3):
        list(crowd)
    assert crowd.encoder.seen <= 40 * (2 * MIN_POOL + 1)


def test_walks_repeat_without_memory():
    plain, cramped = normal_samples(PLAIN), normal_samples(PLAIN, memory=0)
    list(cramped)
    for rows in (everything(cramped), everything(cramped)):
        for (a, *_), (b, *_) in zip(rows, everything(plain), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=0)
    assert cramped.store.used == 0
    assert cramped.encoder.seen == 15
    one, two = normal_samples(LEARNING, memory=0), normal_samples(LEARNING, memory=0)
    for _ in range(4):
        assert same(everything(one), everything(two))


def test_memory_stays_under_its_bound():
    images = normal_samples(LEARNING, count=30, memory=20_000)
    for _ in range(4):
        list(images)
    assert 10_000 < images.store.used <= 20_000


def test_only_equal_sizes_share_a_batch_and_none_is_lost():
    lazy = Lazy([(28, 28), (14, 28), (28, 28), (14, 28), (28, 28)])
    names = ["a", "b", "c", "d", "e"]
    batches = list(FeatureLoader.of(lazy, Averages(), PLAIN, lambda p: p, names, batch_size=2))
    assert [b.features.categories for b in batches] == [("a", "c"), ("b", "d"), ("e",)]
    assert [b.features[RGB].shape[1:3] for b in batches] == [(4, 4), (2, 4), (4, 4)]
    assert [len(b.features) for b in batches] == [2, 2, 1]


def test_drawn_batches_of_several_sizes_are_full_and_show_every_image_alike():
    sizes = [(28, 28), (28, 28), (14, 42)]
    images = FeatureLoader.of(Lazy(sizes), Averages(), LEARNING, lambda p: p, ["a", "b", "c"], batch_size=4, pool=24)
    shown = {"a": 0, "b": 0, "c": 0}
    for _ in range(40):
        batches = list(images)
        assert batches
        for batch in batches:
            assert len(batch.features) == 4
            for name in batch.features.categories or ():
                shown[name] += 1
    assert max(shown.values()) < 1.2 * min(shown.values())


def test_images_are_loaded_once_a_walk_while_they_are_turned():
    lazy = Lazy([(28, 28)] * 3)
    list(FeatureLoader.of(lazy, Averages(), Needs(rotations=8), lambda p: p))
    assert lazy.loads == 3


def test_a_subset_shares_what_is_encoded():
    images = normal_samples(PLAIN)
    rows = torch.cat([row[0] for row in everything(images)])
    part = images.subset([3, 1])
    assert torch.equal(torch.cat([row[0] for row in everything(part)]), rows[[3, 1]])
    assert images.encoder.seen == 5
    assert len(part) == 2
    with pytest.raises(DatasetError):
        images.subset([])


def test_progress_counts_the_first_walk():
    calls = []
    images = normal_samples(PLAIN, count=3, progress=lambda done, total, facts: calls.append((done, total)))
    list(images)
    list(images)
    assert calls == [(1, 3), (2, 3), (3, 3)]


LEVEL = ((0.0, False), (180.0, False), (0.0, True), (180.0, True))  # as framings of level parts say


@pytest.mark.parametrize(("count", "copies"), [(1, 4), (32, 128), (40, 80), (60, 120), (65, 65), (200, 200)])
def test_poses_of_their_own_keep_to_the_most_copies_and_no_original_is_dropped(count: int, copies: int) -> None:
    needs = Needs(rotations=8, max_copies=128)
    loader = normal_samples(needs, count, poses=[LEVEL] * count)
    assert sum(map(len, loader.poses)) == copies <= max(count, 128)
    assert all(own == LEVEL[: len(own)] for own in loader.poses)


def test_mirroring_alone_turns_nothing() -> None:
    loader = normal_samples(Needs(flips=True), 3, poses=[LEVEL] * 3)
    assert list(loader.poses) == [((0.0, False), (0.0, True))] * 3


def test_every_category_is_limited_by_itself() -> None:
    """Few images keep their turned copies beside a category of many."""
    names = ["few"] * 4 + ["many"] * 60
    loader = normal_samples(Needs(rotations=8, max_copies=128), 64, categories=names)
    assert [len(own) for own in loader.poses] == [8] * 4 + [2] * 60
    shown = [image for batch in loader for image in batch.images]
    assert [shown.count(image) for image in (0, 3, 4, 63)] == [8, 8, 2, 2]


def test_every_category_has_the_images_that_are_needed() -> None:
    with pytest.raises(DatasetError, match="at least 3 good pictures of each product; got 2 of 'few'"):
        normal_samples(Needs(min_images=3), 7, categories=["many"] * 5 + ["few"] * 2)


def test_wrong_use_is_explained():
    with pytest.raises(DatasetError):
        normal_samples(PLAIN, count=0)
    with pytest.raises(DatasetError):
        normal_samples(Needs(min_images=6), count=5)
    with pytest.raises(SettingsError):
        normal_samples(PLAIN, categories=["one"])
    with pytest.raises(SettingsError):
        normal_samples(PLAIN, batch_size=0)
