"""Image scores are means of the largest patch scores, in whichever number is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.errors import SettingsError
from blemish.numeric.pooling import LONG, SEVERAL_SHARES, image_score, image_scores, pooled_counts, windows


def test_image_score_is_the_mean_of_the_largest() -> None:
    patches = np.random.default_rng(7).permutation(1000).reshape(20, 50).astype(np.float32)
    assert image_score(patches, "top:0.01") == np.arange(990, 1000).mean()
    assert image_score(patches, "top:3") == 998
    assert image_score(patches, "max") == 999
    assert image_score(patches, "top:1.0") == patches.mean()


@pytest.mark.parametrize(
    ("pooling", "count"), [("top:0.001", 1), ("top:5000", 100), ("top:0.5", 50), ("max", 1), ("top:" + 400 * "9", 100)]
)
def test_pooling_never_runs_out_of_patches(pooling: str, count: int) -> None:
    assert pooled_counts(pooling, 100) == [count]


@pytest.mark.parametrize("pooling", ["mean", "top", "top:", "top:0", "top:-1", "top:1.5", "top:x", ""])
def test_an_impossible_pooling_is_refused(pooling: str) -> None:
    with pytest.raises(SettingsError, match="pooling"):
        image_score(np.zeros((2, 2)), pooling)


@pytest.mark.parametrize("shape", [(8, 33), (8, 248), (500, 8), (1, 9)])
def test_windows_of_a_strip_cover_it_and_overlap_by_half(shape: tuple[int, int]) -> None:
    covered = np.zeros(shape, dtype=int)
    for place in windows(shape):
        covered[place] += 1
        assert sorted(covered[place].shape) == [min(shape), LONG * min(shape)]
    assert covered.min() >= 1
    assert covered.max() <= 3  # where the last ones are pushed together


@pytest.mark.parametrize("shape", [(8, 8), (8, 32), (32, 8)])
def test_what_is_no_strip_is_pooled_as_a_whole(shape: tuple[int, int]) -> None:
    patches = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    assert image_scores(patches, SEVERAL_SHARES) == [image_score(one, SEVERAL_SHARES) for one in patches]


def test_a_defect_counts_as_much_on_a_long_strip_as_on_a_short_one() -> None:
    def score(length: int, defect: float) -> float:
        strip = np.random.default_rng(0).uniform(0.9, 1.1, (1, 16, length)).astype(np.float32)
        strip[0, 5:8, length // 2 : length // 2 + 3] += defect
        return image_scores(strip, SEVERAL_SHARES)[0]

    assert score(1600, 2) == pytest.approx(score(64, 2), rel=0.05)
    assert score(1600, 2) > 1.5 * score(1600, 0)


def test_what_is_ignored_on_a_strip_counts_for_nothing() -> None:
    strip = np.ones((1, 4, 100), dtype=np.float32)
    strip[0, :, :40] = 9
    ignored = strip == 9
    assert image_scores(strip, "max") == [9]
    assert image_scores(strip, "max", ignored) == [1]
    assert image_scores(strip, "max", np.ones_like(ignored)) == [0]
