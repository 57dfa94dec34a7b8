"""Raw pixels as patch features: nothing is lost, nothing is moved."""

from __future__ import annotations

import numpy as np
import pytest

from blemish import encoders
from blemish.encoders.image.raw_patches import load_patches
from blemish.types import RGB


def test_a_patch_holds_the_pixels_of_its_square():
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    features = encoders.build("patches", device="cpu").encode(images)
    assert features[RGB].shape == (2, 2, 3, 768)
    square = images[1, 16:32, 32:48].transpose(2, 0, 1)  # colour by colour
    np.testing.assert_allclose(features[RGB][1, 1, 2].numpy(), square.ravel() / 255, atol=1e-6)


@pytest.mark.parametrize("side", [4, 8])
def test_the_side_is_the_stride(side):
    encoder = load_patches(side=side)
    assert encoder.stride == encoder.size_multiple == side
    assert encoder.encode(np.zeros((1, 16, 32, 3), np.uint8))[RGB].shape == (1, 16 // side, 32 // side, 3 * side**2)
