"""Features kept on disk: the same as without, bounded, shared by later runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from blemish.encoders import build
from blemish.encoders.feature_cache import RememberingEncoder, lasting
from blemish.types import POINTS, RGB, Features


class Counted:
    """The pixels encoder, that also says where it saw anything bright, and counts what it encodes."""

    def __init__(self) -> None:
        self.encoder, self.calls = build("pixels"), 0

    def encode(self, images: np.ndarray) -> Features:
        self.calls += len(images)
        features = self.encoder.encode(images)
        return Features(features.layers, features.vector, {POINTS: features[RGB][..., 0] > 0})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)


def images(count: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)


def same(one: Features, other: Features) -> bool:
    layers = all(torch.equal(a, b) for a, b in zip(one.layers[RGB], other.layers[RGB], strict=True))
    return layers and torch.equal(one.valid[POINTS], other.valid[POINTS])


def test_it_remembers_exactly_until_it_forgets(tmp_path: Path) -> None:
    counted = Counted()
    encoder = RememberingEncoder(counted, tmp_path)  # type: ignore[arg-type]
    wanted = Counted().encode(images())
    assert same(encoder.encode(images()), wanted)
    assert same(encoder.encode(images()), wanted)
    assert counted.calls == 3
    encoder.forget()
    assert not list(tmp_path.iterdir())
    assert same(encoder.encode(images()), wanted)
    assert counted.calls == 6


def test_later_runs_find_the_same_numbers_in_half_the_room(tmp_path: Path) -> None:
    first = lasting(Counted(), tmp_path).encode(images())  # type: ignore[arg-type]
    counted = Counted()
    again = lasting(counted, tmp_path)  # type: ignore[arg-type]
    assert same(again.encode(images()), first)
    assert counted.calls == 0
    assert again.hits == 3
    exact = Counted().encode(images())
    torch.testing.assert_close(first[RGB], exact[RGB], rtol=1e-3, atol=1e-3)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors"))
    assert size < 0.75 * sum(layer.nbytes for layer in exact.layers[RGB])


def test_nothing_is_read_or_kept_while_paused(tmp_path: Path) -> None:
    counted = Counted()
    encoder = RememberingEncoder(counted, tmp_path)  # type: ignore[arg-type]
    encoder.encode(images())
    with encoder.paused():
        assert same(encoder.encode(images()), Counted().encode(images()))
        encoder.encode(images(seed=1))
    assert (counted.calls, encoder.hits) == (9, 0)
    assert len(list(tmp_path.iterdir())) == 3
    encoder.encode(images())
    assert (counted.calls, encoder.hits) == (9, 0)
    encoder.mark()
    encoder.encode(images())
    assert (counted.calls, encoder.hits) == (9, 3)


def test_another_encoder_has_its_own_part(tmp_path: Path) -> None:
    lasting(Counted(), tmp_path).encode(images())  # type: ignore[arg-type]
    other = Counted()
    other.weights = "other"
    lasting(other, tmp_path).encode(images())  # type: ignore[arg-type]
    assert other.calls == 3


def test_what_earlier_runs_left_makes_room_and_no_more_is_kept(tmp_path: Path) -> None:
    room = int(3.5 * sum(layer.nbytes // 2 for layer in Counted().encode(images(1)).layers[RGB]))
    for seed in range(4):
        counted = Counted()
        encoder = lasting(counted, tmp_path, most_bytes=room)  # type: ignore[arg-type]
        encoder.encode(images(6, seed))
        assert sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")) <= room + 6_000  # and the headers
        encoder.encode(images(6, seed))
        assert 6 < counted.calls < 12  # some are kept, though not all fit


def test_a_damaged_file_is_encoded_again(tmp_path: Path) -> None:
    first = lasting(Counted(), tmp_path).encode(images())  # type: ignore[arg-type]
    for file in tmp_path.rglob("*.safetensors"):
        file.write_bytes(b"torn")
    counted = Counted()
    assert same(lasting(counted, tmp_path).encode(images()), first)  # type: ignore[arg-type]
    assert counted.calls == 3


def test_numbers_beyond_float16_stay_finite(tmp_path: Path) -> None:
    class Huge(Counted):
        def encode(self, images: np.ndarray) -> Features:
            features = super().encode(images)
            return Features({RGB: tuple(layer + 1e6 for layer in features.layers[RGB])}, valid=features.valid)

    assert torch.isfinite(lasting(Huge(), tmp_path).encode(images())[RGB]).all()  # type: ignore[arg-type]
