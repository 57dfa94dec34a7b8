"""Tiny random models of every family, saved as model folders; no test here may touch the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty-hub-cache"))


def _vit_settings(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 32,
        "patch_size": 8,
    } | more


FAMILIES: dict[str, Callable[[], tuple[type, Any]]] = {
    "dinov2": lambda: (transformers.Dinov2Model, transformers.Dinov2Config(**_vit_settings(mlp_ratio=2))),
    "dinov3": lambda: (
        transformers.DINOv3ViTModel,
        transformers.DINOv3ViTConfig(**_vit_settings(num_register_tokens=4)),
    ),
    "dino": lambda: (transformers.ViTModel, transformers.ViTConfig(**_vit_settings())),
    "clip": lambda: (transformers.CLIPVisionModel, transformers.CLIPVisionConfig(**_vit_settings())),
    "siglip": lambda: (transformers.SiglipVisionModel, transformers.SiglipVisionConfig(**_vit_settings())),
    "swin": lambda: (
        transformers.SwinModel,
        transformers.SwinConfig(
            image_size=64, patch_size=4, embed_dim=16, depths=[2, 2, 2], num_heads=[1, 2, 2], window_size=4
        ),
    ),
    "convnext": lambda: (
        transformers.ConvNextModel,
        transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1]),
    ),
    "resnet": lambda: (
        transformers.ResNetModel,
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 2, 1]),
    ),
}


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny model, written once."""
    root = tmp_path_factory.mktemp("models")

    def write(family: str) -> Path:
        folder = root / family
        if not folder.exists():
            torch.manual_seed(0)
            kind, config = FAMILIES[family]()
            model = kind(config).eval()
            with torch.no_grad():  # spread the weights out: fresh norms and position embeddings hide mistakes
                for parameter in model.parameters():
                    parameter += 0.05 * torch.randn_like(parameter)
            model.save_pretrained(folder)
        return folder

    return write


@pytest.fixture
def images() -> np.ndarray:
    """`(3, 64, 96, 3)` uint8: wider than high, and another size than the tiny models were made for."""
    return np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
