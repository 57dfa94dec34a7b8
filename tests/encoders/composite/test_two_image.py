"""Two encoders that look at one image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blemish import encoders
from blemish.encoders.composite.two_image import CONTEXT_SCALE, JointEncoder, downsampled, scaled_size
from blemish.encoders.identity import feature_settings, identity
from blemish.encoders.image.frozen import FrozenEncoder
from blemish.errors import SettingsError
from blemish.types import CONTEXT, RGB


def images(count: int = 2, height: int = 96, width: int = 128) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_each_part_answers_as_it_would_alone() -> None:
    joint = encoders.build("pixels+pixels", role=("pair", "deep"))
    near, far = (encoders.build("pixels", role=role) for role in ("pair", "deep"))
    seen = joint.encode(images())
    for one, same in zip(seen.layers[RGB], near.encode(images()).layers[RGB], strict=True):
        assert torch.equal(one, same)
    assert isinstance(joint, JointEncoder)
    small = downsampled(images(), joint.context_size(96, 128))
    assert torch.equal(seen.layers[CONTEXT][0], far.encode(small).layers[RGB][0])


def test_its_facts_are_those_of_both() -> None:
    joint = encoders.build("pixels+pixels", role=("pair", "deep"))
    near, far = joint.parts if isinstance(joint, JointEncoder) else ()
    assert joint.name == "pixels+pixels"
    assert joint.layers == (near.layers, far.layers)
    assert joint.dims == near.dims + far.dims
    assert joint.size_multiple == near.size_multiple
    assert joint.weights_sha256 not in (near.weights_sha256, far.weights_sha256)


def test_what_decides_the_features_of_a_part_decides_those_of_both() -> None:
    near, far = (encoders.build("pixels", role=role) for role in ("pair", "deep"))
    joint = JointEncoder([near, far])
    assert identity(joint) == identity(JointEncoder([near, far]))
    assert identity(joint) != identity(JointEncoder([near, far], 0.5))
    assert isinstance(far, FrozenEncoder)
    far.mean = (0.4, 0.5, 0.5)
    assert identity(joint) != identity(JointEncoder([near, far]))
    assert feature_settings(JointEncoder([near, far]))["second.mean"] == [0.4, 0.5, 0.5]


def test_layers_given_for_each_part_are_taken() -> None:
    joint = encoders.build("pixels+pixels", role=("pair", "deep"))
    again = encoders.build("pixels+pixels", layers=[list(layers) for layers in joint.layers])
    assert again.layers == joint.layers


def test_the_second_view_has_as_many_patches_a_side_as_its_scale_asks_for() -> None:
    assert scaled_size(512, 256, CONTEXT_SCALE * 14 / 16, 14) == (448, 224)
    assert scaled_size(512, 256, 0.75 * 14 / 16, 14) == (336, 168)
    assert scaled_size(16, 16, 0.75 * 14 / 16, 14) == (14, 14)
    same = images(1, 28, 28)
    assert downsampled(same, (28, 28)) is same
    flat = np.full((1, 64, 64, 3), 77, np.uint8)
    small = downsampled(flat, (32, 24))
    assert small.shape == (1, 32, 24, 3)
    assert (small == 77).all()


def test_one_encoder_cannot_stand_for_two_nor_three() -> None:
    with pytest.raises(SettingsError, match="joined by"):
        encoders.build("pixels", role=("pair", "deep"))
    with pytest.raises(SettingsError, match="two encoders"):
        encoders.build("pixels+pixels+pixels")


def test_a_joint_encoder_loads_where_all_its_parts_do() -> None:
    assert encoders.availability("pixels+pixels").loads
    missing = encoders.availability("pixels+dinov3-vitl16")
    alone = encoders.availability("dinov3-vitl16")
    assert missing.loads == alone.loads
    assert alone.loads or missing.why == alone.why
