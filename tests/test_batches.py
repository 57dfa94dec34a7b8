"""Good pictures as batches: walked again, rendered as asked, encoded once, bounded in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blemish.batches import LEAST_POOL, GoodPictures
from blemish.detectors.base import Needs
from blemish.errors import DatasetError, SettingsError
from blemish.types import RGB, Features

PLAIN, LEARNING = Needs(), Needs(augmentation=True, made_up_defects=True, square=True)


class Averages:
    """An encoder whose patches are the mean colours of 7 px squares; counts the pictures it sees."""

    name, modalities, layers, stride, multiple, dims, licence, weights = "averages", (RGB,), (0,), 7, 7, (3,), "", ""

    def __init__(self) -> None:
        self.seen = 0

    def encode(self, pictures: np.ndarray) -> Features:
        self.seen += len(pictures)
        pixels = torch.from_numpy(pictures).float().permute(0, 3, 1, 2)
        patches = torch.nn.functional.avg_pool2d(pixels, 7).permute(0, 2, 3, 1)
        return Features({RGB: (patches.contiguous(),)}, vector=patches.mean((1, 2)))


class Lazy:
    """A sequence that makes its pictures when asked, and counts how often."""

    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        self.sizes, self.loads = sizes, 0

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> np.ndarray:
        self.loads += 1
        return np.random.default_rng(index).integers(0, 256, (*self.sizes[index], 3), dtype=np.uint8)


def good_pictures(needs: Needs, count: int = 5, **settings) -> GoodPictures:
    return GoodPictures(Lazy([(28, 28)] * count), Averages(), needs, lambda picture: picture, **settings)


def everything(batches) -> list[tuple]:
    return [(b.features[RGB], None if b.altered is None else b.altered[RGB], b.altered_mask) for b in batches]


def same(one, two) -> bool:
    flat = [[t for row in rows for t in row] for rows in (one, two)]
    return len(flat[0]) == len(flat[1]) and all(
        (a is None and b is None) or torch.equal(a, b) for a, b in zip(*flat, strict=True)
    )


def test_plain_walks_are_equal_and_encode_once():
    pictures = good_pictures(PLAIN, batch_size=2)
    first, second = everything(pictures), everything(pictures)
    assert [len(row[0]) for row in first] == [2, 2, 1]
    assert same(first, second)
    assert pictures.encoder.seen == 5
    expected = Averages().encode(np.stack([pictures.pictures[i] for i in range(5)]))[RGB]
    assert torch.equal(torch.cat([row[0] for row in first]), expected)


def test_rotations_and_flips_start_with_the_original():
    pictures = good_pictures(Needs(rotations=4, flips=True), count=2, batch_size=8)
    first, second = [row[0] for row in everything(pictures)]
    one = pictures.pictures[0]
    copies = [np.rot90(side, k) for side in (one, one[:, ::-1]) for k in range(4)]
    assert len(first) == len(second) == 8
    assert torch.equal(first[0], Averages().encode(one[None])[RGB][0])
    ours = {tuple(patches.flatten().tolist()) for patches in first}
    theirs = {tuple(Averages().encode(np.ascontiguousarray(c)[None])[RGB].flatten().tolist()) for c in copies}
    assert ours == theirs


def test_made_up_defects_change_the_patches_of_the_mask_only():
    for batch in good_pictures(LEARNING, batch_size=8):
        assert len(batch.features) == len(batch.altered) == 8
        assert batch.altered_mask.shape == batch.features[RGB].shape[:3]
        difference = (batch.altered[RGB] - batch.features[RGB]).abs().amax(-1)
        assert difference[~batch.altered_mask].max() < 0.13  # float16 of at most 255
        assert (difference.flatten(1).amax(1) > 1).all()


def test_walks_that_draw_differ_but_repeat_with_the_seed():
    one, two, other = good_pictures(LEARNING), good_pictures(LEARNING), good_pictures(LEARNING, seed=1)
    walks = [everything(one) for _ in range(3)]
    assert all(same(walk, everything(two)) for walk in walks)
    assert not same(walks[0], walks[1])
    assert not same(walks[0], everything(other))


def test_the_pool_is_reused_and_bounded():
    pictures = good_pictures(LEARNING, count=2, batch_size=4, pool=16)
    for _ in range(30):
        list(pictures)
    at_most = 2 * (8 + 2 + 1)  # defects, views, originals
    assert pictures.encoder.seen <= at_most
    before = pictures.encoder.seen
    for _ in range(5):
        list(pictures)
    assert pictures.encoder.seen == before
    crowd = good_pictures(LEARNING, count=40, pool=1)
    for _ in range(LEAST_POOL + 3):
        list(crowd)
    assert crowd.encoder.seen <= 40 * (2 * LEAST_POOL + 1)


def test_walks_repeat_without_memory():
    plain, cramped = good_pictures(PLAIN), good_pictures(PLAIN, memory=0)
    list(cramped)
    for rows in (everything(cramped), everything(cramped)):
        for (a, *_), (b, *_) in zip(rows, everything(plain), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=0)
    assert cramped.store.used == 0
    assert cramped.encoder.seen == 15
    one, two = good_pictures(LEARNING, memory=0), good_pictures(LEARNING, memory=0)
    for _ in range(4):
        assert same(everything(one), everything(two))


def test_memory_stays_under_its_bound():
    pictures = good_pictures(LEARNING, count=30, memory=20_000)
    for _ in range(4):
        list(pictures)
    assert 10_000 < pictures.store.used <= 20_000


def test_only_equal_sizes_share_a_batch_and_none_is_lost():
    lazy = Lazy([(28, 28), (14, 28), (28, 28), (14, 28), (28, 28)])
    names = ["a", "b", "c", "d", "e"]
    batches = list(GoodPictures(lazy, Averages(), PLAIN, lambda p: p, names, batch_size=2))
    assert [b.features.categories for b in batches] == [("a", "c"), ("b", "d"), ("e",)]
    assert [b.features[RGB].shape[1:3] for b in batches] == [(4, 4), (2, 4), (4, 4)]
    assert all(len(b.features.vector) == len(b.features) for b in batches)


def test_drawn_batches_of_several_sizes_are_full_and_show_every_picture_alike():
    sizes = [(28, 28), (28, 28), (14, 42)]
    pictures = GoodPictures(Lazy(sizes), Averages(), LEARNING, lambda p: p, ["a", "b", "c"], batch_size=4, pool=24)
    shown = {"a": 0, "b": 0, "c": 0}
    for _ in range(40):
        batches = list(pictures)
        assert batches
        for batch in batches:
            assert len(batch.features) == 4
            for name in batch.features.categories or ():
                shown[name] += 1
    assert max(shown.values()) < 1.2 * min(shown.values())


def test_pictures_are_loaded_once_a_walk_while_they_are_turned():
    lazy = Lazy([(28, 28)] * 3)
    list(GoodPictures(lazy, Averages(), Needs(rotations=8), lambda p: p))
    assert lazy.loads == 3


def test_a_subset_shares_what_is_encoded():
    pictures = good_pictures(PLAIN)
    rows = torch.cat([row[0] for row in everything(pictures)])
    part = pictures.subset([3, 1])
    assert torch.equal(torch.cat([row[0] for row in everything(part)]), rows[[3, 1]])
    assert pictures.encoder.seen == 5
    assert len(part) == 2
    with pytest.raises(DatasetError):
        pictures.subset([])


def test_progress_counts_the_first_walk():
    calls = []
    pictures = good_pictures(PLAIN, count=3, progress=lambda done, total, facts: calls.append((done, total)))
    list(pictures)
    list(pictures)
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_wrong_use_is_explained():
    with pytest.raises(DatasetError):
        good_pictures(PLAIN, count=0)
    with pytest.raises(DatasetError):
        good_pictures(Needs(pictures=6), count=5)
    with pytest.raises(SettingsError):
        good_pictures(PLAIN, categories=["one"])
    with pytest.raises(SettingsError):
        good_pictures(PLAIN, batch_size=0)
