from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.data.loading import as_sample, good_samples, samples_of
from blemish.errors import BlemishError, DatasetError, ImageError
from blemish.types import POINTS, Sample, Scan


def camera(frames: int = 4) -> Iterator[np.ndarray]:
    """One buffer for all frames, as cameras' drivers have it."""
    buffer = np.zeros((4, 5, 3), np.uint8)
    for i in range(frames):
        buffer[:] = i
        yield buffer


def means(samples: list[Sample | BlemishError]) -> list[float]:
    return [float(s.image.mean()) for s in samples if isinstance(s, Sample) and isinstance(s.image, np.ndarray)]


def test_a_frame_buffer_that_is_reused_is_copied_on_receipt() -> None:
    assert means(list(samples_of(camera()))) == [0, 1, 2, 3]
    assert means(list(good_samples(camera()))) == [0, 1, 2, 3]
    assert means(list(samples_of(Sample(frame) for frame in camera()))) == [0, 1, 2, 3]


def test_points_and_scans_are_copied_too() -> None:
    points = np.ones((4, 5, 3), np.float32)
    image = np.zeros((4, 5, 3), np.uint8)
    held = [as_sample(Sample(image, points)), as_sample(Scan(image, points))]
    points[:] = 2
    image[:] = 9
    for sample in held:
        assert isinstance(sample.points, np.ndarray)
        assert isinstance(sample.image, np.ndarray)
        assert sample.points.max() == 1
        assert sample.image.max() == 0
    assert POINTS == "points"


def test_bytes_files_and_pil_images_are_images(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()

    def given() -> list[Any]:
        return [content, bytearray(content), io.BytesIO(content), Image.fromarray(noise)]

    for source in given():
        np.testing.assert_array_equal(as_sample(source).image, noise)
    for source in given():
        (one,) = samples_of(source)
        assert isinstance(one, Sample)
    assert len(list(samples_of(given()))) == 4
    deep = as_sample(Image.fromarray(noise[..., 0].astype(np.uint16) << 4))
    assert isinstance(deep.image, np.ndarray)
    assert deep.image.dtype == np.uint16


def test_an_empty_path_is_an_error_and_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    for empty in ("", " "):
        with pytest.raises(DatasetError, match="an empty text"):
            good_samples([empty])
        with pytest.raises(DatasetError, match="an empty text"):
            as_sample(empty)
        (found,) = samples_of([empty])
        assert isinstance(found, DatasetError)
    assert len(good_samples(".")) == 1


def test_what_is_no_image_is_an_error_in_its_place() -> None:
    first, second, third = samples_of([np.zeros((3, 3, 3), np.uint8), 7, Path("absent.png")])  # type: ignore[list-item]
    assert isinstance(first, Sample)
    assert isinstance(second, ImageError)
    assert isinstance(third, Sample)


def test_a_folder_without_images_does_not_cost_those_behind_it(tmp_path: Path) -> None:
    frame = np.zeros((4, 5, 3), np.uint8)
    before, error, after = samples_of([frame, tmp_path, frame])
    assert isinstance(error, DatasetError)
    assert str(tmp_path) in str(error)
    assert isinstance(before, Sample)
    assert isinstance(after, Sample)
