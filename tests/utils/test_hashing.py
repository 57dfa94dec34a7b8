from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from blemish.utils.hashing import array_sha256, file_sha256, json_sha256


def test_a_file_hashes_as_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_arrays_differ_by_content_shape_and_format_alone() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert array_sha256(image) == array_sha256(np.asfortranarray(image)) == array_sha256(image.copy())
    others = [image.reshape(6, 4), image.astype(np.int8), image[::-1], image[:, :5]]
    assert len({array_sha256(image), *map(array_sha256, others)}) == 5
    assert array_sha256(image, image) != array_sha256(image)


def test_settings_hash_alike_in_any_order() -> None:
    assert json_sha256({"a": 1, "b": [2]}) == json_sha256({"b": [2], "a": 1})
    assert json_sha256({"a": 1}) != json_sha256({"a": 2})
