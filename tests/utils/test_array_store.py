"""What is stored comes back bit by bit, from memory or from disk; memory stays bounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blemish.errors import OutputError
from blemish.utils.array_store import ArrayStore


@pytest.mark.parametrize("memory", [0, 100, 1 << 20])
def test_arrays_come_back_from_memory_or_disk(memory: int) -> None:
    random = np.random.default_rng(0)
    arrays = [random.normal(size=(i + 1, 3)).astype(kind) for i in range(6) for kind in (np.float16, np.float32)]
    arrays += [random.normal(size=(4, 6))[:, ::2].T]  # not contiguous
    with ArrayStore(memory) as store:
        assert [store.add(array) for array in arrays] == list(range(len(arrays)))
        assert store.used <= memory
        for number in (*range(len(arrays)), *reversed(range(len(arrays)))):
            assert np.array_equal(store[number], arrays[number])
            assert store[number].dtype == arrays[number].dtype
        store.add(arrays[0])  # after something was read
        assert np.array_equal(store[len(arrays)], arrays[0])
        assert len(store) == len(arrays) + 1


def test_nothing_stays_when_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ArrayStore(0) as store:
        store.add(np.zeros(1000))
    assert not list(tmp_path.iterdir())
    assert (len(store), store.used) == (0, 0)


def test_a_full_disk_is_an_output_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with ArrayStore(0) as store, pytest.raises(OutputError, match="free some room"):
        store.add(np.zeros(10))
