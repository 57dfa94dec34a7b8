"""The promise of every registered encoder of measured surfaces that can load now."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from blemish import encoders, registry
from blemish.encoders.base import PointsEncoder
from blemish.errors import SettingsError
from blemish.types import POINTS, Features

pytestmark = pytest.mark.parametrize("name", [n for n, e in registry.ENCODERS.items() if e.modality == "points"])

_BUILT: dict[str, Any] = {}


def build(name: str) -> PointsEncoder:
    """The encoder, built once for all tests, or a skip that says why it cannot load."""
    found = encoders.availability(name)
    if not found.loads:
        pytest.skip(found.why)
    if name not in _BUILT:
        _BUILT[name] = encoders.build(name, device="cpu", precision="fp32")
    return _BUILT[name]


def surfaces(rows: int, columns: int, count: int = 2, seed: int = 0) -> np.ndarray:
    """Rough hills half a metre away, `(count, rows, columns, 3)`, with a hole and single points missing."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns] * 5e-4
    z = [0.5 + 0.004 * np.sin(x / random.uniform(0.004, 0.01)) * np.cos(y / 0.006) for _ in range(count)]
    points = np.stack([np.broadcast_to(x, (count, rows, columns)), np.broadcast_to(y, (count, rows, columns)), z], -1)
    points[..., 2] += random.normal(0, 5e-5, (count, rows, columns))
    points[random.random((count, rows, columns)) < 0.02] = np.nan
    points[:, : rows // 2, : columns // 3] = np.nan
    return points.astype(np.float32)


def test_its_facts_are_there(name: str) -> None:
    encoder = build(name)
    assert isinstance(encoder, PointsEncoder)
    assert encoder.name == name
    assert encoder.modalities == (POINTS,)
    assert encoder.licence
    assert encoder.weights_sha256
    assert len(encoder.dims) >= 1
    assert encoder.stride >= 1


def test_layers_have_their_shape_and_nothing_where_nothing_is_valid(name: str) -> None:
    encoder = build(name)
    stride = encoder.stride
    points = surfaces(6 * stride, 9 * stride)
    features = encoder.encode_points(points)
    assert isinstance(features, Features)
    seen = np.isfinite(points).all(-1).reshape(2, 6, stride, 9, stride).any(axis=(2, 4))
    valid = features.valid[POINTS]
    assert valid.dtype == torch.bool
    assert np.array_equal(valid.numpy(), seen)
    assert 0 < seen.sum() < seen.size
    for layer, width in zip(features.layers[POINTS], encoder.dims, strict=True):
        assert layer.dtype == torch.float32
        assert layer.shape == (2, 6, 9, width)
        assert torch.isfinite(layer).all()
        assert not layer.requires_grad
        assert not layer[~valid].any()
        assert layer[valid].any(dim=-1).all()


def test_a_surface_never_depends_on_its_batch(name: str) -> None:
    encoder = build(name)
    points = surfaces(4 * encoder.stride, 5 * encoder.stride, count=3)
    together, alone, again = (encoder.encode_points(p)[POINTS] for p in (points, points[1:2], points))
    assert torch.equal(together, again)
    torch.testing.assert_close(together[1], alone[0], rtol=1e-4, atol=1e-4)


def test_different_surfaces_look_different(name: str) -> None:
    encoder = build(name)
    features = encoder.encode_points(surfaces(4 * encoder.stride, 4 * encoder.stride))[POINTS]
    assert not torch.allclose(features[0], features[1])


def test_where_a_part_lies_does_not_matter(name: str) -> None:
    encoder = build(name)
    points = surfaces(4 * encoder.stride, 4 * encoder.stride, count=1)
    here, there = (encoder.encode_points(p)[POINTS] for p in (points, points + np.float32([0.25, -0.125, 0.25])))
    assert (here - there).norm() < 0.1 * here.norm()


def test_surfaces_with_little_or_nothing_measured(name: str) -> None:
    encoder = build(name)
    side = 3 * encoder.stride
    points = np.full((5, side, side, 3), np.nan, np.float32)
    points[1, 4, 5] = (0.1, 0.2, 0.5)  # one point
    points[2, 4, 5:7] = ((0.1, 0.2, 0.5), (0.101, 0.2, 0.5))  # two
    points[3, 4] = np.linspace((0, 0, 0.5), (0.02, 0, 0.5), side)  # a line
    points[4] = (0.1, 0.2, 0.5)  # the same place everywhere
    features = encoder.encode_points(points)
    assert features.valid[POINTS].flatten(1).sum(dim=1).tolist() == [0, 1, 1, 3, 9]
    assert torch.isfinite(features[POINTS]).all()
    assert not features[POINTS][0].any()


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 3), (5, 2), (3, 7)])
def test_tiny_and_odd_sizes(name: str, rows: int, columns: int) -> None:
    encoder = build(name)
    features = encoder.encode_points(surfaces(rows * encoder.stride, columns * encoder.stride))
    assert features[POINTS].shape == (2, rows, columns, sum(encoder.dims))
    assert features.valid[POINTS].shape == (2, rows, columns)
    assert torch.isfinite(features[POINTS]).all()


def test_wrong_input_is_refused(name: str) -> None:
    encoder = build(name)
    good = surfaces(2 * encoder.stride, 2 * encoder.stride)
    sides = [good[:, :-1], good[:, :, :-1]] if encoder.stride > 1 else []
    for wrong in (good.astype(np.float64), good[0], good[..., :2], good[:0], good[:, :0], *sides):
        with pytest.raises(SettingsError):
            encoder.encode_points(wrong)
