"""Many images: in order, with their pixels, as soon as they are known, and nothing lost; one verdict for all."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish import Failure, Inspector, Prediction, Sample
from blemish.errors import DataWarning
from blemish.model import prediction

Draw = Any


@pytest.fixture
def inspector(toy: str, part: Draw) -> Inspector:
    return Inspector(encoder="pixels", detector=toy, device="cpu").fit([part(seed=i) for i in range(4)])


def test_verdict_thresholds_and_regions_agree(inspector: Inspector, part: Draw) -> None:
    """A part that is not good has a place to look at, a good one has none."""
    lenient = Inspector.of(replace(inspector.model_, calibrations={None: inspector.calibrations[None].at(1e-9, 0.999)}))
    seen = set()
    for judge in (inspector, lenient):
        for image in [part(seed=i) for i in range(12)] + [part(seed=i, defective=True) for i in range(4)]:
            found = judge.inspect(image)
            assert found.unsure_threshold <= found.threshold
            assert (found.verdict == "good") == (found.score <= found.unsure_threshold)
            assert (found.verdict == "defective") == (found.score > found.threshold)
            assert bool(found.regions) == (found.verdict != "good")
            seen.add(found.verdict)
    assert seen == {"good", "unsure", "defective"}


def test_an_unknown_part_is_neither_good_nor_defective(inspector: Inspector, part: Draw) -> None:
    found = inspector.inspect(part("stripes"))
    assert (found.verdict, found.is_defective, found.is_known) == ("unknown", False, False)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_stream_gives_each_image_with_its_sample_and_pixels(
    inspector: Inspector, part: Draw, tmp_path: Path, batch_size: int
) -> None:
    file, broken = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(part(seed=1)).save(file)
    broken.write_bytes(b"no picture")
    given = [file, broken, Sample(part(seed=2), category=None), part(seed=3), 7]
    found = list(inspector.stream(given, batch_size=batch_size))
    assert [type(one.result) for one in found] == [Prediction, Failure, Prediction, Prediction, Failure]
    assert [one.sample and one.sample.name for one in found] == [str(file), str(broken), "array", "array", None]
    for one, seed in ((found[0], 1), (found[2], 2), (found[3], 3)):
        assert np.array_equal(one.image, part(seed=seed))
        assert one.prediction is not None
        assert one.prediction.score == inspector.inspect(part(seed=seed)).score
    assert [one.image for one in (found[1], found[4])] == [None, None]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_live_source_is_answered_at_once(inspector: Inspector, part: Draw, batch_size: int) -> None:
    gate = threading.Semaphore(1)

    def live() -> Iterator[np.ndarray]:
        for seed in range(3):
            assert gate.acquire(timeout=60)  # no frame before the one before it is answered
            yield part(seed=seed)

    predictions = inspector.inspect_many(live(), batch_size=batch_size)
    for seed in range(3):
        found = next(predictions)
        assert isinstance(found, Prediction)
        assert found.score == inspector.inspect(part(seed=seed)).score
        gate.release()
    assert next(predictions, None) is None


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_source_that_raises_loses_nothing(inspector: Inspector, part: Draw, batch_size: int) -> None:
    def broken() -> Iterator[np.ndarray]:
        for seed in range(3):
            yield part(seed=seed)
        raise OSError("camera gone")

    stream = inspector.inspect_many(broken(), batch_size=batch_size)
    assert [type(next(stream)) for _ in range(3)] == [Prediction] * 3
    with pytest.raises(OSError, match="camera gone"):
        next(stream)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_batch_that_fails_is_tried_once(
    inspector: Inspector, part: Draw, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fails(*given: Any) -> Any:
        calls.append(given)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(prediction, "predict", fails)
    with pytest.raises(RuntimeError, match="out of memory") as raised:
        list(inspector.stream([part(seed=seed) for seed in range(3)], batch_size=batch_size))
    assert len(calls) == 1
    assert raised.value.__context__ is None


def test_one_buffer_for_all_frames_will_do(inspector: Inspector, part: Draw) -> None:
    buffer = np.empty((64, 80, 3), np.uint8)

    def camera() -> Iterator[np.ndarray]:
        for seed in range(6):
            buffer[:] = part(seed=seed, defective=seed % 2 == 1)
            yield buffer

    found = [one.is_defective for one in inspector.inspect_many(camera()) if isinstance(one, Prediction)]
    assert found == [False, True] * 3


def test_a_constant_image_is_warned_of(inspector: Inspector) -> None:
    with pytest.warns(UserWarning, match="one single colour"):
        inspector.inspect(np.full((64, 80, 3), 90, np.uint8))


def test_a_picture_of_half_the_resolution_is_named(inspector: Inspector, part: Draw) -> None:
    image = part(seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inspector.inspect(image)
        inspector.inspect(np.kron(image, np.ones((2, 2, 1), dtype=np.uint8)))  # twice is no less
    with pytest.warns(DataWarning, match="fine defects may be missed"):
        inspector.inspect(image[::2, ::2])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_categories_of_other_resolutions_are_seen_as_they_were_learned(part: Draw, batch_size: int) -> None:
    """A recognised part is judged as one whose category is given, though its pictures are six times as large."""

    def drawn(kind: str, seed: int) -> np.ndarray:
        image = part(kind, seed=seed, size=(64, 64))
        return image if kind == "disc" else np.kron(image, np.ones((6, 6, 1), np.uint8))

    good = [Sample(drawn(kind, i), category=kind) for kind in ("disc", "ring") for i in range(4)]
    inspector = Inspector("pixels", "patchcore", image_size=64, device="cpu").fit(good)
    assert inspector.model_.framed_otherwise == {"ring"}
    kinds = ("ring", "disc", "ring")
    images = [drawn(kind, 70 + i) for i, kind in enumerate(kinds)]
    for image, kind, found in zip(images, kinds, inspector.inspect_many(images, batch_size=batch_size), strict=True):
        assert isinstance(found, Prediction)
        assert found.category == kind
        expected = inspector.inspect(image, category=kind)
        assert (found.score, found.verdict) == (expected.score, expected.verdict)
        assert np.array_equal(found.map, expected.map)
