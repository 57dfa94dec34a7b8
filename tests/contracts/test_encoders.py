"""The promise of every registered encoder of images that can load now."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

from blemish import encoders, registry
from blemish.encoders.base import Encoder, LayerRole
from blemish.errors import SettingsError
from blemish.types import RGB, Features

pytestmark = pytest.mark.parametrize("name", [n for n, e in registry.ENCODERS.items() if e.modality == "rgb"])

_BUILT: dict[tuple[str, str], Any] = {}


def build(name: str, role: LayerRole = "deep") -> Encoder:
    """The encoder, built once for all tests, or a skip that says why it cannot load."""
    found = encoders.availability(name)
    if not found.loads:
        pytest.skip(found.why)
    if (name, role) not in _BUILT:
        _BUILT[name, role] = encoders.build(name, role=role, device="cpu", precision="fp32")
    return _BUILT[name, role]


def noise(encoder: Encoder, rows: int, columns: int, count: int = 2) -> np.ndarray:
    """Images of `rows` × `columns` multiples of what the encoder's sides must be multiples of."""
    least = -(-56 // encoder.size_multiple)
    sides = ((least + rows) * encoder.size_multiple, (least + columns) * encoder.size_multiple)
    return np.random.default_rng(0).integers(0, 256, (count, *sides, 3), dtype=np.uint8)


def test_its_facts_are_there(name: str) -> None:
    encoder = build(name)
    assert isinstance(encoder, Encoder)
    assert encoder.name == name
    assert encoder.licence
    assert encoder.weights_sha256
    assert len(encoder.layers) == len(encoder.dims) >= 1
    assert encoder.size_multiple % encoder.stride == 0
    assert RGB in encoder.modalities


@pytest.mark.parametrize("role", get_args(LayerRole))
def test_layers_have_their_shape(name: str, role: LayerRole) -> None:
    encoder = build(name, role)
    images = noise(encoder, 0, 2)
    features = encoder.encode(images)
    assert isinstance(features, Features)
    assert len(features) == 2
    for layer, width in zip(features.layers[RGB], encoder.dims, strict=True):
        assert layer.dtype == torch.float32
        assert layer.shape[0] == 2
        assert layer.shape[3] == width
        assert layer.shape[2] > layer.shape[1]  # a wide image has a wide grid
        assert torch.isfinite(layer).all()
        assert not layer.requires_grad
    finest = features[RGB]
    assert tuple(finest.shape[1:3]) == (images.shape[1] // encoder.stride, images.shape[2] // encoder.stride)
    assert finest.shape[3] == sum(encoder.dims)


def test_an_image_never_depends_on_its_batch(name: str) -> None:
    encoder = build(name)
    images = noise(encoder, 1, 0)
    together, alone = encoder.encode(images), encoder.encode(images[1:])
    torch.testing.assert_close(together[RGB][1], alone[RGB][0], rtol=1e-4, atol=1e-4)


def test_different_images_look_different(name: str) -> None:
    encoder = build(name)
    features = encoder.encode(noise(encoder, 0, 0))[RGB]
    assert not torch.allclose(features[0], features[1])


def test_wrong_input_is_refused(name: str) -> None:
    encoder = build(name)
    good = noise(encoder, 0, 0)
    for wrong in (
        good.astype(np.float32),
        good[0],
        good[..., :1],
        good[:, :-1] if encoder.size_multiple > 1 else good[:0],
    ):
        with pytest.raises(SettingsError):
            encoder.encode(wrong)
