from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.data.duplicates import _CLOSEST, _COLUMNS, _ROWS, _close_pairs, fingerprint, near_duplicates, signature
from blemish.types import Scan


def resaved(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def photograph(seed: int, noise: float = 2.0, moved: float = 0.0, size: int = 320) -> np.ndarray:
    """The same part in the same place each time, but for sensor noise (and a shift in pixels)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size / 2.0
    radius = np.hypot(y, x + moved)
    part = 60 + 90 / (1 + np.exp(np.clip((radius - 0.3 * size) / 0.7, -50, 50))) + 20 * np.sin(0.3 * (x + moved))
    return (part[..., None] + random.normal(0, noise, (size, size, 3))).clip(0, 255).astype(np.uint8)


def duplicates(images: Iterable[np.ndarray]) -> list[int]:
    return near_duplicates([signature(image) for image in images])


def test_the_fingerprint_is_of_pixels_and_shape() -> None:
    image = photograph(0)
    assert fingerprint(image) == fingerprint(image.copy()) == fingerprint(image[::-1][::-1])
    assert fingerprint(image) != fingerprint(resaved(image, 95))
    assert fingerprint(np.zeros((4, 6, 3), np.uint8)) != fingerprint(np.zeros((6, 4, 3), np.uint8))


def test_jpeg_copies_count_once() -> None:
    image = photograph(0)
    assert duplicates([image, *(resaved(image, q) for q in (95, 90, 85, 80, 75))]) == [0] * 6


@pytest.mark.parametrize("noise", [1.5, 2.0, 4.0])
def test_photographs_of_a_part_in_a_fixture_all_count(noise: float) -> None:
    assert duplicates(photograph(seed, noise) for seed in range(6)) == list(range(6))


def test_many_photographs_of_a_part_in_a_fixture_all_count() -> None:
    """Edges coincide, so that noise alone tells them apart: of 20,000 pairs some come near by chance."""
    edges = np.random.default_rng(0).integers(60, 200, (8, 8, 1)).repeat(40, 0).repeat(40, 1)
    noise = (np.random.default_rng(seed).normal(0, 4, (320, 320, 3)) for seed in range(1, 201))
    images = [(edges + one).clip(0, 255).astype(np.uint8) for one in noise]
    assert duplicates([*images, resaved(images[7], 90)]) == [*range(200), 7]


def test_photographs_kept_as_jpeg_all_count_where_parts_lie_a_little_apart() -> None:
    assert duplicates(resaved(photograph(seed, moved=seed), 90) for seed in range(6)) == list(range(6))


def test_flat_panels_all_count() -> None:
    random = np.random.default_rng(0)
    assert duplicates((128 + random.normal(0, 2, (300, 400, 3))).astype(np.uint8) for _ in range(5)) == list(range(5))


def test_groups_are_named_by_their_first_member() -> None:
    first, second = photograph(0), photograph(1, moved=9)
    images = [first, second, resaved(second, 85), resaved(first, 85), first]
    assert duplicates(images) == [0, 1, 1, 0, 0]


def test_images_drawn_without_noise_and_scaled_copies() -> None:
    drawn = np.zeros((64, 64, 3), np.uint8)
    drawn[20:40, 20:40] = 200
    other = drawn.copy()
    other[20:40, 40:44] = 200
    assert duplicates([drawn, other, drawn.copy()]) == [0, 1, 0]
    half = np.asarray(Image.fromarray(photograph(0)).resize((160, 160), Image.Resampling.BOX))
    assert duplicates([photograph(0), half]) == [0, 0]


def test_nothing_small_images_and_points_alone() -> None:
    assert near_duplicates([]) == []
    points = Scan(xyz=np.ones((8, 8, 3), np.float32))
    assert signature(points) is None
    assert near_duplicates([None, signature(photograph(0)), None]) == [0, 1, 2]
    assert duplicates([np.zeros((2, 2, 3), np.uint8)] * 2) == [0, 0]
    assert duplicates([np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 9, np.uint8)]) == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("category", ["mvtec_ad/bottle", "mvtec_ad/screw", "mpdd/metal_plate"])
def test_real_parts_count_and_their_copies_do_not(data: Path, category: str) -> None:
    files = sorted((data / category / "train" / "good").iterdir())
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    assert duplicates(images) == list(range(len(images)))
    copies = [resaved(image, quality) for image in images[:4] for quality in (95, 90, 85, 80, 75, 60, 50)]
    assert duplicates(images[:4] + copies) == [0, 1, 2, 3] + [i for i in range(4) for _ in range(7)]


def test_close_thumbnails_come_in_parts_that_do_not_grow_with_their_number() -> None:
    # 1.245 levels apart on the mean: about as many pairs are close as are not.
    thumbnails = np.random.default_rng(0).normal(0, 0.88, (350, 32 * 32 * 3)).astype(np.float32)
    parts = list(_close_pairs(thumbnails))
    assert len(parts) == 7  # 350 rows: 6 blocks of columns for the first 320, 1 for the rest
    assert max(map(len, parts)) <= _ROWS * _COLUMNS
    distance = np.sqrt(((thumbnails[:, None] - thumbnails[None]) ** 2).mean(axis=2))
    expected = {(i, j) for i, j in np.argwhere(distance <= _CLOSEST).tolist() if i < j}
    assert 0 < len(expected) < 350 * 349 / 2
    assert {pair for part in parts for pair in part} == expected
    assert sum(map(len, parts)) == len(expected)
