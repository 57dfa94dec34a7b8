"""Features kept on disk: the same as without, bounded, shared by later runs."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blemish.encoders import build
from blemish.encoders.feature_cache import CachingEncoder, with_disk_cache
from blemish.encoders.identity import identity
from blemish.types import POINTS, RGB, Features


class Counted:
    """The pixels encoder, that also says where it saw anything bright, and counts what it encodes."""

    def __init__(self) -> None:
        self.encoder, self.calls = build("pixels"), 0

    def encode(self, images: np.ndarray) -> Features:
        self.calls += len(images)
        features = self.encoder.encode(images)
        return Features(features.layers, {POINTS: features[RGB][..., 0] > 0})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)


def images(count: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)


def same(one: Features, other: Features) -> bool:
    layers = all(torch.equal(a, b) for a, b in zip(one.layers[RGB], other.layers[RGB], strict=True))
    return layers and torch.equal(one.valid[POINTS], other.valid[POINTS])


def test_cached_features_are_exact_until_the_cache_is_cleared(tmp_path: Path) -> None:
    counted = Counted()
    encoder = CachingEncoder(counted, tmp_path)  # type: ignore[arg-type]
    expected = Counted().encode(images())
    assert same(encoder.encode(images()), expected)
    assert same(encoder.encode(images()), expected)
    assert counted.calls == 3
    encoder.clear()
    assert not list(tmp_path.iterdir())
    assert same(encoder.encode(images()), expected)
    assert counted.calls == 6


def test_later_runs_find_the_same_numbers_in_half_the_room(tmp_path: Path) -> None:
    first = with_disk_cache(Counted(), tmp_path).encode(images())  # type: ignore[arg-type]
    counted = Counted()
    again = with_disk_cache(counted, tmp_path)  # type: ignore[arg-type]
    assert same(again.encode(images()), first)
    assert counted.calls == 0
    assert again.hits == 3
    exact = Counted().encode(images())
    torch.testing.assert_close(first[RGB], exact[RGB], rtol=1e-3, atol=1e-3)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors"))
    assert size < 0.75 * sum(layer.nbytes for layer in exact.layers[RGB])


def test_what_is_read_lies_on_the_device_of_the_encoder(tmp_path: Path) -> None:
    first = CachingEncoder(Counted(), tmp_path)  # type: ignore[arg-type]
    first.encode(images(2))
    elsewhere = Counted()
    elsewhere.device = torch.device("meta")  # type: ignore[attr-defined]
    again = CachingEncoder(elsewhere, tmp_path)  # type: ignore[arg-type]
    features = again.encode(images(2))
    assert again.hits == 2
    assert {tensor.device.type for tensor in (*features.layers[RGB], features.valid[POINTS])} == {"meta"}


def test_nothing_is_read_or_kept_while_paused(tmp_path: Path) -> None:
    counted = Counted()
    encoder = CachingEncoder(counted, tmp_path)  # type: ignore[arg-type]
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
    with_disk_cache(Counted(), tmp_path).encode(images())  # type: ignore[arg-type]
    other = Counted()
    other.weights_sha256 = "other"
    with_disk_cache(other, tmp_path).encode(images())  # type: ignore[arg-type]
    assert other.calls == 3


def test_settings_beside_the_weights_make_another_encoder(tmp_path: Path) -> None:
    with_disk_cache(Counted(), tmp_path).encode(images())  # type: ignore[arg-type]
    other = Counted()
    other.feature_settings = other.encoder.feature_settings | {"mean": (0.4, 0.5, 0.5)}
    cached = with_disk_cache(other, tmp_path)  # type: ignore[arg-type]
    cached.encode(images())
    assert other.calls == 3
    assert identity(cached) == identity(other) != identity(build("pixels"))  # type: ignore[arg-type]


def test_what_earlier_runs_left_makes_room_and_no_more_is_kept(tmp_path: Path) -> None:
    room = int(3.5 * sum(layer.nbytes // 2 for layer in Counted().encode(images(1)).layers[RGB]))
    for seed in range(4):
        counted = Counted()
        encoder = with_disk_cache(counted, tmp_path, most_bytes=room)  # type: ignore[arg-type]
        encoder.encode(images(6, seed))
        assert sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")) <= room + 6_000  # and the headers
        encoder.encode(images(6, seed))
        assert 6 < counted.calls < 12  # some are kept, though not all fit


def test_a_damaged_file_is_encoded_again(tmp_path: Path) -> None:
    first = with_disk_cache(Counted(), tmp_path).encode(images())  # type: ignore[arg-type]
    for file in tmp_path.rglob("*.safetensors"):
        file.write_bytes(b"torn")
    counted = Counted()
    assert same(with_disk_cache(counted, tmp_path).encode(images()), first)  # type: ignore[arg-type]
    assert counted.calls == 3


def test_numbers_beyond_float16_stay_finite(tmp_path: Path) -> None:
    class Huge(Counted):
        def encode(self, images: np.ndarray) -> Features:
            features = super().encode(images)
            return Features({RGB: tuple(layer + 1e6 for layer in features.layers[RGB])}, valid=features.valid)

    assert torch.isfinite(with_disk_cache(Huge(), tmp_path).encode(images())[RGB]).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("is_raised_by_safetensors", [True, False])
def test_a_full_disk_is_warned_of_once_and_encoding_goes_on(
    is_raised_by_safetensors: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    def fail(tensors: dict[str, torch.Tensor], file: Path) -> None:
        file.write_bytes(b"torn")
        if is_raised_by_safetensors:
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        raise OSError(errno.ENOSPC, "No space left on device")

    counted = Counted()
    encoder = CachingEncoder(counted, tmp_path)  # type: ignore[arg-type]
    encoder.encode(images(1))
    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", fail)
        with pytest.warns(UserWarning, match="no longer cached") as given:
            features = encoder.encode(images(6, seed=1))
    assert same(features, Counted().encode(images(6, seed=1)))
    assert len(given) == 1
    assert len(list(tmp_path.iterdir())) == 1  # nothing torn is left
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(images(1))  # what was cached before is still read
        encoder.encode(images(2, seed=2))
    assert counted.calls == 1 + 6 + 2


def test_a_folder_that_cannot_be_made_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    encoder = CachingEncoder(Counted(), tmp_path / "file" / "cache")  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="no longer cached"):
        features = encoder.encode(images())
    assert same(features, Counted().encode(images()))


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    from blemish.utils import atomic

    dead = next(pid for pid in range(2**22, 0, -1) if not atomic.is_alive(pid))
    left = tmp_path / f".abc.safetensors.{atomic._host()}-{dead}-0.partial"
    left.write_bytes(b"torn")
    CachingEncoder(Counted(), tmp_path).encode(images(1))  # type: ignore[arg-type]
    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"]
