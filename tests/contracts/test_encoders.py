"""The promise of every registered encoder of pictures that can load now."""

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
    """Pictures of `rows` × `columns` multiples of what the encoder's sides must be multiples of."""
    least = -(-56 // encoder.multiple)
    sides = ((least + rows) * encoder.multiple, (least + columns) * encoder.multiple)
    return np.random.default_rng(0).integers(0, 256, (count, *sides, 3), dtype=np.uint8)


def test_its_facts_are_there(name: str) -> None:
    encoder = build(name)
    assert isinstance(encoder, Encoder)
    assert encoder.name == name
    assert encoder.licence
    assert encoder.weights
    assert len(encoder.layers) == len(encoder.dims) >= 1
    assert encoder.multiple % encoder.stride == 0
    assert RGB in encoder.modalities


@pytest.mark.parametrize("role", get_args(LayerRole))
def test_layers_have_their_shape(name: str, role: LayerRole) -> None:
    encoder = build(name, role)
    pictures = noise(encoder, 0, 2)
    features = encoder.encode(pictures)
    assert isinstance(features, Features)
    assert len(features) == 2
    for layer, width in zip(features.layers[RGB], encoder.dims, strict=True):
        assert layer.dtype == torch.float32
        assert layer.shape[0] == 2
        assert layer.shape[3] == width
        assert layer.shape[2] > layer.shape[1]  # a wide picture has a wide grid
        assert torch.isfinite(layer).all()
        assert not layer.requires_grad
    finest = features[RGB]
    assert tuple(finest.shape[1:3]) == (pictures.shape[1] // encoder.stride, pictures.shape[2] // encoder.stride)
    assert finest.shape[3] == sum(encoder.dims)
    assert features.vector is None or features.vector.shape[0] == 2


def test_a_picture_never_depends_on_its_batch(name: str) -> None:
    encoder = build(name)
    pictures = noise(encoder, 1, 0)
    together, alone = encoder.encode(pictures), encoder.encode(pictures[1:])
    torch.testing.assert_close(together[RGB][1], alone[RGB][0], rtol=1e-4, atol=1e-4)


def test_different_pictures_look_different(name: str) -> None:
    encoder = build(name)
    features = encoder.encode(noise(encoder, 0, 0))[RGB]
    assert not torch.allclose(features[0], features[1])


def test_wrong_input_is_refused(name: str) -> None:
    encoder = build(name)
    good = noise(encoder, 0, 0)
    for wrong in (good.astype(np.float32), good[0], good[..., :1], good[:, :-1] if encoder.multiple > 1 else good[:0]):
        with pytest.raises(SettingsError):
            encoder.encode(wrong)
