"""Defective images among the good ones are found by the others, and hardly any good one with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blemish import Inspector, Sample
from blemish.errors import DatasetError
from blemish.model import outliers
from blemish.model.outliers import MAX_SHARE, MIN_IMAGES, OTHERS, Comparison, compare, mutual_score, outlying_images
from blemish.numeric.mutual_scoring import near_count
from blemish.utils.array_store import ArrayStore

Draw = Any


def fresh() -> Inspector:
    return Inspector(encoder="pixels", detector="patchcore", rotations=1, image_size=64, device="cpu")


def compared(images: list[torch.Tensor], memory: int = 1 << 20) -> list[Comparison]:
    with ArrayStore(memory) as store:
        for image in images:
            store.add(image.numpy())
        return compare(store)


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_distances_are_those_to_the_nearest_patch_of_each_other_image(memory: int) -> None:
    random = torch.manual_seed(0)
    images = [3 + torch.randn(20 + i, 4, generator=random) for i in range(5)]
    every = torch.cat(images)
    scale = every.std(0, correction=0) + 1e-3 * every.std()
    for i, one in enumerate(compared(images, memory)):
        assert sorted(one.others) == [j for j in range(5) if j != i]
        for column, j in enumerate(one.others):
            wanted = torch.cdist(images[i] / scale, images[j] / scale).amin(1)
            assert np.allclose(one.distances[:, column], wanted, rtol=1e-3)


def test_the_work_grows_with_the_images_not_with_their_square() -> None:
    found = compared([torch.randn(3, 2) for _ in range(80)])
    assert all(len(one.others) == OTHERS == len(set(one.others)) and i not in one.others for i, one in enumerate(found))


def test_a_score_is_the_mean_of_the_nearest_others_at_the_most_anomalous_patches() -> None:
    distances = np.array([[1.0, 9.0, 2.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0]] * 3 + 97 * [[0.5] * 10])
    assert mutual_score(distances) == pytest.approx((1 + 2 + 9) / 3)


def test_as_many_others_count_as_in_mutual_scoring() -> None:
    """Of five others one, of seven two: the share is rounded down, as in the paper."""
    for others in (1, 5, 7, 13):
        distances = np.arange(1.0, 1 + others)[None]  # (1, m)
        assert mutual_score(distances) == pytest.approx((1 + near_count(others)) / 2)


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("count", [6, 20])
def test_defective_images_are_set_aside(part: Draw, count: int, alike: bool) -> None:
    """Four of twenty carry the very same defect, which a bank of the others would know by heart; or each its own."""
    bad, random = count // 5, np.random.default_rng(0)
    images = [part("stripes", seed=i, defective=alike and i < bad) for i in range(count)]
    for i, image in enumerate(() if alike else images[:bad]):
        image[10 * i : 10 * i + 12, 15 * i : 15 * i + 14] = random.integers(0, 256, 3)
    inspector = fresh().fit(images, clean=True)
    scores = [one.score for one in inspector.outliers_]
    assert len(scores) == bad
    assert scores == sorted(scores, reverse=True)
    assert all(one.score > one.threshold > 1 for one in inspector.outliers_)
    assert len(inspector.model_.fingerprints) == count - bad
    assert inspector.model_.fingerprints == fresh().fit(images[bad:]).model_.fingerprints
    image = part("stripes", seed=500, defective=True)
    assert inspector.inspect(image).score == fresh().fit(images[bad:]).inspect(image).score


def test_patches_beyond_a_bound_of_memory_lie_in_a_file(part: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of images must not need more memory than hundreds."""
    images = [part("stripes", seed=i, defective=i < 2) for i in range(10)]
    usual, used = fresh().fit(images, clean=True).outliers_, []
    close = ArrayStore.close
    monkeypatch.setattr(ArrayStore, "close", lambda store: (used.append(store.used), close(store)))
    monkeypatch.setattr(outliers, "MEMORY", 10_000)
    assert fresh().fit(images, clean=True).outliers_ == usual
    assert len(usual) == 2
    assert 0 <= max(used) <= 10_000


@pytest.mark.parametrize("kind", ["disc", "ring", "stripes"])
def test_clean_images_stay(part: Draw, kind: str) -> None:
    aside = fresh().fit([part(kind, seed=100 + i) for i in range(40)], clean=True).outliers_
    assert len(aside) <= 0.05 * 40


def test_what_is_common_is_how_the_parts_are(part: Draw) -> None:
    images = [part("ring" if i < 5 else "disc", seed=i) for i in range(12)]
    assert len(fresh().fit(images, clean=True).outliers_) <= MAX_SHARE * 12


def test_no_more_than_a_share_is_set_aside() -> None:
    others = [np.array([j for j in range(10) if j != i]) for i in range(10)]
    found = outlying_images(
        [Comparison(own, np.full((4, 9), 9.0 + i if i < 4 else 1.0)) for i, own in enumerate(others)]
    )
    assert list(found) == [3, 2]  # the two strangest


def test_every_category_is_judged_on_its_own(part: Draw) -> None:
    stripes = [Sample(part("stripes", seed=i, defective=i == 3), category="stripes") for i in range(10)]
    rings = [Sample(part("ring", seed=i), category="ring") for i in range(8)]
    (aside,) = fresh().fit(stripes + rings, clean=True).outliers_
    assert aside.category == "stripes"


def test_too_few_images_cannot_be_judged(part: Draw) -> None:
    with pytest.raises(DatasetError, match=f"at least {MIN_IMAGES} pictures.*without cleaning"):
        fresh().fit([part(seed=i) for i in range(MIN_IMAGES - 1)], clean=True)
    assert fresh().fit([part(seed=i) for i in range(MIN_IMAGES - 1)]).outliers_ == ()


def test_a_model_remembers_what_was_outliers_but_no_places(part: Draw, tmp_path: Path) -> None:
    for i in range(8):
        Image.fromarray(part("stripes", seed=i, defective=i == 5)).save(tmp_path / f"{i}.png")
    inspector = fresh().fit(tmp_path, clean=True)
    assert inspector.outliers_[0].file == str(tmp_path / "5.png")
    folder = inspector.save(tmp_path / "model")
    (saved,) = json.loads((folder / "settings.json").read_text())["outliers"]
    assert saved["file"] == "5.png"
    (back,) = Inspector.load(folder, device="cpu").outliers_
    assert (back.fingerprint, back.score) == (inspector.outliers_[0].fingerprint, inspector.outliers_[0].score)
    assert back.fingerprint not in inspector.model_.fingerprints
