"""What can be known about an encoder without loading it, whatever state the cache of downloads is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from blemish import encoders
from blemish.encoders.availability import hub_snapshot
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
