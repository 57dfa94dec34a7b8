from __future__ import annotations

import json
from pathlib import Path

import pytest

from blemish.encoders.image.hub import find_model, weight_files
from blemish.errors import WeightsError


@pytest.mark.parametrize(("stem", "suffix"), [("model", "safetensors"), ("pytorch_model", "bin")])
def test_absent_shards_of_a_folder_are_named(tmp_path: Path, stem: str, suffix: str) -> None:
    shards = [f"{stem}-0000{i}-of-00003.{suffix}" for i in (1, 2, 3)]
    index = tmp_path / f"{stem}.{suffix}.index.json"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / shards[0]).touch()
    index.write_text(json.dumps({"weight_map": dict(zip("abc", shards, strict=True))}))
    with pytest.raises(WeightsError, match=f"got none of the name {shards[1]}, {shards[2]}; copy"):
        find_model("folder", str(tmp_path))
    for shard in shards:
        (tmp_path / shard).touch()
    assert [path.name for path in weight_files(tmp_path)] == shards
    index.write_text("{")
    with pytest.raises(WeightsError, match="an index that cannot be read"):
        weight_files(tmp_path)
    whole = tmp_path / f"{stem}.{suffix}"
    whole.touch()  # read in their place
    assert whole in weight_files(tmp_path)
