from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blemish.data import draw_shots, folds
from blemish.errors import DatasetError, SettingsError
from blemish.types import Sample


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("k", [1, 4, 16])
def test_the_draw_is_the_published_one(k: int, seed: int) -> None:
    files = [Path(f"train/good/{i:03}.png") for i in range(20)]
    shuffled = [Sample(files[i]) for i in np.random.default_rng(9).permutation(20)]
    expected = [files[i] for i in np.random.RandomState(seed).permutation(len(files))[:k]]
    assert [s.image for s in draw_shots(shuffled, k, seed)] == expected


def test_fewer_shots_begin_more() -> None:
    samples = [Sample(Path(f"{i}.png")) for i in range(9)]
    assert draw_shots(samples, 5, 3)[:2] == draw_shots(samples, 2, 3)


def test_all_shots_are_sorted() -> None:
    samples = [Sample(Path(f"{i}.png")) for i in (2, 0, 1)]
    assert [s.name for s in draw_shots(samples, None, 5)] == ["0.png", "1.png", "2.png"]


def test_each_category_is_drawn_as_if_alone() -> None:
    nuts = [Sample(Path(f"nut/{i}.png"), category="nut") for i in range(5)]
    bolts = [Sample(Path(f"bolt/{i}.png"), category="bolt") for i in range(7)]
    assert draw_shots(nuts + bolts, 2, 1) == draw_shots(bolts, 2, 1) + draw_shots(nuts, 2, 1)
    with pytest.raises(DatasetError, match="6 good pictures of nut; got 5"):
        draw_shots(nuts + bolts, 6, 1)


def test_arrays_keep_their_order() -> None:
    samples = [Sample(np.full((1, 1, 3), i, np.uint8)) for i in range(6)]
    drawn = [int(s.image[0, 0, 0]) for s in draw_shots(samples, 6, 4)]
    assert drawn == np.random.RandomState(4).permutation(6).tolist()


def test_impossible_counts() -> None:
    samples = [Sample(Path("a.png"))]
    with pytest.raises(DatasetError, match="at least 2"):
        draw_shots(samples, 2)
    with pytest.raises(SettingsError):
        draw_shots(samples, 0)
    with pytest.raises(SettingsError, match="seed"):
        draw_shots(samples, 1, 2**32)
    assert draw_shots(samples, None, 2**32) == samples  # nothing is drawn
    for n, count in ((3, 4), (3, 1), (1, 2)):
        with pytest.raises(SettingsError):
            folds(n, count)


@pytest.mark.parametrize(("n", "count"), [(2, 2), (7, 3), (20, 5), (5, 5)])
def test_folds_hold_out_each_once(n: int, count: int) -> None:
    parts = folds(n, count, seed=1)
    assert len(parts) == count
    assert sorted(np.concatenate([held for _, held in parts])) == list(range(n))
    for learned, held in parts:
        assert sorted([*learned, *held]) == list(range(n))
    sizes = [len(held) for _, held in parts]
    assert max(sizes) - min(sizes) <= 1
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(parts, folds(n, count, seed=1), strict=True))
