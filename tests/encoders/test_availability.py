"""What can be known about an encoder without loading it, whatever state the cache of downloads is in."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from blemish import encoders
from blemish.encoders.availability import best_available, hub_cache, hub_snapshot
from blemish.encoders.factory import is_folder_name
from blemish.registry import ENCODERS

FROM_HUB = next(name for name, entry in ENCODERS.items() if entry.hub)


def cached(folder: Path, name: str) -> Path:
    """A snapshot of a hub model as a download leaves it, without its content."""
    snapshot = folder / f"models--{ENCODERS[name].hub.replace('/', '--')}" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        (snapshot / file).touch()
    return snapshot


def test_a_downloaded_encoder_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert not encoders.availability(FROM_HUB).loads
    assert hub_snapshot(ENCODERS[FROM_HUB].hub) is None
    snapshot = cached(tmp_path, FROM_HUB)
    assert encoders.availability(FROM_HUB).loads
    assert hub_snapshot(ENCODERS[FROM_HUB].hub) == snapshot


def test_a_download_in_shards_loads_once_all_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = cached(tmp_path, FROM_HUB)
    (snapshot / "model.safetensors").unlink()
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for content in ("", "[]", '{"weight_map": {}}', json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}})):
        (snapshot / "model.safetensors.index.json").write_text(content)
        assert not encoders.availability(FROM_HUB).loads
    for shard, loads in zip(shards, (False, True), strict=True):
        (snapshot / shard).touch()
        assert encoders.availability(FROM_HUB).loads == loads


def test_a_link_to_what_was_deleted_is_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = cached(tmp_path, FROM_HUB)
    snapshot.with_name("old").symlink_to(tmp_path / "gone")
    assert hub_snapshot(ENCODERS[FROM_HUB].hub) == snapshot


def test_a_cache_that_may_not_be_read_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cached(tmp_path, FROM_HUB)

    def denied(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", denied)
    found = encoders.availability(FROM_HUB)
    assert not found.loads
    assert "permission denied" in found.why
    assert hub_snapshot(ENCODERS[FROM_HUB].hub) is None
    assert encoders.best_available()[0]  # something else is found


@pytest.mark.skipif(os.name == "nt", reason="users by number")
def test_a_user_without_a_home_may_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers run under numbers that belong to nobody."""
    import pwd

    def unknown(number: int) -> None:
        raise KeyError(number)

    for variable in ("HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert not hub_cache().exists()
    assert best_available()[0]
    assert is_folder_name("~nobody-of-this-name/model")
