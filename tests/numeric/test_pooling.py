"""Image scores are means of the largest patch scores, in whichever number is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.errors import SettingsError
from blemish.numeric.pooling import image_score, pooled_counts


def test_image_score_is_the_mean_of_the_largest() -> None:
    patches = np.random.default_rng(7).permutation(1000).reshape(20, 50).astype(np.float32)
    assert image_score(patches, "top:0.01") == np.arange(990, 1000).mean()
    assert image_score(patches, "top:3") == 998
    assert image_score(patches, "max") == 999
    assert image_score(patches, "top:1.0") == patches.mean()


@pytest.mark.parametrize(("pooling", "count"), [("top:0.001", 1), ("top:5000", 100), ("top:0.5", 50), ("max", 1)])
def test_pooling_never_runs_out_of_patches(pooling: str, count: int) -> None:
    assert pooled_counts(pooling, 100) == [count]


@pytest.mark.parametrize("pooling", ["mean", "top", "top:", "top:0", "top:-1", "top:1.5", "top:x", ""])
def test_an_impossible_pooling_is_refused(pooling: str) -> None:
    with pytest.raises(SettingsError, match="pooling"):
        image_score(np.zeros((2, 2)), pooling)
